package client

import (
	"context"
	"os"
	"sync"
	"time"
)

// deadline is a point in time that can be moved while somebody waits for it. It is safe for concurrent use.
type deadline struct {
	mu     sync.Mutex
	passed chan struct{} // closed when the deadline has passed. Guarded by mu.
	timer  *time.Timer   // Guarded by mu.
	moves  uint64        // what a timer of an earlier deadline is told by. Guarded by mu.
}

func newDeadline() *deadline { return &deadline{passed: make(chan struct{})} }

// set moves the deadline; the zero time is never. Who waits for the one before waits for this one, unless that had passed.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.moves++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if until(d.passed).Err() != nil {
		d.passed = make(chan struct{})
	}
	if t.IsZero() {
		return
	}
	left, move := time.Until(t), d.moves
	if left <= 0 {
		close(d.passed)
		return
	}
	d.timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.moves == move {
			close(d.passed)
		}
	})
}

// wait is a context that ends when the deadline passes.
func (d *deadline) wait() until {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed
}

// until is a deadline as a context. Unlike one of package context it costs nothing for each call.
type until chan struct{}

var _ context.Context = until(nil)

// Deadline implements context.Context: it may still move.
func (u until) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (u until) Done() <-chan struct{} { return u }

// Err implements context.Context.
func (u until) Err() error {
	select {
	case <-u:
		return os.ErrDeadlineExceeded
	default:
		return nil
	}
}

// Value implements context.Context.
func (u until) Value(any) any { return nil }
