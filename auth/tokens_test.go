package auth_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
)

// both is a configured issuer and an API server behind one authenticator.
type both struct {
	single
	api    *apiServer
	tokens *auth.Tokens
}

func newBoth(t testing.TB) both {
	t.Helper()
	s := newSingle(t)
	api, reviews := newReviews(t, nil)
	return both{s, api, auth.NewTokens(s.oidc, reviews)}
}

// vouchFor makes the API server accept the token, as it would if it trusted the issuer too.
func (b both) vouchFor(token string) {
	b.api.set(func(s *apiServer) { s.users[token] = user("mallory") })
}

func TestATokenGoesToWhomeverItIsFor(t *testing.T) {
	b := newBoth(t)
	if p := mustAccept(t, b.tokens, b.sign(t, issuer.Claims{})); p.Authenticator != "oidc" || p.Issuer != firstURL {
		t.Errorf("a token of the issuer makes %+v", p)
	}
	if n := b.api.reviews(); n != 0 {
		t.Fatalf("a token of the issuer was reviewed")
	}
	if p := mustAccept(t, b.tokens, "alices"); p.Authenticator != "token_review" || p.Issuer != clusterName {
		t.Errorf("an opaque token makes %+v", p)
	}
	other, err := issuer.New("https://kubernetes.default.svc")
	if err != nil {
		t.Fatal(err)
	}
	// Of an issuer that is not configured, whatever else it speaks of.
	token := sign(t, other, issuer.Claims{Audience: []string{firstURL}, Subject: firstURL})
	b.vouchFor(token)
	if p := mustAccept(t, b.tokens, token); p.Authenticator != "token_review" {
		t.Errorf("a service account's token makes %+v", p)
	}
	for _, token := range []string{"bobs", "a.b.c", b.web.newIssuer(t, secondURL).KeyID()} {
		mustRefuse(t, b.tokens, token, invalid)
	}
	mustRefuse(t, b.tokens, strings.Repeat("a", auth.MaxTokenBytes+1), sluicev1.Reason_REASON_TOKEN_TOO_LARGE)
}

func TestEitherKindOfTokenMayBeUnknown(t *testing.T) {
	b := newBoth(t)
	_, reviews := newReviews(t, nil)
	genuine := b.sign(t, issuer.Claims{})
	only := auth.NewTokens(b.oidc, nil)
	mustAccept(t, only, genuine)
	mustRefuse(t, only, "alices", invalid)
	only = auth.NewTokens(nil, reviews)
	mustAccept(t, only, "alices")
	mustRefuse(t, only, genuine, invalid) // as the API server says
	only = auth.NewTokens(nil, nil)
	mustRefuse(t, only, "alices", invalid)
	mustRefuse(t, only, genuine, invalid)
}

