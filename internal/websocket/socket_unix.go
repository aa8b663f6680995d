//go:build unix

package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
)

// rawSocket reads a file descriptor when it is readable. Trying comes before waiting, because a readiness that was seen is not
// told of again.
type rawSocket struct {
	*reads
	raw syscall.RawConn
	// step reads what there is at once; again when that is nothing.
	step func(fd int, p []byte) (int, error)
	try  func(fd uintptr) bool
}

func newSocket(nc net.Conn, r *reads) socket {
	s := &rawSocket{reads: r, step: readNow}
	s.try = s.attempt
	tcp, ok := nc.(syscall.Conn)
	if t, secure := nc.(*secureConn); secure {
		tcp, ok = t.link.syscall()
		s.step = t.readNow
	}
	if ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			s.raw = raw
			return s
		}
	}
	return &anySocket{nc: nc, buf: make([]byte, smallRead)}
}

func (s *rawSocket) read(at, want int) (*Batch, int, error) {
	s.at, s.want = at, want
	return s.take(s.raw.Read(s.try))
}

// attempt says whether the read is over.
func (s *rawSocket) attempt(fd uintptr) bool {
	b := batches.Get().(*Batch)
	n, err := s.step(int(fd), b.scratch[s.at:s.at+s.want])
	if n == 0 {
		batches.Put(b)
		s.err = err
		return !errors.Is(err, errAgain)
	}
	s.batch, s.n, s.err = b, n, err
	return true
}

// readNow reads without waiting.
func readNow(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			return 0, errAgain
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// again says that nothing is there now. crypto/tls takes it as temporary: it keeps the part of a record that it has and can be
// asked once more.
type again struct{}

func (again) Error() string   { return "nothing to read" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

var errAgain net.Error = again{}

// Secure runs TLS as the client over nc, in such a way that a Conn made of the result holds no buffer while it waits. It is over
// when the handshake is; ctx bounds that. On an error nc is left to the caller.
func Secure(ctx context.Context, nc net.Conn, config *tls.Config) (net.Conn, error) {
	l := &link{Conn: nc, fd: -1}
	t := tls.Client(l, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return &secureConn{Conn: t, link: l}, nil
}

// secureConn is TLS whose reads can be tried.
type secureConn struct {
	*tls.Conn
	link *link
}

// Close closes the connection without a TLS alert, for which a peer that takes nothing would have to be waited for. What ends a
// WebSocket is its close frame, and that is authenticated.
func (s *secureConn) Close() error { return s.link.Conn.Close() }

// readNow reads the records that are there.
func (s *secureConn) readNow(fd int, p []byte) (int, error) {
	s.link.fd = fd
	defer func() { s.link.fd = -1 }()
	total := 0
	for total < len(p) {
		n, err := s.Read(p[total:])
		total += n
		if errors.Is(err, errAgain) && total > 0 {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// link is what TLS reads from: nc, or its file descriptor while that is being tried.
type link struct {
	net.Conn
	fd int // owned by the reader; -1 when not being tried
}

func (l *link) Read(p []byte) (int, error) {
	if l.fd < 0 {
		return l.Conn.Read(p)
	}
	return readNow(l.fd, p)
}

func (l *link) syscall() (syscall.Conn, bool) {
	c, ok := l.Conn.(syscall.Conn)
	return c, ok
}
