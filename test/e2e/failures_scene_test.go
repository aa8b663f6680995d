package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/client"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

const (
	echoer    = "main" // the container whose process prints each line of its input with "> " before it
	talker    = "talk" // the container that prints numbered lines for ever
	webServer = "web"  // the container that serves HTTP

	servedPort = 80

	// mark is the annotation with a number by which a watch shows that it lives.
	mark = "sluice.test/mark"

	echoing = `while IFS= read -r line; do printf '> %s\n' "$line"; done`
	talking = `i=0; while :; do i=$((i+1)); echo "line $i"; sleep 0.05; done`
)

// scene is where one event happens: two pods of one namespace, a gateway, and a channel of each kind from a program to the first pod and from a
// person to the second.
type scene struct {
	*failure
	t         *testing.T
	cluster   *kube.Cluster
	node      *kube.Node
	namespace string
	binary    string // the command
	dir       string // where processes of the pods leave word

	detachTTL time.Duration
	upstream  string // the API server's address as the gateway has it
	tokenFile string
	policy    sluicev1.DetachPolicy

	apart   bool     // the gateway is a process of its own
	rig     *rig.Rig // otherwise
	process *process
	link    *rig.Relay // in front of the gateway
	roots   *x509.CertPool
	caFile  string

	ses      sessions
	subjects []*subject
	expiry   time.Time
}

