package cluster

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

const (
	passthrough = sluicev1.Credential_CREDENTIAL_PASSTHROUGH
	kubeconfig  = sluicev1.Credential_CREDENTIAL_KUBECONFIG
)

// TestAllProblemsAreReported: a configuration is mended in one go.
func TestAllProblemsAreReported(t *testing.T) {
	ok := Config{Name: "ok", Server: "https://a.test", Credential: passthrough, Audiences: []string{"a"}}
	with := func(change func(*Config)) Config {
		c := ok
		change(&c)
		return c
	}
	cases := map[string]struct {
		config Config
		says   []string
	}{
		"name":               {with(func(c *Config) { c.Name = "Not_A_Name" }), []string{"a name must match"}},
		"long name":          {with(func(c *Config) { c.Name = strings.Repeat("a", 64) }), []string{"at most 63"}},
		"no source":          {with(func(c *Config) { c.Server = "" }), []string{"exactly one of"}},
		"two sources":        {with(func(c *Config) { c.InCluster = true }), []string{"exactly one of"}},
		"no credential":      {with(func(c *Config) { c.Credential = 0 }), []string{"no credential"}},
		"impersonate":        {with(func(c *Config) { c.Credential = sluicev1.Credential_CREDENTIAL_IMPERSONATE }), []string{"impersonate is not implemented"}},
		"any token":          {with(func(c *Config) { c.Audiences = nil }), []string{"needs audiences or issuers"}},
		"subjects for token": {with(func(c *Config) { c.Subjects = []string{"alice"} }), []string{"subjects belong"}},
		"any subject":        {with(func(c *Config) { c.Credential, c.Kubeconfig, c.Server, c.Audiences = kubeconfig, "x", "", nil }), []string{"needs subjects"}},
		"server's own":       {with(func(c *Config) { c.Credential, c.Subjects, c.Audiences = kubeconfig, []string{"alice"}, nil }), []string{"server has no credential"}},
		"in the clear":       {with(func(c *Config) { c.Server = "http://a.test" }), []string{"https"}},
		"user in URL":        {with(func(c *Config) { c.Server = "https://u:p@a.test" }), []string{"must not hold a user"}},
		"no kubeconfig":      {with(func(c *Config) { c.Kubeconfig, c.Server = "/does/not/exist", "" }), []string{"kubeconfig /does/not/exist"}},
		"not in a cluster":   {with(func(c *Config) { c.InCluster, c.Server = true, "" }), []string{"in-cluster"}},
		"bad CA":             {with(func(c *Config) { c.CA = []byte("x") }), []string{"root certificates"}},
		"several":            {with(func(c *Config) { c.Name, c.Server, c.Audiences = "", "", nil }), []string{"a name must", "exactly one", "needs audiences"}},
	}
	var all []Config
	var says []string
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			mentions(t, []Config{c.config}, c.says)
		})
		all, says = append(all, c.config), append(says, c.says...)
	}
	t.Run("together", func(t *testing.T) { mentions(t, append(all, ok, ok), append(says, "two clusters have this name")) })
	t.Run("none", func(t *testing.T) { mentions(t, nil, []string{"no clusters"}) })
}

func mentions(t *testing.T, configs []Config, says []string) {
	t.Helper()
	s, err := New(configs, "sluice/test", Timeouts{})
	if err == nil {
		s.Close()
		t.Fatal("accepted")
	}
	for _, what := range says {
		if !strings.Contains(err.Error(), what) {
			t.Errorf("%q is missing in %v", what, err)
		}
	}
	if strings.Contains(err.Error(), "u:p") {
		t.Errorf("told a password: %v", err)
	}
}

// TestKubeconfigWithoutServerIsNotThePod: client-go's usual loading takes the pod's service account where a kubeconfig says nothing.
func TestKubeconfigWithoutServerIsNotThePod(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
	t.Setenv("KUBERNETES_SERVICE_PORT", "1")
	file := writeKubeconfig(t, clientcmdapi.Config{})
	if _, err := New([]Config{own(file)}, "sluice/test", Timeouts{}); err == nil {
		t.Error("an empty kubeconfig was accepted")
	}
}

