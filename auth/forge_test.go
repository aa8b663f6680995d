package auth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
)

// forge puts a token together from any three parts.
func forge(t testing.TB, header, payload string, signature []byte) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(payload)) + "." + encode(signature)
}

func mustSignPayload(t testing.TB, i *issuer.Issuer, payload string) string {
	t.Helper()
	token, err := i.SignPayload([]byte(payload))
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return token
}

// attacker owns one key of each kind, none of which any issuer publishes.
type attacker struct {
	rsa     *rsa.PrivateKey
	curves  map[string]*ecdsa.PrivateKey
	ed25519 ed25519.PrivateKey
}

func newAttacker(t *testing.T) attacker {
	t.Helper()
	a := attacker{curves: map[string]*ecdsa.PrivateKey{}}
	var err error
	if a.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	for name, curve := range map[string]elliptic.Curve{"256": elliptic.P256(), "384": elliptic.P384(), "512": elliptic.P521()} {
		if a.curves[name], err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	if _, a.ed25519, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	return a
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// sign signs as the algorithm says; the shared algorithms with secret.
func (a attacker) sign(t *testing.T, algorithm, signed string, secret []byte) []byte {
	t.Helper()
	var signature []byte
	var err error
	kind, size := algorithm[:2], algorithm[2:]
	switch kind {
	case "no":
		return secret[:min(len(secret), 4)]
	case "HS":
		mac := hmac.New(hashes[size].New, secret)
		mac.Write([]byte(signed))
		return mac.Sum(nil)
	case "Ed":
		return ed25519.Sign(a.ed25519, []byte(signed))
	}
	h := hashes[size].New()
	h.Write([]byte(signed))
	switch kind {
	case "RS":
		signature, err = rsa.SignPKCS1v15(nil, a.rsa, hashes[size], h.Sum(nil))
	case "PS":
		signature, err = rsa.SignPSS(rand.Reader, a.rsa, hashes[size], h.Sum(nil), &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	case "ES":
		r, s, signErr := ecdsa.Sign(rand.Reader, a.curves[size], h.Sum(nil))
		width := (a.curves[size].Params().BitSize + 7) / 8
		signature, err = append(r.FillBytes(make([]byte, width)), s.FillBytes(make([]byte, width))...), signErr
	}
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// public returns the attacker's key for the algorithm as a JWK.
func (a attacker) public(algorithm string) json.RawMessage {
	key := a.rsa.Public()
	switch {
	case algorithm == "EdDSA":
		key = a.ed25519.Public()
	case strings.HasPrefix(algorithm, "ES"):
		key = a.curves[algorithm[2:]].Public()
	}
	encoded, _ := jose.JSONWebKey{Key: key, KeyID: "attacker"}.MarshalJSON()
	return encoded
}

var allAlgorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "none",
}

// headerTricks are headers by which a verifier may be talked into another key,
// another algorithm or no verification at all.
func headerTricks(a attacker, algorithm, goodKeyID string) map[string]string {
	quoted, _ := json.Marshal(goodKeyID)
	kid := string(quoted)
	jwk := a.public(algorithm)
	return map[string]string{
		"the issuer's key id":  fmt.Sprintf(`{"alg":%q,"kid":%s}`, algorithm, kid),
		"no key id":            fmt.Sprintf(`{"alg":%q}`, algorithm),
		"empty key id":         fmt.Sprintf(`{"alg":%q,"kid":""}`, algorithm),
		"path as key id":       fmt.Sprintf(`{"alg":%q,"kid":"../../dev/null"}`, algorithm),
		"jwk":                  fmt.Sprintf(`{"alg":%q,"kid":%s,"jwk":%s}`, algorithm, kid, jwk),
		"jwk without key id":   fmt.Sprintf(`{"alg":%q,"jwk":%s}`, algorithm, jwk),
		"jku":                  fmt.Sprintf(`{"alg":%q,"kid":"attacker","jku":"https://attacker.example/keys"}`, algorithm),
		"x5u":                  fmt.Sprintf(`{"alg":%q,"kid":"attacker","x5u":"https://attacker.example/x5u"}`, algorithm),
		"x5c":                  fmt.Sprintf(`{"alg":%q,"kid":%s,"x5c":["AAAA"]}`, algorithm, kid),
		"crit":                 fmt.Sprintf(`{"alg":%q,"kid":%s,"crit":["b64"],"b64":false}`, algorithm, kid),
		"zip":                  fmt.Sprintf(`{"alg":%q,"kid":%s,"zip":"DEF"}`, algorithm, kid),
		"two algorithms":       fmt.Sprintf(`{"alg":"ES256","kid":%s,"alg":%q}`, kid, algorithm),
		"two cases":            fmt.Sprintf(`{"alg":%q,"ALG":"ES256","kid":%s}`, algorithm, kid),
		"other case":           fmt.Sprintf(`{"alg":%q,"kid":%s}`, strings.ToLower(algorithm)+" ", kid),
		"lower case":           fmt.Sprintf(`{"alg":%q,"kid":%s}`, strings.ToLower(algorithm), kid),
		"escaped name":         fmt.Sprintf(`{"\u0061lg":%q,"kid":%s}`, algorithm, kid),
		"algorithm list":       fmt.Sprintf(`{"alg":[%q],"kid":%s}`, algorithm, kid),
		"no algorithm":         fmt.Sprintf(`{"kid":%s}`, kid),
		"encrypted":            fmt.Sprintf(`{"alg":%q,"enc":"A256GCM","kid":%s}`, algorithm, kid),
		"key id of wrong type": fmt.Sprintf(`{"alg":%q,"kid":[%s]}`, algorithm, kid),
	}
}

func TestT_A1_NoForgedTokenIsAccepted(t *testing.T) {
	w, a := newWeb(), newAttacker(t)
	first := w.newIssuer(t, firstURL)
	second := w.newIssuer(t, secondURL, issuer.WithAlgorithm(jose.RS256))
	o := w.newOIDC(t, config(firstURL), config(secondURL))
	mustAccept(t, o, sign(t, first, issuer.Claims{}))
	mustAccept(t, o, sign(t, second, issuer.Claims{}))

	names := []string{firstURL, secondURL, firstURL + "/", strings.ToUpper(firstURL), "https://attacker.example", ""}
	tried := 0
	for _, good := range []*issuer.Issuer{first, second} {
		block, _ := pem.Decode(good.PublicKeyPEM())
		secrets := [][]byte{good.PublicKeyPEM(), block.Bytes, []byte("secret"), {}}
		for _, algorithm := range allAlgorithms {
			for trick, header := range headerTricks(a, algorithm, good.KeyID()) {
				for _, name := range names {
					payload := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"exp":%d}`, name, audience, time.Now().Add(time.Hour).Unix())
					unsigned := strings.TrimSuffix(forge(t, header, payload, nil), ".")
					used := secrets
					if algorithm[:2] != "HS" && algorithm != "none" {
						used = secrets[:1] // The secret makes no difference.
					}
					for _, secret := range used {
						token := withSignature(unsigned, a.sign(t, algorithm, unsigned, secret))
						tried++
						p, err := authenticate(t, o, token)
						if err == nil {
							t.Errorf("%s with %s for issuer %q was accepted as %v", algorithm, trick, name, p)
							continue
						}
						wantRefusal(t, p, err, sluicev1.Reason_REASON_INVALID_TOKEN)
					}
				}
			}
		}
	}
	if tried < 12*8*6 {
		t.Errorf("only %d tokens were tried", tried)
	}
	w.set(func(w *web) {
		if len(w.strays) > 0 {
			t.Errorf("tokens made the gateway ask %v", w.strays)
		}
	})
}

// republish serves, in place of the issuer's, a key set made by hand.
func (w *web) republish(host, issuerURL string, set jose.JSONWebKeySet) {
	w.set(func(w *web) { w.hosts[host] = documents(issuerURL, issuerURL+"/keys", set) })
}

func TestT_A1_AKeyServesOnlyItsOwnAlgorithms(t *testing.T) {
	a := newAttacker(t) // Its keys are the issuer's here.
	keys := map[string]crypto.PublicKey{"RS": a.rsa.Public(), "PS": a.rsa.Public(), "Ed": a.ed25519.Public()}
	for size, key := range a.curves {
		keys["ES"+size] = key.Public()
	}
	keyFor := func(algorithm string) crypto.PublicKey {
		if algorithm[:2] == "ES" {
			return keys[algorithm]
		}
		return keys[algorithm[:2]]
	}
	for _, published := range auth.Algorithms() {
		w := newWeb()
		w.republish("one.example", firstURL, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{
			Key: keyFor(published), KeyID: "key", Algorithm: published, Use: "sig",
		}}})
		o := w.newOIDC(t, config(firstURL))
		for _, used := range allAlgorithms {
			unsigned := unsignedToken(t, fmt.Sprintf(`{"alg":%q,"kid":"key"}`, used))
			token := withSignature(unsigned, a.sign(t, used, unsigned, []byte("secret")))
			if p, err := authenticate(t, o, token); (err == nil) != (used == published) {
				t.Errorf("a key for %s used with %s: %v, %v", published, used, p, err)
			}
		}
	}
}

func TestT_A1_OnlyConfiguredAlgorithmsAreAccepted(t *testing.T) {
	s := newSingle(t, func(c *auth.IssuerConfig) { c.Algorithms = []string{"RS256", "EdDSA"} })
	mustRefuse(t, s.oidc, s.sign(t, issuer.Claims{}), sluicev1.Reason_REASON_INVALID_TOKEN)
	s = newSingle(t, func(c *auth.IssuerConfig) { c.Algorithms = []string{"ES256"} })
	mustAccept(t, s.oidc, s.sign(t, issuer.Claims{}))
}

func TestT_A1_KeyMaterialInAGenuineHeaderIsIgnored(t *testing.T) {
	a := newAttacker(t)
	w := newWeb()
	w.republish("one.example", firstURL, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.curves["256"].Public(), KeyID: "key"}}})
	o := w.newOIDC(t, config(firstURL))
	header := `{"alg":"ES256","kid":"key","jku":"https://attacker.example","x5u":"https://attacker.example","x5c":["AA"],"jwk":{"kty":"oct","k":"AA"}}`
	unsigned := unsignedToken(t, header)
	mustAccept(t, o, withSignature(unsigned, a.sign(t, "ES256", unsigned, nil)))
	if len(w.strays) > 0 {
		t.Errorf("the header made the gateway ask %v", w.strays)
	}
}

// publishing returns an authenticator for an issuer of these keys, which name no algorithm.
func publishing(t *testing.T, keys ...crypto.PublicKey) *auth.OIDC {
	t.Helper()
	w, set := newWeb(), jose.JSONWebKeySet{}
	for n, key := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: key, KeyID: fmt.Sprint("key", n)})
	}
	w.republish("one.example", firstURL, set)
	return w.newOIDC(t, config(firstURL))
}

// unsignedToken is alice's token up to its last dot.
func unsignedToken(t *testing.T, header string) string {
	t.Helper()
	payload := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"exp":%d}`, firstURL, audience, time.Now().Add(time.Hour).Unix())
	return strings.TrimSuffix(forge(t, header, payload, nil), ".")
}

func withSignature(unsigned string, signature []byte) string {
	return unsigned + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func TestT_A1_HeadersThatCannotBeHonouredAreRefusedEvenIfGenuine(t *testing.T) {
	a := newAttacker(t) // Its key is the issuer's here.
	o := publishing(t, a.curves["256"].Public())
	for header, good := range map[string]bool{
		`{"alg":"ES256","kid":"key0"}`:                                           true,
		`{"alg":"ES256","kid":"key0","typ":"JWT"}`:                               true,
		`{"alg":"ES256","kid":"key0","typ":"jwt"}`:                               true,
		`{"alg":"ES256","kid":"key0","typ":"at+jwt"}`:                            true,
		`{"alg":"ES256","kid":"key0","typ":"application/at+jwt"}`:                true,
		`{"alg":"ES256","kid":"key0","typ":"logout+jwt"}`:                        false,
		`{"alg":"ES256","kid":"key0","typ":"dpop+jwt"}`:                          false,
		`{"alg":"ES256","kid":"key0","typ":"secevent+jwt"}`:                      false,
		`{"alg":"ES256","kid":"key0","typ":"JOSE"}`:                              false,
		`{"alg":"ES256","kid":"key0","typ":""}`:                                  false,
		`{"alg":"ES256","kid":"key0","typ":1}`:                                   false,
		`{"alg":"ES256","kid":"key0","crit":["exp"],"exp":1}`:                    false,
		`{"alg":"ES256","kid":"key0","crit":[]}`:                                 false,
		`{"alg":"ES256","kid":"key0","\u0063rit":["exp"],"exp":1}`:               false,
		`{"alg":"ES256","alg":"ES256","kid":"key0"}`:                             false,
		`{"alg":"ES256","kid":"key0","kid":"key0"}`:                              false,
		`{"alg":"none","kid":"key0","alg":"ES256"}`:                              false,
		`{"alg":"ES256","kid":"key0","deep":[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}`: false,
	} {
		unsigned := unsignedToken(t, header)
		token := withSignature(unsigned, a.sign(t, "ES256", unsigned, nil))
		if p, err := authenticate(t, o, token); (err == nil) != good {
			t.Errorf("header %s: %v, %v", header, p, err)
		}
	}
}

func TestT_A1_SignaturesOfTheWrongFormAreRefused(t *testing.T) {
	a := newAttacker(t) // Its keys are the issuer's here.
	o := publishing(t, a.curves["256"].Public(), a.rsa.Public())
	digestOf := func(hash crypto.Hash, text string) []byte {
		h := hash.New()
		h.Write([]byte(text))
		return h.Sum(nil)
	}

	// A curve that is not the algorithm's, in a signature of the right length.
	unsigned := unsignedToken(t, `{"alg":"ES512","kid":"key0"}`)
	r, s, err := ecdsa.Sign(rand.Reader, a.curves["256"], digestOf(crypto.SHA512, unsigned))
	if err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, o, withSignature(unsigned, append(r.FillBytes(make([]byte, 66)), s.FillBytes(make([]byte, 66))...)), sluicev1.Reason_REASON_INVALID_TOKEN)

	// ASN.1 in place of r and s.
	unsigned = unsignedToken(t, `{"alg":"ES256","kid":"key0"}`)
	asn1, err := ecdsa.SignASN1(rand.Reader, a.curves["256"], digestOf(crypto.SHA256, unsigned))
	if err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, o, withSignature(unsigned, asn1), sluicev1.Reason_REASON_INVALID_TOKEN)

	// A salt of another length than the hash's.
	unsigned = unsignedToken(t, `{"alg":"PS256","kid":"key1"}`)
	salted, err := rsa.SignPSS(rand.Reader, a.rsa, crypto.SHA256, digestOf(crypto.SHA256, unsigned), &rsa.PSSOptions{SaltLength: 20})
	if err != nil {
		t.Fatal(err)
	}
	mustRefuse(t, o, withSignature(unsigned, salted), sluicev1.Reason_REASON_INVALID_TOKEN)
	mustAccept(t, o, withSignature(unsigned, a.sign(t, "PS256", unsigned, nil)))
}

func TestT_A3_IssuersNeverShareKeys(t *testing.T) {
	a, b := newAttacker(t), newAttacker(t)
	w := newWeb()
	// Both publish another key under one id.
	w.republish("one.example", firstURL, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.curves["256"].Public(), KeyID: "shared"}}})
	w.republish("two.example", secondURL, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: b.curves["256"].Public(), KeyID: "shared"}}})
	o := w.newOIDC(t, config(firstURL), config(secondURL))
	for _, header := range []string{`{"alg":"ES256","kid":"shared"}`, `{"alg":"ES256"}`} {
		for url, owner := range map[string]attacker{firstURL: a, secondURL: b} {
			payload := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":%q,"exp":%d}`, url, audience, time.Now().Add(time.Hour).Unix())
			unsigned := strings.TrimSuffix(forge(t, header, payload, nil), ".")
			for _, signer := range []attacker{a, b} {
				token := withSignature(unsigned, signer.sign(t, "ES256", unsigned, nil))
				p, err := authenticate(t, o, token)
				if genuine := signer.rsa == owner.rsa; (err == nil) != genuine || genuine && p.Issuer != url {
					t.Errorf("issuer %s, genuine %v: %v, %v", url, genuine, p, err)
				}
			}
		}
	}
}

