//go:build unix

package link

import (
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/sluice-gateway/sluice/internal/nowait"
)

// socket is a TCP connection that is read and written by internal/nowait. One goroutine at a time may read, and one write: TLS and records see
// to that.
type socket struct {
	*net.TCPConn
	raw     syscall.RawConn
	in, out transfer
}

// transfer is a read or a write of a socket.
type transfer struct {
	try func(fd uintptr) (over bool) // Immutable. Again when the socket is ready, until it is over.

	b   []byte
	n   int // of b that are done
	err error
}

// newSocket is c, or a socket of it where that can be had. A connection that is wrapped stays as it is: its wrapper wants to know of each call.
func newSocket(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c // it says so itself
	}
	s := &socket{TCPConn: tcp, raw: raw}
	s.in.try, s.out.try = s.in.read, s.out.write
	return s
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.in.begin(b)
	return s.in.done("read", s.TCPConn, s.raw.Read(s.in.try))
}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.out.begin(b)
	return s.out.done("write", s.TCPConn, s.raw.Write(s.out.try))
}

func (t *transfer) begin(b []byte) { t.b, t.n, t.err = b, 0, nil }

func (t *transfer) read(fd uintptr) (over bool) {
	t.n, t.err = nowait.Read(int(fd), t.b)
	return !errors.Is(t.err, syscall.EAGAIN)
}

func (t *transfer) write(fd uintptr) (over bool) {
	for t.n < len(t.b) && t.err == nil {
		var n int
		n, t.err = nowait.Write(int(fd), t.b[t.n:])
		t.n += n
	}
	if errors.Is(t.err, syscall.EAGAIN) {
		t.err = nil
		return false
	}
	return true
}

// done is what came of it, in the words of package net. failed is what waiting for the socket has failed with.
func (t *transfer) done(op string, c *net.TCPConn, failed error) (int, error) {
	t.b = nil
	if failed != nil {
		return t.n, failed
	}
	if errno, ok := errors.AsType[syscall.Errno](t.err); ok {
		return t.n, &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, errno)}
	}
	return t.n, t.err
}