func newScene(t *testing.T, e *failure, binary string, c *kube.Cluster, n *kube.Node) *scene {
	name := "failure-" + strings.ToLower(strings.Map(func(r rune) rune {
		if r == ' ' {
			return '-'
		}
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, e.name))
	s := &scene{failure: e, t: t, binary: binary, cluster: c, node: n, namespace: name, dir: t.TempDir(), upstream: c.Addr(), roots: x509.NewCertPool()}
	s.tokenFile = filepath.Join(s.dir, "token")
	s.policy = sluicev1.DetachPolicy_DETACH_POLICY_HANG_UP
	return s
}

// tokenUntil has the clients show a token that lives until then.
func (s *scene) tokenUntil(expiry time.Time) {
	token, err := s.cluster.Issuer().Sign(issuer.Claims{
		Subject: "alice", Audience: []string{kube.Audience}, Groups: []string{kube.Streamers}, Expiry: expiry,
	})
	if err == nil {
		err = os.WriteFile(s.tokenFile+".new", []byte(token), 0o600)
	}
	if err == nil {
		err = os.Rename(s.tokenFile+".new", s.tokenFile)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.expiry = expiry
}

// fromFile is the source of the program's tokens.
func (s *scene) fromFile(context.Context) (string, error) {
	text, err := os.ReadFile(s.tokenFile)
	return string(text), err
}

// serve starts the gateway in this process.
func (s *scene) serve() {
	s.t.Helper()
	s.trust(rig.WriteCertificate(s.t, s.dir))
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.dir, "tls.crt"), filepath.Join(s.dir, "tls.key"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.rig = rig.New(s.t, rig.Options{
		Issuers: []auth.IssuerConfig{{URL: s.cluster.Issuer().URL(), CA: s.cluster.CA(), Audiences: []string{kube.Audience}}},
		Limits:  server.Limits{DetachTTL: s.detachTTL},
		Clusters: []cluster.Config{{
			Name: upstream, Server: "https://" + s.upstream, CA: s.cluster.CA(),
			Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{kube.Audience},
		}},
		Change: func(c *server.Config) {
			c.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}
			c.DrainTimeout = time.Second
		},
	})
	s.link = rig.NewRelay(s.t, s.rig.Server.GRPCAddr().String())
}

// serveApart starts the gateway as a process of its own.
func (s *scene) serveApart(ctx context.Context) {
	s.t.Helper()
	s.process = newProcess(s.t, s.cluster)
	if err := s.process.start(ctx); err != nil {
		s.t.Fatal(err)
	}
	s.link = rig.NewRelay(s.t, s.process.addr)
	s.roots, s.caFile = s.process.roots, filepath.Join(s.process.dir, "tls.crt")
}

func (s *scene) trust(certificate string) {
	cert, err := x509.ParseCertificate([]byte(certificate))
	if err != nil {
		s.t.Fatal(err)
	}
	s.roots.AddCert(cert)
	s.caFile = filepath.Join(s.dir, "tls.crt")
}

// pods runs a pod for the program and one for the person.
func (s *scene) pods(ctx context.Context) error {
	if err := s.cluster.CreateNamespace(ctx, s.namespace); err != nil {
		return err
	}
	binary, err := kube.NodeBinary(ctx, os.Stderr)
	if err != nil {
		return err
	}
	for _, name := range []string{"program", "person"} {
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		err = s.cluster.RunPod(ctx, kube.Pod{
			Namespace: s.namespace, Name: name, Restart: "Always", Ports: map[int]string{servedPort: addr},
			Containers: []kube.Container{
				{Name: echoer, Command: []string{"sh", "-c", echoing}, Stdin: true},
				{Name: talker, Command: []string{"sh", "-c", talking}},
				{Name: webServer, Command: []string{binary, "web", addr}},
			},
		})
		if err == nil {
			err = reachable(ctx, addr)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reachable waits until somebody listens.
func reachable(ctx context.Context, addr string) error {
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		if late := pause(ctx, 20*time.Millisecond); late != nil {
			return errors.Join(late, err)
		}
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// marker gives a pod a number, which its watches tell.
func (s *scene) marker(pod string) func(int) error {
	return func(n int) error {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{mark: strconv.Itoa(n)}}})
		if err != nil {
			return err
		}
		_, err = s.cluster.Admin().CoreV1().Pods(s.namespace).Patch(ctx, pod, types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}
}

// left is the file in which a process leaves word.
func (s *scene) left(k kind, pod string) string {
	return filepath.Join(s.dir, pod+"-"+strings.ReplaceAll(k.String(), " ", ""))
}

// script is what an exec runs: it prints each line of its input, and leaves word of what ends it. It says its process id first.
func (s *scene) script(k kind, pod string) string {
	script := fmt.Sprintf("leave() { echo \"$1\" >> '%s'; }; trap 'leave alive' USR1; ", s.left(k, pod))
	if k == terminalKind {
		script += "trap 'leave interrupted; exit 1' INT; trap 'leave \"hung up\"; exit 1' HUP; stty -echo; "
	}
	return script + `echo "ready $$"; ` + echoing + "; leave ended"
}

// open opens a channel of each kind for the program and for the person, and returns when all of them live.
func (s *scene) open(ctx context.Context) error {
	sdk, err := client.Dial(client.Config{
		Address: s.link.Addr(), TLS: &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS12}, Token: s.fromFile, Name: "test", OnState: s.ses.on,
	})
	if err != nil {
		return err
	}
	own, cancel := context.WithCancel(context.Background())
	prog := &program{sdk: sdk, namespace: s.namespace, pod: "program", policy: s.policy, ctx: own}
	s.t.Cleanup(func() {
		cancel()
		if err := sdk.Close(); err != nil {
			s.t.Errorf("close the client: %v", err)
		}
		prog.running.Wait()
	})
	flags := []string{"--server", s.link.Addr(), "--ca-file", s.caFile, "--token-file", s.tokenFile, "--cluster", upstream}
	pers := &person{t: s.t, binary: s.binary, flags: flags, namespace: s.namespace, pod: "person", policy: "hang-up"}
	if s.policy == sluicev1.DetachPolicy_DETACH_POLICY_LEAVE {
		pers.policy = "leave"
	}
	for k := range kinds {
		one, err := prog.open(k, s)
		if err != nil {
			return fmt.Errorf("%v: %w", k, err)
		}
		other, err := pers.open(ctx, k, s)
		if err != nil {
			return fmt.Errorf("%v: %w", k, err)
		}
		s.subjects = append(s.subjects, one, other)
	}
	return s.each(func(sub *subject) error {
		if sub.kind == execKind || sub.kind == terminalKind {
			if err := sub.until(ctx, "waited for the process", func() bool { return len(sub.lines) > 0 }); err != nil {
				return sub.told(err)
			}
		}
		if err := sub.ping(ctx, 1); err != nil {
			return sub.told(err)
		}
		sub.update(func() { sub.states = nil })
		return nil
	})
}

// told adds what the command says to an error.
func (s *subject) told(err error) error {
	if err == nil || s.words == nil {
		return err
	}
	return fmt.Errorf("%w; it says %q", err, s.words())
}

// each does something with every channel at once.
func (s *scene) each(do func(*subject) error) error {
	errs := make([]error, len(s.subjects))
	var running sync.WaitGroup
	for i, sub := range s.subjects {
		running.Go(func() {
			if err := do(sub); err != nil {
				errs[i] = fmt.Errorf("%s: %w", sub.name, err)
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// judge checks the outcomes of some channels, each within its time from now.
func (s *scene) judge(which func(*outcome) bool) {
	s.t.Helper()
	begin := time.Now()
	if err := s.each(func(sub *subject) error {
		c := s.cells[sub.kind]
		if !which(c.outcome) {
			return nil
		}
		ctx, cancel := context.WithTimeout(context.Background(), c.within)
		defer cancel()
		err := sub.told(c.outcome.check(ctx, sub, 2))
		if err != nil {
			return fmt.Errorf("%s: %w", c.outcome.name, err)
		}
		s.t.Logf("%s: %s after %v", sub.name, c.outcome.name, time.Since(begin).Round(time.Millisecond))
		return nil
	}); err != nil {
		s.t.Error(err)
	}
}
