// Package load is the client of the benchmark: it opens watches in one of several ways and measures what they bring.
package load

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/bench/event"
)

// Role is what a watch is in a measurement.
type Role string

// The roles.
const (
	// Ordinary is a watch whose latency counts.
	Ordinary Role = ""
	// Heavy is a neighbour that brings much.
	Heavy Role = "heavy"
	// Stalled is a neighbour that is read until its first event, and then never again.
	Stalled Role = "stalled"
)

// Watch is one watch.
type Watch struct {
	// Namespace is its own: it names the watch.
	Namespace string `json:"namespace"`
	// Size and Rate are of its events: bytes, and events a second as in the package upstream.
	Size int  `json:"size"`
	Rate int  `json:"rate"`
	Role Role `json:"role,omitempty"`
}

// meter measures the events of watches. Those of one watch are delivered one after the other, those of different ones concurrently.
type meter struct {
	watches []Watch // immutable
	tallies []tally
	latency histogram

	waiting atomic.Int64  // watches without any event yet
	opened  chan struct{} // closed when there is none

	failOnce sync.Once
	failed   chan struct{} // closed when a watch has ended
	err      error         // why, once failed is closed
}

// tally is what one watch has brought.
type tally struct {
	last, events                            atomic.Uint64
	lost, duplicated, unmarked, interrupted atomic.Uint64

	_ [80]byte // so that two watches share no cache line
}

func newMeter(watches []Watch) *meter {
	m := &meter{watches: watches, tallies: make([]tally, len(watches)), opened: make(chan struct{}), failed: make(chan struct{})}
	m.waiting.Store(int64(len(watches)))
	return m
}

// deliver takes an event of the i-th watch.
func (m *meter) deliver(i int, ev []byte) {
	now := event.Now()
	t := &m.tallies[i]
	mark, ok := event.Read(ev)
	if !ok || len(ev) != m.watches[i].Size {
		if !event.IsBookmark(ev) {
			t.unmarked.Add(1)
		}
		return
	}
	last := t.last.Load()
	if last == 0 && m.waiting.Add(-1) == 0 {
		close(m.opened)
	}
	if mark.Seq <= last {
		t.duplicated.Add(1)
		return
	}
	t.lost.Add(mark.Seq - last - 1)
	t.last.Store(mark.Seq)
	t.events.Add(1)
	if m.watches[i].Role == Ordinary {
		m.latency.add(now - mark.Due)
	}
}

// interrupt notes that the i-th watch was broken and mended.
func (m *meter) interrupt(i int) { m.tallies[i].interrupted.Add(1) }

// fail notes that a watch has ended, which none should.
func (m *meter) fail(err error) {
	m.failOnce.Do(func() {
		m.err = err
		close(m.failed)
	})
}

// await waits until every watch has brought an event.
func (m *meter) await(ctx context.Context) error {
	select {
	case <-m.opened:
		return nil
	case <-m.failed:
		return m.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// failure is why a watch has ended, nil while none has.
func (m *meter) failure() error {
	select {
	case <-m.failed:
		return m.err
	default:
		return nil
	}
}

// counts are events since the beginning.
type counts struct {
	at              time.Time
	measured, heavy uint64
}

func (m *meter) count() (c counts) {
	for i := range m.tallies {
		n := m.tallies[i].events.Load()
		switch m.watches[i].Role {
		case Ordinary:
			c.measured += n
		case Heavy:
			c.heavy += n
		case Stalled:
		}
	}
	c.at = time.Now()
	return c
}

// Faults are what must not be. The zero value is how it should be.
type Faults struct {
	// Lost are gaps in the numbers of events, Duplicated events that had come before, Unmarked what was no event of the benchmark or not whole.
	Lost       uint64 `json:"lost"`
	Duplicated uint64 `json:"duplicated"`
	Unmarked   uint64 `json:"unmarked"`
	// Missing are events that the upstream had sent and that were not there five seconds later.
	Missing uint64 `json:"missing"`
	// Interrupted are reconnects and resyncs.
	Interrupted uint64 `json:"interrupted"`
}

// None reports whether there is none.
func (f Faults) None() bool { return f == Faults{} }

// Plus is both together.
func (f Faults) Plus(o Faults) Faults {
	return Faults{
		Lost: f.Lost + o.Lost, Duplicated: f.Duplicated + o.Duplicated, Unmarked: f.Unmarked + o.Unmarked,
		Missing: f.Missing + o.Missing, Interrupted: f.Interrupted + o.Interrupted,
	}
}

func (m *meter) faults() (f Faults) {
	for i := range m.tallies {
		t := &m.tallies[i]
		f.Lost += t.lost.Load()
		f.Duplicated += t.duplicated.Load()
		f.Unmarked += t.unmarked.Load()
		f.Interrupted += t.interrupted.Load()
	}
	return f
}

// settleWithin is how long an event may take from the upstream's end to here.
const settleWithin = 5 * time.Second

// settle waits until the watches have brought all that was sent, by namespace, and returns how many events are missing.
func (m *meter) settle(ctx context.Context, sent map[string]uint64) (missing uint64) {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond) // events have no time to tell anybody
	defer look.Stop()
	for {
		if missing = m.missing(sent); missing == 0 {
			return 0
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return m.missing(sent)
		}
	}
}

func (m *meter) missing(sent map[string]uint64) (n uint64) {
	for i, w := range m.watches {
		if want, last := sent[w.Namespace], m.tallies[i].last.Load(); w.Role != Stalled && want > last {
			n += want - last
		}
	}
	return n
}
