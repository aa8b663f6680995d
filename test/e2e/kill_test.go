package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sluice-gateway/sluice/client"
	"github.com/sluice-gateway/sluice/cmd/sluice/config"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

// process is `sluice serve` in a process of its own, in front of the real API server. It is owned by the test.
type process struct {
	t       *testing.T
	dir     string // with the binary, the configuration and the ready file
	binary  string
	addr    string // where gRPC listens; of a free port before the first start
	output  *rig.Buffer
	running *exec.Cmd
	roots   *x509.CertPool
}

func newProcess(t *testing.T, c *kube.Cluster) *process {
	t.Helper()
	p := &process{t: t, dir: t.TempDir(), addr: "127.0.0.1:0", output: &rig.Buffer{}, roots: x509.NewCertPool()}
	p.binary = filepath.Join(p.dir, "sluice")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", p.binary, "github.com/sluice-gateway/sluice/cmd/sluice")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the gateway: %v\n%s", err, out)
	}
	cert, err := x509.ParseCertificate([]byte(rig.WriteCertificate(t, p.dir)))
	if err != nil {
		t.Fatal(err)
	}
	p.roots.AddCert(cert)
	f := config.Default()
	f.AdminAddr, f.TLS = "127.0.0.1:0", config.TLS{CertFile: "tls.crt", KeyFile: "tls.key"}
	f.Issuers = []config.Issuer{{URL: c.Issuer().URL(), CAFile: "ca.crt", Audiences: []string{kube.Audience}}}
	f.Clusters = []config.Cluster{{Name: upstream, Server: c.URL(), CAFile: "ca.crt", Credential: config.Passthrough, Audiences: []string{kube.Audience}}}
	text, err := yaml.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"ca.crt": c.CA(), "sluice.yaml": text} {
		if err := os.WriteFile(filepath.Join(p.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(p.kill)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the gateway said:\n%s", p.output)
		}
	})
	return p
}

// start starts the gateway, where it was before if it was, and waits until it serves.
func (p *process) start(ctx context.Context) error {
	file := filepath.Join(p.dir, "ready.json")
	if err := os.RemoveAll(file); err != nil { // a killed gateway does not remove it
		return err
	}
	// Not exec.CommandContext: kill ends it, and nothing else.
	p.running = exec.Command(p.binary, "serve", "--config", filepath.Join(p.dir, "sluice.yaml"), "--grpc-addr", p.addr, "--ready-file", file)
	p.running.Stdout, p.running.Stderr = p.output, p.output
	p.running.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the tests is not one of the gateway's
	if err := p.running.Start(); err != nil {
		return err
	}
	for {
		var ready struct {
			GRPCAddr string `json:"grpcAddr"`
		}
		text, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(text, &ready)
		}
		if err == nil {
			p.addr = ready.GRPCAddr
			return nil
		}
		if late := pause(ctx, 20*time.Millisecond); late != nil {
			return fmt.Errorf("wait for the gateway: %w", err)
		}
	}
}

// kill ends the gateway as a crash does, and returns when it is gone.
func (p *process) kill() {
	if p.running == nil {
		return
	}
	_ = p.running.Process.Kill()
	_ = p.running.Wait() // "signal: killed"
	p.running = nil
}

// TestAKilledGatewayLosesNothing: the gateway's process is killed (SIGKILL) three times while objects change, and started again at the same
// address. The client's new session opens every watch where it was: nothing is lost, doubled or listed again.
func TestAKilledGatewayLosesNothing(t *testing.T) {
	c := kube.Shared(t)
	p := newProcess(t, c)
	limit := within(t, 4*time.Minute)
	if err := p.start(limit); err != nil {
		t.Fatal(err)
	}
	w := newWriter(t, c, seed, 4, "kill-a", "kill-b")
	if err := w.all(limit); err != nil {
		t.Fatal(err)
	}
	ses := &sessions{}
	sdk, err := client.Dial(client.Config{
		Address: p.addr, TLS: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12}, Token: client.StaticToken(c.Token("alice", kube.Streamers)),
		Name: "test", OnState: ses.on, Window: 64 << 10, MaxBackoff: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sdk.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	var all []*follower
	for _, sel := range selections(40, []string{"kill-a", "kill-b"}) {
		all = append(all, follow(sdk, upstream, sel))
	}
	if err := each(all, func(f *follower) error { return f.until(limit, func() bool { return f.list == nil }) }); err != nil {
		t.Fatalf("the first lists: %v", err)
	}
	const kills = 3
	meanwhile(t, w, all, func() error {
		for range kills {
			if err := pause(limit, 1500*time.Millisecond); err != nil {
				return err
			}
			p.kill()
			if err := pause(limit, 200*time.Millisecond); err != nil {
				return err
			}
			if err := p.start(limit); err != nil {
				return err
			}
			if err := ses.awaitConnected(limit); err != nil {
				return err
			}
		}
		return pause(limit, 500*time.Millisecond)
	})
	for _, f := range all {
		resyncs, err := judge(f.selection, w.history, f.told)
		if err != nil || resyncs != 0 {
			t.Errorf("%d resyncs, %v", resyncs, err)
		}
		if err := w.checkList(limit, f.selection, f.fold); err != nil {
			t.Error(err)
		}
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.begun != kills+1 || ses.resumed != 0 {
		t.Errorf("%d sessions were begun and %d resumed, want %d and none", ses.begun, ses.resumed, kills+1)
	}
	t.Logf("%d watches, %d changes, %d events told, %d kills", len(all), len(w.history), count(all, ""), kills)
}

// meanwhile writes and reads while do makes trouble, then lets every watch come to the end of what was written.
func meanwhile(t *testing.T, w *writer, all []*follower, do func() error) {
	t.Helper()
	limit := within(t, 8*time.Minute)
	writing, stopWriting := context.WithCancel(limit)
	reading, stopReading := context.WithCancel(limit)
	var wrote, read error
	var writes, reads sync.WaitGroup
	writes.Go(func() { wrote = w.run(writing, limit, 15*time.Millisecond) })
	reads.Go(func() {
		read = each(all, func(f *follower) error {
			err := f.until(reading, func() bool { return false })
			if reading.Err() != nil && limit.Err() == nil {
				return nil // the end of what was to be read so far
			}
			return err
		})
	})
	done := do()
	stopWriting()
	writes.Wait()
	stopReading()
	reads.Wait()
	for what, err := range map[string]error{"trouble": done, "writing": wrote, "reading": read} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	finish(t, w, all)
}
