package ready

import (
	"fmt"
	"sync"
)

// loop serves the sources of one poller with one goroutine.
type loop struct {
	poller poller // Immutable after New.

	// Owned by run.
	fresh queue // have become readable, or were woken
	heavy queue // have said Again, or were woken out of a pause: they are the ones that take all they can get

	mu     sync.Mutex
	table  table // Guarded by mu.
	inbox  queue // Guarded by mu. Added or woken since the last turn.
	parked bool  // Guarded by mu. The goroutine waits, or is about to: what comes to the inbox must wake it.
	ending bool  // Guarded by mu.
}

// add is Loops.Add, on this loop. The lock keeps the goroutine from events of a handle that is not whole yet.
func (l *loop) add(fd int, s Source) (*Handle, error) {
	h := &Handle{loop: l, fd: int32(fd), source: s}
	h.state.Store(scheduled)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.table.put(h)
	if err := l.poller.add(fd, h.slot); err != nil {
		l.table.remove(h)
		return nil, fmt.Errorf("watch descriptor %d: %w", fd, err)
	}
	l.deliver(h)
	return h, nil
}

func (l *loop) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.table.len()
}

// wake queues a handle, which the caller has just marked as scheduled.
func (l *loop) wake(h *Handle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deliver(h)
}

// deliver puts a handle in the inbox. The caller holds mu, also while the poller is woken: once the lock is free the source may leave and
// the poller be closed.
func (l *loop) deliver(h *Handle) {
	l.inbox.push(h)
	l.unpark()
}

func (l *loop) unpark() {
	if !l.parked {
		return
	}
	l.parked = false
	if err := l.poller.wake(); err != nil {
		panic(fmt.Errorf("ready: wake the loop: %w", err))
	}
}

// end lets the goroutine end. No source is left.
func (l *loop) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = true
	l.unpark()
}

// run is the loop's goroutine. Started by New; ends after end.
func (l *loop) run() {
	if err := l.poller.run(l.turns); err != nil {
		panic(fmt.Errorf("ready: wait for sockets: %w", err))
	}
}

// turns serves sources until nothing is to be done. It returns true at the loop's end, and false to wait for the poller.
func (l *loop) turns() bool {
	for {
		drained := l.collect()
		for turn := l.fresh.take(); turn.head != nil; {
			l.serve(turn.pop())
		}
		if l.heavy.head != nil {
			l.serve(l.heavy.pop())
		}
		if !drained || l.fresh.head != nil || l.heavy.head != nil {
			continue
		}
		if parked, over := l.park(); parked || over {
			return over
		}
	}
}

// collect queues the sources that something has happened to, and says whether those are all. Sources whose sockets are always readable again
// by the time they were read could keep it busy for ever, so it stops when all that were readable at the start must have been seen: the
// poller tells of them in turn.
func (l *loop) collect() (drained bool) {
	for seen, sources := 0, 0; !drained && seen <= sources; {
		events, all, err := l.poller.poll()
		if err != nil {
			panic(fmt.Errorf("ready: look for readable sockets: %w", err))
		}
		drained = all
		seen += len(events)
		sources = l.note(events)
	}
	return drained
}

// note queues what events and the inbox name, and returns how many sources there are.
func (l *loop) note(events []event) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked = false
	for _, e := range events {
		h := l.table.slots[e.slot]
		if e.hangup {
			h.state.Or(hungUp)
		}
		if h.state.Load()&paused == 0 && h.state.Or(scheduled)&scheduled == 0 {
			l.fresh.push(h)
		}
	}
	for l.inbox.head != nil {
		h := l.inbox.pop()
		l.queue(h, h.state.Load()&paused != 0)
	}
	return l.table.len()
}

// queue has a scheduled handle served.
func (l *loop) queue(h *Handle, heavy bool) {
	if heavy {
		l.heavy.push(h)
	} else {
		l.fresh.push(h)
	}
}

// park prepares for waiting, unless there is something to do. From here on a Wake wakes the poller, and the poller does not forget that
// until it is waited for.
func (l *loop) park() (parked, over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked = !l.ending && l.inbox.head == nil
	return l.parked, l.ending
}

// serve gives a source its turn.
func (l *loop) serve(h *Handle) {
	before := h.state.And(^uint32(woken | paused))
	switch h.step(before&hungUp != 0) {
	case Await:
		l.rest(h, 0)
	case Again:
		l.heavy.push(h)
	case Pause:
		l.rest(h, paused)
	case Leave:
		l.forget(h)
	}
}

// rest unschedules a handle after its Step, unless it was woken meanwhile.
func (l *loop) rest(h *Handle, until uint32) {
	if !h.unschedule(h.state.Load(), until) {
		l.queue(h, until == paused)
	}
}

// forget lets a source leave. Its descriptor is open, by contract: were it not, the number might be another socket's by now, and that one
// would never be heard of again.
func (l *loop) forget(h *Handle) {
	if err := l.poller.remove(int(h.fd)); err != nil {
		panic(fmt.Errorf("ready: forget descriptor %d, which must stay open until Left: %w", h.fd, err))
	}
	l.mu.Lock()
	l.table.remove(h)
	l.mu.Unlock()
	s := h.source
	h.source = nil // whoever still has the handle shall not keep the source
	s.Left()
}

// unschedule changes the state of a scheduled handle from what it was to one of rest. It fails if a Wake was there before or has come since:
// others only ever add woken to that state, so nothing else makes the exchange fail.
func (h *Handle) unschedule(before, until uint32) bool {
	return before&woken == 0 && h.state.CompareAndSwap(before, before&^scheduled|until)
}

// step calls the source. A panic is the source's affair if it has asked for it, and otherwise goes its way untouched.
func (h *Handle) step(hangup bool) (next Next) {
	returned := false
	defer func() {
		if returned {
			return
		}
		if p, ok := h.source.(interface{ Panicked(reason any) }); ok {
			p.Panicked(recover())
			next = Leave
		}
	}()
	next = h.source.Step(hangup)
	if next > Leave {
		panic(fmt.Sprintf("ready: %T.Step returned %d, which is no Next", h.source, next))
	}
	returned = true
	return next
}
