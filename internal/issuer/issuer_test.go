package issuer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/issuer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served is an issuer behind a real listener, and a client that holds no idle links.
type served struct {
	*issuer.Issuer
	client *http.Client
}

func serve(t *testing.T, path string, opts ...issuer.Option) served {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	i, err := issuer.New("http://"+server.Listener.Addr().String()+path, opts...)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	server.Config.Handler = i.Handler()
	server.Start()
	t.Cleanup(server.Close)
	return served{i, server.Client()}
}

func (s served) verify(t *testing.T, token string) (*oidc.IDToken, error) {
	t.Helper()
	ctx := oidc.ClientContext(t.Context(), s.client)
	provider, err := oidc.NewProvider(ctx, s.URL())
	if err != nil {
		t.Fatalf("discover %s: %v", s.URL(), err)
	}
	return provider.VerifierContext(ctx, &oidc.Config{ClientID: "sluice"}).Verify(ctx, token)
}

func mustSign(t *testing.T, i *issuer.Issuer, c issuer.Claims) string {
	t.Helper()
	token, err := i.Sign(c)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	return token
}

func TestAnIndependentClientDiscoversAndVerifies(t *testing.T) {
	for name, tc := range map[string]struct {
		path string
		opts []issuer.Option
	}{
		"ES256 by default":   {path: ""},
		"RS256":              {path: "", opts: []issuer.Option{issuer.WithAlgorithm(jose.RS256)}},
		"below a path":       {path: "/realms/one"},
		"below a path slash": {path: "/realms/one/"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, tc.path, tc.opts...)
			got, err := s.verify(t, mustSign(t, s.Issuer, issuer.Claims{
				Subject: "alice", Audience: []string{"sluice", "other"}, Groups: []string{"dev"},
				Email: "alice@example.com", Extra: map[string]any{"team": "blue"},
			}))
			if err != nil {
				t.Fatalf("Verify: %v", err)
			}
			var claims struct {
				Groups []string `json:"groups"`
				Email  string   `json:"email"`
				Team   string   `json:"team"`
				ID     string   `json:"jti"`
			}
			if err := got.Claims(&claims); err != nil {
				t.Fatalf("Claims: %v", err)
			}
			if got.Issuer != s.URL() || got.Subject != "alice" || !slices.Equal(claims.Groups, []string{"dev"}) ||
				claims.Email != "alice@example.com" || claims.Team != "blue" || claims.ID == "" {
				t.Errorf("token says %+v %+v", got, claims)
			}
			if life := got.Expiry.Sub(got.IssuedAt); life != time.Hour {
				t.Errorf("lifetime %v, want an hour", life)
			}
		})
	}
}

func TestRotationKeepsOldKeysUntilForgotten(t *testing.T) {
	s := serve(t, "")
	claims := issuer.Claims{Subject: "alice", Audience: []string{"sluice"}}
	before, firstID := mustSign(t, s.Issuer, claims), s.KeyID()
	if err := s.Rotate(); err != nil {
		t.Fatal(err)
	}
	if s.KeyID() == firstID {
		t.Error("rotation kept the key")
	}
	after := mustSign(t, s.Issuer, claims)
	for name, token := range map[string]string{"old": before, "new": after} {
		if _, err := s.verify(t, token); err != nil {
			t.Errorf("%s key after Rotate: %v", name, err)
		}
	}
	s.Forget()
	if _, err := s.verify(t, before); err == nil {
		t.Error("a forgotten key still verifies")
	}
	if _, err := s.verify(t, after); err != nil {
		t.Errorf("the signing key was forgotten: %v", err)
	}
}

func TestExtraClaimsWinAndNilRemoves(t *testing.T) {
	i, err := issuer.New("http://127.0.0.1/")
	if err != nil {
		t.Fatal(err)
	}
	token := mustSign(t, i, issuer.Claims{Subject: "alice", Extra: map[string]any{"sub": "bob", "exp": nil}})
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims); err != nil {
		t.Fatal(err)
	}
	if _, has := claims["exp"]; has || claims["sub"] != "bob" {
		t.Errorf("claims %v", claims)
	}
}

func TestPublicKeyPEMIsTheSigningKey(t *testing.T) {
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256} {
		i, err := issuer.New("http://127.0.0.1/", issuer.WithAlgorithm(alg))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(i.PublicKeyPEM())
		if block == nil {
			t.Fatalf("%s: not PEM", alg)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatalf("%s: %v", alg, err)
		}
		signed, err := jose.ParseSignedCompact(mustSign(t, i, issuer.Claims{Subject: "alice"}), []jose.SignatureAlgorithm{alg})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := signed.Verify(key); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestKeySetHoldsNoPrivateKey(t *testing.T) {
	s := serve(t, "")
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, s.URL()+"/keys", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var set jose.JSONWebKeySet
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		t.Fatal(err)
	}
	if len(set.Keys) != 1 || resp.Header.Get("Cache-Control") == "" {
		t.Fatalf("%d keys, Cache-Control %q", len(set.Keys), resp.Header.Get("Cache-Control"))
	}
	switch set.Keys[0].Key.(type) {
	case *ecdsa.PublicKey, *rsa.PublicKey:
	default:
		t.Errorf("published a %T", set.Keys[0].Key)
	}
}

func TestBadConfigurationIsRefused(t *testing.T) {
	for _, bad := range []string{"", "issuer", "ftp://127.0.0.1", "http://", "http://127.0.0.1?a=b", "http://127.0.0.1#a", "http://u:p@127.0.0.1", "http://%"} {
		if _, err := issuer.New(bad); err == nil {
			t.Errorf("New(%q) was accepted", bad)
		}
	}
	for _, alg := range []jose.SignatureAlgorithm{jose.HS256, "none", ""} {
		if _, err := issuer.New("http://127.0.0.1", issuer.WithAlgorithm(alg)); err == nil {
			t.Errorf("algorithm %q was accepted", alg)
		}
	}
}
