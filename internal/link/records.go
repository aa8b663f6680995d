package link

import (
	"bufio"
	"context"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// WriteBuffer is how much of a connection grpc is to write at once, in bytes: a batch of a busy channel, with its frames.
const WriteBuffer = 72 << 10

// Credentials is TLS whose records move together: crypto/tls by itself reads and writes each of its records, of 16 KiB at most, with a system
// call. What is given to one Write of a connection leaves in as few as possible, before that Write returns; nothing waits for more. A connection
// reads up to readBuffer bytes at once and keeps a buffer of that size; 0 leaves reading as it is.
func Credentials(tls credentials.TransportCredentials, readBuffer int) credentials.TransportCredentials {
	return &together{tls, readBuffer}
}

// together makes connections whose records move together. All that it does not do itself its TransportCredentials does.
type together struct {
	credentials.TransportCredentials
	readBuffer int
}

// Clone implements credentials.TransportCredentials.
func (t *together) Clone() credentials.TransportCredentials {
	return &together{t.TransportCredentials.Clone(), t.readBuffer}
}

// ClientHandshake implements credentials.TransportCredentials.
func (t *together) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	r := newRecords(raw, t.readBuffer)
	c, info, err := t.TransportCredentials.ClientHandshake(ctx, authority, r)
	if err != nil {
		return nil, nil, err
	}
	return &conn{c, r}, info, nil
}

// ServerHandshake implements credentials.TransportCredentials.
func (t *together) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	r := newRecords(raw, t.readBuffer)
	c, info, err := t.TransportCredentials.ServerHandshake(r)
	if err != nil {
		return nil, nil, err
	}
	return &conn{c, r}, info, nil
}

// conn is TLS over records.
type conn struct {
	net.Conn
	records *records
}

// Write implements net.Conn. What TLS makes of b has been written when it returns.
func (c *conn) Write(b []byte) (n int, err error) {
	c.records.hold()
	n, err = c.Conn.Write(b)
	if lost := c.records.release(); err == nil && lost != nil {
		return 0, lost
	}
	return n, err
}

// records is what TLS runs over: the connection, with what is written collected while it is held.
type records struct {
	net.Conn
	in *bufio.Reader // nil for none

	mu   sync.Mutex
	held int     // Writes of the conn that are not over. Guarded by mu.
	out  *[]byte // what was written since; nil for nothing. Guarded by mu.
	err  error   // why something could not be written: nothing can be any more. Guarded by mu.
}

// recordsOf is how long the records of a Write of WriteBuffer bytes are, beyond which they do not wait: each of 16 KiB has 29 bytes more in
// the worst of AEAD modes of TLS 1.2 (RFC 5246, section 6.2.3.3; RFC 5288).
const recordsOf = WriteBuffer + WriteBuffer/(16<<10)*64 + 64

var outs = sync.Pool{New: func() any {
	b := make([]byte, 0, recordsOf)
	return &b
}}

func newRecords(raw net.Conn, readBuffer int) *records {
	r := &records{Conn: newSocket(raw)}
	if readBuffer > 0 {
		r.in = bufio.NewReaderSize(raw, readBuffer)
	}
	return r
}

// Read implements net.Conn.
func (r *records) Read(b []byte) (int, error) {
	if r.in == nil {
		return r.Conn.Read(b)
	}
	return r.in.Read(b)
}

// Write implements net.Conn. b waits for release while there is a hold; also what TLS writes of its own accord meanwhile, which must not overtake.
func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out != nil && len(*r.out)+len(b) > cap(*r.out) {
		r.flush()
	}
	switch {
	case r.err != nil:
		return 0, r.err
	case r.held == 0 || len(b) > recordsOf:
		n, err := r.Conn.Write(b)
		r.err = err
		return n, err
	case r.out == nil:
		r.out = outs.Get().(*[]byte)
	}
	*r.out = append(*r.out, b...)
	return len(b), nil
}

// hold lets what is written wait for release.
func (r *records) hold() {
	r.mu.Lock()
	r.held++
	r.mu.Unlock()
}

// release writes what has waited. Its error is that of any Write since hold, too.
func (r *records) release() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held--
	r.flush()
	return r.err
}

// flush writes what waits. mu is held.
func (r *records) flush() {
	if r.out == nil {
		return
	}
	if r.err == nil {
		_, r.err = r.Conn.Write(*r.out)
	}
	*r.out = (*r.out)[:0]
	outs.Put(r.out)
	r.out = nil
}
