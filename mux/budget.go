package mux

import (
	"sync"
	"sync/atomic"
)

// Budget bounds the bytes that channels hold to be sent or acknowledged. Budgets nest: a session's draws on the process's. Nothing is ever
// refused or dropped for a budget: who is over it stops reading its source. A Budget is safe for concurrent use.
type Budget struct {
	// Immutable after NewBudget.
	parent *Budget
	limit  int64

	held atomic.Int64

	mu      sync.Mutex
	waiting chan struct{}       // closed when room has come back; nil while nobody waits. Guarded by mu.
	told    map[*Channel]func() // called when room has come back. Guarded by mu.
}

// NewBudget makes a budget of limit bytes within parent, which may be nil.
func NewBudget(limit int, parent *Budget) *Budget {
	return &Budget{parent: parent, limit: int64(limit)}
}

// Held is how many bytes are charged.
func (b *Budget) Held() int { return int(b.held.Load()) }

// room is how many bytes a channel that holds own may still take, and which budget keeps it from more, nil for none. From half of the limit
// on, the bytes that one channel may hold shrink, from most down to a single frame, so that the largest buffers stop growing first and no
// channel stops altogether.
func (b *Budget) room(own, most int) (room int, by *Budget) {
	room = most - own
	for ; b != nil; b = b.parent {
		held, half := b.held.Load(), b.limit/2
		if held <= half {
			continue
		}
		left := max(b.limit-held, 0)
		share := int(int64(most) * left / max(b.limit-half, 1))
		if share-own < room {
			room, by = share-own, b
		}
	}
	return room, by
}

func (b *Budget) charge(n int) {
	for ; b != nil; b = b.parent {
		b.held.Add(int64(n))
	}
}

// release gives n bytes back and wakes who waits, once less than three quarters are held.
func (b *Budget) release(n int) {
	for ; b != nil; b = b.parent {
		if b.held.Add(-int64(n)) <= b.limit*3/4 {
			b.wake()
		}
	}
}

func (b *Budget) wake() {
	b.mu.Lock()
	if b.waiting != nil {
		close(b.waiting)
		b.waiting = nil
	}
	told := b.told
	b.told = nil
	b.mu.Unlock()
	for _, f := range told {
		f()
	}
}

// tell has f called, once, when room has come back. Ask for it before checking room again. A later call for the same channel replaces f.
func (b *Budget) tell(c *Channel, f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.told == nil {
		b.told = map[*Channel]func(){}
	}
	b.told[c] = f
}

// freed is closed when room has come back. Ask for it before checking room again, or a release in between is missed.
func (b *Budget) freed() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting == nil {
		b.waiting = make(chan struct{})
	}
	return b.waiting
}
