package ready

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestNewWantsALoop(t *testing.T) {
	for _, n := range []int{0, -1} {
		if l, err := New(n); err == nil {
			l.Close()
			t.Errorf("New(%d) made loops", n)
		}
	}
}

// TestFirstStepNeedsNoEvent: bytes may have been read off the socket before it was added, so nothing may come for a long time.
func TestFirstStepNeedsNoEvent(t *testing.T) {
	fd, peer := pair(t)
	defer shut(t, fd)
	defer shut(t, peer)
	p := newProbe(func(hangup bool) Next {
		if hangup {
			t.Error("hangup of a socket that stands")
		}
		return Leave
	})
	add(t, start(t, 1), fd, p)
	receive(t, "Left", p.left)
}

// TestAwaitSeesWhatComesAfterAdd, and each later arrival.
func TestAwaitSeesWhatComesAfterAdd(t *testing.T) {
	for name, sockets := range map[string]func(tester) (int, int){"unix": pair, "tcp": tcpPair} {
		t.Run(name, func(t *testing.T) {
			fd, peer := sockets(t)
			defer shut(t, fd)
			got := make(chan string, 1)
			p := newProbe(func(bool) Next {
				b := make([]byte, 100)
				switch n := read(fd, b); n {
				case -1:
					return Await
				case 0:
					return Leave
				default:
					got <- string(b[:n])
					return Await // a short read
				}
			})
			l := start(t, 1)
			add(t, l, fd, p)
			for _, word := range []string{"one", "two", "three"} {
				roundTrip(t, l) // the loop waits by now, or is about to
				send(t, peer, []byte(word))
				if g := receive(t, word, got); g != word {
					t.Errorf("got %q, want %q", g, word)
				}
			}
			shut(t, peer)
			receive(t, "Left", p.left)
		})
	}
}

// TestPauseWaitsForWakeOnly: bytes and even the end of the socket bring no Step, and a Wake brings one that knows of the end.
func TestPauseWaitsForWakeOnly(t *testing.T) {
	fd, peer := pair(t)
	defer shut(t, fd)
	steps := make(chan bool, 10)
	next := make(chan Next, 2)
	next <- Pause
	next <- Leave
	p := newProbe(func(hangup bool) Next {
		steps <- hangup
		return <-next
	})
	l := start(t, 1)
	h := add(t, l, fd, p)
	if hangup := receive(t, "the first Step", steps); hangup {
		t.Error("hangup of a socket that stands")
	}
	roundTrip(t, l)
	send(t, peer, []byte("data"))
	roundTrip(t, l)
	shut(t, peer)
	roundTrip(t, l)
	if len(steps) > 0 {
		t.Error("a Step of a paused source without a Wake")
	}
	h.Wake()
	if hangup := receive(t, "the Step that was woken for", steps); !hangup {
		t.Error("the hangup was forgotten while the source was paused")
	}
	receive(t, "Left", p.left)
}

// TestHangupLasts: a source that could not read everything in the Step that was told of the end is told again.
func TestHangupLasts(t *testing.T) {
	fd, peer := pair(t)
	defer shut(t, fd)
	shut(t, peer)
	await(t, fd, unix.POLLRDHUP)
	var told []bool
	p := newProbe(func(hangup bool) Next {
		if len(told) == 0 && !hangup {
			return Again // the first Step need not know
		}
		told = append(told, hangup)
		if len(told) == 3 {
			return Leave
		}
		return Again
	})
	add(t, start(t, 1), fd, p)
	receive(t, "Left", p.left)
	if slices.Contains(told, false) {
		t.Errorf("hangup was true, and then not: %v", told)
	}
}

// TestWakeAfterLeave does nothing, also when it comes from the last Step.
func TestWakeAfterLeave(t *testing.T) {
	fd := pausedSocket(t)
	defer shut(t, fd)
	steps := 0
	handle := make(chan *Handle, 1)
	p := newProbe(func(bool) Next {
		steps++
		h := <-handle
		h.Wake()
		return Leave
	})
	l := start(t, 1)
	h := add(t, l, fd, p)
	handle <- h
	receive(t, "Left", p.left)
	h.Wake()
	roundTrip(t, l)
	if steps != 1 {
		t.Errorf("%d Steps, want 1", steps)
	}
	l.Close()
	h.Wake()
}

