package auth

import (
	"slices"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// principal reads whom a genuine token speaks for, and refuses it if not for
// use here and now.
func (i *oidcIssuer) principal(c claims) (*Principal, error) {
	// The issuer was chosen by the first claim of that name, and none repeats.
	p := &Principal{Authenticator: byOIDC, Issuer: i.config.URL}
	for _, read := range []func(claims, *Principal) error{i.readAudiences, i.readTimes, i.readIdentity, i.readGroups, i.readExtra} {
		if err := read(c, p); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// readAudiences makes sure that the token is meant for this gateway. When it is
// meant for others too, the party it was issued to (`azp`) must be known, if it
// is named at all: Kubernetes names none.
func (i *oidcIssuer) readAudiences(c claims, p *Principal) (err error) {
	if p.Audiences, err = c.names("aud"); err != nil {
		return err
	}
	meantForUs := func(audience string) bool { return slices.Contains(i.config.Audiences, audience) }
	if !slices.ContainsFunc(p.Audiences, meantForUs) {
		return status.Unauthenticated(sluicev1.Reason_REASON_AUDIENCE, "the token is meant for another audience")
	}
	party, err := c.name("azp")
	if err != nil {
		return err
	}
	if len(p.Audiences) == 1 || party == "" || meantForUs(party) || slices.Contains(i.config.AuthorizedParties, party) {
		return nil
	}
	return status.Unauthenticated(sluicev1.Reason_REASON_AUDIENCE,
		"the token was issued to a party (claim \"azp\") that may not pass it on")
}

func (i *oidcIssuer) readTimes(c claims, p *Principal) (err error) {
	now := i.now()
	if p.ExpiresAt, err = c.time("exp"); err != nil {
		return err
	}
	if p.NotBefore, err = c.time("nbf"); err != nil {
		return err
	}
	if p.IssuedAt, err = c.time("iat"); err != nil {
		return err
	}
	latest := now.Add(i.config.Leeway)
	switch {
	case p.ExpiresAt.IsZero():
		return claimError("exp", "is required")
	case !now.Before(p.ExpiresAt):
		return expired(p.ExpiresAt)
	case p.NotBefore.After(latest), p.IssuedAt.After(latest):
		return status.Unauthenticated(sluicev1.Reason_REASON_NOT_YET_VALID, "the token is not valid yet")
	}
	return i.checkLifetime(p.IssuedAt, now, p.ExpiresAt)
}

// expired refuses a genuine credential whose time is over.
func expired(at time.Time) error {
	return status.Unauthenticated(sluicev1.Reason_REASON_EXPIRED, "the credential expired at %s", at.UTC().Format(time.RFC3339))
}

func (i *oidcIssuer) checkLifetime(issued, now, expires time.Time) error {
	if issued.IsZero() {
		issued = now
	}
	if i.config.MaxLifetime > 0 && expires.Sub(issued) > i.config.MaxLifetime {
		return claimError("exp", "is later than this gateway accepts")
	}
	return nil
}

func (i *oidcIssuer) readIdentity(c claims, p *Principal) (err error) {
	if p.Subject, err = c.name("sub"); err != nil {
		return err
	}
	if p.TokenID, err = c.name("jti"); err != nil {
		return err
	}
	username, err := c.name(i.config.UsernameClaim)
	if err != nil {
		return err
	}
	if i.config.UIDClaim != "" {
		if p.UID, err = c.name(i.config.UIDClaim); err != nil {
			return err
		}
	}
	switch {
	case p.Subject == "":
		return claimError("sub", "is required")
	case username == "":
		return claimError(i.config.UsernameClaim, "is required")
	case p.UID == "" && i.config.UIDClaim != "":
		return claimError(i.config.UIDClaim, "is required")
	}
	p.Username = i.config.UsernamePrefix + username
	if i.config.UsernameClaim == "email" {
		return c.emailVerified(username)
	}
	return nil
}

func (i *oidcIssuer) readGroups(c claims, p *Principal) (err error) {
	if p.Groups, err = c.names(i.config.GroupsClaim); err != nil {
		return err
	}
	for n, group := range p.Groups {
		p.Groups[n] = i.config.GroupsPrefix + group
	}
	return nil
}

// readExtra reads what else is handed on to a cluster. A claim that the token does not have adds nothing.
func (i *oidcIssuer) readExtra(c claims, p *Principal) error {
	for key, claim := range i.config.ExtraClaims {
		values, err := c.names(claim)
		if err != nil {
			return err
		}
		if len(values) == 0 {
			continue
		}
		if p.Extra == nil {
			p.Extra = make(map[string][]string, len(i.config.ExtraClaims))
		}
		p.Extra[key] = values
	}
	return nil
}