func TestT_A3_TheIssuerMatchesByteForByte(t *testing.T) {
	s := newSingle(t)
	mustAccept(t, s.oidc, s.sign(t, issuer.Claims{}))
	for _, other := range []any{
		firstURL + "/", "https://ONE.example", "https://one.example:443", "http://one.example", " " + firstURL, firstURL + "\x00",
		"one.example", "", nil, 1,
		[]string{firstURL},
		secondURL,
	} {
		token := s.sign(t, issuer.Claims{Extra: map[string]any{"iss": other}})
		mustRefuse(t, s.oidc, token, sluicev1.Reason_REASON_INVALID_TOKEN)
	}
}

// TestAnIndependentVerifierAgrees checks every kind of genuine token also with
// go-oidc, on the keys of the very same issuer.
func TestAnIndependentVerifierAgrees(t *testing.T) {
	for _, algorithm := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256} {
		w := newWeb()
		i := w.newIssuer(t, firstURL, issuer.WithAlgorithm(algorithm))
		o := w.newOIDC(t, config(firstURL))
		block, _ := pem.Decode(i.PublicKeyPEM())
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		verifier := oidc.NewVerifier(firstURL, &oidc.StaticKeySet{PublicKeys: []crypto.PublicKey{key}},
			&oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{string(algorithm)}})
		cases := map[string]issuer.Claims{
			"plain": {}, "groups": {Groups: []string{"dev", "ops"}}, "audiences": {Audience: []string{"other", audience}},
			"expired": {Extra: map[string]any{"exp": 1}}, "audience": {Audience: []string{"other"}}, "no audience": {Extra: map[string]any{"aud": nil}},
			"issuer": {Extra: map[string]any{"iss": secondURL}}, "no expiry": {Extra: map[string]any{"exp": nil}},
			"not yet": {NotBefore: time.Now().Add(time.Hour)},
		}
		for _, name := range slices.Sorted(maps.Keys(cases)) {
			token := sign(t, i, cases[name])
			p, err := authenticate(t, o, token)
			other, otherErr := verifier.Verify(context.Background(), token)
			if (err == nil) != (otherErr == nil) {
				t.Errorf("%s %s: %v, the other verifier says %v", algorithm, name, err, otherErr)
			}
			if err == nil && (p.Subject != other.Subject || !slices.Equal(p.Audiences, other.Audience) || !p.ExpiresAt.Equal(other.Expiry)) {
				t.Errorf("%s %s: %v, the other verifier says %v", algorithm, name, p, other)
			}
		}
	}
}
