package ready

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestNoWakeIsLost: each Wake brings a Step that sees what was written before it, whatever the loop is doing: at rest, about to rest, or at
// work for others. The wakers wait for that Step before the next Wake, so that the loop is on its way to rest at most of them, and one lost
// ends the test.
func TestNoWakeIsLost(t *testing.T) {
	const wakers, rounds = 3, 10_000
	for name, rest := range map[string]Next{"await": Await, "pause": Pause} {
		t.Run(name, func(t *testing.T) {
			l := start(t, 1)
			var all sync.WaitGroup
			for n := range wakers {
				all.Go(func() { wakeInTurn(t, l, rest, rounds, n) })
			}
			all.Wait()
		})
	}
}

// wakeInTurn wakes a source of its own, and counts that no Wake brings two Steps.
func wakeInTurn(t *testing.T, l *Loops, rest Next, rounds, spin int) {
	fd := pausedSocket(t)
	defer shut(t, fd)
	written, leave := 0, false // without a lock: Wake orders them
	seen := make(chan int, 2)
	p := newProbe(func(bool) Next {
		next := rest
		if leave {
			next = Leave
		}
		seen <- written // and from here on they are the waker's again
		return next
	})
	h := add(t, l, fd, p)
	receive(t, "the first Step", seen)
	for i := 1; i <= rounds; i++ {
		for range i * spin % 50 { // meet the loop at different points of its way to rest
			runtime.Gosched()
		}
		written = i
		h.Wake()
		if got := <-seen; got != i {
			t.Errorf("the Step after Wake %d saw %d", i, got)
			break
		}
	}
	leave = true
	h.Wake()
	receive(t, "Left", p.left)
	if n := len(seen); n != 1 {
		t.Errorf("%d Steps more than Wakes", n-1)
	}
}

// TestWakeMeetsRest: the loop looks whether a source was woken, and then puts it to rest. A Wake before that, between the two, or after it
// leaves the source with one who queues it: the loop, or the Wake.
func TestWakeMeetsRest(t *testing.T) {
	for name, until := range map[string]uint32{"await": 0, "pause": paused} {
		for moment, when := range []string{"before", "between", "after"} {
			t.Run(name+"/"+when, func(t *testing.T) {
				l := &loop{poller: &restingPoller{}}
				h := &Handle{loop: l}
				h.state.Store(scheduled) // as it is during a Step
				wake := func(now int) {
					if now == moment {
						h.Wake()
					}
				}
				wake(0)
				before := h.state.Load()
				wake(1)
				rests := h.unschedule(before, until)
				wake(2)
				if byWake := l.inbox.head == h; rests != byWake {
					t.Errorf("put to rest: %v, queued by the Wake: %v", rests, byWake)
				}
				if h.state.Load()&(scheduled|woken) != scheduled|woken {
					t.Errorf("state %04b: no Step is due", h.state.Load())
				}
			})
		}
	}
}

// TestManyWakersOfOne: Wakes that meet are answered by one Step or more, none by none.
func TestManyWakersOfOne(t *testing.T) {
	const wakers, rounds = 4, 5_000
	l := start(t, 1)
	fd := pausedSocket(t)
	defer shut(t, fd)
	var written, seen [wakers]atomic.Int64
	var leave atomic.Bool
	acks := make(chan struct{})
	mu := sync.Mutex{}
	told := func() <-chan struct{} {
		mu.Lock()
		defer mu.Unlock()
		return acks
	}
	p := newProbe(func(bool) Next {
		for i := range written {
			seen[i].Store(written[i].Load())
		}
		mu.Lock()
		close(acks)
		acks = make(chan struct{})
		mu.Unlock()
		if leave.Load() {
			return Leave
		}
		return Pause
	})
	h := add(t, l, fd, p)
	var all sync.WaitGroup
	for n := range wakers {
		all.Go(func() {
			for i := int64(1); i <= rounds; i++ {
				written[n].Store(i)
				h.Wake()
				for next := told(); seen[n].Load() < i; next = told() {
					<-next
				}
			}
		})
	}
	all.Wait()
	leave.Store(true)
	h.Wake()
	receive(t, "Left", p.left)
}

// TestNoEdgeIsLost: a peer that writes one byte after the other, each when the last one was read, never waits for ever, while others wake the
// same loop.
func TestNoEdgeIsLost(t *testing.T) {
	const rounds = 10_000
	l := start(t, 1)
	stop := make(chan struct{})
	var waker sync.WaitGroup
	i := addIdler(t, l)
	waker.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				i.handle.Wake()
				runtime.Gosched()
			}
		}
	})
	fd, peer := pair(t)
	got := make(chan byte, 1)
	p := newProbe(func(bool) Next {
		var b [4]byte
		switch n := read(fd, b[:]); n {
		case -1:
			return Await
		case 0:
			return Leave
		default:
			got <- b[n-1]
			return Await
		}
	})
	add(t, l, fd, p)
	for n := range rounds {
		send(t, peer, []byte{byte(n)})
		if b := <-got; b != byte(n) {
			t.Fatalf("byte %d is %d", n, b)
		}
	}
	close(stop)
	waker.Wait()
	shut(t, peer)
	receive(t, "Left", p.left)
	shut(t, fd)
	i.dismiss(t)
}
