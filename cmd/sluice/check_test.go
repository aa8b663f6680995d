package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// edit replaces text in a file, which must have it.
func edit(t *testing.T, file string, pairs ...string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			t.Fatalf("%s does not say %q", file, pairs[i])
		}
		text = []byte(strings.ReplaceAll(string(text), pairs[i], pairs[i+1]))
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// certificateUntil writes a certificate for loopback that ends at a time, and its key.
func certificateUntil(t *testing.T, dir string, begin, end time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, leaf := devTemplates(time.Now())
	leaf.NotBefore, leaf.NotAfter = begin, end
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: der}, "tls.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCheckTellsWhatItReadAndDialsNothing(t *testing.T) {
	k := startKube(t)
	file, dir := k.configuration(t)
	requests := len(k.Requests())
	out, errs, code := sluice(t, isolated(t), "serve", "--config", file, "--check", "--web-addr", "127.0.0.1:18444")
	if code != exitOK || errs != "" {
		t.Errorf("exit code %d:\n%s", code, errs)
	}
	for _, want := range []string{
		"web_addr +127.0.0.1:18444",
		"tls.cert_file +" + dir + "/tls.crt: localhost, 127.0.0.1, ::1, until 20.* \\(in 89 days\\)",
		"tls.key_file +" + dir + "/tls.key: the key of that certificate",
		"issuers\\[0\\] +" + k.issuer.URL() + ": tokens for sluice",
		"clusters\\[0\\] +own: " + k.URL() + "; sees the caller's token, for kubernetes",
		"clusters\\[0\\].ca_file +" + dir + "/kube.crt: CN=kubetest CA, until ",
		"clusters\\[1\\] +lab: kubeconfig .*/kubeconfig; sees the gateway's credential, for alice",
		"clusters\\[1\\].kubeconfig +contexts lab \\(used\\), spare",
		"audit.destination +" + dir + "/audit.log",
		file + " is valid: issuers: 1, clusters: 2",
	} {
		if !regexp.MustCompile("(?m)^" + want).MatchString(out) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	if now := k.Requests(); len(now) != requests {
		t.Errorf("the cluster was asked: %v", now)
	}
	if _, err := os.Stat(filepath.Join(dir, "audit.log")); !os.IsNotExist(err) {
		t.Errorf("the audit file was made: %v", err)
	}
}

func TestCheckWarnsOfCertificatesThatEnd(t *testing.T) {
	k := startKube(t)
	file, dir := k.configuration(t)
	now := time.Now()
	for _, tc := range []struct {
		name       string
		begin, end time.Time
		code       int
		want       string
	}{
		{"in time", now.Add(-time.Hour), now.Add(endsSoon + time.Hour), exitOK, ""},
		{"soon", now.Add(-time.Hour), now.Add(9*24*time.Hour + time.Hour), exitOK, "warning: tls.cert_file: the certificate of localhost, 127.0.0.1, ::1 ends on "},
		{"over", now.Add(-2 * time.Hour), now.Add(-time.Hour), exitUsage, "tls.cert_file: the certificate of localhost, 127.0.0.1, ::1 ended on "},
		{"not yet", now.Add(time.Hour), now.Add(999 * time.Hour), exitUsage, "tls.cert_file: the certificate of localhost, 127.0.0.1, ::1 begins on "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			certificateUntil(t, dir, tc.begin, tc.end)
			_, errs, code := sluice(t, isolated(t), "serve", "--config", file, "--check")
			if code != tc.code || !strings.Contains(errs, tc.want) || (tc.want == "") != (errs == "") {
				t.Errorf("exit code %d:\n%s", code, errs)
			}
		})
	}
	// A gateway starts all the same: the files may be replaced while it runs.
	certificateUntil(t, dir, now.Add(-2*time.Hour), now.Add(-time.Hour))
	c := begin(t, isolated(t), "serve", "--config", file)
	c.stderr.await(t, "serving", func(s string) bool { return strings.Contains(s, `"msg":"serving"`) })
}

