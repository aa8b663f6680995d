package auth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"
)

const (
	defaultLeeway = 10 * time.Second
	maxLeeway     = 30 * time.Second
)

// IssuerConfig says which tokens of one issuer are accepted, and whom they name.
type IssuerConfig struct {
	// URL is the issuer's `iss`, byte for byte: an https URL, or http on a
	// loopback address. Below it lies /.well-known/openid-configuration.
	URL string
	// Audiences is who a token may be meant for: one of these must be in its
	// `aud`. At least one is required.
	Audiences []string
	// AuthorizedParties are the clients, beside Audiences, that may have
	// obtained a token of several audiences (`azp`).
	AuthorizedParties []string
	// CA holds the certificates (PEM) that may have signed the issuer's; empty
	// means the system's.
	CA []byte

	// UsernameClaim is the claim that names the user, by default `sub`. An
	// `email` must not be marked unverified.
	UsernameClaim  string
	UsernamePrefix string
	// GroupsClaim is the claim, a string or a list of them, that names the
	// user's groups, by default `groups`.
	GroupsClaim  string
	GroupsPrefix string
	// UIDClaim is the claim that tells apart two holders of one subject; empty
	// means that the subject alone does.
	UIDClaim string
	// ExtraClaims are the claims, each a string or a list of them, that go to a
	// cluster as extra attributes of the user, by the attribute's key: lower-case,
	// and none of Kubernetes' own (k8s.io, kubernetes.io).
	ExtraClaims map[string]string

	// Algorithms are the accepted ones among [Algorithms]; empty means all.
	Algorithms []string
	// Leeway is by how much the issuer's clock may be ahead, for `nbf` and
	// `iat`: at most 30 s, 0 means 10 s. Tokens never outlive their `exp`, as no
	// API server would accept them either.
	Leeway time.Duration
	// MaxLifetime is the longest accepted time from `iat` (without one: from
	// now) to `exp`; 0 means any.
	MaxLifetime time.Duration
}

func (c IssuerConfig) withDefaults() IssuerConfig {
	if c.UsernameClaim == "" {
		c.UsernameClaim = "sub"
	}
	if c.GroupsClaim == "" {
		c.GroupsClaim = "groups"
	}
	if c.Leeway == 0 {
		c.Leeway = defaultLeeway
	}
	if len(c.Algorithms) == 0 {
		c.Algorithms = Algorithms()
	}
	return c
}

func (c IssuerConfig) check() error {
	if _, err := parseIssuerURL(c.URL); err != nil {
		return fmt.Errorf("URL %w", err)
	}
	if len(c.URL) > maxIssuerBytes/2 {
		return fmt.Errorf("URL is longer than %d bytes", maxIssuerBytes/2)
	}
	if len(c.Audiences) == 0 || slices.Contains(c.Audiences, "") {
		return errors.New("at least one audience is required, and none may be empty")
	}
	for _, algorithm := range c.Algorithms {
		if schemes[algorithm] == nil {
			return fmt.Errorf("algorithm %q is not one of %v", algorithm, Algorithms())
		}
	}
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		return fmt.Errorf("leeway %v is not between 0 and %v", c.Leeway, maxLeeway)
	}
	if c.MaxLifetime < 0 {
		return fmt.Errorf("maximum lifetime %v is negative", c.MaxLifetime)
	}
	for key, claim := range c.ExtraClaims {
		if !cleanKey(key) || reservedKey(key) || claim == "" {
			return fmt.Errorf("extra claim %q as %q: the key must be lower-case, in ASCII and not one of Kubernetes', and the claim not empty", claim, key)
		}
	}
	return checkPrefixes(c.UsernamePrefix, c.GroupsPrefix)
}

func (c IssuerConfig) transport(override http.RoundTripper) (http.RoundTripper, error) {
	if override != nil {
		if len(c.CA) > 0 {
			return nil, errors.New("a CA has no effect on a transport given by option")
		}
		return override, nil
	}
	if len(c.CA) == 0 {
		return newTransport(nil), nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(c.CA) {
		return nil, errors.New("CA holds no certificate in PEM")
	}
	return newTransport(roots), nil
}
