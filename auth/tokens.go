package auth

import (
	"bytes"
	"context"
)

// Tokens authenticates every bearer token, in this order: one whose `iss` is a
// configured issuer's is that issuer's alone, whose refusal is final, so that it
// is never shown to anybody else; every other one is reviewed by the API server,
// if there is one to ask. It is safe for concurrent use.
type Tokens struct {
	// Immutable after NewTokens.
	oidc    *OIDC    // nil for none
	reviews *Reviews // nil for none
}

// NewTokens returns the Authenticator of both; either may be nil. It owns
// neither: who made them closes them.
func NewTokens(oidc *OIDC, reviews *Reviews) *Tokens { return &Tokens{oidc: oidc, reviews: reviews} }

// Authenticate implements Authenticator, with the errors and within the times of
// OIDC or of Reviews. A token that is neither's is UNAUTHENTICATED with INVALID_TOKEN.
func (t *Tokens) Authenticate(ctx context.Context, credential Secret) (*Principal, error) {
	raw := credential.Reveal()
	if err := checkLength(raw); err != nil {
		return nil, err
	}
	if t.oidc != nil {
		parsed, ok := parseToken(raw)
		if ok && t.oidc.issuers[parsed.issuer] != nil {
			return t.oidc.authenticate(ctx, &parsed, credential)
		}
		if parsed.payload == nil {
			parsed.payload = decodePart(raw, 1)
		}
		if t.oidc.owns(parsed.payload) {
			return nil, errInvalid
		}
	}
	if t.reviews == nil {
		return nil, errInvalid
	}
	return t.reviews.Authenticate(ctx, credential)
}

// Recheck implements Rechecker. A reviewed token is reviewed again; one of an
// issuer holds until it expires.
func (t *Tokens) Recheck(ctx context.Context, p *Principal) (*Principal, error) {
	switch {
	case p.Authenticator == byOIDC && t.oidc != nil:
		return p, nil
	case p.Authenticator == byReview && t.reviews != nil:
		return t.reviews.Recheck(ctx, p)
	}
	return nil, errInvalid
}

// owns reports whether the payload, of a token that OIDC cannot read, may all
// the same be of a configured issuer to who reads it less strictly: with `iss`
// in another case, repeated or escaped. In doubt it is.
func (o *OIDC) owns(payload []byte) bool {
	if !isObject(payload) {
		return o.mentioned(payload)
	}
	named := false
	for quoted, value := range members(payload) {
		name := quoted[1 : len(quoted)-1]
		switch {
		case bytes.IndexByte(name, '\\') >= 0:
			return o.mentioned(payload)
		case !bytes.EqualFold(name, []byte("iss")):
			continue
		case named:
			return true // whichever of them counts; and reading many would cost memory
		case len(value) > maxIssuerBytes:
			return o.mentioned(payload)
		}
		named = true
		if url, ok := decodeString(value); ok && o.issuers[url] != nil {
			return true
		}
	}
	return false
}

// mentioned reports whether the host of a configured issuer is anywhere in the payload.
func (o *OIDC) mentioned(payload []byte) bool {
	for _, issuer := range o.issuers {
		if bytes.Contains(payload, issuer.host) {
			return true
		}
	}
	return false
}