// TestWakeDuringStep brings exactly one more.
func TestWakeDuringStep(t *testing.T) {
	for name, rest := range map[string]Next{"await": Await, "pause": Pause} {
		t.Run(name, func(t *testing.T) {
			fd := pausedSocket(t)
			defer shut(t, fd)
			steps := 0
			handle := make(chan *Handle, 1)
			leave := false
			p := newProbe(func(bool) Next {
				steps++
				if leave {
					return Leave
				}
				if steps == 1 {
					h := <-handle
					h.Wake()
					h.Wake()
				}
				return rest
			})
			l := start(t, 1)
			h := add(t, l, fd, p)
			handle <- h
			roundTrip(t, l) // after it the loop does not touch the probe
			if steps != 2 {
				t.Errorf("%d Steps, want the first and one for the Wakes in it", steps)
			}
			leave = true
			h.Wake()
			receive(t, "Left", p.left)
		})
	}
}

// TestAddRefuses what cannot be watched, and the source is not called.
func TestAddRefuses(t *testing.T) {
	l := start(t, 1)
	never := newProbe(func(bool) Next { panic("called") })
	kept := addIdler(t, l)
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for name, c := range map[string]struct {
		fd   int
		want error
	}{
		"no descriptor":    {-1, unix.EBADF},
		"a second time":    {kept.fd, unix.EEXIST},
		"a file on a disk": {int(file.Fd()), unix.EPERM},
	} {
		if _, err := l.Add(c.fd, never); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	if n := l.Len(); n != 1 {
		t.Errorf("Len is %d, want 1", n)
	}
	kept.dismiss(t)
	l.Close()
	if _, err := l.Add(0, never); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: got %v, want %v", err, os.ErrClosed)
	}
}

// TestCloseNamesWhoIsLeft and can be called again when they are gone.
func TestCloseNamesWhoIsLeft(t *testing.T) {
	l := start(t, 2)
	left := []*idler{addIdler(t, l), addIdler(t, l), addIdler(t, l)}
	func() {
		defer func() {
			if reason, ok := recover().(string); !ok || !strings.Contains(reason, "3 sources") {
				t.Errorf("Close panicked with %q, want the number of sources", reason)
			}
		}()
		l.Close()
	}()
	for _, i := range left {
		i.dismiss(t)
	}
	l.Close()
	l.Close()
}

// TestSourcesAreSpread over the loops, also after some have left.
func TestSourcesAreSpread(t *testing.T) {
	const loops, each = 3, 4
	l := start(t, loops)
	idlers := map[*loop][]*idler{}
	for range loops * each {
		i := addIdler(t, l)
		idlers[i.handle.loop] = append(idlers[i.handle.loop], i)
	}
	for n, one := range l.loops {
		if len(idlers[one]) != each {
			t.Errorf("loop %d has %d sources, want %d", n, len(idlers[one]), each)
		}
	}
	emptied := l.loops[1]
	for _, i := range idlers[emptied] {
		i.dismiss(t)
	}
	idlers[emptied] = nil
	for range each {
		i := addIdler(t, l)
		if i.handle.loop != emptied {
			t.Error("a source was not added to the loop with the fewest")
		}
		idlers[i.handle.loop] = append(idlers[i.handle.loop], i)
	}
	if n := l.Len(); n != loops*each {
		t.Errorf("Len is %d, want %d", n, loops*each)
	}
	for _, all := range idlers {
		for _, i := range all {
			i.dismiss(t)
		}
	}
}

