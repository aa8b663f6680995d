package auth_test

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/auth"
)

func TestSameAndKeyAgree(t *testing.T) {
	// A tiny alphabet, so that equal fields and shifted boundaries are common.
	part := rapid.StringOfN(rapid.SampledFrom([]rune("ab\x00")), 0, 3, -1)
	drawn := rapid.Custom(func(t *rapid.T) *auth.Principal {
		return &auth.Principal{
			Authenticator: part.Draw(t, "authenticator"), Issuer: part.Draw(t, "issuer"),
			Subject: part.Draw(t, "subject"), UID: part.Draw(t, "uid"),
			Username: part.Draw(t, "username"), Groups: []string{part.Draw(t, "group")},
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawn.Draw(t, "a"), drawn.Draw(t, "b")
		identity := func(p *auth.Principal) [4]string {
			return [4]string{p.Authenticator, p.Issuer, p.Subject, p.UID}
		}
		want := identity(a) == identity(b)
		if a.Same(b) != want || b.Same(a) != want || (a.Key() == b.Key()) != want {
			t.Fatalf("Same %v, keys %s and %s, want %v", a.Same(b), a.Key(), b.Key(), want)
		}
	})
}

func TestNobodyIsNotTheSameAsAnyone(t *testing.T) {
	var nobody *auth.Principal
	if nobody.Same(nobody) || nobody.Same(&auth.Principal{}) || (&auth.Principal{}).Same(nobody) {
		t.Error("an absent principal was the same as another")
	}
}

func TestKeyIsStable(t *testing.T) {
	p := &auth.Principal{Authenticator: "oidc", Issuer: firstURL, Subject: "alice"}
	// Written down: audit lines and stores compare keys of different releases.
	const want = "38b781eee2db1743eefa25499b2d21a5a2f29faa66645792c37de57143780595"
	if got := p.Key(); got != want {
		t.Errorf("Key() = %s, want %s", got, want)
	}
}

func TestContextCarriesThePrincipal(t *testing.T) {
	p := &auth.Principal{Username: "alice"}
	if got, ok := auth.FromContext(auth.NewContext(context.Background(), p)); !ok || got != p {
		t.Errorf("FromContext = %v, %v", got, ok)
	}
	for name, ctx := range map[string]context.Context{
		"empty": context.Background(), "nil principal": auth.NewContext(context.Background(), nil),
	} {
		if got, ok := auth.FromContext(ctx); ok || got != nil {
			t.Errorf("%s context carries %v", name, got)
		}
	}
}

func TestWithCredentialLeavesTheOriginalAlone(t *testing.T) {
	p := &auth.Principal{Username: "alice", ExpiresAt: time.Unix(1, 0)}
	q := p.WithCredential(auth.NewSecret("secret"))
	if !p.Credential().IsZero() || q.Credential().Reveal() != "secret" || q.Username != "alice" || !q.ExpiresAt.Equal(p.ExpiresAt) {
		t.Errorf("got %v, original %v", q, p)
	}
}

// HL-D25: cluster and user were joined without a separator, so that two pairs could make one key. No two principals share one here.
func TestHL_D25_KeysAreNotAmbiguous(t *testing.T) {
	parts := []string{"", "a", "b", "ab", "aa", "a\x00", "\x00a", "a|b", "1", "11"}
	seen := map[string]auth.Principal{}
	for _, authenticator := range parts {
		for _, issuer := range parts {
			for _, subject := range parts {
				for _, uid := range parts {
					p := auth.Principal{Authenticator: authenticator, Issuer: issuer, Subject: subject, UID: uid}
					if other, ok := seen[p.Key()]; ok {
						t.Fatalf("%q and %q share a key", []string{authenticator, issuer, subject, uid},
							[]string{other.Authenticator, other.Issuer, other.Subject, other.UID})
					}
					seen[p.Key()] = p
				}
			}
		}
	}
}