// A3: what a configured issuer has signed is that issuer's alone, however it is written: its refusal is final, though the
// API server would accept the token, and the API server never sees it.
func TestT_A3_ATokenOfAConfiguredIssuerIsNeverShownToAnybodyElse(t *testing.T) {
	b := newBoth(t)
	base := fmt.Sprintf(`"sub":"alice","aud":%q,"exp":4102444800`, audience)
	iss := fmt.Sprintf(`"iss":%q`, firstURL)
	escaped := strings.ReplaceAll(iss, "/", `\/`)
	signed := func(payload string) string { return mustSignPayload(t, b.issuer, payload) }
	parts := strings.Split(b.sign(t, issuer.Claims{}), ".")
	for name, tc := range map[string]struct {
		token  string
		reason sluicev1.Reason
	}{
		"expired":                     {b.sign(t, issuer.Claims{Extra: map[string]any{"exp": 1}}), expired},
		"for another audience":        {b.sign(t, issuer.Claims{Audience: []string{"other"}}), otherAudience},
		"not yet valid":               {b.sign(t, issuer.Claims{NotBefore: time.Now().Add(time.Hour)}), notYet},
		"without a subject":           {b.sign(t, issuer.Claims{Extra: map[string]any{"sub": nil}}), invalid},
		"of a key that is not known":  {unknownKey(t, "unknown"), invalid},
		"with a broken signature":     {parts[0] + "." + parts[1] + ".AAAA", invalid},
		"of an algorithm not allowed": {forge(t, `{"alg":"HS256"}`, "{"+iss+"}", []byte("x")), invalid},
		"not for this use":            {forge(t, `{"alg":"ES256","typ":"logout+jwt"}`, "{"+iss+"}", []byte("x")), invalid},
		"with a header of no sense":   {forge(t, `{`, "{"+iss+"}", []byte("x")), invalid},
		"with an escaped value":       {forge(t, `{}`, "{"+escaped+"}", []byte("x")), invalid},
		"in another case":             {signed(`{"Iss":` + iss[6:] + "," + base + "}"), invalid},
		"in capitals":                 {signed(`{"ISS":` + iss[6:] + "," + base + "}"), invalid},
		"in a case of Unicode's":      {signed(`{"i` + "\u017f\u017f" + `":` + iss[6:] + "," + base + "}"), invalid},
		"with an escaped name":        {signed(`{"\u0069ss":` + iss[6:] + "," + base + "}"), invalid},
		"behind an escaped name":      {signed(`{"\u0061":1,"ISS":` + iss[6:] + "," + base + "}"), invalid},
		"as the second of two":        {signed(`{"iss":"https://kubernetes.default.svc",` + iss + "," + base + "}"), invalid},
		"as the first of two":         {signed("{" + iss + `,"iss":"https://kubernetes.default.svc",` + base + "}"), invalid},
		"deep":                        {signed("{" + iss + "," + base + `,"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "}"), invalid},
		"not quite JSON":              {signed("{" + iss + "," + base + ",}"), invalid},
		"not quite text":              {signed("{" + iss + "," + base + ",\"a\":\"\xff\"}"), invalid},
		"padded":                      {parts[0] + "." + base64.URLEncoding.EncodeToString([]byte("{"+iss+"}")) + "." + parts[2], invalid},
		"in the standard alphabet": {
			parts[0] + "." + base64.RawStdEncoding.EncodeToString([]byte("{"+iss+`,"a":"`+"\u07ff\u07ff\u07fe\u07ff"+`"}`)) + "." + parts[2], invalid,
		},
	} {
		b.vouchFor(tc.token)
		t.Run(name, func(t *testing.T) { mustRefuse(t, b.tokens, tc.token, tc.reason) })
	}
	b.api.set(func(s *apiServer) {
		if len(s.asked) > 0 {
			t.Errorf("%d tokens were shown to the API server", len(s.asked))
		}
	})
}

func TestT_A5_WhatAnIssuerThatIsAwayCannotSayNobodyElseSays(t *testing.T) {
	b := newBoth(t)
	token := b.sign(t, issuer.Claims{})
	b.vouchFor(token)
	b.web.set(func(w *web) { w.down = true })
	mustRefuse(t, b.tokens, token, unavailable)
	if n := b.api.reviews(); n != 0 {
		t.Errorf("it was shown to the API server")
	}
}

func TestRecheckAsksWhoeverProvedIt(t *testing.T) {
	b := newBoth(t)
	signed, reviewed := mustAccept(t, b.tokens, b.sign(t, issuer.Claims{})), mustAccept(t, b.tokens, "alices")
	ca := newCA(t)
	certificates := ca.newCertificates(t, nil)
	leaf := ca.issue(t, nil)
	shown := mustShow(t, certificates, leaf)
	all := auth.NewRechecks(b.tokens, certificates)

	b.web.set(func(w *web) { w.down = true })
	for name, p := range map[string]*auth.Principal{"oidc": signed, "token_review": reviewed, "certificate": shown} {
		if newest, err := all.Recheck(t.Context(), p); err != nil || !newest.Same(p) || newest.Authenticator != name {
			t.Errorf("%s: %v, %v", name, newest, err)
		}
	}
	if n := b.api.reviews(); n != 2 {
		t.Errorf("%d reviews", n)
	}
	b.api.set(func(s *apiServer) { delete(s.users, "alices") })
	_, err := all.Recheck(t.Context(), reviewed)
	wantRefusal(t, nil, err, invalid)

	api, reviews := newReviews(t, nil)
	api.set(func(s *apiServer) { s.users[signed.Credential().Reveal()] = user("alice") })
	for name, tc := range map[string]struct {
		all auth.Rechecker
		p   *auth.Principal
	}{
		"nobody":          {all, &auth.Principal{Authenticator: "other"}},
		"no OIDC":         {auth.NewRechecks(auth.NewTokens(nil, reviews), certificates), signed},
		"no reviews":      {auth.NewRechecks(auth.NewTokens(b.oidc, nil), certificates), reviewed},
		"no certificates": {auth.NewRechecks(b.tokens, nil), shown},
		"no tokens":       {auth.NewRechecks(nil, certificates), signed},
	} {
		_, err := tc.all.Recheck(t.Context(), tc.p)
		t.Log(name)
		if err == nil {
			t.Errorf("%s: still good", name)
			continue
		}
		wantRefusal(t, nil, err, invalid)
	}
}

// TestT_A3_WhateverNamesAConfiguredIssuerStaysHome makes payloads of every spelling that a reader of JSON may take for `iss`.
func TestT_A3_WhateverNamesAConfiguredIssuerStaysHome(t *testing.T) {
	b := newBoth(t)
	member := rapid.Custom(func(t *rapid.T) string {
		name := rapid.SampledFrom([]string{`"iss"`, `"ISS"`, `"iſs"`, `"\u0069ss"`, `"sub"`, `"a\n"`}).Draw(t, "name")
		value := rapid.SampledFrom([]string{`"` + firstURL + `"`, `"https:\/\/one.example"`, `"other"`, `1`, `[[]]`, `null`}).Draw(t, "value")
		return name + rapid.SampledFrom([]string{":", " : "}).Draw(t, "colon") + value
	})
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfN(member, 1, 6).Draw(t, "members")
		payload := "{" + strings.Join(members, ",") + rapid.SampledFrom([]string{"}", "", "}}", ",}"}).Draw(t, "end")
		token := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"unknown"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".AAAA"
		names := slices.ContainsFunc(members, func(m string) bool {
			return !strings.HasPrefix(m, `"sub"`) && !strings.HasPrefix(m, `"a`) && strings.Contains(m, "one.example")
		})
		before := b.api.reviews()
		if _, err := b.tokens.Authenticate(t.Context(), auth.NewSecret(token)); err == nil {
			t.Fatalf("accepted %s", payload)
		}
		if names && b.api.reviews() != before {
			t.Fatalf("the API server was shown %s", payload)
		}
	})
}

