package deploy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

// patience bounds failures; nothing that works takes long.
const patience = time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// secret is a new certificate with its key, as the Secret has them.
func secret(t *testing.T) (files map[string][]byte, cert *x509.Certificate) {
	t.Helper()
	dir := t.TempDir()
	cert, err := x509.ParseCertificate([]byte(rig.WriteCertificate(t, dir)))
	if err != nil {
		t.Fatal(err)
	}
	files = map[string][]byte{}
	for _, name := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if files[name], err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return files, cert
}

// TestTheConfigMapIsValidWhereThePodHasIt: the image checks the configuration as it is, in the pod's own volumes.
func TestTheConfigMapIsValidWhereThePodHasIt(t *testing.T) {
	s := newSandbox(t)
	keys, _ := secret(t)
	s.volumes["tls"].put(t, keys)
	s.volumes["cluster"].put(t, map[string][]byte{"ca.crt": kube.Shared(t).CA()})
	said := at[map[string]string](t, manifests(t, kubernetesDir)["config.yaml"].Unstructured, "data")
	s.volumes["config"].put(t, map[string][]byte{"sluice.yaml": []byte(said["sluice.yaml"])})
	if out, err := s.command("--check").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// inFrontOf is the pod's own configuration, but for what is of this machine: ports, issuer and API server.
func inFrontOf(t *testing.T, c *kube.Cluster) []byte {
	t.Helper()
	f := configuration(t, manifests(t, kubernetesDir)["config.yaml"])
	f.GRPCAddr, f.WebAddr, f.AdminAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	f.Issuers[0].URL, f.Issuers[0].CAFile, f.Issuers[0].Audiences = c.Issuer().URL(), f.Clusters[0].CAFile, []string{kube.Audience}
	f.Clusters[0].Server, f.Clusters[0].Audiences = c.URL(), []string{kube.Audience}
	b, err := yaml.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestThePodServesAWatch: the image, run as the pod says, in front of a real API server. Its probes answer, a watch goes through it and on
// over a renewed certificate, and SIGTERM drains it.
func TestThePodServesAWatch(t *testing.T) {
	c := kube.Shared(t)
	s := newSandbox(t)
	ctx := within(t)
	keys, first := secret(t)
	s.volumes["tls"].put(t, keys)
	s.volumes["cluster"].put(t, map[string][]byte{"ca.crt": c.CA()})
	s.volumes["config"].put(t, map[string][]byte{"sluice.yaml": inFrontOf(t, c)})
	at := s.start(ctx)

	s.isConfined()
	container := s.pod.Spec.Containers[0]
	for _, probe := range []*corev1.Probe{container.StartupProbe, container.ReadinessProbe, container.LivenessProbe} {
		if code, err := get(ctx, "http://"+at.AdminAddr+probe.HTTPGet.Path); code != http.StatusOK {
			t.Errorf("%s: %d, %v", probe.HTTPGet.Path, code, err)
		}
	}

	w := newWatched(t, c, at.GRPCAddr, first)
	w.change("one")
	w.await(ctx, "one")

	renewed, second := secret(t)
	s.volumes["tls"].put(t, renewed)
	s.await(ctx, "shows the renewed certificate", func() bool { return shown(ctx, at.GRPCAddr).Equal(second) })
	w.change("two")
	w.await(ctx, "two")
	w.close()

	if err := s.terminate(); err != nil {
		t.Errorf("the gateway ended with %v", err)
	}
}

// TestAPodThatIsEndedIsNotReadyWhileItDrains, but alive, so that nothing sends it more and nothing kills it.
func TestAPodThatIsEndedIsNotReadyWhileItDrains(t *testing.T) {
	c := kube.Shared(t)
	s := newSandbox(t)
	ctx := within(t)
	keys, cert := secret(t)
	s.volumes["tls"].put(t, keys)
	s.volumes["cluster"].put(t, map[string][]byte{"ca.crt": c.CA()})
	s.volumes["config"].put(t, map[string][]byte{"sluice.yaml": inFrontOf(t, c)})
	at := s.start(ctx)
	w := newWatched(t, c, at.GRPCAddr, cert)
	w.change("one")
	w.await(ctx, "one")
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	container := s.pod.Spec.Containers[0]
	s.await(ctx, "is not ready", func() bool {
		code, _ := get(ctx, "http://"+at.AdminAddr+container.ReadinessProbe.HTTPGet.Path)
		return code == http.StatusServiceUnavailable
	})
	if code, err := get(ctx, "http://"+at.AdminAddr+container.LivenessProbe.HTTPGet.Path); code != http.StatusOK {
		t.Errorf("alive: %d, %v", code, err)
	}
	w.close()
	<-s.over
	if s.err != nil {
		t.Errorf("the gateway ended with %v", s.err)
	}
}

// isConfined fails unless the process has only what the pod's security context leaves it.
func (s *sandbox) isConfined() {
	s.t.Helper()
	status := s.proc("status")
	for _, line := range []string{
		"Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1",
	} {
		if !strings.Contains(status, line+"\n") {
			s.t.Errorf("the process has no %q:\n%s", line, status)
		}
	}
	for line := range strings.SplitSeq(strings.TrimSpace(s.proc("mountinfo")), "\n") {
		fields := strings.Fields(line)
		if fields[4] != "/" && !strings.HasPrefix(fields[4], "/etc/sluice/") {
			continue
		}
		if !slices.Contains(strings.Split(fields[5], ","), "ro") {
			s.t.Errorf("%s can be written to: %s", fields[4], line)
		}
	}
}

func get(ctx context.Context, url string) (code int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, err
	}
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Body.Close()
}

// shown is the certificate that a new client sees; nil if none.
func shown(ctx context.Context, addr string) *x509.Certificate {
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil
	}
	defer conn.Close()
	tc, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	return tc.ConnectionState().PeerCertificates[0]
}

