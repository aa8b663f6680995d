package auth_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
)

func TestT_A15_OnlyOneWayToWriteAToken(t *testing.T) {
	s := newSingle(t)
	good := s.sign(t, issuer.Claims{})
	mustAccept(t, s.oidc, good)
	parts := strings.Split(good, ".")
	for name, bad := range map[string]string{
		"empty":               "",
		"dots":                "..",
		"many dots":           strings.Repeat(".", auth.MaxTokenBytes),
		"one part":            parts[0],
		"two parts":           parts[0] + "." + parts[1],
		"no signature":        parts[0] + "." + parts[1] + ".",
		"four parts":          good + ".AA",
		"five parts (JWE)":    good + ".AA.AA",
		"detached":            parts[0] + ".." + parts[2],
		"no header":           "." + parts[1] + "." + parts[2],
		"padded header":       parts[0] + "=." + parts[1] + "." + parts[2],
		"padded signature":    good + "==",
		"line end":            good[:20] + "\n" + good[20:],
		"line end at the end": good + "\r\n",
		"leading space":       " " + good,
		"standard alphabet":   parts[0] + "." + parts[1] + "." + strings.Repeat("+/", 43),
		"JSON":                fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]),
		"not ASCII":           parts[0] + "." + parts[1] + "." + parts[2][:84] + "\u00e4",
		"truncated":           good[:len(good)-4],
		"extended":            good + "AAAA",
		"swapped":             parts[1] + "." + parts[0] + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) { mustRefuse(t, s.oidc, bad, sluicev1.Reason_REASON_INVALID_TOKEN) })
	}
	mustRefuse(t, s.oidc, strings.Repeat("a", auth.MaxTokenBytes+1), sluicev1.Reason_REASON_TOKEN_TOO_LARGE)
}

// FuzzToken replaces {H}, {P} and {S} in its input with the parts of a genuine
// token, so that mutations come close. Whatever is accepted must sign the
// genuine header and payload.
func FuzzToken(f *testing.F) {
	s := newSingle(f)
	good := sign(f, s.issuer, issuer.Claims{Expiry: time.Now().Add(1000 * time.Hour)})
	mustAccept(f, s.oidc, good)
	signed := good[:strings.LastIndexByte(good, '.')]
	parts := strings.Split(good, ".")
	for _, seed := range []string{
		"{H}.{P}.{S}", "{H}.{P}.", "{H}.{P}.{S}.", "{H}..{S}", "{P}.{H}.{S}", "{H}.{P}.{S}=", "{H}.{P}.{P}", ".{P}.{S}", "..", "",
		"eyJhbGciOiJub25lIn0.{P}.", "eyJhbGciOiJIUzI1NiJ9.{P}.{S}", "{H}.{P}.{S}.{S}.{S}", "{H}\n.{P}.{S}", `{"protected":"{H}","payload":"{P}","signature":"{S}"}`,
		"eyJhbGciOiJFUzI1NiJ9.{P}.{S}", "{H}.e30.{S}", "{H}.W1tbW1tbW1tbW1tbW1tbW1tbW10.{S}",
	} {
		f.Add(seed)
	}
	fill := strings.NewReplacer("{H}", parts[0], "{P}", parts[1], "{S}", parts[2])
	f.Fuzz(func(t *testing.T, template string) {
		token := fill.Replace(template)
		p, err := authenticate(t, s.oidc, token)
		if (p == nil) == (err == nil) {
			t.Fatalf("got principal %v and error %v", p, err)
		}
		if err == nil && !strings.HasPrefix(token, signed+".") {
			t.Fatalf("accepted %q", token)
		}
	})
}

// hostile are tokens of nearly MaxTokenBytes that aim at a parser's memory.
func hostile(t *testing.T, s single) map[string]string {
	t.Helper()
	const header = `{"alg":"ES256","kid":"unknown"}`
	iss := `"iss":"` + firstURL + `"`
	pad := func(open, element, end string, size int) string {
		return open + strings.Repeat(element, (size-len(open)-len(end))/len(element)) + end
	}
	payload := func(text string) string { return forge(t, header, text, make([]byte, 64)) }
	head := func(text string) string { return forge(t, text, "{"+iss+"}", make([]byte, 64)) }
	const size = 5900 // of JSON, so that base64 stays below the limit
	return map[string]string{
		"dots":             strings.Repeat(".", auth.MaxTokenBytes),
		"one long part":    strings.Repeat("A", auth.MaxTokenBytes),
		"junk":             strings.Repeat("A", 2700) + "." + strings.Repeat("A", 2700) + "." + strings.Repeat("A", 2700),
		"encrypted":        strings.Repeat("A", 4000) + ".A.A.A.A",
		"nested lists":     payload(strings.Repeat("[", size)),
		"nested objects":   payload(pad("", `{"a":`, "", size)),
		"nested header":    head(strings.Repeat("[", size)),
		"many names":       payload(pad("{"+iss, `,"a":0`, "}", size)),
		"many names first": payload(pad("{", `"b":0,`, iss+"}", size)),
		"escaped names":    payload(pad("{", `"\n":0,`, iss+"}", size)),
		"escaped issuer":   payload(`{"iss":"` + strings.Repeat(`\n`, size/2-10) + `"}`),
		"many issuers":     payload(pad("{"+iss, ","+iss, "}", size)),
		"long issuer":      payload(`{"iss":"` + strings.Repeat("a", size-10) + `"}`),
		"many in header":   head(pad(header[:len(header)-1], `,"a":0`, "}", size)),
		"escaped header":   head(pad(header[:len(header)-1], `,"\n":0`, "}", size)),
		"long key id":      head(`{"alg":"ES256","kid":"` + strings.Repeat("k", size-40) + `"}`),
		"long algorithm":   head(`{"alg":"` + strings.Repeat("A", size-40) + `"}`),
		"embedded chain":   head(pad(header[:len(header)-1]+`,"x5c":[""`, `,"AAAA"`, "]}", size)),
		"unknown key":      payload(pad("{"+iss+`,"pad":"`, "x", `"}`, size)),
		"unknown issuer":   payload(pad(`{"iss":"https://attacker.example","pad":"`, "x", `"}`, size)),
		"shared secret":    forge(t, `{"alg":"HS256"}`, pad("{"+iss+`,"pad":"`, "x", `"}`, size), make([]byte, 32)),
		"long signature":   forge(t, header, "{"+iss+"}", make([]byte, size)),
		"not UTF-8":        payload("{" + iss + ",\"a\":\"" + strings.Repeat("\xff", size-50) + "\"}"),
	}
}

func TestT_A15_ARejectedTokenCostsLittleMemory(t *testing.T) {
	s := newSingle(t)
	mustAccept(t, s.oidc, s.sign(t, issuer.Claims{})) // the fetch is not what is measured
	mustRefuse(t, s.oidc, unknownKey(t, "unknown"), sluicev1.Reason_REASON_INVALID_TOKEN)
	for name, token := range hostile(t, s) {
		if len(token) > auth.MaxTokenBytes {
			t.Fatalf("%s is %d bytes long", name, len(token))
		}
		if got := allocated(t, s.oidc, token, 50); got > 16<<10 {
			t.Errorf("%s: %d bytes were allocated to reject %d", name, got, len(token))
		}
	}
}

// allocated returns the bytes allocated to reject the token, on average.
func allocated(t *testing.T, a auth.Authenticator, token string, times uint64) uint64 {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		if p, err := authenticate(t, a, token); err == nil {
			t.Fatalf("accepted %+v", p)
		}
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / times
}
