package auth

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

const (
	// refreshInterval separates two fetches from one issuer, whatever the
	// tokens say and however the first one ended.
	refreshInterval = 10 * time.Second

	// refreshTimeout bounds one fetch, discovery included.
	refreshTimeout = 5 * time.Second

	// refreshAge is when keys in use are fetched anew, so that one which the
	// issuer withdraws stops being accepted.
	refreshAge = 5 * time.Minute

	// idleAge is when keys that nobody has used for a while are fetched before
	// they are used again: one that was withdrawn meanwhile serves not even once.
	idleAge = 2 * refreshAge

	// staleLimit is how long keys are trusted while their issuer is unreachable.
	staleLimit = 24 * time.Hour

	// maxAttempts bounds the keys that one token is tried against.
	maxAttempts = 16
)

var errClosed = errors.New("key set is closed")

// publicKey is one published key of an issuer.
type publicKey struct {
	id        string // empty when published without one
	algorithm string // the only one it serves; empty for any that fits
	key       crypto.PublicKey
}

// keySet holds the keys of one issuer. It fetches them when a token first needs
// one, keeps them while the issuer is away, and never asks more often than
// every refreshInterval.
type keySet struct {
	// Immutable after newKeySet.
	issuer string
	fetch  func(context.Context) ([]publicKey, error)
	now    func() time.Time
	logger *slog.Logger

	refreshes sync.WaitGroup // counts the goroutine of inflight; close waits for it

	// Guarded by mu.
	mu        sync.Mutex
	keys      []publicKey // replaced as a whole, never changed
	fetched   time.Time   // when keys were; zero before
	attempted time.Time   // when the last refresh began; zero before
	failure   error       // how the last refresh ended
	inflight  *refresh    // nil when none runs
	closed    bool
}

// refresh is one fetch under way.
type refresh struct {
	cancel context.CancelFunc
	done   chan struct{} // closed once the result is in the keySet
}

// verify returns the id of the key that signed t, fetching keys if t needs one
// that is not known. The error says INVALID_TOKEN, or ISSUER_UNAVAILABLE when
// only the issuer could tell.
func (s *keySet) verify(ctx context.Context, t *token, verifies scheme) (string, error) {
	if err := s.freshen(ctx); err != nil {
		return "", err
	}
	candidates := s.candidates(ctx, t)
	if id, ok := signedBy(candidates, t, verifies); ok {
		return id, nil
	}
	if t.keyID != "" && len(candidates) > 0 {
		return "", errInvalid // An id names one key for good: another fetch cannot help.
	}
	failure := s.refresh(ctx)
	if ctx.Err() != nil {
		return "", s.interrupted(ctx)
	}
	candidates = s.candidates(ctx, t)
	if id, ok := signedBy(candidates, t, verifies); ok {
		return id, nil
	}
	if failure != nil && len(candidates) == 0 {
		return "", s.unavailable(failure)
	}
	return "", errInvalid
}

// signedBy returns the id of the candidate that signed t.
func signedBy(candidates []publicKey, t *token, verifies scheme) (string, bool) {
	if len(candidates) == 0 {
		return "", false
	}
	signature, err := strict64.DecodeString(t.signature)
	if err != nil {
		return "", false
	}
	for _, candidate := range candidates {
		if verifies(candidate.key, t.signed, signature) {
			return candidate.id, true
		}
	}
	return "", false
}

// candidates returns the known keys that may have signed t, and sees to it that
// keys in use do not grow old.
func (s *keySet) candidates(ctx context.Context, t *token) []publicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	age := s.now().Sub(s.fetched)
	if age > staleLimit {
		return nil
	}
	if age < 0 || age > refreshAge {
		s.startRefresh(ctx)
	}
	var found []publicKey
	for _, key := range s.keys {
		named := t.keyID == "" || t.keyID == key.id
		serves := key.algorithm == "" || key.algorithm == t.algorithm
		if named && serves && len(found) < maxAttempts {
			found = append(found, key)
		}
	}
	return found
}

// freshen waits for a fetch if the keys have lain unused. While the issuer is
// known to be away it does not: what is known goes on serving without delay.
func (s *keySet) freshen(ctx context.Context) error {
	s.mu.Lock()
	now := s.now()
	old := !s.fetched.IsZero() && now.Sub(s.fetched) > idleAge
	if old && now.Sub(s.attempted) > idleAge {
		s.failure = nil // of a time that says nothing of today
	}
	var r *refresh
	if old && s.failure == nil {
		r = s.startRefresh(ctx)
	}
	s.mu.Unlock()
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return s.interrupted(ctx)
	}
}

func (s *keySet) interrupted(ctx context.Context) error {
	return status.From(fmt.Errorf("wait for the keys of issuer %q: %w", s.issuer, ctx.Err()))
}

// refresh waits for the fetch under way, or for a new one if the interval
// allows. It returns how the latest fetch ended, or that ctx did first.
func (s *keySet) refresh(ctx context.Context) error {
	s.mu.Lock()
	r := s.startRefresh(ctx)
	failure := s.failure
	s.mu.Unlock()
	if r == nil {
		return failure
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// startRefresh returns the fetch under way, beginning one if the interval
// allows; nil if it does not. The fetch outlives ctx: others may wait for it.
// The caller holds mu.
func (s *keySet) startRefresh(ctx context.Context) *refresh {
	if s.closed {
		s.failure = errClosed
		return nil
	}
	if s.inflight != nil || s.wait() > 0 {
		return s.inflight
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), refreshTimeout)
	r := &refresh{cancel: cancel, done: make(chan struct{})}
	s.inflight, s.attempted = r, s.now()
	s.refreshes.Go(func() { s.run(ctx, r) })
	return r
}

// wait returns how long the interval forbids another fetch. The caller holds mu.
func (s *keySet) wait() time.Duration {
	elapsed := s.now().Sub(s.attempted)
	if elapsed < 0 || elapsed >= refreshInterval {
		return 0 // Negative means that the clock was set back.
	}
	return refreshInterval - elapsed
}

// run fetches once and keeps the result; a failure leaves the keys as they are.
func (s *keySet) run(ctx context.Context, r *refresh) {
	defer r.cancel()
	keys, err := s.fetch(ctx)
	if err != nil {
		s.logger.WarnContext(ctx, "keys of issuer not fetched", "issuer", s.issuer, "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.keys, s.fetched = keys, s.now()
	}
	s.failure, s.inflight = err, nil
	close(r.done)
}

func (s *keySet) unavailable(cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return status.New(codes.Unavailable, sluicev1.Reason_REASON_ISSUER_UNAVAILABLE,
		"the keys of issuer %q cannot be fetched; retry later", s.issuer).
		WithRetryAfter(max(s.wait(), time.Second)).Wrap(cause)
}

// close ends the fetch under way, waits for it, and forbids others.
func (s *keySet) close() {
	s.mu.Lock()
	s.closed = true
	if s.inflight != nil {
		s.inflight.cancel()
	}
	s.mu.Unlock()
	s.refreshes.Wait()
}