func TestListTellsWhatTheCredentialIsGoodFor(t *testing.T) {
	api := startAPIServer(t, nil)
	file := api.kubeconfig(t, clientcmdapi.AuthInfo{Token: "static"}, nil)
	s := newSet(t,
		Config{Name: "z-audience", Server: "https://a.test", Credential: passthrough, Audiences: []string{"kubernetes", "other"}},
		Config{Name: "other-audience", Server: "https://a.test", Credential: passthrough, Audiences: []string{"other"}},
		Config{Name: "issuer", Server: "https://a.test", Credential: passthrough, Issuers: []string{"https://issuer.test"}},
		Config{Name: "issuer-not-audience", Server: "https://a.test", Credential: passthrough, Issuers: []string{"https://issuer.test"}, Audiences: []string{"other"}},
		Config{Name: "other-issuer", Server: "https://a.test", Credential: passthrough, Issuers: []string{"https://issuer.test.other"}},
		Config{Name: "alices", Kubeconfig: file, Credential: kubeconfig, Subjects: []string{"alice"}},
		Config{Name: "bobs", Kubeconfig: file, Context: "dev", Credential: kubeconfig, Subjects: []string{"bob"}},
		Config{Name: "anybodys", Kubeconfig: file, Credential: kubeconfig, AnySubject: true},
	)
	names := func(p *auth.Principal) (out []string) {
		for _, c := range s.List(p) {
			out = append(out, c.GetName())
		}
		return out
	}
	if got, want := names(alice()), []string{"alices", "anybodys", "issuer", "z-audience"}; !reflect.DeepEqual(got, want) {
		t.Errorf("alice: %v", got)
	}
	if got, want := names(&auth.Principal{Username: "bob"}), []string{"anybodys", "bobs"}; !reflect.DeepEqual(got, want) {
		t.Errorf("bob, without a token: %v", got)
	}
	for _, name := range s.Names() {
		_, err := s.Resolve(name, alice())
		listed := strings.Contains(strings.Join(names(alice()), " ")+" ", name+" ")
		if e := status.From(err); listed && err != nil || !listed && (e.Code != codes.PermissionDenied || e.Reason != sluicev1.Reason_REASON_CREDENTIAL_NOT_ACCEPTED) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(api.seen()) > 0 {
		t.Error("something was dialled")
	}
}

func TestResolve(t *testing.T) {
	one := Config{Name: "one", ID: "uid", Server: "https://a.test", Credential: passthrough, Audiences: []string{"kubernetes"}}
	two := one
	two.Name, two.ID = "two", ""
	u, err := newSet(t, one).Resolve("", alice())
	if err != nil || u.Cluster() != "one" || u.Identity() != "uid" || u.Credential() != passthrough {
		t.Errorf("the only one: %v, %v", u, err)
	}
	s := newSet(t, one, two)
	if u, err := s.Resolve("two", alice()); err != nil || u.Identity() != "two" {
		t.Errorf("two: %v, %v", u, err)
	}
	if e := status.From(second(s.Resolve("", alice()))); e.Code != codes.InvalidArgument || !strings.Contains(e.Message, "one, two") {
		t.Errorf("no name: %v", e)
	}
	if e := status.From(second(s.Resolve("one", nil))); e.Code != codes.Unauthenticated {
		t.Errorf("nobody: %v", e)
	}
	stranger := &auth.Principal{Username: "carol"}
	if e := status.From(second(s.Resolve("", stranger))); strings.Contains(e.Message, "two") {
		t.Errorf("names told to whom they are no use: %v", e)
	}
}

func second(_ *Upstream, err error) error { return err }

// FuzzResolve proves of any cluster name that is none that nothing is dialled and that the error is safe to print (T-B8).
func FuzzResolve(f *testing.F) {
	for _, name := range []string{"dev", "Dev", "dev.", "10.0.0.1", "[::1%25lo]", "user@dev", "dev:443", "https://dev", "a\r\nb", "\xff", strings.Repeat("€", 100)} {
		f.Add(name)
	}
	s := newSet(f, Config{Name: "dev", Server: "https://a.test", Credential: passthrough, Audiences: []string{"kubernetes"}},
		Config{Name: "prod", Server: "https://b.test", Credential: passthrough, Audiences: []string{"kubernetes"}})
	f.Fuzz(func(t *testing.T, name string) {
		u, err := s.Resolve(name, alice())
		if name == "dev" || name == "prod" {
			if err != nil || u.Cluster() != name {
				t.Errorf("%s: %v", name, err)
			}
			return
		}
		e := status.From(err)
		if e == nil || e.Reason != sluicev1.Reason_REASON_UNKNOWN_CLUSTER || len(e.Message) > 600 || strings.ContainsAny(e.Message, "\r\n\x00") {
			t.Errorf("%q: %v", name, e)
		}
		if strings.ToValidUTF8(e.Message, "") != e.Message {
			t.Errorf("%q: message %q is not UTF-8", name, e.Message)
		}
	})
}

func TestContextsGetNames(t *testing.T) {
	arn := "arn:aws:eks:eu-west-1:123456789012:cluster/Prod"
	contexts := map[string]*clientcmdapi.Context{}
	for _, name := range []string{"dev", arn, "other:cluster/prod", "admin@dev", "???", strings.Repeat("x", 100)} {
		contexts[name] = &clientcmdapi.Context{}
	}
	file := writeKubeconfig(t, clientcmdapi.Config{Contexts: contexts, CurrentContext: "dev"})
	got, err := Contexts(file)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, c := range got {
		if !ValidName(c.Name) {
			t.Errorf("%q got %q, which is no name", c.Context, c.Name)
		}
		if other, taken := names[c.Name]; taken {
			t.Errorf("%q and %q are both %q", c.Context, other, c.Name)
		}
		if c.Current != (c.Context == "dev") || c.Context == "dev" && c.Name != "dev" || c.Context == arn && c.Name != "prod" {
			t.Errorf("%+v", c)
		}
		names[c.Name] = c.Context
	}
	again, _ := Contexts(file)
	if len(got) != 6 || fmt.Sprint(got) != fmt.Sprint(again) {
		t.Errorf("%v, then %v", got, again)
	}
}
