package ready

import (
	"slices"
	"sync/atomic"
	"testing"
)

// TestFreshBeforeHeavy: what comes during a Step of a source that always has more is served before such a source is again, to however many
// sockets it comes. Written from within that Step, it is there when the Step ends.
func TestFreshBeforeHeavy(t *testing.T) {
	const heavies, small, rounds = 3, 3*128 + 1, 20
	l := start(t, 1)
	served := 0 // owned by the loop's goroutine, as all of this test's counts
	var peers []int
	var all []*probe
	for range small {
		fd, peer := pair(t)
		t.Cleanup(func() { shut(t, fd) })
		peers = append(peers, peer)
		p := newProbe(func(hangup bool) Next {
			var b [4]byte
			served += max(read(fd, b[:]), 0)
			if hangup {
				return Leave
			}
			return Await
		})
		add(t, l, fd, p)
		all = append(all, p)
	}
	roundTrip(t, l)
	fresh, steps := heavies, 0
	for range heavies {
		fd := pausedSocket(t)
		t.Cleanup(func() { shut(t, fd) })
		first := true
		p := newProbe(func(bool) Next {
			if first {
				first = false
				fresh--
				return Again
			}
			if fresh > 0 {
				return Again // this one is heavy, but another is yet to be
			}
			if want := steps * small; served != want {
				t.Errorf("before heavy Step %d: %d small events served, want %d", steps, served, want)
			}
			if steps == rounds {
				return Leave
			}
			steps++
			for _, peer := range peers {
				send(t, peer, []byte{1})
			}
			return Again
		})
		add(t, l, fd, p)
		all = append(all, p)
	}
	for _, p := range all[small:] {
		receive(t, "Left of a heavy source", p.left)
	}
	for _, peer := range peers {
		shut(t, peer)
	}
	for _, p := range all[:small] {
		receive(t, "Left of a small source", p.left)
	}
}

// TestHeavyIsNotStarved by sources of which there are always some that have become readable, more than the loop asks for at once, nor by one
// that wakes itself.
func TestHeavyIsNotStarved(t *testing.T) {
	const small, rounds = 300, 100
	l := start(t, 1)
	var stop atomic.Bool
	var all []*probe
	for range small {
		fd, peer := pair(t)
		t.Cleanup(func() { shut(t, fd) })
		t.Cleanup(func() { shut(t, peer) })
		p := newProbe(func(bool) Next {
			if stop.Load() {
				return Leave
			}
			var b [4]byte
			read(fd, b[:])
			send(t, peer, []byte{1}) // and so it is readable again
			return Await
		})
		add(t, l, fd, p)
		all = append(all, p)
	}
	restless := pausedSocket(t)
	defer shut(t, restless)
	handle := make(chan *Handle, 1)
	p := newProbe(func(bool) Next {
		if stop.Load() {
			return Leave
		}
		h := <-handle
		h.Wake()
		handle <- h
		return Await
	})
	handle <- add(t, l, restless, p)
	all = append(all, p)
	fd := pausedSocket(t)
	defer shut(t, fd)
	steps := 0
	heavy := newProbe(func(bool) Next {
		steps++
		if steps == rounds {
			return Leave
		}
		return Again
	})
	add(t, l, fd, heavy)
	receive(t, "the heavy source's last Step", heavy.left)
	stop.Store(true)
	for _, p := range all {
		receive(t, "Left of a small source", p.left)
	}
}

// TestHeavyTakeTurns, one Step each, in the same order every time.
func TestHeavyTakeTurns(t *testing.T) {
	const heavies, rounds = 5, 20
	l := start(t, 1)
	var order []int
	hold := newProbe(nil) // keeps the loop until all are added
	begin, begun := make(chan struct{}), make(chan struct{})
	hold.step = func(bool) Next {
		close(begun)
		<-begin
		return Leave
	}
	fd := pausedSocket(t)
	defer shut(t, fd)
	add(t, l, fd, hold)
	receive(t, "the Step that holds the loop", begun)
	var all []*probe
	for n := range heavies {
		fd := pausedSocket(t)
		t.Cleanup(func() { shut(t, fd) })
		steps := 0
		p := newProbe(func(bool) Next {
			order = append(order, n)
			steps++
			if steps == rounds {
				return Leave
			}
			return Again
		})
		add(t, l, fd, p)
		all = append(all, p)
	}
	close(begin)
	for _, p := range all {
		receive(t, "Left", p.left)
	}
	first := order[:heavies]
	for i := heavies; i < len(order); i += heavies {
		if !slices.Equal(order[i:i+heavies], first) {
			t.Fatalf("round %d was in the order %v, the first in %v", i/heavies, order[i:i+heavies], first)
		}
	}
}

// TestResumedIsHeavy: a source that paused takes all it can get, so that being woken brings it no turn before those that are fresh, however
// often it happens.
func TestResumedIsHeavy(t *testing.T) {
	for name, within := range map[string]bool{"woken while paused": false, "woken during the Step": true} {
		t.Run(name, func(t *testing.T) { resumedIsHeavy(t, within) })
	}
}

func resumedIsHeavy(t *testing.T, within bool) {
	const resumed, rounds = 4, 20
	l := start(t, 1)
	var order []string
	fresh, peer := pair(t)
	defer shut(t, fresh)
	small := newProbe(func(hangup bool) Next {
		var b [4]byte
		if read(fresh, b[:]) > 0 {
			order = append(order, "fresh")
		}
		if hangup {
			return Leave
		}
		return Await
	})
	add(t, l, fresh, small)
	var handles []*Handle
	var all []*probe
	begun := false
	for range resumed {
		fd := pausedSocket(t)
		t.Cleanup(func() { shut(t, fd) })
		n := len(handles)
		steps := 0
		p := newProbe(func(bool) Next {
			if !begun {
				return Pause
			}
			next := handles[(n+1)%resumed] // which is paused, as only every other one is on the move
			if within {
				next = handles[n]
			}
			next.Wake()
			if steps == rounds {
				return Leave
			}
			steps++
			order = append(order, "resumed")
			send(t, peer, []byte{1})
			return Pause
		})
		handles = append(handles, add(t, l, fd, p))
		all = append(all, p)
	}
	roundTrip(t, l)
	starter := pausedSocket(t)
	defer shut(t, starter)
	first := newProbe(func(bool) Next {
		begun = true
		for n, h := range handles {
			if within || n%2 == 0 {
				h.Wake()
			}
		}
		return Leave
	})
	add(t, l, starter, first)
	for _, p := range all {
		receive(t, "Left of a resumed source", p.left)
	}
	shut(t, peer)
	receive(t, "Left of the fresh source", small.left)
	for i, who := range order {
		if who != []string{"resumed", "fresh"}[i%2] {
			t.Fatalf("turn %d was of a %s source: %v", i, who, order[:i+1])
		}
	}
	if want := 2 * resumed * rounds; len(order) != want {
		t.Errorf("%d turns, want %d", len(order), want)
	}
}
