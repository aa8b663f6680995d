package ready

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds how long a test waits for what must happen.
const patience = 60 * time.Second

// tester is what a test, a benchmark and a property have.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// probe is a source made of functions. It watches that its methods are called one at a time.
type probe struct {
	step func(hangup bool) Next
	busy atomic.Bool
	left chan struct{} // closed by Left, so that a second one panics
}

func newProbe(step func(hangup bool) Next) *probe {
	return &probe{step: step, left: make(chan struct{})}
}

func (p *probe) Step(hangup bool) Next {
	if !p.busy.CompareAndSwap(false, true) {
		panic("two Steps at once")
	}
	defer p.busy.Store(false)
	return p.step(hangup)
}

func (p *probe) Left() { close(p.left) }

// start makes loops that are closed after the test.
func start(t testing.TB, n int) *Loops {
	t.Helper()
	l, err := New(n)
	if err != nil {
		t.Fatalf("New(%d): %v", n, err)
	}
	t.Cleanup(l.Close)
	return l
}

func add(t tester, l *Loops, fd int, s Source) *Handle {
	t.Helper()
	h, err := l.Add(fd, s)
	if err != nil {
		t.Fatalf("Add: %v", err)
	}
	return h
}

// receive waits for a value, or for a channel to be closed.
func receive[T any](t tester, what string, c <-chan T) T {
	t.Helper()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case v := <-c:
		return v
	case <-late.C:
		t.Fatalf("gave up waiting for %s", what)
		panic("not reached")
	}
}

// roundTrip returns when the loop has collected what there was before the call, and has served it.
func roundTrip(t tester, l *Loops) {
	t.Helper()
	for range 2 { // what came during the first turn is served by the second
		fd := pausedSocket(t)
		p := newProbe(func(bool) Next { return Leave })
		add(t, l, fd, p)
		receive(t, "the loop to turn", p.left)
		shut(t, fd)
	}
}

// idler is a source that pauses until it is dismissed.
type idler struct {
	*probe
	fd     int
	handle *Handle
	leave  atomic.Bool
}

// addIdler returns when its source has paused, or is about to.
func addIdler(t tester, l *Loops) *idler {
	t.Helper()
	i := &idler{fd: pausedSocket(t)}
	var once sync.Once
	paused := make(chan struct{})
	i.probe = newProbe(func(bool) Next {
		if i.leave.Load() {
			return Leave
		}
		once.Do(func() { close(paused) })
		return Pause
	})
	i.handle = add(t, l, i.fd, i)
	receive(t, "the first Step", paused)
	return i
}

func (i *idler) dismiss(t tester) {
	t.Helper()
	i.leave.Store(true)
	i.handle.Wake()
	receive(t, "Left", i.left)
	shut(t, i.fd)
}

// pausedSocket is a descriptor that nothing comes to.
func pausedSocket(t tester) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatalf("eventfd: %v", err)
	}
	return fd
}

// pair is two ends of a socket, both non-blocking.
func pair(t tester) (fd, peer int) {
	t.Helper()
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socketpair: %v", err)
	}
	return ends[0], ends[1]
}

// tcpPair is two ends of a TCP connection over the loopback.
func tcpPair(t tester) (fd, peer int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	far, err := l.Accept()
	if err != nil {
		t.Fatalf("accept: %v", err)
	}
	return detached(t, near), detached(t, far)
}

// detached is the socket of a connection, which the runtime then knows no more.
func detached(t tester, c net.Conn) int {
	t.Helper()
	defer c.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatalf("raw connection: %v", err)
	}
	fd := -1
	ctlErr := raw.Control(func(own uintptr) { fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(ctlErr, err); err != nil {
		t.Fatalf("duplicate socket: %v", err)
	}
	return fd
}

func shut(t tester, fd int) {
	t.Helper()
	if err := unix.Close(fd); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func send(t tester, fd int, b []byte) {
	t.Helper()
	if err := trySend(fd, b); err != nil {
		t.Fatalf("send: %v", err)
	}
}

// trySend writes all of b, waiting while the socket takes nothing.
func trySend(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EAGAIN):
			if err := until(fd, unix.POLLOUT); err != nil {
				return err
			}
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		default:
			b = b[n:]
		}
	}
	return nil
}

func await(t tester, fd int, events int16) {
	t.Helper()
	if err := until(fd, events); err != nil {
		t.Fatalf("await: %v", err)
	}
}

// until waits until the socket has all of the events, or an error of its own.
func until(fd int, events int16) error {
	for late := time.Now().Add(patience); ; {
		p := []unix.PollFd{{Fd: int32(fd), Events: events}}
		_, err := unix.Poll(p, int(time.Second.Milliseconds()))
		has := p[0].Revents
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case has&events == events, has&unix.POLLERR != 0:
			return nil
		case time.Now().After(late):
			return fmt.Errorf("gave up waiting for events %#x: has %#x", events, has)
		}
	}
}

// read reads once. Its n is 0 at the end; nothing is -1.
func read(fd int, b []byte) (n int) {
	for {
		n, err := unix.Read(fd, b)
		switch {
		case err == nil:
			return n
		case errors.Is(err, unix.EAGAIN):
			return -1
		case !errors.Is(err, unix.EINTR):
			panic(err)
		}
	}
}
