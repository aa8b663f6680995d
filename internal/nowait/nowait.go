//go:build unix

// Package nowait reads and writes sockets that never block, without a word to Go's scheduler.
//
// A system call that may block is announced to the scheduler, and one of more than 20 µs, as moving 64 KiB is, is taken for one that has: its
// processor is given away, another thread is woken for it, and the runtime's monitor wakes every 20 µs to look for more of the kind. A socket
// in non-blocking mode has nothing to wait for. Announced to nobody, its calls cost what the kernel needs for them; a garbage collection that
// is about to begin waits for as long.
package nowait

import (
	"errors"
	"io"
	"syscall"
)

// Read reads what there is from fd, a socket in non-blocking mode. It fails with EAGAIN where there is nothing, and with io.EOF at the end; p
// must not be empty.
func Read(fd int, p []byte) (int, error) {
	for {
		n, err := read(fd, p)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// Write writes to fd, a socket in non-blocking mode, what it takes of p. It fails with EAGAIN where that is nothing; p must not be empty.
func Write(fd int, p []byte) (int, error) {
	for {
		n, err := write(fd, p)
		if !errors.Is(err, syscall.EINTR) {
			return max(n, 0), err
		}
	}
}
