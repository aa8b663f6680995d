package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/tracing/tracetest"
)

// kube is an API server for the tests of serve, with an issuer: alice's tokens are good at it, and one configmap is in it.
type kube struct {
	*kubetest.Server
	issuer *devIssuer
	forbid atomic.Pointer[string] // a resource of the group "", such as "pods/log", of which nothing may be done; "" for none
}

// may is the API server's Authorizer.
func (k *kube) may(_ kubetest.User, a kubetest.Attributes) bool {
	forbidden := k.forbid.Load()
	return forbidden == nil || *forbidden != strings.TrimSuffix(a.Resource+"/"+a.Subresource, "/")
}

func startKube(t *testing.T) *kube {
	t.Helper()
	is, err := startIssuer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := is.stop(); err != nil {
			t.Error(err)
		}
	})
	oidc, err := auth.NewOIDC(is.trustFor("kubernetes"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(oidc.Close)
	k := &kube{issuer: is}
	s, err := kubetest.New(kubetest.Options{Authorizer: k.may, Authenticator: func(ctx context.Context, token string) (kubetest.User, error) {
		if token == "of-the-gateway" {
			return kubetest.User{Name: "gateway"}, nil
		}
		p, err := oidc.Authenticate(ctx, auth.NewSecret(token))
		if err != nil {
			return kubetest.User{}, err
		}
		return kubetest.User{Name: p.Username}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Listen(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(kubetest.Object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "proof", "namespace": "default"},
	}); err != nil {
		t.Fatal(err)
	}
	k.Server = s
	return k
}

func (k *kube) token(t *testing.T, subject string, audiences ...string) string {
	t.Helper()
	token, err := k.issuer.Sign(issuer.Claims{Subject: subject, Audience: audiences})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// kubeconfig writes a kubeconfig with contexts of the gateway's own user; the last one is current.
func (k *kube) kubeconfig(t *testing.T, contexts ...string) string {
	t.Helper()
	type named map[string]any
	doc := named{
		"apiVersion": "v1", "kind": "Config", "current-context": contexts[len(contexts)-1],
		"clusters": []named{{"name": "c", "cluster": named{"server": k.URL(), "certificate-authority-data": k.CAPEM()}}},
		"users":    []named{{"name": "u", "user": named{"token": "of-the-gateway"}}},
	}
	all := []named{}
	for _, c := range contexts {
		all = append(all, named{"name": c, "context": named{"cluster": "c", "user": "u"}})
	}
	doc["contexts"] = all
	return write(t, doc, "kubeconfig")
}

// write writes a document as YAML to a file of a folder of its own.
func write(t *testing.T, doc any, name string) string {
	t.Helper()
	text, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// keyPair writes a certificate for loopback, which is its own authority, and its key.
func keyPair(t *testing.T, dir string) {
	t.Helper()
	ca := filepath.Join(dir, "ca.crt")
	config, err := devCertificate(ca)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(config.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: config.Certificates[0].Certificate[0]}, "tls.key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// configuration writes a configuration with two clusters, which are one API server reached in two ways.
func (k *kube) configuration(t *testing.T) (file, dir string) {
	t.Helper()
	dir = t.TempDir()
	keyPair(t, dir)
	if err := os.WriteFile(filepath.Join(dir, "kube.crt"), k.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "sluice.yaml")
	text := fmt.Sprintf(`
grpc_addr: "127.0.0.1:0"
web_addr: "127.0.0.1:0"
admin_addr: "127.0.0.1:0"
tls: {cert_file: tls.crt, key_file: tls.key}
issuers:
  - url: %s
    audiences: [sluice]
clusters:
  - {name: own, server: "%s", ca_file: kube.crt, credential: passthrough, audiences: [kubernetes]}
  - {name: lab, kubeconfig: {file: %s}, credential: kubeconfig, subjects: [alice]}
audit: {destination: audit.log}
drain_timeout: 0s
log: {level: debug}
`, k.issuer.URL(), k.URL(), k.kubeconfig(t, "spare", "lab"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file, dir
}

// awaitReady waits for the ready file of a command.
func awaitReady(t *testing.T, c *command, file string) ready {
	t.Helper()
	c.stderr.await(t, "serving", func(s string) bool { return strings.Contains(s, `"msg":"serving"`) })
	return readReady(t, file)
}

func TestServeServesWhatItsConfigurationSays(t *testing.T) {
	k := startKube(t)
	file, dir := k.configuration(t)
	readyFile := filepath.Join(dir, "ready.json")
	c := begin(t, isolated(t), "serve", "--config", file, "--ready-file", readyFile)
	r := awaitReady(t, c, readyFile)
	if r.CAFile != filepath.Join(dir, "tls.crt") || r.Token != "" || r.Cluster != "" {
		t.Errorf("ready: %+v", r)
	}
	alice, bob := k.token(t, "alice", "sluice", "kubernetes"), k.token(t, "bob", "sluice", "kubernetes")
	env := isolated(t).with("SLUICE_SERVER", r.GRPCAddr, "SLUICE_CA_FILE", filepath.Join(dir, "ca.crt"), "SLUICE_TOKEN", alice)
	for token, want := range map[string]string{
		alice:                       "lab\nown\n",
		bob:                         "own\n",
		k.token(t, "bob", "sluice"): "",
	} {
		if out, errs, code := sluice(t, env.with("SLUICE_TOKEN", token), "clusters", "-o", "name"); out != want || code != exitOK {
			t.Errorf("clusters: exit code %d, %q, want %q\n%s", code, out, want, errs)
		}
	}
	for _, cluster := range []string{"own", "lab"} {
		w := begin(t, env, "watch", "cm", "--cluster", cluster, "-o", "name")
		w.stdout.await(t, "the object", func(s string) bool { return s == "ADDED configmaps default/proof\n" })
		w.stop()
		w.end(t)
	}
	if _, errs, code := sluice(t, env.with("SLUICE_TOKEN", bob), "watch", "cm", "--cluster", "lab"); code != exitFailed || !strings.Contains(errs, "CREDENTIAL_NOT_ACCEPTED") {
		t.Errorf("bob at lab: exit code %d\n%s", code, errs)
	}
	health(t, r)

	c.stop()
	if code := c.end(t); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, c.stderr)
	}
	audit, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil || !strings.Contains(string(audit), `"msg":"channel opened"`) || !strings.Contains(string(audit), `"username":"alice"`) {
		t.Errorf("audit: %v\n%s", err, audit)
	}
	for _, token := range []string{alice, bob, "of-the-gateway"} {
		if strings.Contains(string(audit)+c.stderr.String()+c.stdout.String(), token) {
			t.Error("a token was logged")
		}
	}
}

// health asks the admin port, which the test's server must serve.
func health(t *testing.T, r ready) {
	t.Helper()
	h := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.AdminAddr+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK || string(body) != "ok\n" {
		t.Errorf("readyz: %d %q, %v", res.StatusCode, body, err)
	}
}

func TestServeLetsPagesOfTheConfiguredOriginsIn(t *testing.T) {
	k := startKube(t)
	file, dir := k.configuration(t)
	edit(t, file, "drain_timeout: 0s", "drain_timeout: 0s\nweb: {origins: [\"https://console.example.org\"], hosts: [sluice.example.org]}")
	readyFile := filepath.Join(dir, "ready.json")
	r := awaitReady(t, begin(t, isolated(t), "serve", "--config", file, "--ready-file", readyFile), readyFile)
	roots, err := trust(filepath.Join(dir, "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	for _, tc := range []struct {
		host, origin string
		code         int
		allowed      string
	}{
		{"", "https://console.example.org", http.StatusOK, "https://console.example.org"},
		{"sluice.example.org", "https://console.example.org", http.StatusOK, "https://console.example.org"},
		{"other.example.org", "https://console.example.org", http.StatusMisdirectedRequest, ""},
		{"", "https://other.example.org", http.StatusForbidden, ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.WebAddr+"/v1/clusters", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tc.host
		req.Header.Set("Origin", tc.origin)
		req.Header.Set("Authorization", "Bearer "+k.token(t, "alice", "sluice", "kubernetes"))
		res, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Access-Control-Allow-Origin"); res.StatusCode != tc.code || got != tc.allowed {
			t.Errorf("%+v: %d, allowed %q", tc, res.StatusCode, got)
		}
	}
}

func TestServeSendsSpansToTheCollector(t *testing.T) {
	collector := tracetest.New(t)
	k := startKube(t)
	file, dir := k.configuration(t)
	edit(t, file, "drain_timeout: 0s", "drain_timeout: 0s\ntracing: {endpoint: \""+collector.Endpoint()+"\", insecure: true, sample_ratio: 1}")
	readyFile := filepath.Join(dir, "ready.json")
	c := begin(t, isolated(t), "serve", "--config", file, "--ready-file", readyFile)
	r := awaitReady(t, c, readyFile)
	token := k.token(t, "alice", "sluice", "kubernetes")
	env := isolated(t).with("SLUICE_SERVER", r.GRPCAddr, "SLUICE_CA_FILE", filepath.Join(dir, "ca.crt"), "SLUICE_TOKEN", token)
	if _, errs, code := sluice(t, env, "clusters"); code != exitOK {
		t.Fatalf("exit code %d:\n%s", code, errs)
	}
	c.stop() // which sends what waits
	if code := c.end(t); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, c.stderr)
	}
	var named []string
	for _, s := range collector.Spans() {
		named = append(named, s.GetName())
	}
	if !slices.ContainsFunc(named, func(n string) bool { return strings.Contains(n, "ListClusters") }) {
		t.Errorf("the collector has the spans %q", named)
	}
}

func TestServeReportsAConfigurationThatIsWrong(t *testing.T) {
	if _, errs, code := sluice(t, isolated(t), "serve"); code != exitUsage || !strings.Contains(errs, "--config FILE is missing") {
		t.Errorf("without a file: exit code %d\n%s", code, errs)
	}
	if _, errs, code := sluice(t, isolated(t), "serve", "--config", "/nonexistent"); code != exitUsage || !strings.Contains(errs, "/nonexistent") {
		t.Errorf("a file that is not there: exit code %d\n%s", code, errs)
	}
	file := write(t, map[string]any{"grpc_addr": "x", "tls": map[string]any{"cert_file": "c"}}, "sluice.yaml")
	_, errs, code := sluice(t, isolated(t), "serve", "--config", file)
	for _, want := range []string{"\ngrpc_addr: ", "\ntls.key_file: ", "\nissuers: ", "\nclusters: "} {
		if code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("exit code %d, %q is missing in:\n%s", code, want, errs)
		}
	}
	if _, errs, _ := sluice(t, isolated(t), "serve", "--config", file, "--grpc-addr", "127.0.0.1:0"); strings.Contains(errs, "grpc_addr") {
		t.Errorf("the flag does not win over the file:\n%s", errs)
	}
}

func TestALogIsOfTheFormAndFromTheLevelOn(t *testing.T) {
	for _, tc := range []struct{ format, level, want string }{
		{"json", "warn", `"level":"WARN","msg":"w"`}, {"text", "info", `level=INFO msg=i`}, {"text", "error", ""},
	} {
		var out strings.Builder
		log, err := newLog(&out, tc.format, tc.level)
		if err != nil {
			t.Fatal(err)
		}
		log.Log(t.Context(), slog.LevelInfo, "i")
		log.Log(t.Context(), slog.LevelWarn, "w")
		if got := out.String(); !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
			t.Errorf("%s from %s on: %q", tc.format, tc.level, got)
		}
	}
	for _, bad := range [][2]string{{"xml", "info"}, {"json", "loud"}} {
		if _, err := newLog(io.Discard, bad[0], bad[1]); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestTheTokensOfDevLiveAsLongAsTheyShould(t *testing.T) {
	is, err := startIssuer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer is.stop() //nolint:errcheck // the test is over
	token, err := is.token(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for audience, want := range map[string]bool{devAudience: true, devClusterAudience: true, "another": false} {
		oidc, err := auth.NewOIDC(is.trustFor(audience))
		if err != nil {
			t.Fatal(err)
		}
		p, err := oidc.Authenticate(t.Context(), auth.NewSecret(token))
		oidc.Close()
		if (err == nil) != want {
			t.Errorf("for %s: %v", audience, err)
			continue
		}
		if want && (p.Username != devSubject || time.Until(p.ExpiresAt).Round(time.Minute) != time.Hour) {
			t.Errorf("for %s: %+v", audience, p)
		}
	}
}