// FuzzTokens replaces {H}, {P} and {S} as FuzzToken does, behind an API server that accepts everything it is shown: nothing
// that carries the genuine payload may get there.
func FuzzTokens(f *testing.F) {
	b := newBoth(f)
	good := sign(f, b.issuer, issuer.Claims{Expiry: time.Now().Add(1000 * time.Hour)})
	parts := strings.Split(good, ".")
	for _, seed := range []string{
		"{H}.{P}.{S}", "{H}.{P}.", "{H}.{P}=.{S}", "{P}.{H}.{S}", ".{P}.", "{H}{P}", "opaque", "e30.{P}.AA", "{H}.e30.{S}", "{H}.eyJpc3MiOjF9.{S}", "a.a.a.a",
	} {
		f.Add(seed)
	}
	fill := strings.NewReplacer("{H}", parts[0], "{P}", parts[1], "{S}", parts[2])
	f.Fuzz(func(t *testing.T, template string) {
		token := fill.Replace(template)
		b.vouchFor(token)
		p, err := authenticate(t, b.tokens, token)
		b.api.set(func(s *apiServer) { s.users, s.asked = map[string]auth.Review{}, nil })
		if (p == nil) == (err == nil) {
			t.Fatalf("got principal %v and error %v", p, err)
		}
		if err != nil {
			return
		}
		pieces := strings.Split(token, ".")
		if jws := len(pieces) == 3; jws && strings.TrimRight(pieces[1], "=") == parts[1] && p.Authenticator != "oidc" {
			t.Fatalf("%q was shown to the API server", token)
		}
		if p.Authenticator == "oidc" && !strings.HasPrefix(token, parts[0]+"."+parts[1]+".") {
			t.Fatalf("accepted %q", token)
		}
	})
}

