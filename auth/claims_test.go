package auth_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	strictjson "github.com/go-jose/go-jose/v4/json"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
)

const (
	accepted      = sluicev1.Reason_REASON_UNSPECIFIED
	invalid       = sluicev1.Reason_REASON_INVALID_TOKEN
	expired       = sluicev1.Reason_REASON_EXPIRED
	notYet        = sluicev1.Reason_REASON_NOT_YET_VALID
	otherAudience = sluicev1.Reason_REASON_AUDIENCE
)

// check authenticates a token with these extra claims.
func (s single) check(t *testing.T, extra map[string]any, want sluicev1.Reason) *auth.Principal {
	t.Helper()
	token := s.sign(t, issuer.Claims{Extra: extra})
	if want == accepted {
		return mustAccept(t, s.oidc, token)
	}
	mustRefuse(t, s.oidc, token, want)
	return nil
}

func TestT_A2_OnlyTokensForThisAudience(t *testing.T) {
	s := newSingle(t, func(c *auth.IssuerConfig) {
		c.Audiences = []string{audience, "sluice-cli"}
		c.AuthorizedParties = []string{"console"}
	})
	for name, tc := range map[string]struct {
		aud, azp any
		want     sluicev1.Reason
	}{
		"ours":                        {audience, nil, accepted},
		"our other one":               {"sluice-cli", nil, accepted},
		"in a list":                   {[]string{audience}, nil, accepted},
		"among others":                {[]string{"other", audience}, nil, accepted},
		"none":                        {nil, nil, otherAudience},
		"null":                        {json.RawMessage("null"), nil, otherAudience},
		"empty list":                  {[]string{}, nil, otherAudience},
		"other":                       {"other", nil, otherAudience},
		"others":                      {[]string{"other", "another"}, nil, otherAudience},
		"prefix":                      {"sluic", nil, otherAudience},
		"suffix":                      {"sluice-", nil, otherAudience},
		"other case":                  {"Sluice", nil, otherAudience},
		"joined":                      {"other sluice", nil, otherAudience},
		"as a client only":            {"other", audience, otherAudience},
		"empty":                       {"", nil, invalid},
		"number":                      {1, nil, invalid},
		"object":                      {map[string]string{"a": audience}, nil, invalid},
		"mixed list":                  {[]any{audience, 1}, nil, invalid},
		"list of lists":               {[]any{[]string{audience}}, nil, invalid},
		"single, party ours":          {audience, audience, accepted},
		"single, party any":           {audience, "other", accepted},
		"several, party ours":         {[]string{audience, "other"}, audience, accepted},
		"several, party our other":    {[]string{audience, "other"}, "sluice-cli", accepted},
		"several, party authorized":   {[]string{audience, "other"}, "console", accepted},
		"several, party other":        {[]string{audience, "other"}, "other", otherAudience},
		"several, party in case":      {[]string{audience, "other"}, "Console", otherAudience},
		"several, party not a string": {[]string{audience, "other"}, []string{"console"}, invalid},
		"several, party empty":        {[]string{audience, "other"}, "", invalid},
	} {
		t.Run(name, func(t *testing.T) {
			s.check(t, map[string]any{"aud": tc.aud, "azp": tc.azp}, tc.want)
		})
	}
}

