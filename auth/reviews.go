package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

const (
	// acceptedFor is how long an accepted token is not reviewed again, as long
	// as an API server itself takes an accepted token for good.
	acceptedFor = 10 * time.Second

	// refusedFor is how long a refused token is refused without a review. It is
	// short, for what is refused may just not be known yet.
	refusedFor = time.Second

	// reviewTimeout bounds one review.
	reviewTimeout = 5 * time.Second

	// maxReviewText bounds what is logged of the API server's words.
	maxReviewText = 300

	// minSecretPart is the length from which a part of a token is kept out of the
	// log; a shorter one gives nothing away and is in half of all words.
	minSecretPart = 8

	// sweepAbove is how many answers are kept before those that are over go.
	sweepAbove = 1024

	// LimitTokenReviews is the limit that a refused review names.
	LimitTokenReviews = "limits.token_reviews"
)

var errReviewsClosed = errors.New("token reviews are closed")

// Reviews authenticates tokens by asking a Kubernetes API server: those of
// service accounts and whatever else it knows. However many callers come with
// one token, it is reviewed once; an accepted token counts as accepted for 10 s
// and a refused one as refused for 1 s, while an API server that did not answer
// is asked again at once. It is safe for concurrent use.
type Reviews struct {
	// Immutable after NewReviews.
	reviewer Reviewer
	config   ReviewConfig
	now      func() time.Time
	logger   *slog.Logger
	secret   [32]byte // makes the names of tokens, which nobody else can compute

	running sync.WaitGroup // counts the goroutines of flights; Close waits for them

	// Guarded by mu.
	mu       sync.Mutex
	answers  map[tokenName]answer
	sweepAt  int // the number of answers at which those that are over are removed
	flights  map[tokenName]*flight
	arrivals pace
	rechecks pace // apart, so that a flood of arrivals takes nothing from who is already here
	closed   bool
}

// tokenName stands for a token that was asked about for some audiences. Tokens
// themselves are not kept.
type tokenName [sha256.Size]byte

// answer is whom a token speaks for, or why it is refused.
type answer struct {
	principal   *Principal // without the token
	err         error
	from, until time.Time // when it may be used again; zero for never
}

// flight is one review under way.
type flight struct {
	cancel context.CancelFunc
	done   chan struct{} // closed once answer is set
	answer answer
}

// NewReviews checks the configuration and returns an authenticator that asks
// reviewer. Close ends it.
func NewReviews(reviewer Reviewer, config ReviewConfig, opts ...Option) (*Reviews, error) {
	o := newOptions(opts)
	config = config.withDefaults()
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("token reviews: %w", err)
	}
	r := &Reviews{
		reviewer: reviewer, config: config, now: o.now, logger: o.logger,
		answers: map[tokenName]answer{}, sweepAt: sweepAbove, flights: map[tokenName]*flight{},
		arrivals: newPace(config.Rate, config.Burst), rechecks: newPace(config.Rate, config.Burst),
	}
	_, _ = rand.Read(r.secret[:]) // never fails
	return r, nil
}

// Authenticate implements Authenticator. It may wait up to 5 s for the review,
// or until ctx ends. The error is a status.Error: UNAUTHENTICATED with
// TOKEN_TOO_LARGE or INVALID_TOKEN, of a token that the API server accepts also
// with AUDIENCE or EXPIRED; UNAVAILABLE with ISSUER_UNAVAILABLE and the time to
// retry after, when the API server did not answer; RESOURCE_EXHAUSTED with that
// time and LimitTokenReviews; or the end of ctx.
func (r *Reviews) Authenticate(ctx context.Context, credential Secret) (*Principal, error) {
	return r.ask(ctx, credential, false)
}

// Recheck implements Rechecker: the API server is asked about the token of p
// again, whatever it answered before. Callers with one token share a review, as
// they do in Authenticate.
func (r *Reviews) Recheck(ctx context.Context, p *Principal) (*Principal, error) {
	newest, err := r.ask(ctx, p.credential, true)
	if err != nil {
		return nil, err
	}
	return p.sameAs(newest)
}

// Close ends reviews under way and waits for them. Tokens that were accepted
// just before are still authenticated.
func (r *Reviews) Close() {
	r.mu.Lock()
	r.closed = true
	for _, f := range r.flights {
		f.cancel()
	}
	r.mu.Unlock()
	r.running.Wait()
}

func (r *Reviews) ask(ctx context.Context, credential Secret, again bool) (*Principal, error) {
	raw := credential.Reveal()
	if err := checkLength(raw); err != nil {
		return nil, err
	}
	if !token68(raw) {
		return nil, errInvalid
	}
	known, f, err := r.find(ctx, credential, r.name(raw), again)
	if err != nil {
		return nil, err
	}
	if f == nil {
		return known.of(credential)
	}
	select {
	case <-f.done:
		return f.answer.of(credential)
	case <-ctx.Done():
		return nil, status.From(fmt.Errorf("wait for the review of a token: %w", ctx.Err()))
	}
}