func TestCheckTellsAllThatIsWrongAtOnce(t *testing.T) {
	k := startKube(t)
	file, dir := k.configuration(t)
	for _, name := range []string{"tls.key", "kube.crt"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	edit(t, file,
		"drain_timeout: 0s", "drain_timeout: -1s",
		"audiences: [sluice]\n", "audiences: [sluice]\n    algorithms: [HS256]\n    ca_file: tls.crt.not\n  - url: https://issuer.example.org\n    groups_prefix: \"\\u0000\"\n",
		"lab, kubeconfig: {", "lab, kubeconfig: {context: nowhere, ",
		"log: {level: debug}", "log: {level: loud}\nlimits: {window_bytes: 1}\nweb: {origins: [\"https://a/\"]}\ntracing: {endpoint: x}")
	wrong := []string{
		"\nissuers[1].audiences: name at least one", "issuers[1]",
		"tls.key_file: cannot be read: ", "issuers[0].ca_file: cannot be read: ", "clusters[0].ca_file: cannot be read: ",
		`clusters[1]: cluster "lab": kubeconfig `, "drain_timeout: is negative", `log.level: "loud" is none of`,
		"limits.window_bytes is 1, must be at least ", `web.origins: "https://a/"`, `tracing.endpoint: "x" is no HOST:PORT`,
	}
	for _, args := range [][]string{{"--check"}, {"--check", "--online"}, nil} {
		out, errs, code := sluice(t, isolated(t), append([]string{"serve", "--config", file}, args...)...)
		for _, want := range wrong {
			if code != exitUsage || strings.Count(errs, want) != 1 {
				t.Errorf("%v: exit code %d, %q is there %d times in:\n%s", args, code, want, strings.Count(errs, want), errs)
			}
		}
		if strings.Contains(out, "is valid") {
			t.Errorf("%v: it is called valid:\n%s", args, out)
		}
	}
	edit(t, file, "ca_file: tls.crt.not", "")
	if _, errs, _ := sluice(t, isolated(t), "serve", "--config", file, "--check"); !strings.Contains(errs, `issuers[0]: OIDC issuer`) || !strings.Contains(errs, "HS256") {
		t.Errorf("the algorithm is not told:\n%s", errs)
	}
}

func TestFilesThatHoldNoCertificatesAreTold(t *testing.T) {
	k := startKube(t)
	file, dir := k.configuration(t)
	broken := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no DER")})
	for text, want := range map[string]string{"": "kube.crt holds no certificate", "x": "kube.crt holds no certificate", string(broken): "kube.crt: certificate 1: "} {
		if err := os.WriteFile(filepath.Join(dir, "kube.crt"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, errs, code := sluice(t, isolated(t), "serve", "--config", file, "--check"); code != exitUsage || !strings.Contains(errs, "clusters[0].ca_file: ") || !strings.Contains(errs, want) {
			t.Errorf("exit code %d, %q is missing in:\n%s", code, want, errs)
		}
	}
	other := t.TempDir()
	keyPair(t, other)
	if err := os.Rename(filepath.Join(other, "tls.key"), filepath.Join(dir, "tls.key")); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := sluice(t, isolated(t), "serve", "--config", file, "--check"); code != exitUsage || !strings.Contains(errs, "\ntls: load certificate ") {
		t.Errorf("a key of another certificate: exit code %d\n%s", code, errs)
	}
}

func TestAnOnlineCheckAsksEverybody(t *testing.T) {
	k := startKube(t)
	file, _ := k.configuration(t)
	check := func() (string, string, int) {
		return sluice(t, isolated(t), "serve", "--config", file, "--check", "--online")
	}
	out, errs, code := check()
	if code != exitOK {
		t.Errorf("exit code %d:\n%s", code, errs)
	}
	for _, want := range []string{
		"ASKED +TIME +ANSWER", "issuer " + k.issuer.URL() + " +[0-9.]+m?s +publishes its keys",
		"cluster own +[0-9.]+m?s +answers, and tells a stranger nothing", "cluster lab +[0-9.]+m?s +Kubernetes v1\\.",
	} {
		if !regexp.MustCompile("(?m)^" + want + ".*$").MatchString(out) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}

	idle, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := idle.Addr().String()
	idle.Close()
	// The gateway's own certificate has not signed the API server's.
	edit(t, file, k.issuer.URL(), "http://"+nobody, "ca_file: kube.crt", "ca_file: tls.crt")
	out, errs, code = check()
	for _, want := range []string{
		"issuer http://" + nobody + ": Unavailable (ISSUER_UNAVAILABLE)", "connection refused",
		"cluster own: Unavailable (UPSTREAM_UNREACHABLE)", "certificate that does not verify",
	} {
		if code != exitFailed || !strings.Contains(errs, want) {
			t.Errorf("exit code %d, %q is missing in:\n%s", code, want, errs)
		}
	}
	if strings.Contains(errs, "hint:") || strings.Contains(errs, `"level"`) {
		t.Errorf("what is for clients or for a log was said:\n%s", errs)
	}
	if strings.Count(out, "FAILED") != 2 || !strings.Contains(out, "Kubernetes v1.") {
		t.Errorf("one cluster answers, another and the issuer do not:\n%s", out)
	}
}

func TestAnOnlineCheckTellsWhoIsNoClusterAndWhoRefusesTheGateway(t *testing.T) {
	k := startKube(t)
	file, dir := k.configuration(t)
	page := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"hello":"world"}`)
	}))
	defer page.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: page.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, "page.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	edit(t, file, k.URL(), page.URL, "kube.crt", "page.crt")
	config, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edit(t, regexp.MustCompile(`/[^ ]*/kubeconfig`).FindString(string(config)), "of-the-gateway", "of-nobody")
	out, errs, code := sluice(t, isolated(t), "serve", "--config", file, "--check", "--online")
	for _, want := range []string{"cluster own: what answers is no API server", "cluster lab: Unavailable (UPSTREAM_REFUSED): the gateway's own credential was refused"} {
		if code != exitFailed || !strings.Contains(errs, want) {
			t.Errorf("exit code %d, %q is missing in:\n%s%s", code, want, out, errs)
		}
	}
}

func TestTheClusterAroundThePodIsKnownInThePodOnly(t *testing.T) {
	k := startKube(t)
	file, _ := k.configuration(t)
	edit(t, file, "server: \""+k.URL()+"\", ca_file: kube.crt", "in_cluster: true")
	_, errs, code := sluice(t, isolated(t), "serve", "--config", file, "--check")
	if code != exitUsage || !regexp.MustCompile(`(?m)^clusters\[0\]\.in_cluster: .*; it can be checked in a pod`).MatchString(errs) {
		t.Errorf("exit code %d:\n%s", code, errs)
	}
}

func TestAnEmptyWebAddressSwitchesTheWebPortOff(t *testing.T) {
	k := startKube(t)
	file, _ := k.configuration(t)
	out, errs, code := sluice(t, isolated(t), "serve", "--config", file, "--check", "--web-addr", "")
	if code != exitOK || !regexp.MustCompile("(?m)^web_addr +<none>$").MatchString(out) {
		t.Errorf("exit code %d:\n%s%s", code, out, errs)
	}
}

func TestAnOnlineCheckIsACheck(t *testing.T) {
	if _, errs, code := sluice(t, isolated(t), "serve", "--config", "x", "--online"); code != exitUsage || !strings.Contains(errs, "--online belongs to --check") {
		t.Errorf("exit code %d:\n%s", code, errs)
	}
}