func TestT_A6_Times(t *testing.T) {
	s := newSingle(t)
	now := time.Now()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	for name, tc := range map[string]struct {
		claim string
		value any
		want  sluicev1.Reason
	}{
		"expiry ahead":           {"exp", at(time.Minute), accepted},
		"expiry far ahead":       {"exp", at(100 * 365 * 24 * time.Hour), accepted},
		"expiry in year 9999":    {"exp", 253402300799, accepted},
		"expiry in year 10000":   {"exp", 253402300800, invalid},
		"expiry just over":       {"exp", at(-time.Second), expired},
		"expiry long over":       {"exp", at(-1000 * time.Hour), expired},
		"expiry 0":               {"exp", 0, expired},
		"no expiry":              {"exp", nil, invalid},
		"expiry null":            {"exp", raw("null"), invalid},
		"expiry negative":        {"exp", -1, invalid},
		"expiry minus 0":         {"exp", raw("-0"), invalid},
		"expiry float":           {"exp", raw(fmt.Sprint(at(time.Minute), ".5")), invalid},
		"expiry point 0":         {"exp", raw(fmt.Sprint(at(time.Minute), ".0")), invalid},
		"expiry exponent":        {"exp", raw("1e10"), invalid},
		"expiry 1e308":           {"exp", raw("1e308"), invalid},
		"expiry 1e999":           {"exp", raw("1e999"), invalid},
		"expiry over int64":      {"exp", raw("9223372036854775808"), invalid},
		"expiry max int64":       {"exp", int64(math.MaxInt64), invalid},
		"expiry string":          {"exp", fmt.Sprint(at(time.Minute)), invalid},
		"expiry NaN":             {"exp", "NaN", invalid},
		"expiry list":            {"exp", []int64{at(time.Minute)}, invalid},
		"expiry true":            {"exp", true, invalid},
		"valid since":            {"nbf", at(-time.Minute), accepted},
		"valid within leeway":    {"nbf", at(8 * time.Second), accepted},
		"valid beyond leeway":    {"nbf", at(15 * time.Second), notYet},
		"valid from 0":           {"nbf", 0, accepted},
		"valid from null":        {"nbf", raw("null"), invalid},
		"valid from string":      {"nbf", "0", invalid},
		"valid from negative":    {"nbf", -1, invalid},
		"valid from 1e308":       {"nbf", raw("1e308"), invalid},
		"issued within leeway":   {"iat", at(8 * time.Second), accepted},
		"issued beyond leeway":   {"iat", at(15 * time.Second), notYet},
		"issued at no time":      {"iat", nil, accepted},
		"issued at a float":      {"iat", raw("1.5"), invalid},
		"issued in the far past": {"iat", 1, accepted},
	} {
		t.Run(name, func(t *testing.T) { s.check(t, map[string]any{tc.claim: tc.value}, tc.want) })
	}
}

func TestT_A6_NoNumberThatJSONCannotHoldIsAccepted(t *testing.T) {
	s := newSingle(t)
	for _, number := range []string{"NaN", "Infinity", "-Infinity", "0x7fffffff", "+4102444800", "04102444800", "4102444800.", "4_102_444_800"} {
		payload := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"exp":%s}`, firstURL, audience, number)
		mustRefuse(t, s.oidc, mustSignPayload(t, s.issuer, payload), invalid)
	}
	mustAccept(t, s.oidc, mustSignPayload(t, s.issuer, fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"exp":4102444800}`, firstURL, audience)))
}

