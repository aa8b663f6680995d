package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Scope is what a Revocation ends.
type Scope string

// The scopes.
const (
	ScopeSession   Scope = "session"   // one session; ID is the session's
	ScopePrincipal Scope = "principal" // one caller; ID is Principal.Key
	ScopeToken     Scope = "token"     // one credential; ID is of IssuedID
	ScopeKey       Scope = "key"       // whatever one of an issuer's keys has signed; ID is of IssuedID
)

const (
	maxRevocationText = 4 << 10   // bounds each text of a revocation
	maxRevocationLine = 128 << 10 // bounds its line in a file, in which a byte may take six
)

// Revocation says what is not accepted any more.
type Revocation struct {
	Scope Scope  `json:"scope"`
	ID    string `json:"id"`
	// IssuedBefore spares credentials issued at that moment or later, with which
	// a caller is let in again. Zero spares none; neither does ScopeSession, a
	// session's end being final, nor a credential that does not say when it was
	// issued.
	IssuedBefore time.Time `json:"issued_before,omitzero"`
	// Expires is when the revocation may be forgotten: not before what it
	// refuses has expired by itself. Zero means never.
	Expires time.Time `json:"expires,omitzero"`

	// By is who revoked, At when, and Reason why, for the record.
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at,omitzero"`
	Reason string    `json:"reason,omitempty"`
}

// IssuedID returns the ID of a ScopeToken or ScopeKey: what an issuer calls one
// of its tokens (Principal.TokenID) or keys (Principal.KeyID). Without either
// name it is empty, which no revocation can have.
func IssuedID(issuer, id string) string {
	if issuer == "" || id == "" {
		return ""
	}
	return issuer + "\n" + id // a character that neither can have
}

// check returns an error for a revocation that would refuse nobody.
func (r Revocation) check() error {
	issuer, id, joined := strings.Cut(r.ID, "\n")
	switch r.Scope {
	case ScopeSession, ScopePrincipal:
		if r.ID == "" || joined {
			return fmt.Errorf("revocation of a %s: the id is empty or of more than one line", r.Scope)
		}
	case ScopeToken, ScopeKey:
		if issuer == "" || id == "" || strings.Contains(id, "\n") {
			return fmt.Errorf("revocation of a %s: the id is not an issuer's name, a line end and that issuer's id", r.Scope)
		}
	default:
		return fmt.Errorf("revocation of a %.20q: no such scope", string(r.Scope))
	}
	for _, text := range []string{r.ID, r.By, r.Reason} {
		if len(text) > maxRevocationText || !utf8.ValidString(text) {
			return fmt.Errorf("revocation of a %s: id, author or reason has more than %d bytes or is not UTF-8", r.Scope, maxRevocationText)
		}
	}
	return nil
}

// covers reports whether r refuses all that other does, for as long.
func (r Revocation) covers(other Revocation) bool {
	return atLeast(r.IssuedBefore, other.IssuedBefore) && atLeast(r.Expires, other.Expires)
}

// atLeast reports whether a is no earlier than b, zero being later than any time.
func atLeast(a, b time.Time) bool {
	return a.IsZero() || !b.IsZero() && !a.Before(b)
}

// refuses reports whether r holds at that moment for what was issued then.
func (r Revocation) refuses(issued, now time.Time) bool {
	if !r.Expires.IsZero() && !now.Before(r.Expires) {
		return false
	}
	return r.Scope == ScopeSession || r.IssuedBefore.IsZero() || issued.IsZero() || issued.Before(r.IssuedBefore)
}

// RevocationConfig says where revocations are remembered.
type RevocationConfig struct {
	// File keeps them over a restart, a line of JSON each, without any
	// credential; empty keeps them in memory only. No other process may use it.
	File string
}

// Revocations is a set that only grows, until what is in it expires: two of them
// are joined by adding either to the other, in any order and any number of
// times, and nothing that is lost in between makes a revoked credential good
// again. It is safe for concurrent use.
type Revocations struct {
	// Immutable after NewRevocations.
	now    func() time.Time
	logger *slog.Logger

	writing sync.Mutex      // held before mu
	file    *revocationFile // nil for none; its content is guarded by writing

	// Guarded by mu.
	mu        sync.RWMutex
	entries   map[Scope]map[string][]Revocation // by ID; of each, none covers another
	count     int
	sweepAt   int          // the count at which those that are over are removed
	unwritten []Revocation // those that are not in file yet
	listeners map[*func(Revocation)]struct{}
}

// NewRevocations returns the set that the file holds, which is made if there is
// none. Lines that cannot be read are logged and passed over: the others count.
// Close ends it.
func NewRevocations(config RevocationConfig, opts ...Option) (*Revocations, error) {
	o := newOptions(opts)
	r := &Revocations{
		now: o.now, logger: o.logger, entries: map[Scope]map[string][]Revocation{}, sweepAt: sweepAbove,
		listeners: map[*func(Revocation)]struct{}{},
	}
	if config.File == "" {
		return r, nil
	}
	file, err := openRevocationFile(config.File, r)
	if err != nil {
		return nil, fmt.Errorf("open revocations: %w", err)
	}
	r.file = file
	return r, nil
}

