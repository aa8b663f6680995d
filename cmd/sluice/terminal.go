package main

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"github.com/sluice-gateway/sluice/client"
)

// isTerminal reports whether an input or output of the process is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok || f == nil {
		return false
	}
	is := false
	return descriptor(f, func(fd int) error { is = term.IsTerminal(fd); return nil }) == nil && is
}

// descriptor calls f with a file's descriptor. File.Fd is no way to it: that takes the file from the runtime's poller, and a read that waits
// could not be ended any more.
func descriptor(file *os.File, f func(fd int) error) error {
	c, err := file.SyscallConn()
	if err != nil {
		return fmt.Errorf("terminal %s: %w", file.Name(), err)
	}
	var result error
	if err := c.Control(func(fd uintptr) { result = f(int(fd)) }); err != nil {
		return fmt.Errorf("terminal %s: %w", file.Name(), err)
	}
	return result
}

// terminal is the one that somebody types at, while a process far away has it: every key goes there as it is, Ctrl-C included. It is given
// back on every way out. Its methods may be called at the same time.
type terminal struct {
	// Immutable after newTerminal.
	in   *os.File
	size *os.File // whose size counts: where the process's output is shown, else in

	mu     sync.Mutex
	before *term.State // Guarded by mu; nil while the terminal is as it was found.
}

func newTerminal(in *os.File, out any) *terminal {
	t := &terminal{in: in, size: in}
	if isTerminal(out) {
		t.size = out.(*os.File)
	}
	return t
}

// raw hands over every key as it is typed, until restore.
func (t *terminal) raw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.before != nil {
		return nil
	}
	return descriptor(t.in, func(fd int) (err error) {
		if t.before, err = term.MakeRaw(fd); err != nil {
			return fmt.Errorf("make the terminal raw: %w", err)
		}
		return nil
	})
}

// restore makes the terminal what it was; nothing if it is.
func (t *terminal) restore() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.before == nil {
		return nil
	}
	before := t.before
	t.before = nil
	return descriptor(t.in, func(fd int) error {
		if err := term.Restore(fd, before); err != nil {
			return fmt.Errorf("restore the terminal: %w", err)
		}
		return nil
	})
}

// sizes tells the terminal's size, now and whenever it changes, until stop. A reader that is slow is told the last one.
func (t *terminal) sizes() (sizes <-chan client.Size, stop func()) {
	out, changed := make(chan client.Size, 1), make(chan os.Signal, 1)
	tell := func() {
		s, err := t.measure()
		if err != nil {
			return // a terminal that does not know its size has none to tell
		}
		select {
		case <-out: // nobody has asked for it yet
		default:
		}
		out <- s
	}
	notifyResize(changed)
	tell()
	return out, onSignals(changed, func(os.Signal) { tell() })
}

func (t *terminal) measure() (s client.Size, err error) {
	err = descriptor(t.size, func(fd int) error {
		width, height, err := term.GetSize(fd)
		if err != nil {
			return fmt.Errorf("ask for the terminal's size: %w", err)
		}
		s = client.Size{Width: uint32(max(width, 0)), Height: uint32(max(height, 0))}
		return nil
	})
	return s, err
}

// guard sees to it, until stop, that no signal ends the process while the terminal is raw. SIGINT (from elsewhere: Ctrl-C is a key now) and
// SIGTERM end the command's context, and hangUp makes SIGHUP do the same: the command then gives the terminal back by itself. A second signal,
// or SIGQUIT, ends the process at once, but not before the terminal is given back. SIGPIPE becomes the error of a Write.
func (t *terminal) guard(hangUp func(why error)) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	ending := false
	return onSignals(signals, func(s os.Signal) {
		switch {
		case s == syscall.SIGPIPE:
		case ending || s == syscall.SIGQUIT:
			_ = t.restore() // there is nobody to tell any more
			raise(s)
		case s == syscall.SIGHUP:
			hangUp(becauseOf(s))
			ending = true
		default:
			ending = true
		}
	})
}

// onSignals calls f for each signal, until stop, which waits for a call that goes on.
func onSignals(signals chan os.Signal, f func(os.Signal)) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		for {
			select {
			case s := <-signals:
				f(s)
			case <-quit:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(quit)
		<-done
	}
}

// raise sends the process a signal that nothing catches.
func raise(s os.Signal) {
	signal.Reset(s)
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(s)
	}
	if err != nil { // a system that knows no such signal
		panic(fmt.Sprintf("ended by %v", s))
	}
}
