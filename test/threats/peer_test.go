package threats

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sluice-gateway/sluice/test/rig"
)

// peer speaks HTTP/2 by hand.
type peer struct {
	// Immutable after speak and mute.
	t     *testing.T
	conn  *tls.Conn
	reads bool

	// Owned by who writes.
	frames *http2.Framer
	header bytes.Buffer
	hpack  *hpack.Encoder
	next   uint32 // stream

	answered atomic.Int64  // headers
	accepted atomic.Int64  // headers that say that the call was taken
	resets   atomic.Int64  // of streams
	status   atomic.Value  // grpc-status of the last answer
	ponged   atomic.Bool   // to lastPing
	ended    chan struct{} // closed when the server has ended the connection
}

// speak connects to a port, and reads what it says.
func speak(t *testing.T, r *rig.Rig, p port, settings ...http2.Setting) *peer {
	t.Helper()
	c := mute(t, r, p, settings...)
	c.reads = true
	go c.read() // ends with the connection
	return c
}

// mute connects to a port, and reads nothing of what it says.
func mute(t *testing.T, r *rig.Rig, p port, settings ...http2.Setting) *peer {
	t.Helper()
	config := r.ClientTLS()
	config.NextProtos = []string{"h2"}
	conn, err := (&tls.Dialer{Config: config}).DialContext(within(t), "tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &peer{t: t, conn: conn.(*tls.Conn), next: 1, ended: make(chan struct{})}
	c.frames = http2.NewFramer(c.conn, c.conn)
	c.frames.AllowIllegalWrites = true
	c.frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.hpack = hpack.NewEncoder(&c.header)
	if _, err := c.conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	if err := c.frames.WriteSettings(settings...); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *peer) read() {
	defer close(c.ended)
	for {
		f, err := c.frames.ReadFrame()
		if _, ok := errors.AsType[http2.StreamError](err); ok {
			continue
		}
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			c.answered.Add(1)
			for _, field := range f.Fields {
				switch {
				case field.Name == "grpc-status":
					c.status.Store(field.Value)
				case field.Name == ":status" && field.Value == "200":
					c.accepted.Add(1)
				}
			}
		case *http2.RSTStreamFrame:
			c.resets.Add(1)
		case *http2.PingFrame:
			if f.IsAck() && f.Data == lastPing {
				c.ponged.Store(true)
			}
		}
	}
}

// close ends the connection and, if it is read, waits for the reader.
func (c *peer) close() { _ = c.conn.Close() }

// block encodes a header with what went before on the connection. It is good until the next one.
func (c *peer) block(fields ...hpack.HeaderField) []byte {
	c.header.Reset()
	for _, f := range fields {
		if err := c.hpack.WriteField(f); err != nil {
			c.t.Fatal(err)
		}
	}
	return c.header.Bytes()
}

// request is the header of a call with a token; without one of a stranger's.
func request(addr, path, token string) []hpack.HeaderField {
	all := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: addr},
		{Name: ":path", Value: path},
		{Name: "content-type", Value: "application/grpc+proto"},
		{Name: "te", Value: "trailers"},
	}
	if token != "" {
		all = append(all, hpack.HeaderField{Name: "authorization", Value: "Bearer " + token})
	}
	return all
}

// stream begins a stream with a header and returns its number.
func (c *peer) stream(end bool, block []byte) (uint32, error) {
	id := c.next
	c.next += 2
	return id, c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: end})
}

// refuses reports an error that says that the server has had enough: it closed the connection, or takes nothing any more.
func refuses(err error) bool {
	var op net.Error
	return err != nil && (errors.As(err, &op) || errors.Is(err, net.ErrClosed))
}

// patience is how long a peer that is held back waits before it gives up. It ends what would not end by itself.
const patience = 5 * time.Second

// flood writes n times, until the server takes no more: an error of its connection, or patience without progress. It returns how often.
func (c *peer) flood(n int, write func(i int) error) (written int, err error) {
	for i := range n {
		if i%64 == 0 {
			if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
				return i, err
			}
		}
		if err := write(i); err != nil {
			if !refuses(err) {
				c.t.Errorf("write %d: %v", i, err)
			}
			return i, err
		}
	}
	return n, nil
}

// awaitEnd waits until the server has ended the connection.
func (c *peer) awaitEnd(ctx context.Context) bool {
	select {
	case <-c.ended:
		return true
	case <-ctx.Done():
		return false
	}
}
