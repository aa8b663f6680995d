package ready

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// epoll is an epoll set that is itself watched by the runtime's poller, so that waiting parks a goroutine and blocks no thread.
//
// No event is lost between the two. All of a loop's life is one call of RawConn.Read, which forgets what it knows of the set only at its
// beginning. Each event of a socket, also one that comes while another is waiting, makes the runtime look at the set and remember that it was
// readable; and if EpollWait finds nothing because the runtime is looking at that very moment, the runtime has seen it.
type epoll struct {
	// Immutable after newPoller.
	fd    int
	file  *os.File // the set, for the runtime's poller
	raw   syscall.RawConn
	waker int     // an eventfd in the set. It is never read: being written is an edge, and its counter lasts for 2^64 of them.
	one   [8]byte // what is written to it

	// Owned by poll.
	found  [eventsPerPoll]unix.EpollEvent
	events [eventsPerPoll]event
}

const (
	eventsPerPoll = 128
	// wakerSlot is the slot of no source.
	wakerSlot = -1
	gone      = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
)

func newPoller() (poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll set: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or the runtime would not watch it
		return nil, errors.Join(fmt.Errorf("make epoll set non-blocking: %w", err), unix.Close(fd))
	}
	e := &epoll{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), waker: -1}
	binary.NativeEndian.PutUint64(e.one[:], 1)
	if err := e.begin(); err != nil {
		return nil, errors.Join(err, e.close())
	}
	return e, nil
}

func (e *epoll) begin() (err error) {
	if err := e.file.SetReadDeadline(time.Time{}); err != nil {
		return fmt.Errorf("watch epoll set by the runtime's poller: %w", err)
	}
	if e.raw, err = e.file.SyscallConn(); err != nil {
		return fmt.Errorf("use epoll set: %w", err)
	}
	if e.waker, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("make eventfd: %w", err)
	}
	if err := e.add(e.waker, wakerSlot); err != nil {
		return fmt.Errorf("watch eventfd: %w", err)
	}
	return nil
}

func (e *epoll) close() error {
	err := e.file.Close()
	if e.waker >= 0 {
		err = errors.Join(err, unix.Close(e.waker))
	}
	return err
}

func (e *epoll) add(fd int, slot int32) error {
	return unix.EpollCtl(e.fd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{
		Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET,
		Fd:     slot, // ours to use: epoll gives it back as it is
	})
}

func (e *epoll) remove(fd int) error {
	return unix.EpollCtl(e.fd, unix.EPOLL_CTL_DEL, fd, nil)
}

func (e *epoll) run(turns func() bool) error {
	return e.raw.Read(func(uintptr) bool { return turns() })
}

func (e *epoll) poll() (events []event, all bool, err error) {
	n, err := unix.EpollWait(e.fd, e.found[:], 0)
	for errors.Is(err, unix.EINTR) {
		n, err = unix.EpollWait(e.fd, e.found[:], 0)
	}
	if err != nil {
		return nil, false, err
	}
	events = e.events[:0]
	for _, f := range e.found[:n] {
		if f.Fd != wakerSlot {
			events = append(events, event{f.Fd, f.Events&gone != 0})
		}
	}
	return events, n < len(e.found), nil
}

func (e *epoll) wake() error {
	_, err := unix.Write(e.waker, e.one[:])
	return err
}
