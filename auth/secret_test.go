package auth_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/issuer"
)

// canary is a token whose every part would be recognised.
const canary = "canaryHEADER.canaryPAYLOAD.canarySIGNATURE"

// leaks returns a form of any part of the token that one of the texts shows.
func leaks(texts map[string]string, token string) string {
	var all strings.Builder
	for _, text := range texts {
		all.WriteString(strings.ToLower(text) + "\n")
	}
	parts := append(strings.Split(token, "."), token)
	slices.Sort(parts)
	for _, part := range slices.Compact(parts) {
		for _, form := range []string{
			part, url.QueryEscape(part), base64.StdEncoding.EncodeToString([]byte(part)), fmt.Sprintf("%x", part), fmt.Sprintf("%v", []byte(part)),
		} {
			if part != "" && strings.Contains(all.String(), strings.ToLower(form)) {
				return form
			}
		}
	}
	return ""
}

// renderings returns every way in which a value may end up as text.
func renderings(t *testing.T, v any) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, flags := range []string{"", "+", "#", "-20", "020", " ", ".3", "+#"} {
		for verb := 'A'; verb <= 'z'; verb++ {
			format := "%" + flags + string(verb)
			all[format] = fmt.Sprintf(format, v)
		}
	}
	all["Sprint"], all["Sprintln"] = fmt.Sprint(v), fmt.Sprintln(v)
	for name, encode := range map[string]func(any) ([]byte, error){"json": json.Marshal, "xml": xml.Marshal} {
		encoded, err := encode(v)
		all[name] = fmt.Sprintf("%s %v", encoded, err)
	}
	var text, jsonText bytes.Buffer
	for name, handler := range map[string]struct {
		slog.Handler
		*bytes.Buffer
	}{
		"slog text": {slog.NewTextHandler(&text, nil), &text},
		"slog json": {slog.NewJSONHandler(&jsonText, nil), &jsonText},
	} {
		slog.New(handler.Handler).Info("message", "value", v, slog.Group("in", "side", v), "list", []any{v})
		all[name] = handler.String()
	}
	return all
}

func TestT_A10_ASecretNeverPrints(t *testing.T) {
	secret := auth.NewSecret(canary)
	p := (&auth.Principal{Username: "alice"}).WithCredential(secret)
	type exported struct{ Token auth.Secret }
	type unexported struct{ token auth.Secret }
	for name, v := range map[string]any{
		"secret": secret, "pointer": &secret, "field": exported{secret}, "hidden field": unexported{secret},
		"slice": []auth.Secret{secret}, "map": map[string]auth.Secret{"authorization": secret},
		"principal": p, "principal value": *p, "principals": []*auth.Principal{p}, "principal values": []auth.Principal{*p},
		"context": auth.NewContext(context.Background(), p), "error": fmt.Errorf("with %v: %w", secret, errors.New("cause")),
	} {
		if form := leaks(renderings(t, v), canary); form != "" {
			t.Errorf("%s shows %q", name, form)
		}
	}
	shown := renderings(t, secret)
	for _, how := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "%-20s", "Sprint", "json", "xml", "slog text", "slog json"} {
		if !strings.Contains(shown[how], "[redacted]") {
			t.Errorf("%s gives %q, which hides that something was there", how, shown[how])
		}
	}
	if secret.Reveal() != canary || p.Credential().Reveal() != canary {
		t.Error("Reveal does not return the credential")
	}
}

func TestT_A10_ErrorsNeverShowTheToken(t *testing.T) {
	s := newSingle(t, func(c *auth.IssuerConfig) { c.UsernameClaim = "email" })
	good := s.sign(t, issuer.Claims{Email: "alice@example.com"})
	tokens := map[string]string{
		"not a token":     canary,
		"bad signature":   good[:len(good)-8] + "AAAAAAAA",
		"too large":       strings.Repeat("canary.", 2000),
		"bad claim":       s.sign(t, issuer.Claims{Subject: "canary\nsubject", Email: "alice@example.com"}),
		"bad email":       s.sign(t, issuer.Claims{Email: "canary@one@two"}),
		"wrong audience":  s.sign(t, issuer.Claims{Audience: []string{"canary-audience"}}),
		"expired":         s.sign(t, issuer.Claims{Extra: map[string]any{"exp": 1}}),
		"bad expiry":      s.sign(t, issuer.Claims{Extra: map[string]any{"exp": "canary"}}),
		"foreign party":   s.sign(t, issuer.Claims{Audience: []string{audience, "b"}, Extra: map[string]any{"azp": "canary-party"}}),
		"unknown key":     forge(t, `{"alg":"ES256","kid":"canary"}`, `{"iss":"`+firstURL+`"}`, []byte("canary")),
		"unknown issuer":  forge(t, `{"alg":"ES256","kid":"canary"}`, `{"iss":"https://canary.example"}`, []byte("canary")),
		"repeated claims": mustSignPayload(t, s.issuer, `{"iss":"`+firstURL+`","canary":1,"canary":2}`),
	}
	for name, token := range tokens {
		_, err := authenticate(t, s.oidc, token)
		if err == nil {
			t.Errorf("%s was accepted", name)
			continue
		}
		shown := renderings(t, err)
		if form := leaks(shown, token); form != "" {
			t.Errorf("%s: the error shows %q", name, form)
		}
		if leaks(shown, "canary") != "" {
			t.Errorf("%s: the error shows what the token claims: %v", name, err)
		}
	}
	for _, values := range [][]string{{"Bearer " + canary + ","}, {"Basic " + canary}, {"Bearer " + canary, "Bearer " + canary}, {"Bearer " + strings.Repeat(canary, 300)}} {
		_, err := auth.Bearer(values)
		if form := leaks(renderings(t, err), canary); err == nil || form != "" {
			t.Errorf("Bearer's error %v shows %q", err, form)
		}
	}
}

func TestZeroSecretIsEmpty(t *testing.T) {
	for _, s := range []auth.Secret{{}, auth.NewSecret("")} {
		if !s.IsZero() || s.Reveal() != "" {
			t.Errorf("%v holds %q", s.IsZero(), s.Reveal())
		}
	}
	if auth.NewSecret("x").IsZero() {
		t.Error("a secret claims to be empty")
	}
}
