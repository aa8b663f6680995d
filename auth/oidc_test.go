package auth_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
)

func TestT_A2_AConfigurationThatCannotBeSafeIsRefused(t *testing.T) {
	if o, err := auth.NewOIDC([]auth.IssuerConfig{config(firstURL), config("http://127.0.0.1:1/path"), config("http://[::1]"), config("http://localhost")}); err != nil {
		t.Fatalf("a good configuration was refused: %v", err)
	} else {
		o.Close()
	}
	if _, err := auth.NewOIDC(nil); err == nil {
		t.Error("no issuer at all was accepted")
	}
	if _, err := auth.NewOIDC([]auth.IssuerConfig{config(firstURL), config(firstURL)}); err == nil {
		t.Error("one issuer twice was accepted")
	}
	extra := func(key, claim string) func(*auth.IssuerConfig) {
		return func(c *auth.IssuerConfig) { c.ExtraClaims = map[string]string{key: claim} }
	}
	for name, change := range map[string]func(*auth.IssuerConfig){
		"no audience":       func(c *auth.IssuerConfig) { c.Audiences = nil },
		"empty audience":    func(c *auth.IssuerConfig) { c.Audiences = []string{audience, ""} },
		"long URL":          func(c *auth.IssuerConfig) { c.URL += "/" + strings.Repeat("a", 1000) },
		"no extra key":      extra("", "team"),
		"upper extra key":   extra("Team", "team"),
		"spaced extra key":  extra("a b", "team"),
		"foreign extra key": extra("\u00e4", "team"),
		"escaped extra key": extra("a%2fb", "team"),
		"Kubernetes' own":   extra("authentication.kubernetes.io/pod-name", "team"),
		"Kubernetes' other": extra("k8s.io/a", "team"),
		"no extra claim":    extra("team", ""),
		"no URL":            func(c *auth.IssuerConfig) { c.URL = "" },
		"plain http":        func(c *auth.IssuerConfig) { c.URL = "http://one.example" },
		"like loopback":     func(c *auth.IssuerConfig) { c.URL = "http://127.0.0.1.example" },
		"relative":          func(c *auth.IssuerConfig) { c.URL = "one.example" },
		"query":             func(c *auth.IssuerConfig) { c.URL += "?" },
		"fragment":          func(c *auth.IssuerConfig) { c.URL += "#" },
		"user":              func(c *auth.IssuerConfig) { c.URL = "https://user:pass@one.example" },
		"other scheme":      func(c *auth.IssuerConfig) { c.URL = "file:///keys" },
		"HS256":             func(c *auth.IssuerConfig) { c.Algorithms = []string{"RS256", "HS256"} },
		"none":              func(c *auth.IssuerConfig) { c.Algorithms = []string{"none"} },
		"unknown algorithm": func(c *auth.IssuerConfig) { c.Algorithms = []string{"rs256"} },
		"empty algorithm":   func(c *auth.IssuerConfig) { c.Algorithms = []string{""} },
		"long leeway":       func(c *auth.IssuerConfig) { c.Leeway = 31 * time.Second },
		"negative leeway":   func(c *auth.IssuerConfig) { c.Leeway = -1 },
		"negative lifetime": func(c *auth.IssuerConfig) { c.MaxLifetime = -1 },
		"bad CA":            func(c *auth.IssuerConfig) { c.CA = []byte("not PEM") },
		"control in prefix": func(c *auth.IssuerConfig) { c.UsernamePrefix = "a\n" },
		"space in front":    func(c *auth.IssuerConfig) { c.GroupsPrefix = " a" },
	} {
		c := config(firstURL)
		change(&c)
		if _, err := auth.NewOIDC([]auth.IssuerConfig{c}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	c := config(firstURL)
	c.CA = []byte("anything")
	if _, err := auth.NewOIDC([]auth.IssuerConfig{c}, auth.WithTransport(newWeb())); err == nil {
		t.Error("a CA without effect was accepted")
	}
}
