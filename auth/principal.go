package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"time"
)

// The values of Principal.Authenticator.
const (
	byOIDC        = "oidc"
	byReview      = "token_review"
	byCertificate = "certificate"
)

// Principal is who a verified credential speaks for. It is immutable once an
// Authenticator has returned it, and so may be shared between goroutines.
type Principal struct {
	// Authenticator is the kind of proof: "oidc", "token_review" or "certificate".
	Authenticator string
	// Issuer is who vouches, byte for byte as configured.
	Issuer string
	// Subject is the issuer's own, never reassigned name for the caller.
	Subject string
	// UID tells apart two holders of one name; empty when the issuer has none.
	UID string

	// Username and Groups are how Kubernetes knows the caller, prefixes included.
	Username string
	Groups   []string
	// Extra is what else a cluster is told of the caller when it is
	// impersonated, by a key in lower case. No key is without values.
	Extra map[string][]string

	// Audiences is everyone the credential is meant for.
	Audiences []string
	// TokenID is the credential's own id (`jti`, or a certificate's serial
	// number in hexadecimal digits); empty when it has none.
	TokenID string
	// KeyID names the issuer's key that verified (`kid`, or the key identifier
	// of who signed a certificate in hexadecimal digits); empty when it has no name.
	KeyID string

	// ExpiresAt is the moment from which the credential proves nothing; no
	// leeway is meant to be added. It is zero when the proof names no end, as
	// an opaque token does: it then holds for as long as a Rechecker says so.
	ExpiresAt time.Time
	// NotBefore is zero when the credential does not say.
	NotBefore time.Time
	// IssuedAt is zero when the credential does not say.
	IssuedAt time.Time

	credential Secret
	chain      []*x509.Certificate // that proved it, the caller's own first; nil for tokens
}

// ExpiredAt reports whether the credential proves nothing at that moment, for
// it names an end and that has come.
func (p *Principal) ExpiredAt(now time.Time) bool {
	return !p.ExpiresAt.IsZero() && !now.Before(p.ExpiresAt)
}

// Credential returns what the principal was proved with, to pass it on to a
// cluster that accepts it. It is empty for proofs that cannot be passed on.
func (p *Principal) Credential() Secret { return p.credential }

// WithCredential returns a copy of p that was proved with the credential.
func (p *Principal) WithCredential(credential Secret) *Principal {
	q := *p
	q.credential = credential
	return &q
}

// Same reports whether both are one caller: same authenticator, issuer, subject
// and UID. Names and groups may differ, as they do after a renewal.
func (p *Principal) Same(other *Principal) bool {
	return p != nil && other != nil &&
		p.Authenticator == other.Authenticator && p.Issuer == other.Issuer &&
		p.Subject == other.Subject && p.UID == other.UID
}

// Key returns an id that two principals share exactly if they are the Same. It
// is printable, 64 bytes long, stable across processes, and names nobody.
func (p *Principal) Key() string {
	h := sha256.New()
	for _, part := range []string{p.Authenticator, p.Issuer, p.Subject, p.UID} {
		// The length in front keeps ("ab", "c") and ("a", "bc") apart.
		_ = binary.Write(h, binary.BigEndian, uint64(len(part)))
		h.Write([]byte(part))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// LogValue implements slog.LogValuer: enough to find the caller, no more.
func (p *Principal) LogValue() slog.Value {
	if p == nil {
		return slog.StringValue("none")
	}
	return slog.GroupValue(
		slog.String("authenticator", p.Authenticator), slog.String("issuer", p.Issuer),
		slog.String("username", p.Username), slog.String("key", p.Key()))
}