// watched is one ConfigMap that is changed at the API server and watched through the gateway.
type watched struct {
	t       *testing.T
	cluster *kube.Cluster
	name    string
	client  *client.Client
	watch   *client.Watch
	closed  bool
}

func newWatched(t *testing.T, c *kube.Cluster, addr string, trust *x509.Certificate) *watched {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(trust)
	sdk, err := client.Dial(client.Config{
		Address: addr, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Token: client.StaticToken(c.Token("alice", kube.Streamers)), Name: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, cluster: c, name: strings.ToLower(t.Name()), client: sdk}
	w.watch = sdk.Watch(client.WatchRequest{Cluster: "own", Target: &sluicev1.WatchTarget{
		Version: "v1", Resource: "configmaps", Namespace: kube.Namespace, Name: w.name,
	}})
	t.Cleanup(w.close)
	return w
}

// change gives the object a value.
func (w *watched) change(value string) {
	w.t.Helper()
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: w.name}, Data: map[string]string{"value": value}}
	maps := w.cluster.Admin().CoreV1().ConfigMaps(kube.Namespace)
	_, err := maps.Update(w.t.Context(), o, metav1.UpdateOptions{})
	if err != nil {
		_, err = maps.Create(w.t.Context(), o, metav1.CreateOptions{})
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// await reads until the object has the value.
func (w *watched) await(ctx context.Context, value string) {
	w.t.Helper()
	for {
		e, err := w.watch.Next(ctx)
		if err != nil {
			w.t.Fatalf("wait for %q: %v", value, err)
		}
		var o struct{ Data map[string]string }
		if e.State == nil && json.Unmarshal(e.Object, &o) == nil && o.Data["value"] == value {
			return
		}
	}
}

// close ends the watch and its session. It may be called more than once.
func (w *watched) close() {
	if w.closed {
		return
	}
	w.closed = true
	w.watch.Close()
	if err := w.client.Close(); err != nil {
		w.t.Errorf("close the client: %v", err)
	}
}
