package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Reviewer asks a Kubernetes API server who a token speaks for, by a TokenReview
// (authentication.k8s.io/v1). Implementations are safe for concurrent use,
// honour ctx, change nothing they are given, and keep the token out of errors.
type Reviewer interface {
	// ReviewToken returns the answer for a token that is to be meant for one of
	// the audiences; none are the API server's own. An error says that there is
	// no answer, be it that the API server could not be reached or that it
	// refused the question.
	ReviewToken(ctx context.Context, token Secret, audiences []string) (Review, error)
}

// Review is the status of a TokenReview as the API server sent it.
type Review struct {
	Authenticated bool
	// Error is why not, in the API server's words. It is logged and never sent
	// to the caller.
	Error string
	// Username, UID, Groups and Extra are whom the token speaks for.
	Username, UID string
	Groups        []string
	Extra         map[string][]string
	// Audiences are those of the question for which the token is meant.
	Audiences []string
}

const (
	defaultReviewRate  = 50
	defaultReviewBurst = 100

	minReviewRate, maxReviewRate = 0.1, 10_000
	maxReviewBurst               = 100_000
)

// ReviewConfig says what an API server is asked, and whom its answers name.
type ReviewConfig struct {
	// Name is the Issuer of the principals: whoever vouches is that API server.
	// The name of its cluster does.
	Name string
	// Audiences is who a token may be meant for. None means the API server's
	// own, which every pod's token is for that was made without asking for
	// another: whoever gets hold of one is let in.
	Audiences []string

	UsernamePrefix string
	GroupsPrefix   string

	// Rate is how many tokens a second are reviewed in the long run, 0.1 to
	// 10,000, and Burst how many at once, up to 100,000; 0 means 50 and 100. That
	// is for all callers together, and as many again for those rechecked.
	Rate  float64
	Burst int
}

func (c ReviewConfig) withDefaults() ReviewConfig {
	if c.Rate == 0 {
		c.Rate = defaultReviewRate
	}
	if c.Burst == 0 {
		c.Burst = defaultReviewBurst
	}
	return c
}

func (c ReviewConfig) check() error {
	if err := checkIssuerName(c.Name); err != nil {
		return err
	}
	if slices.Contains(c.Audiences, "") {
		return errors.New("no audience may be empty")
	}
	if !(c.Rate >= minReviewRate && c.Rate <= maxReviewRate) { // and so not NaN
		return fmt.Errorf("rate %v is not between %v and %v a second", c.Rate, minReviewRate, maxReviewRate)
	}
	if c.Burst < 1 || c.Burst > maxReviewBurst {
		return fmt.Errorf("burst %d is not between 1 and %d", c.Burst, maxReviewBurst)
	}
	return checkPrefixes(c.UsernamePrefix, c.GroupsPrefix)
}

// principal reads whom the reviewed token speaks for, and refuses it if not for
// use here and now. The principal is without the token.
func (c ReviewConfig) principal(review Review, token string, now time.Time) (*Principal, error) {
	if !review.Authenticated {
		return nil, errInvalid
	}
	// From here on the token is genuine, though perhaps of no use.
	if err := c.checkAudiences(review.Audiences); err != nil {
		return nil, err
	}
	p := &Principal{Authenticator: byReview, Issuer: c.Name, Subject: review.Username, UID: review.UID, Audiences: review.Audiences}
	if err := c.readNames(review, p); err != nil {
		return nil, err
	}
	readReviewed(token, p)
	if p.ExpiredAt(now) {
		return nil, expired(p.ExpiresAt)
	}
	return p, nil
}

// checkAudiences refuses a token that is for none of the audiences asked for. An
// API server that knows no audiences answers without any, and then has not
// checked them at all.
func (c ReviewConfig) checkAudiences(meant []string) error {
	asked := func(audience string) bool { return slices.Contains(c.Audiences, audience) }
	if len(c.Audiences) == 0 || slices.ContainsFunc(meant, asked) {
		return nil
	}
	return status.Unauthenticated(sluicev1.Reason_REASON_AUDIENCE, "the token is meant for another audience")
}

// readNames takes over the names of the review, if every one of them is fit for
// a header and a log line. One that is not cannot be left out: as a missing
// scope, it would allow more.
func (c ReviewConfig) readNames(review Review, p *Principal) error {
	switch {
	case !cleanName(review.Username):
		return reviewError("user")
	case review.UID != "" && !cleanName(review.UID):
		return reviewError("uid")
	case !cleanNames(review.Groups):
		return reviewError("groups")
	}
	p.Username = c.UsernamePrefix + review.Username
	p.Groups = prefixed(c.GroupsPrefix, review.Groups)
	for _, key := range slices.Sorted(maps.Keys(review.Extra)) {
		values, lower := review.Extra[key], strings.ToLower(key)
		if _, repeated := p.Extra[lower]; repeated || !cleanKey(lower) || !cleanNames(values) {
			return reviewError("extra attributes")
		}
		if len(values) == 0 {
			continue
		}
		if p.Extra == nil {
			p.Extra = make(map[string][]string, len(review.Extra))
		}
		p.Extra[lower] = values
	}
	return nil
}

// reviewError refuses a genuine token of somebody who cannot be named safely.
func reviewError(field string) error {
	return status.Unauthenticated(sluicev1.Reason_REASON_INVALID_TOKEN,
		"the API server names the token's %s with none or with characters that names cannot have", field)
}

// readReviewed adds what the token says of itself, if it is a JWT. The API
// server has accepted it, so it is true; and what cannot be read is as if it
// were not there, for the API server did not need it.
func readReviewed(raw string, p *Principal) {
	header, ok := decodeMembers(objectIn(raw, 0))
	if !ok {
		return
	}
	payload, ok := decodeMembers(objectIn(raw, 1))
	if !ok {
		return
	}
	of := func(c claims, name string) string {
		s, err := c.name(name)
		if err != nil {
			return ""
		}
		return s
	}
	at := func(name string) time.Time {
		t, err := claims(payload).time(name)
		if err != nil {
			return time.Time{}
		}
		return t
	}
	p.KeyID, p.TokenID = of(header, "kid"), of(payload, "jti")
	p.ExpiresAt, p.NotBefore, p.IssuedAt = at("exp"), at("nbf"), at("iat")
}

// objectIn returns the object in a JWT's part, counted from 0; nil if there is
// none that is fit for decodeMembers.
func objectIn(raw string, part int) []byte {
	if doc := decodePart(raw, part); isObject(doc) {
		return doc
	}
	return nil
}

// decodePart decodes a part of what may be a JWT as the laxest reader would: in
// either alphabet, with stray bits. It is nil for anything else; padding within
// makes it no token at all (see token68).
func decodePart(raw string, part int) []byte {
	if strings.Count(raw, ".") != 2 {
		return nil
	}
	text := raw
	for range part {
		_, text, _ = strings.Cut(text, ".")
	}
	text, _, _ = strings.Cut(text, ".")
	encoding := base64.RawURLEncoding
	if strings.ContainsAny(text, "+/") {
		encoding = base64.RawStdEncoding
	}
	doc, err := encoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return doc
}