// TestDescriptorIsUsedAgain: the number of a socket that has left is at once another's, which hears nothing of the first.
func TestDescriptorIsUsedAgain(t *testing.T) {
	const rounds = 200
	l := start(t, 1)
	numbers := map[int]bool{}
	for range rounds {
		fd, peer := pair(t)
		numbers[fd] = true
		said, steps := make(chan string, 1), new(atomic.Int64) // the kernel orders, which the race detector does not see
		p := newProbe(func(hangup bool) Next {
			steps.Add(1)
			b := make([]byte, 8)
			n := read(fd, b)
			switch {
			case n > 0:
				said <- string(b[:n])
				return Leave // with the end unread, of which an event is on its way
			case hangup:
				t.Error("hangup of a new socket")
			}
			return Await
		})
		add(t, l, fd, p)
		roundTrip(t, l)
		if n := steps.Load(); n != 1 {
			t.Fatalf("a new socket had %d Steps, want its first alone", n)
		}
		send(t, peer, []byte("mine"))
		shut(t, peer)
		if got := receive(t, "the bytes", said); got != "mine" {
			t.Fatalf("got %q", got)
		}
		receive(t, "Left", p.left)
		shut(t, fd)
	}
	if len(numbers) == rounds {
		t.Error("no number was used again: the test has not tested")
	}
}

// TestSocketMayComeBack: an owner may go on without the loop, and come back with the same socket.
func TestSocketMayComeBack(t *testing.T) {
	l := start(t, 1)
	fd, peer := pair(t)
	defer shut(t, fd)
	defer shut(t, peer)
	for range 3 {
		p := newProbe(func(bool) Next { return Leave })
		add(t, l, fd, p)
		receive(t, "Left", p.left)
	}
}

// TestLeftMayAdd: an owner may open the next socket from Left, on the same number.
func TestLeftMayAdd(t *testing.T) {
	l := start(t, 1)
	fd := pausedSocket(t)
	done := make(chan struct{})
	add(t, l, fd, &successor{t: t, loops: l, fd: fd, left: 100, done: done})
	receive(t, "the last", done)
}

// successor leaves at once and adds itself again with another socket, left times.
type successor struct {
	t     *testing.T
	loops *Loops
	fd    int
	left  int
	done  chan struct{}
}

func (s *successor) Step(bool) Next { return Leave }

func (s *successor) Left() {
	if err := unix.Close(s.fd); err != nil {
		s.t.Errorf("close: %v", err)
	}
	if s.left == 0 {
		close(s.done)
		return
	}
	s.left--
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		s.t.Errorf("eventfd: %v", err)
	}
	if s.fd = fd; fd >= 0 {
		if _, err := s.loops.Add(fd, s); err != nil {
			s.t.Errorf("Add from Left: %v", err)
		}
	}
}

// TestEndWithLastBytes: the last bytes and the end come at once, so that one edge tells of both, and the source is content with a short read.
func TestEndWithLastBytes(t *testing.T) {
	for name, sockets := range map[string]func(tester) (int, int){"unix": pair, "tcp": tcpPair} {
		for _, first := range []Next{Await, Pause} {
			t.Run(name+"/"+map[Next]string{Await: "await", Pause: "pause"}[first], func(t *testing.T) {
				l := start(t, 1)
				for range 200 {
					endWithLastBytes(t, l, sockets, first)
				}
			})
		}
	}
}

func endWithLastBytes(t *testing.T, l *Loops, sockets func(tester) (int, int), first Next) {
	fd, peer := sockets(t)
	defer shut(t, fd)
	begun, got := make(chan struct{}), ""
	p := newProbe(func(hangup bool) Next {
		select {
		case <-begun:
		default:
			close(begun)
			return first
		}
		b := make([]byte, 100)
		for {
			n := read(fd, b)
			switch {
			case n == 0:
				return Leave
			case n > 0:
				got += string(b[:n])
			}
			if n < len(b) && (!hangup || n < 0) {
				return Await
			}
		}
	})
	h := add(t, l, fd, p)
	receive(t, "the first Step", begun)
	if err := unix.SetsockoptInt(peer, unix.IPPROTO_TCP, unix.TCP_CORK, 1); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("cork: %v", err)
	}
	send(t, peer, []byte("last words"))
	shut(t, peer) // sends bytes and FIN in one segment
	if first == Pause {
		await(t, fd, unix.POLLIN|unix.POLLRDHUP)
		h.Wake()
	}
	receive(t, "the end", p.left)
	if got != "last words" {
		t.Fatalf("got %q", got)
	}
}

// TestHandleIsSmall: beside it a source costs a pointer in the loop's table. Fields are added with the size class in mind.
func TestHandleIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Handle{}); size > 48 {
		t.Errorf("a Handle has %d bytes, want at most 48", size)
	}
}
