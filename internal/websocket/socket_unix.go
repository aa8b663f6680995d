//go:build unix

package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/internal/nowait"
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
	n, err := nowait.Read(fd, p)
	if errors.Is(err, syscall.EAGAIN) {
		return 0, errAgain
	}
	return n, err
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
	s.link.begin(fd)
	defer s.link.end()
	total := 0
	for total < len(p) {
		s.link.want = sealed(len(p) - total)
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

// link is what TLS reads from: nc, or its file descriptor while that is being tried. Then it reads for all records that are asked for at
// once, where TLS by itself reads one after the other.
type link struct {
	net.Conn

	// Owned by the reader.
	fd       int // -1 when not being tried
	want     int // how much to read
	ahead    *[aheadSize]byte
	from, to int   // of ahead, what TLS has not taken
	rest     carry // the same between two tries
}

const (
	maxRecord = 16 << 10 // payload of a record, RFC 8446 section 5.1
	seal      = 29       // what a record has besides, in the longest of AEAD modes: AES-GCM in TLS 1.2
	aheadSize = MaxRead + (MaxRead/maxRecord+1)*seal
)

var aheads = sync.Pool{New: func() any { return new([aheadSize]byte) }}

// sealed is how long the records are that n bytes come in, if these are as long as they may be.
func sealed(n int) int { return n + (n+maxRecord-1)/maxRecord*seal }

// begin lets reads try a file descriptor, until end.
func (l *link) begin(fd int) {
	l.fd, l.ahead = fd, aheads.Get().(*[aheadSize]byte)
	l.from, l.to = 0, l.rest.drain(l.ahead[:])
}

func (l *link) end() {
	l.rest.fill(l.ahead[l.from:l.to], nil)
	aheads.Put(l.ahead)
	l.fd, l.ahead, l.from, l.to = -1, nil, 0, 0
}

func (l *link) Read(p []byte) (int, error) {
	if l.fd < 0 {
		return l.Conn.Read(p)
	}
	if l.from == l.to {
		n, err := readNow(l.fd, l.ahead[:min(max(l.want, len(p)), len(l.ahead))]) // TLS needs a whole record, however little is wanted
		if err != nil {
			return 0, err
		}
		l.from, l.to = 0, n
	}
	n := copy(p, l.ahead[l.from:l.to])
	l.from += n
	return n, nil
}

func (l *link) syscall() (syscall.Conn, bool) {
	c, ok := l.Conn.(syscall.Conn)
	return c, ok
}

// Detach takes the socket out of the hands of Go's poller, for whoever is told by other means when it can be read: of the file descriptor
// that is returned, until Close. From then on TryRead reads, Read must not be called, and nothing of the Conn waits: a control frame that the
// socket does not take at once fails the Conn. wake is called, from any goroutine and until Close has returned, when TryRead is to be called
// although nothing has come: Keepalive has given up. When ok is false nothing has changed. Detach must not be called during a Read or after
// Keepalive; Close must not be called during a TryRead.
func (c *Conn) Detach(wake func()) (fd int, ok bool) {
	s, ok := c.socket.(*rawSocket)
	if !ok {
		return 0, false
	}
	fd = -1
	err := s.raw.Control(func(old uintptr) {
		if n, err := unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fd = n
		}
	})
	if err != nil || fd < 0 {
		return 0, false
	}
	d := &detached{fd: fd, step: s.step}
	was := c.nc
	if t, secure := c.nc.(*secureConn); secure {
		was, t.link.Conn = t.link.Conn, d
	} else {
		c.nc = d
	}
	_ = was.Close() // of one of two file descriptors of the socket: nothing is sent
	c.direct, c.wake, c.socket = d, wake, nil
	return fd, true
}

// detached is a socket that is read and written without waiting.
type detached struct {
	fd   int
	step func(fd int, p []byte) (int, error) // Owned by the reader.

	mu     sync.Mutex
	closed bool // Guarded by mu.
}

var _ net.Conn = (*detached)(nil)

// read is a socket's read that does not wait.
func (d *detached) read(at, want int) (b *Batch, n int, drained bool, err error) {
	b = batches.Get().(*Batch)
	n, err = d.step(d.fd, b.scratch[at:at+want])
	drained = n < want
	if n == 0 {
		batches.Put(b)
		b = nil
	}
	if errors.Is(err, errAgain) {
		err = nil
	}
	return b, n, drained, err
}

// Read implements net.Conn for a TLS handshake, which is over.
func (d *detached) Read(p []byte) (int, error) { return readNow(d.fd, p) }

// Write implements net.Conn. It writes all of p or fails.
func (d *detached) Write(p []byte) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n < len(p) {
		if d.closed {
			return n, net.ErrClosed
		}
		k, err := syscall.Write(d.fd, p[n:])
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return n, err
		default:
			n += k
		}
	}
	return n, nil
}

// Close implements net.Conn.
func (d *detached) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	d.closed = true
	return syscall.Close(d.fd)
}

// LocalAddr implements net.Conn.
func (*detached) LocalAddr() net.Addr { return nil }

// RemoteAddr implements net.Conn.
func (*detached) RemoteAddr() net.Addr { return nil }

// SetDeadline implements net.Conn: what does not wait has no deadline.
func (*detached) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (*detached) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (*detached) SetWriteDeadline(time.Time) error { return nil }
