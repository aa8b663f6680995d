package auth

import (
	"context"
	"errors"
	"fmt"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// OIDC authenticates ID tokens (OpenID Connect Core 1.0 section 2), and access
// tokens of the same form (RFC 9068), of configured issuers. It follows section
// 3.1.3.7 of the former and RFC 8725. It is safe for concurrent use.
type OIDC struct {
	// Immutable after NewOIDC.
	issuers map[string]*oidcIssuer // by URL
}

// oidcIssuer is one issuer with keys of its own: no other issuer's token is ever
// tried against them.
type oidcIssuer struct {
	// Immutable after newOIDCIssuer.
	config  IssuerConfig
	host    []byte            // of the issuer's URL
	schemes map[string]scheme // the allowed algorithms
	now     func() time.Time
	source  *published
	keys    *keySet
}

// NewOIDC checks the configuration and returns an authenticator for its issuers.
// It asks them nothing: keys are fetched when a token first needs them, so an
// issuer that is down delays only its own users. Close ends it.
func NewOIDC(issuers []IssuerConfig, opts ...Option) (*OIDC, error) {
	options := newOptions(opts)
	if len(issuers) == 0 {
		return nil, errors.New("no OIDC issuer is configured")
	}
	o := &OIDC{issuers: make(map[string]*oidcIssuer, len(issuers))}
	for _, config := range issuers {
		if _, repeated := o.issuers[config.URL]; repeated {
			return nil, fmt.Errorf("OIDC issuer %q is configured twice", config.URL)
		}
		issuer, err := newOIDCIssuer(config, options)
		if err != nil {
			return nil, fmt.Errorf("OIDC issuer %q: %w", config.URL, err)
		}
		o.issuers[config.URL] = issuer
	}
	return o, nil
}

// Close ends fetches under way and waits for them. Tokens that need no further
// keys are still authenticated.
func (o *OIDC) Close() {
	for _, issuer := range o.issuers {
		issuer.keys.close()
		issuer.source.closeIdle()
	}
}

// Authenticate implements Authenticator. It may wait up to 5 s for an issuer's
// keys, or until ctx ends. The error is a status.Error: UNAUTHENTICATED with
// TOKEN_TOO_LARGE or INVALID_TOKEN, of a genuine token also with AUDIENCE,
// EXPIRED or NOT_YET_VALID; UNAVAILABLE with ISSUER_UNAVAILABLE and the time to
// retry after; or the end of ctx.
func (o *OIDC) Authenticate(ctx context.Context, credential Secret) (*Principal, error) {
	raw := credential.Reveal()
	if err := checkLength(raw); err != nil {
		return nil, err
	}
	t, ok := parseToken(raw)
	if !ok {
		return nil, errInvalid
	}
	return o.authenticate(ctx, &t, credential)
}

// authenticate verifies what parseToken has made of the credential.
func (o *OIDC) authenticate(ctx context.Context, t *token, credential Secret) (*Principal, error) {
	issuer := o.issuers[t.issuer]
	if issuer == nil {
		return nil, errInvalid
	}
	p, err := issuer.authenticate(ctx, t)
	if err != nil {
		return nil, err
	}
	p.credential = credential
	return p, nil
}

func newOIDCIssuer(config IssuerConfig, options options) (*oidcIssuer, error) {
	config = config.withDefaults()
	if err := config.check(); err != nil {
		return nil, err
	}
	transport, err := config.transport(options.transport)
	if err != nil {
		return nil, err
	}
	address, err := parseIssuerURL(config.URL)
	if err != nil {
		return nil, err
	}
	i := &oidcIssuer{config: config, host: []byte(address.Hostname()), schemes: map[string]scheme{}, now: options.now}
	for _, algorithm := range config.Algorithms {
		i.schemes[algorithm] = schemes[algorithm]
	}
	i.source = newPublished(config.URL, transport)
	i.keys = &keySet{issuer: config.URL, fetch: i.source.keys, now: options.now, logger: options.logger}
	return i, nil
}

func (i *oidcIssuer) authenticate(ctx context.Context, t *token) (*Principal, error) {
	verifies := i.schemes[t.algorithm]
	if verifies == nil {
		return nil, errInvalid
	}
	keyID, err := i.keys.verify(ctx, t, verifies)
	if err != nil {
		return nil, err
	}
	// From here on the token is genuine, though perhaps of no use.
	all, ok := decodeMembers(t.payload)
	if !ok {
		return nil, status.Unauthenticated(sluicev1.Reason_REASON_INVALID_TOKEN, "the token repeats a claim")
	}
	p, err := i.principal(claims(all))
	if err != nil {
		return nil, err
	}
	p.KeyID = keyID
	return p, nil
}