func TestT_A6_TheClockDecides(t *testing.T) {
	w := newWeb()
	i := w.newIssuer(t, firstURL)
	now := time.Unix(2_000_000_000, 0)
	var step atomic.Int64
	c := config(firstURL)
	c.Leeway = 30 * time.Second
	o, err := auth.NewOIDC([]auth.IssuerConfig{c}, auth.WithTransport(w),
		auth.WithClock(func() time.Time { return now.Add(time.Duration(step.Load())) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	token := sign(t, i, issuer.Claims{Issued: now, NotBefore: now, Expiry: now.Add(time.Minute)})
	for _, tc := range []struct {
		at   time.Duration
		want sluicev1.Reason
	}{
		{0, accepted},
		{-30 * time.Second, accepted},
		{-31 * time.Second, notYet},
		{-time.Hour, notYet},
		{time.Minute - 1, accepted},
		{time.Minute, expired},
		{time.Hour, expired},
		{time.Second, accepted},
	} {
		step.Store(int64(tc.at))
		p, err := authenticate(t, o, token)
		if tc.want != accepted {
			wantRefusal(t, p, err, tc.want)
		} else if err != nil {
			t.Errorf("at %v: %v", tc.at, err)
		}
	}
}

func TestT_A6_TooLongLivesAreRefused(t *testing.T) {
	s := newSingle(t, func(c *auth.IssuerConfig) { c.MaxLifetime = time.Hour })
	now := time.Now()
	for name, tc := range map[string]struct {
		issued any
		exp    time.Time
		want   sluicev1.Reason
	}{
		"at the cap":            {now.Unix(), now.Add(time.Hour), accepted},
		"over the cap":          {now.Unix(), now.Add(time.Hour + 2*time.Second), invalid},
		"old and long":          {now.Add(-time.Hour).Unix(), now.Add(time.Minute), invalid},
		"no issue, short":       {nil, now.Add(50 * time.Minute), accepted},
		"no issue, long":        {nil, now.Add(2 * time.Hour), invalid},
		"in the farthest years": {now.Unix(), time.Unix(253402300799, 0), invalid},
	} {
		t.Run(name, func(t *testing.T) { s.check(t, map[string]any{"iat": tc.issued, "exp": tc.exp.Unix()}, tc.want) })
	}
}

func TestT_B4_NamesThatMeanSomethingElseElsewhereAreRefused(t *testing.T) {
	s := newSingle(t, func(c *auth.IssuerConfig) {
		c.UsernameClaim, c.UIDClaim, c.UsernamePrefix, c.GroupsPrefix = "name", "uid", "oidc:", "oidc:"
		c.ExtraClaims = map[string]string{"example.org/team": "team"}
	})
	bad := []string{
		"", " ", "a\x00b", "a\nb", "a\rb", "a\r\nImpersonate-Group: system:masters", "a\tb", "a\x7f", "a\u0085b", "a\u2028b", "a\u202eb",
		"a\u200bb", "a\ufffdb", " a", "a ", "\u00a0a",
	}
	base := func() map[string]any { return map[string]any{"name": "Alice", "uid": "1", "groups": []string{"dev"}} }
	s.check(t, base(), accepted)
	for _, value := range bad {
		for _, claim := range []string{"sub", "name", "uid", "jti", "groups", "team"} {
			claims := base()
			claims[claim] = value
			s.check(t, claims, invalid)
		}
		claims := base()
		claims["groups"] = []string{"dev", value}
		s.check(t, claims, invalid)
	}
	for _, raw := range []string{`"\ud800"`, `"\udfff\ud800"`, `1`, `true`, `{}`, `["a"]`, `null`} {
		for _, claim := range []string{"sub", "name", "uid", "jti"} {
			claims := base()
			claims[claim] = json.RawMessage(raw)
			s.check(t, claims, invalid)
		}
	}
	payload := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"exp":4102444800,"uid":"1","name":"%%s"}`, firstURL, audience)
	mustAccept(t, s.oidc, mustSignPayload(t, s.issuer, fmt.Sprintf(payload, "\u00e4")))
	mustRefuse(t, s.oidc, mustSignPayload(t, s.issuer, fmt.Sprintf(payload, "\xff")), invalid)
	for _, missing := range []string{"sub", "name", "uid"} {
		claims := base()
		claims[missing] = nil
		s.check(t, claims, invalid)
	}
}

func TestWhoTheClaimsName(t *testing.T) {
	s := newSingle(t, func(c *auth.IssuerConfig) {
		c.UsernameClaim, c.UIDClaim, c.GroupsClaim, c.UsernamePrefix, c.GroupsPrefix = "login", "oid", "https://claims.example/roles", "u:", "g:"
	})
	groups := "https://claims.example/roles"
	expiry := time.Now().Add(time.Hour).Truncate(time.Second)
	token := s.sign(t, issuer.Claims{
		Subject: "1234", ID: "token-1", Issued: expiry.Add(-time.Hour), NotBefore: expiry.Add(-2 * time.Hour), Expiry: expiry, Audience: []string{audience, "other"},
		Extra: map[string]any{"login": "alice m\u00fcller", "oid": "abcd", groups: []string{"dev", "a b"}, "groups": []string{"ignored"}},
	})
	p := mustAccept(t, s.oidc, token)
	if p.Authenticator != "oidc" || p.Issuer != firstURL || p.Subject != "1234" || p.UID != "abcd" || p.Username != "u:alice m\u00fcller" ||
		!slices.Equal(p.Groups, []string{"g:dev", "g:a b"}) || !slices.Equal(p.Audiences, []string{audience, "other"}) ||
		p.TokenID != "token-1" || p.KeyID != s.issuer.KeyID() || !p.ExpiresAt.Equal(expiry) || !p.NotBefore.Equal(expiry.Add(-2*time.Hour)) || !p.IssuedAt.Equal(expiry.Add(-time.Hour)) || p.Extra != nil || p.ExpiredAt(expiry.Add(-1)) || !p.ExpiredAt(expiry) ||
		p.Credential().Reveal() != token {
		t.Errorf("the token names %+v", p)
	}
	for name, tc := range map[string]struct {
		value any
		want  []string
	}{"one string": {"dev", []string{"g:dev"}}, "none": {nil, nil}, "null": {json.RawMessage("null"), nil}, "empty": {[]string{}, []string{}}} {
		p := s.check(t, map[string]any{"login": "alice", "oid": "1", groups: tc.value}, accepted)
		if !slices.Equal(p.Groups, tc.want) {
			t.Errorf("%s: groups %q", name, p.Groups)
		}
	}
	for _, bad := range []any{1, true, map[string]any{"a": 1}, []any{"a", nil}, []any{[]string{"a"}}} {
		s.check(t, map[string]any{"login": "alice", "oid": "1", groups: bad}, invalid)
	}
}

func TestExtraClaimsGoToTheCluster(t *testing.T) {
	s := newSingle(t, func(c *auth.IssuerConfig) {
		c.ExtraClaims = map[string]string{"example.org/team": "team", "tenant": "https://claims.example/tenant"}
	})
	for name, tc := range map[string]struct {
		extra map[string]any
		want  map[string][]string
	}{
		"none":     {nil, nil},
		"null":     {map[string]any{"team": json.RawMessage("null")}, nil},
		"empty":    {map[string]any{"team": []string{}}, nil},
		"one":      {map[string]any{"team": "a", "other": "b"}, map[string][]string{"example.org/team": {"a"}}},
		"several":  {map[string]any{"team": []string{"a", "b"}}, map[string][]string{"example.org/team": {"a", "b"}}},
		"two keys": {map[string]any{"team": "a", "https://claims.example/tenant": "b"}, map[string][]string{"example.org/team": {"a"}, "tenant": {"b"}}},
	} {
		if p := s.check(t, tc.extra, accepted); !maps.EqualFunc(p.Extra, tc.want, slices.Equal) {
			t.Errorf("%s: extra attributes %v", name, p.Extra)
		}
	}
	for _, bad := range []any{1, true, map[string]any{"a": "b"}, []any{"a", nil}} {
		s.check(t, map[string]any{"team": bad}, invalid)
	}
}

func TestTheDefaultNameIsTheSubject(t *testing.T) {
	s := newSingle(t)
	p := mustAccept(t, s.oidc, s.sign(t, issuer.Claims{Subject: "system:serviceaccount:default:alice", Groups: []string{"dev"}}))
	if p.Username != p.Subject || p.UID != "" || !slices.Equal(p.Groups, []string{"dev"}) {
		t.Errorf("the token names %+v", p)
	}
}

func TestT_A16_AnEmailIsOneVerifiedAddress(t *testing.T) {
	s := newSingle(t, func(c *auth.IssuerConfig) { c.UsernameClaim = "email" })
	for _, tc := range []struct {
		email    any
		verified any
		want     sluicev1.Reason
	}{
		{"alice@example.com", true, accepted},
		{"alice@example.com", nil, accepted},
		{"alice@example.com", false, invalid},
		{"alice@example.com", "true", invalid},
		{"alice@example.com", json.RawMessage("null"), invalid},
		{"alice@evil.example@example.com", true, invalid},
		{"@example.com", true, invalid},
		{"alice@", true, invalid},
		{"alice", true, invalid},
		{"alice @example.com", true, invalid},
		{"alice@example.com\n", true, invalid},
		{nil, true, invalid},
		{"", true, invalid},
	} {
		s.check(t, map[string]any{"email": tc.email, "email_verified": tc.verified}, tc.want)
	}
}

func TestARepeatedClaimIsRefused(t *testing.T) {
	s := newSingle(t)
	base := fmt.Sprintf(`"iss":%q,"sub":"alice","aud":%q,"exp":4102444800`, firstURL, audience)
	mustAccept(t, s.oidc, mustSignPayload(t, s.issuer, "{"+base+`,"Sub":"bob","other":1}`))
	for _, extra := range []string{
		`"sub":"bob"`, `"su\u0062":"bob"`, `"iss":"https://two.example"`, `"aud":"other"`, `"exp":1`, `"other":1,"other":2`,
	} {
		mustRefuse(t, s.oidc, mustSignPayload(t, s.issuer, "{"+base+","+extra+"}"), invalid)
		mustRefuse(t, s.oidc, mustSignPayload(t, s.issuer, "{"+extra+","+base+"}"), invalid)
	}
}

// FuzzClaims signs any payload at all. What is accepted must also be acceptable
// to a second reading, by other code, of the rules that matter most.
func FuzzClaims(f *testing.F) {
	s := newSingle(f)
	good := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"exp":4102444800}`, firstURL, audience)
	for _, seed := range []string{
		good, "{}", "", "null", strings.Replace(good, "4102444800", "1e308", 1), strings.Replace(good, "4102444800", "1", 1),
		strings.Replace(good, "alice", `\u0000`, 1), strings.Replace(good, `"alice"`, `"alice","sub":"bob"`, 1),
		strings.Replace(good, `"sluice"`, `["sluice","other"],"azp":"sluice"`, 1), strings.Replace(good, "}", `,"groups":["a","b"],"nbf":1,"iat":1,"jti":"x"}`, 1),
		strings.Replace(good, "}", `,"deep":[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]}`, 1), " \n" + good + "\t",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		token, err := s.issuer.SignPayload(payload)
		if err != nil {
			t.Skip()
		}
		p, err := authenticate(t, s.oidc, token)
		if err != nil {
			return
		}
		var c struct {
			Issuer   string                `json:"iss"`
			Subject  string                `json:"sub"`
			Audience strictjson.RawMessage `json:"aud"`
			Expiry   int64                 `json:"exp"`
		}
		if err := strictjson.Unmarshal(payload, &c); err != nil {
			t.Fatalf("accepted %q, which does not decode: %v", payload, err)
		}
		if c.Issuer != firstURL || c.Subject == "" || c.Subject != p.Subject || c.Expiry <= time.Now().Unix() || c.Expiry != p.ExpiresAt.Unix() {
			t.Fatalf("accepted %q as %+v", payload, p)
		}
		if !strings.Contains(string(c.Audience), audience) && !strings.Contains(string(c.Audience), `\u`) || !slices.Contains(p.Audiences, audience) {
			t.Fatalf("accepted %q for audiences %q", payload, p.Audiences)
		}
		for _, name := range append(p.Groups, p.Username, p.Subject) {
			if strings.ContainsAny(name, "\x00\r\n") || name == "" {
				t.Fatalf("accepted %q, which names %q", payload, name)
			}
		}
	})
}