// of returns the answer for who holds the token.
func (a answer) of(credential Secret) (*Principal, error) {
	if a.err != nil {
		return nil, a.err
	}
	return a.principal.WithCredential(credential), nil
}

// name returns what the token is known by here.
func (r *Reviews) name(raw string) tokenName {
	mac := hmac.New(sha256.New, r.secret[:])
	for _, audience := range r.config.Audiences {
		_ = binary.Write(mac, binary.BigEndian, uint64(len(audience)))
		writePieces(mac, audience)
	}
	writePieces(mac, raw)
	var name tokenName
	mac.Sum(name[:0])
	return name
}

// find returns the answer that is known, unless it is to be asked again, or else
// the flight that will bring one, beginning it if the pace allows.
func (r *Reviews) find(ctx context.Context, credential Secret, name tokenName, again bool) (answer, *flight, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if known, has := r.answers[name]; has && !again && known.usable(now) {
		return known, nil, nil
	}
	if f := r.flights[name]; f != nil {
		return answer{}, f, nil
	}
	if r.closed {
		return answer{}, nil, r.unavailable(errReviewsClosed)
	}
	pace := &r.arrivals
	if again {
		pace = &r.rechecks
	}
	if wait := pace.take(now); wait > 0 {
		return answer{}, nil, status.Limit(LimitTokenReviews,
			"the gateway has as many tokens reviewed as %s allows; retry later", LimitTokenReviews).WithRetryAfter(max(wait, time.Second))
	}
	return answer{}, r.start(ctx, credential, name), nil
}

func (a answer) usable(now time.Time) bool {
	return !now.Before(a.from) && now.Before(a.until)
}

// start begins a review. It outlives ctx: others may wait for it. The caller holds mu.
func (r *Reviews) start(ctx context.Context, credential Secret, name tokenName) *flight {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reviewTimeout)
	f := &flight{cancel: cancel, done: make(chan struct{})}
	r.flights[name] = f
	r.running.Go(func() {
		defer cancel()
		f.answer = r.review(ctx, credential)
		r.land(name, f)
	})
	return f
}

// review asks the API server.
func (r *Reviews) review(ctx context.Context, credential Secret) answer {
	review, err := r.reviewer.ReviewToken(ctx, credential, r.config.Audiences)
	if err != nil {
		r.logger.WarnContext(ctx, "token not reviewed", "issuer", r.config.Name, "error", err)
		return answer{err: r.unavailable(err)}
	}
	now := r.now()
	p, err := r.config.principal(review, credential.Reveal(), now)
	if err != nil {
		r.logger.InfoContext(ctx, "token refused by review", "issuer", r.config.Name, "error", err,
			"reason", withoutToken(review.Error, credential.Reveal()))
		return answer{err: err, from: now, until: now.Add(refusedFor)}
	}
	a := answer{principal: p, from: now, until: now.Add(acceptedFor)}
	if !p.ExpiresAt.IsZero() && p.ExpiresAt.Before(a.until) {
		a.until = p.ExpiresAt
	}
	return a
}

// land keeps what the flight has brought. Without an answer, what was known stays.
func (r *Reviews) land(name tokenName, f *flight) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flights, name)
	if !f.answer.until.IsZero() {
		r.sweep(f.answer.from)
		r.answers[name] = f.answer
	}
	close(f.done)
}

// sweep removes answers that are over, once there are twice as many as the last
// time left. The pace bounds how many are not over. The caller holds mu.
func (r *Reviews) sweep(now time.Time) {
	if len(r.answers) < r.sweepAt {
		return
	}
	for name, a := range r.answers {
		if !a.usable(now) {
			delete(r.answers, name)
		}
	}
	r.sweepAt = max(2*len(r.answers), sweepAbove)
}

// unavailable is the refusal for want of an answer. It is retried after what the
// API server asks for, or 1 s.
func (r *Reviews) unavailable(cause error) error {
	retry := time.Second
	if e := status.From(cause); e.RetryAfter > retry {
		retry = e.RetryAfter
	}
	return status.New(codes.Unavailable, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE,
		"the API server that reviews tokens for %q does not answer; retry later", r.config.Name).WithRetryAfter(retry).Wrap(cause)
}

// withoutToken returns the text without the token or a part of it: an API
// server's authenticators are many, and one may quote what it was given.
func withoutToken(text, token string) string {
	text = strings.ReplaceAll(text, token, redacted)
	for part := range strings.SplitSeq(token, ".") {
		if len(part) >= minSecretPart {
			text = strings.ReplaceAll(text, part, redacted)
		}
	}
	return strings.ToValidUTF8(text[:min(len(text), maxReviewText)], "")
}
