package ready

import (
	"sync/atomic"
	"testing"
)

// countingPoller counts the events that its poller tells of.
type countingPoller struct {
	poller
	events atomic.Int64
}

func (c *countingPoller) poll() ([]event, bool, error) {
	events, all, err := c.poller.poll()
	c.events.Add(int64(len(events)))
	return events, all, err
}

// TestUnreadBytesCostNothing: bytes that a paused source leaves unread are told of once, or the loop would never rest. The same goes for the
// Wakes that it is woken with.
func TestUnreadBytesCostNothing(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	counting := &countingPoller{poller: p}
	l := &Loops{loops: []*loop{{poller: counting}}}
	l.running.Go(l.loops[0].run)
	defer l.Close()

	fd, peer := pair(t)
	defer shut(t, fd)
	defer shut(t, peer)
	var leave atomic.Bool
	s := newProbe(func(bool) Next {
		if leave.Load() {
			return Leave
		}
		return Pause
	})
	h := add(t, l, fd, s)
	send(t, peer, []byte("unread"))
	for range 100 {
		roundTrip(t, l) // polls at least once each
	}
	if n := counting.events.Load(); n != 1 {
		t.Errorf("%d events for one arrival", n)
	}
	leave.Store(true)
	h.Wake()
	receive(t, "Left", s.left)
}

// endlessPoller has always more events of one source, as if its peer were faster than the loop.
type endlessPoller struct {
	poller
	slot int32
}

func (e *endlessPoller) poll() ([]event, bool, error) {
	return []event{{slot: e.slot}}, false, nil
}

// TestCollectEnds however fast the peers are: the loop serves, and does not rest.
func TestCollectEnds(t *testing.T) {
	l := &loop{}
	h := &Handle{loop: l, source: newProbe(nil)}
	l.table.put(h)
	l.poller = &endlessPoller{slot: h.slot}
	if drained := l.collect(); drained {
		t.Error("collect says that nothing is left")
	}
	if l.fresh.head != h || h.next != nil {
		t.Error("the source is not queued, or not once")
	}
}

// restingPoller counts how often it is woken.
type restingPoller struct {
	poller
	wakes int
}

func (r *restingPoller) wake() error {
	r.wakes++
	return nil
}

// TestOneWakeForMany: of all that come while the loop waits only the first pays for waking it, and of those that come while it works none.
func TestOneWakeForMany(t *testing.T) {
	p := &restingPoller{}
	l := &loop{poller: p}
	wake := func() { l.wake(&Handle{loop: l}) }
	wake()
	if parked, _ := l.park(); parked {
		t.Error("the loop waits although there is something to do")
	}
	if p.wakes != 0 {
		t.Errorf("%d wakes of a loop at work", p.wakes)
	}
	l.note(nil)
	if parked, _ := l.park(); !parked {
		t.Error("the loop does not wait although there is nothing to do")
	}
	wake()
	wake()
	if p.wakes != 1 {
		t.Errorf("%d wakes for two that came while the loop waited, want 1", p.wakes)
	}
}
