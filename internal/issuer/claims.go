package issuer

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// lifetime is how long a token lives when its claims do not say.
const lifetime = time.Hour

// Claims are what a token says about its bearer. The issuer adds `iss` itself.
type Claims struct {
	Subject  string
	Audience []string
	Groups   []string
	Email    string // with `email_verified` true

	Issued    time.Time // zero means now
	NotBefore time.Time // zero means the claim is left out
	Expiry    time.Time // zero means one hour after Issued
	ID        string    // empty means a random one

	// Extra claims are added last and win over all others; a nil value removes
	// the claim of that name, so that any token can be made, also a bad one.
	Extra map[string]any
}

// Sign returns the compact serialisation (RFC 7515 section 7.1) of a token with
// these claims, signed with the newest key.
func (i *Issuer) Sign(c Claims) (string, error) {
	payload, err := json.Marshal(i.claims(c))
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	return i.SignPayload(payload)
}

// SignPayload signs the payload as it is, whatever it holds.
func (i *Issuer) SignPayload(payload []byte) (string, error) {
	key := i.current()
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: i.alg, Key: jose.JSONWebKey{Key: key.private, KeyID: key.id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("use signing key %s: %w", key.id, err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign with key %s: %w", key.id, err)
	}
	return signed.CompactSerialize()
}

func (i *Issuer) claims(c Claims) map[string]any {
	if c.Issued.IsZero() {
		c.Issued = time.Now()
	}
	if c.Expiry.IsZero() {
		c.Expiry = c.Issued.Add(lifetime)
	}
	if c.ID == "" {
		c.ID = rand.Text()
	}
	all := map[string]any{
		"iss": i.name, "sub": c.Subject, "jti": c.ID,
		"iat": c.Issued.Unix(), "exp": c.Expiry.Unix(),
	}
	c.addOptional(all)
	maps.Copy(all, c.Extra)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	return all
}

func (c Claims) addOptional(all map[string]any) {
	switch len(c.Audience) {
	case 0:
	case 1:
		all["aud"] = c.Audience[0]
	default:
		all["aud"] = c.Audience
	}
	if len(c.Groups) > 0 {
		all["groups"] = c.Groups
	}
	if c.Email != "" {
		all["email"], all["email_verified"] = c.Email, true
	}
	if !c.NotBefore.IsZero() {
		all["nbf"] = c.NotBefore.Unix()
	}
}