// T_A15, behind every way a token can take: refused by the issuer, by the order, by the API server, by its rate, or for
// being known as refused. What a review itself costs is the API server's client's.
func TestT_A15_ARejectedTokenCostsLittleMemoryWhereverItGoes(t *testing.T) {
	b := newBoth(t)
	genuine := mustAccept(t, b.tokens, b.sign(t, issuer.Claims{}))
	mustRefuse(t, b.tokens, unknownKey(t, "unknown"), invalid)
	tokens := hostile(t, b.single)
	iss := `"iss":"` + firstURL + `"`
	fill := func(open, element, end string) string {
		return open + strings.Repeat(element, (5900-len(open)-len(end))/len(element)) + end
	}
	known := fmt.Sprintf(`{"alg":"ES256","kid":%q}`, genuine.KeyID)
	tokens["a known key's, forged"] = forge(t, known, fill("{"+iss+`,"pad":"`, "x", `"}`), make([]byte, 64))
	tokens["a known key's, genuine and expired"] = mustSignPayload(t, b.issuer, fill("{"+iss+`,"exp":1,"sub":"a","aud":"sluice","pad":"`, "x", `"}`))
	tokens["not JSON"] = forge(t, "{}", fill("", "{", ""), make([]byte, 64))
	tokens["no header"] = forge(t, "x", fill(`{"pad":"`, "x", `"}`), make([]byte, 64))
	tokens["another issuer's"] = forge(t, known, fill(`{"iss":"https://other.example","pad":"`, "x", `"}`), make([]byte, 64))
	tokens["many issuers in capitals"] = forge(t, known, fill("{"+`"ISS":1`, `,"ISS":"\n"`, "}"), make([]byte, 64))
	tokens["many escaped names"] = forge(t, known, fill(`{"a":1`, `,"\n":0`, "}"), make([]byte, 64))
	tokens["many dots"] = strings.Repeat("a.", auth.MaxTokenBytes/2-1) + "a"
	for name, token := range tokens {
		if len(token) > auth.MaxTokenBytes {
			t.Fatalf("%s is %d bytes long", name, len(token))
		}
		if got := allocated(t, b.tokens, token, 50); got > 16<<10 {
			t.Errorf("%s: %d bytes were allocated to reject %d", name, got, len(token))
		}
	}
}

// The API server refuses each time, as no refusal is remembered for longer than a second.
func TestT_A15_AReviewedTokenCostsLittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoth(t)
		b.api.set(func(s *apiServer) { s.refusal = "invalid bearer token" })
		const times = 50
		for name, token := range map[string]string{
			"opaque": strings.Repeat("a", auth.MaxTokenBytes), "dots": strings.Repeat("a.", auth.MaxTokenBytes/2-1) + "a",
			"JWT": forge(t, `{"alg":"ES256"}`, `{"pad":"`+strings.Repeat("x", 5900)+`"}`, make([]byte, 64)),
		} {
			var sum uint64
			for range times {
				sum += allocated(t, b.tokens, token, 1)
				<-time.After(time.Second)
			}
			if got := sum / times; got > 16<<10 {
				t.Errorf("%s: %d bytes were allocated to reject %d", name, got, len(token))
			}
		}
	})
}
