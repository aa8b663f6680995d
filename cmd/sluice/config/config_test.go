package config

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// valid is a configuration that says everything that can be said, each field with a value of its own.
const valid = `
grpc_addr: ":18443"
web_addr: ":18444"
admin_addr: "127.0.0.1:19090"
tls: {cert_file: tls/tls.crt, key_file: /etc/tls.key}
issuers:
  - url: https://issuer.example.org
    audiences: [sluice]
    authorized_parties: [console]
    ca_file: issuer.crt
    username_claim: email
    username_prefix: "oidc:"
    groups_claim: roles
    groups_prefix: "oidc:g:"
    uid_claim: oid
    algorithms: [ES256]
    leeway: 5s
    max_lifetime: 24h
clusters:
  - name: a
    id: production
    kubeconfig: {file: kubeconfig, context: prod}
    insecure: true
    credential: kubeconfig
    subjects: [alice]
  - name: b
    in_cluster: true
    credential: passthrough
    audiences: [kubernetes]
  - name: c.d
    server: https://api.example.org:6443
    ca_file: api.crt
    credential: passthrough
    issuers: ["https://issuer.example.org"]
limits:
  sessions: 1
  principal_sessions: 2
  session_channels: 3
  channels: 4
  streams: 5
  message_bytes: 6
  window_bytes: 7
  session_bytes: 8
  held_bytes: 9
  header_bytes: 10
  detach_ttl: 11s
  cluster_dials: 12
drain_timeout: 13s
reflection: false
log: {format: text, level: warn}
audit: {destination: audit.log}
web: {origins: ["https://console.example.org"], hosts: [sluice.example.org], body_bytes: 14, headers: 15}
tracing: {endpoint: "localhost:4317", ca_file: collector.crt, sample_ratio: 0.5, insecure: false}
`

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEveryFieldIsReadAndWrittenBack(t *testing.T) {
	c := parse(t, valid)
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if again := parse(t, string(text)); !reflect.DeepEqual(c, again) {
		t.Errorf("read back as\n%+v\nafter\n%+v", again, c)
	}
	d, err := json.Marshal(Default())
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range Fields() { // the test's own file must not miss one
		if !said(t, valid, path) {
			t.Errorf("the test's configuration does not say %s", path)
		}
	}
	if reflect.DeepEqual(string(d), string(text)) {
		t.Error("nothing was read at all")
	}
}

// said reports whether a document has a value at a path of Fields.
func said(t *testing.T, text, path string) bool {
	t.Helper()
	var tree any
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatal(err)
	}
	at := []any{tree}
	for step := range strings.SplitSeq(path, ".") {
		name, list := strings.CutSuffix(step, "[]")
		var next []any
		for _, v := range at {
			m, _ := v.(map[string]any)
			v, ok := m[name]
			switch items, isList := v.([]any); {
			case !ok:
			case list && isList:
				next = append(next, items...)
			default:
				next = append(next, v)
			}
		}
		at = next
	}
	return len(at) > 0
}

func TestAnEmptyFileIsTheDefaults(t *testing.T) {
	if c := parse(t, ""); !reflect.DeepEqual(c, Default()) {
		t.Errorf("got %+v", c)
	}
}

func TestRelativePathsAreRelativeToTheFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(file, []byte(valid), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	got := []string{
		c.TLS.CertFile, c.TLS.KeyFile, c.Issuers[0].CAFile, c.Clusters[0].Kubeconfig.File, c.Clusters[2].CAFile, c.Audit.Destination, c.Tracing.CAFile,
	}
	want := []string{
		dir + "/tls/tls.crt", "/etc/tls.key", dir + "/issuer.crt", dir + "/kubeconfig", dir + "/api.crt", dir + "/audit.log", dir + "/collector.crt",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if c := parse(t, ""); c.Audit.Destination != Stdout {
		t.Errorf("stdout became a file: %q", c.Audit.Destination)
	}
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"an unknown field", "grpcAddr: x", "grpcAddr: no such field; there are admin_addr, "},
		{"an unknown field below", "clusters: [{name: a}, {nam: b}]", "clusters[1].nam: no such field"},
		{"an unknown field in a mapping", "limits: {session: 1}", "limits.session: no such field"},
		{"a field said twice", "reflection: true\nreflection: false", `key "reflection" already set`},
		{"a field in other letters", "Reflection: true", "Reflection: no such field"},
		{"a text for a ratio", "tracing: {sample_ratio: all}", "tracing.sample_ratio: a string where a number belongs"},
		{"a text for a number", "limits: {sessions: many}", "limits.sessions: a string where a whole number belongs"},
		{"a number for a duration", "drain_timeout: 25", "25 is no duration"},
		{"a duration without unit", `drain_timeout: "25"`, `"25" is no duration`},
		{"a text for a list", "issuers: https://a", "issuers: a string where a list belongs"},
		{"no mapping at all", "- a", "no mapping"},
		{"broken YAML", "a: [", "did not find"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestAllUnknownFieldsAreNamedAtOnce(t *testing.T) {
	_, err := Parse([]byte("a: 1\nlimits: {b: 2}\nissuers: [{c: 3}]\n"))
	for _, want := range []string{"a: no such", "limits.b: no such", "issuers[0].c: no such"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

func TestValidateNamesTheFieldAndWhatToDo(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"address", func(c *Config) { c.GRPCAddr = "8443" }, `grpc_addr: "8443" is no HOST:PORT`},
		{"port", func(c *Config) { c.AdminAddr = "127.0.0.1:70000" }, "admin_addr: "},
		{"web address", func(c *Config) { c.WebAddr = "x" }, "web_addr: "},
		{"certificate", func(c *Config) { c.TLS.CertFile = "" }, "tls.cert_file: name the file"},
		{"key", func(c *Config) { c.TLS.KeyFile = "" }, "tls.key_file: name the file"},
		{"drain", func(c *Config) { c.DrainTimeout = -1 }, "drain_timeout: is negative"},
		{"log format", func(c *Config) { c.Log.Format = "xml" }, `log.format: "xml" is none of json, text`},
		{"log level", func(c *Config) { c.Log.Level = "" }, `log.level: "" is none of debug, info, warn, error`},
		{"audit", func(c *Config) { c.Audit.Destination = "" }, "audit.destination: name stdout"},
		{"no issuer", func(c *Config) { c.Issuers = nil }, "issuers: name at least one"},
		{"issuer URL", func(c *Config) { c.Issuers[0].URL = "issuer" }, `issuers[0].url: "issuer" is no URL`},
		{"issuer twice", func(c *Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) }, "issuers[1].url: "},
		{"no audience", func(c *Config) { c.Issuers[0].Audiences = nil }, "issuers[0].audiences: name at least one"},
		{"leeway", func(c *Config) { c.Issuers[0].Leeway = Duration(time.Minute) }, "issuers[0].leeway: 1m0s is not between"},
		{"lifetime", func(c *Config) { c.Issuers[0].MaxLifetime = -1 }, "issuers[0].max_lifetime: is negative"},
		{"no cluster", func(c *Config) { c.Clusters = nil }, "clusters: name at least one"},
		{"cluster name", func(c *Config) { c.Clusters[1].Name = "B" }, `clusters[1].name: "B" is no cluster name`},
		{"long name", func(c *Config) { c.Clusters[1].Name = strings.Repeat("b", 64) }, "clusters[1].name: "},
		{"cluster twice", func(c *Config) { c.Clusters[1].Name = "a" }, `clusters[1].name: "a" is configured twice`},
		{"two places", func(c *Config) { c.Clusters[1].Server = "https://a" }, "clusters[1]: say exactly one of kubeconfig, in_cluster and server, not 2"},
		{"no place", func(c *Config) { c.Clusters[1].InCluster = false }, "clusters[1]: say exactly one of kubeconfig, in_cluster and server, not 0"},
		{"no kubeconfig file", func(c *Config) { c.Clusters[0].Kubeconfig.File = "" }, "clusters[0].kubeconfig.file: name"},
		{"plain server", func(c *Config) { c.Clusters[2].Server = "http://a" }, `clusters[2].server: "http://a" is no https URL`},
		{"CA without server", func(c *Config) { c.Clusters[1].CAFile = "x" }, "clusters[1].ca_file: belongs to server"},
		{"insecure without kubeconfig", func(c *Config) { c.Clusters[2].Insecure = true }, "clusters[2].insecure: belongs to kubeconfig"},
		{"credential", func(c *Config) { c.Clusters[1].Credential = "admin" }, `clusters[1].credential: "admin" is none of passthrough, kubeconfig`},
		{"unguarded passthrough", func(c *Config) { c.Clusters[1].Audiences = nil }, "clusters[1]: passthrough needs audiences or issuers"},
		{"passthrough subjects", func(c *Config) { c.Clusters[1].Subjects = []string{"alice"} }, "clusters[1].subjects: belongs to"},
		{"unguarded kubeconfig", func(c *Config) { c.Clusters[0].Subjects = nil }, "clusters[0].subjects: name who may use"},
		{"kubeconfig audiences", func(c *Config) { c.Clusters[0].Audiences = []string{"x"} }, "clusters[0]: audiences and issuers belong to"},
		{"server's own credential", func(c *Config) {
			c.Clusters[2].Credential, c.Clusters[2].Issuers, c.Clusters[2].Subjects = KubeconfigCredential, nil, []string{"alice"}
		}, "clusters[2].credential: server brings no credential"},
		{"tracing address", func(c *Config) { c.Tracing.Endpoint = "collector" }, `tracing.endpoint: "collector" is no HOST:PORT`},
		{"tracing without address", func(c *Config) { c.Tracing.Endpoint = "" }, "tracing.endpoint: name the collector"},
		{"tracing in the clear", func(c *Config) { c.Tracing.Insecure = true }, "tracing.insecure: contradicts ca_file"},
		{"tracing ratio", func(c *Config) { c.Tracing.SampleRatio = 1.5 }, "tracing.sample_ratio: 1.5 is not between"},
		{"negative limit", func(c *Config) { c.Limits.Streams = -1 }, "limits.streams: is negative"},
		{"negative body", func(c *Config) { c.Web.BodyBytes = -1 }, "web.body_bytes: is negative"},
		{"negative headers", func(c *Config) { c.Web.Headers = -1 }, "web.headers: is negative"},
		{"negative TTL", func(c *Config) { c.Limits.DetachTTL = -1 }, "limits.detach_ttl: is negative"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := parse(t, valid)
			tc.change(c)
			err := c.Validate()
			if err == nil || !strings.HasPrefix(err.Error(), tc.want) {
				t.Fatalf("got %v, want it to begin %q", err, tc.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("one mistake, several problems: %v", err)
			}
		})
	}
}

func TestProblemsAreFoundByTheirPlace(t *testing.T) {
	p := Problems{{"clusters[1].name", "a"}, {"issuers", "b"}, {"clusters[10]", "c"}}
	for place, want := range map[string]bool{
		"clusters[1]": true, "clusters[10]": true, "clusters": true, "clusters[0]": false, "issuers": true, "issuers[0]": false, "clusters[1].name": true, "clus": false, "": false,
	} {
		if got := p.Below(place); got != want {
			t.Errorf("below %q: %v", place, got)
		}
	}
}

func TestAllProblemsAreReportedAtOnce(t *testing.T) {
	err := (&Config{}).Validate()
	for _, want := range []string{"grpc_addr: ", "admin_addr: ", "tls.cert_file: ", "tls.key_file: ", "log.format: ", "audit.destination: ", "issuers: ", "clusters: "} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

// document is the text that describes the file to people.
func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheExamplesOfTheDocumentAreValid(t *testing.T) {
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(document(t), -1)
	if len(examples) == 0 {
		t.Fatal("there is no example")
	}
	for _, e := range examples {
		if err := parse(t, e[1]).Validate(); err != nil {
			t.Errorf("%v in:\n%s", err, e[1])
		}
	}
}
