package auth

import (
	"context"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Rechecker asks whether what a principal was proved with still proves it.
// Implementations are safe for concurrent use.
type Rechecker interface {
	// Recheck returns the caller as known now, who is the Same and may have
	// other names and groups, or a status.Error. UNAUTHENTICATED and
	// PERMISSION_DENIED say that the proof holds no longer; any other code, that
	// nobody could tell.
	Recheck(ctx context.Context, p *Principal) (*Principal, error)
}

// rechecks asks who proved a principal.
type rechecks struct {
	tokens       *Tokens       // nil for none
	certificates *Certificates // nil for none
}

// NewRechecks returns the Rechecker of both; either may be nil. A principal of
// neither is UNAUTHENTICATED.
func NewRechecks(tokens *Tokens, certificates *Certificates) Rechecker {
	return rechecks{tokens: tokens, certificates: certificates}
}

// Recheck implements Rechecker.
func (r rechecks) Recheck(ctx context.Context, p *Principal) (*Principal, error) {
	switch {
	case p.Authenticator == byCertificate && r.certificates != nil:
		return r.certificates.Recheck(ctx, p)
	case p.Authenticator != byCertificate && r.tokens != nil:
		return r.tokens.Recheck(ctx, p)
	}
	return nil, errInvalid
}

// sameAs returns newest if it is the caller p is, and refuses it otherwise: a
// credential never turns one caller's session into another's.
func (p *Principal) sameAs(newest *Principal) (*Principal, error) {
	if !p.Same(newest) {
		return nil, status.New(codes.PermissionDenied, sluicev1.Reason_REASON_PRINCIPAL_MISMATCH,
			"the credential speaks for somebody else than it did")
	}
	return newest, nil
}