// Add puts a revocation into the set and reports whether it refuses anything
// that was not refused before. It counts, and those who listen have been told,
// when Add returns. An error says that it is not valid and does not count, or
// that it counts but could not be written down: then it is lost with the process,
// unless adding it again, or another, succeeds.
func (r *Revocations) Add(revocation Revocation) (added bool, err error) {
	if err := revocation.check(); err != nil {
		return false, err
	}
	added = r.insert(revocation)
	if added {
		for _, listener := range r.listening() {
			listener(revocation)
		}
	}
	if err := r.write(); err != nil {
		return added, fmt.Errorf("write down the revocation of a %s, which counts until the process ends: %w", revocation.Scope, err)
	}
	return added, nil
}

// Refuses returns the revocation that a session of p meets, or p alone if session
// is empty; false for none.
func (r *Revocations) Refuses(session string, p *Principal) (Revocation, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.count == 0 {
		return Revocation{}, false
	}
	now := r.now()
	if found, ok := first(r.entries[ScopeSession][session], p.IssuedAt, now); ok {
		return found, true
	}
	for _, issued := range []struct {
		scope Scope
		id    string
	}{{ScopeToken, p.TokenID}, {ScopeKey, p.KeyID}} {
		byID := r.entries[issued.scope]
		if len(byID) == 0 {
			continue
		}
		if found, ok := first(byID[IssuedID(p.Issuer, issued.id)], p.IssuedAt, now); ok {
			return found, true
		}
	}
	if byID := r.entries[ScopePrincipal]; len(byID) > 0 {
		return first(byID[p.Key()], p.IssuedAt, now)
	}
	return Revocation{}, false
}

func first(list []Revocation, issued, now time.Time) (Revocation, bool) {
	for _, revocation := range list {
		if revocation.refuses(issued, now) {
			return revocation, true
		}
	}
	return Revocation{}, false
}

// OnAdd calls listener for each revocation that is added from now on and refuses
// anything new, after Refuses has come to know it and before Add returns. It
// must not block, nor call Add. Who listens for sessions to end must make a
// session known to the listener before asking Refuses about it: then one of them
// tells. The function returned ends it.
func (r *Revocations) OnAdd(listener func(Revocation)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := &listener
	r.listeners[id] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.listeners, id)
	}
}

// List returns all revocations that are not over, in the order of scope, id and time.
func (r *Revocations) List() []Revocation {
	r.mu.RLock()
	defer r.mu.RUnlock()
	now := r.now()
	var all []Revocation
	for _, byID := range r.entries {
		for _, list := range byID {
			for _, revocation := range list {
				if !revocation.over(now) {
					all = append(all, revocation)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b Revocation) int {
		if n := strings.Compare(string(a.Scope), string(b.Scope)); n != 0 {
			return n
		}
		if n := strings.Compare(a.ID, b.ID); n != 0 {
			return n
		}
		return a.Expires.Compare(b.Expires)
	})
	return all
}

// Close closes the file. The set goes on counting; what is added afterwards is
// not written down, and Add says so.
func (r *Revocations) Close() error {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.file == nil {
		return nil
	}
	return r.file.close()
}

func (r Revocation) over(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

// insert reports whether the revocation refuses anything new. What it covers goes.
func (r *Revocations) insert(revocation Revocation) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if revocation.over(now) {
		return false
	}
	if r.count >= r.sweepAt {
		r.sweep(now)
	}
	byID := r.entries[revocation.Scope]
	if byID == nil {
		byID = map[string][]Revocation{}
		r.entries[revocation.Scope] = byID
	}
	list := byID[revocation.ID]
	if slices.ContainsFunc(list, func(known Revocation) bool { return known.covers(revocation) }) {
		return false
	}
	before := len(list)
	list = append(slices.DeleteFunc(list, revocation.covers), revocation)
	byID[revocation.ID] = list
	r.count += len(list) - before
	if r.file != nil {
		r.unwritten = append(r.unwritten, revocation)
	}
	return true
}

// sweep removes what is over. The caller holds mu.
func (r *Revocations) sweep(now time.Time) {
	r.count = 0
	for _, byID := range r.entries {
		for id, list := range byID {
			list = slices.DeleteFunc(list, func(old Revocation) bool { return old.over(now) })
			if len(list) == 0 {
				delete(byID, id)
				continue
			}
			byID[id] = list
			r.count += len(list)
		}
	}
	r.sweepAt = max(2*r.count, sweepAbove)
}

func (r *Revocations) listening() []func(Revocation) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]func(Revocation), 0, len(r.listeners))
	for listener := range r.listeners {
		all = append(all, *listener)
	}
	return all
}

// write makes durable whatever is not yet, also of other calls: when it returns
// nil, so is everything that was inserted before it was called.
func (r *Revocations) write() error {
	r.writing.Lock()
	defer r.writing.Unlock()
	r.mu.RLock()
	next := r.unwritten
	r.mu.RUnlock()
	if len(next) == 0 {
		return nil
	}
	if err := r.file.append(next); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unwritten = slices.Clone(r.unwritten[len(next):])
	return nil
}

var errRevocationsClosed = errors.New("the file is closed")
