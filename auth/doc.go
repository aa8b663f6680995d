// Package auth turns a caller's credential into a verified Principal.
//
// A door hands the values of its `authorization` metadata to [Bearer] and the
// [Secret] that comes back to an [Authenticator]. All doors share one: [Tokens],
// which gives a token of a configured issuer to [OIDC] and any other to
// [Reviews], that is to a Kubernetes API server. Who comes without a token may
// have shown a certificate, which [Certificates] verifies. What they return
// travels by [NewContext] and nothing else that a caller sends is ever an
// identity.
//
// A credential that was good may cease to be: at Principal.ExpiresAt, when a
// [Rechecker] says so, or when [Revocations] refuse it.
//
// Every refusal is a status.Error. Until a signature has verified
// the only reason is INVALID_TOKEN, so that a forger learns nothing; EXPIRED,
// AUDIENCE and NOT_YET_VALID are said of genuine credentials only.
package auth

import "context"

// Authenticator proves who holds a credential. Implementations are safe for
// concurrent use and return a principal or a status.Error, never both
// and never neither. They keep the error free of the credential.
type Authenticator interface {
	Authenticate(ctx context.Context, credential Secret) (*Principal, error)
}

// principalKey carries the verified principal. Being of an unexported type, no
// other package can write it.
type principalKey struct{}

// NewContext returns a context that carries the verified principal.
func NewContext(ctx context.Context, p *Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// FromContext returns the principal that NewContext put there. Without one the
// caller is nobody, and must be refused.
func FromContext(ctx context.Context) (*Principal, bool) {
	p, ok := ctx.Value(principalKey{}).(*Principal)
	return p, ok && p != nil
}
