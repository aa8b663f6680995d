//go:build unix

package websocket

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// detach detaches a Conn whose transport can be.
func detach(t testing.TB, c *Conn, wake func()) (fd int) {
	t.Helper()
	fd, ok := c.Detach(wake)
	if !ok {
		t.Fatal("the Conn cannot be detached")
	}
	return fd
}

// awaitReadable waits until the socket has something, or an end.
func awaitReadable(t testing.TB, fd int) {
	t.Helper()
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
	for errors.Is(err, unix.EINTR) {
		n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience/time.Millisecond))
	}
	if n == 0 || err != nil {
		t.Fatalf("nothing to read: %v", err)
	}
}

// tryAll reads a detached Conn to its end as a readiness loop does: until nothing is left, then after it is told that there is more.
func (r *reader) tryAll(t testing.TB, c *Conn, fd int, limits func() (limit, part int)) error {
	for {
		limit, part := limits()
		b, drained, err := c.TryRead(limit, part)
		if err != nil {
			return err
		}
		if b != nil {
			r.take(b)
		}
		if drained {
			c.Expect()
			awaitReadable(t, fd)
		}
	}
}

// readAll is tryAll for a Conn that waits.
func (r *reader) readAll(c *Conn, limits func() (limit, part int)) error {
	for {
		b, err := c.Read(limits())
		if err != nil {
			return err
		}
		r.take(b)
	}
}

// ending is what tells ends apart.
func ending(err error) string {
	var closed *CloseError
	var broken *ProtocolError
	switch {
	case errors.As(err, &closed):
		return "close " + closed.Reason
	case errors.As(err, &broken):
		return "broken " + broken.Message
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "EOF"
	}
	return err.Error()
}

// TestADetachedConnReadsWhatAWaitingOneReads sends the same bytes, in other pieces, to one Conn that waits and one that tries.
func TestADetachedConnReadsWhatAWaitingOneReads(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				stream := drawStream(rt)
				stream += rapid.SampledFrom([]string{"", frame(final|opClose, "\x03\xe9bye"), "\x81\x05ab", "\xf1\x00"}).Draw(rt, "end")
				seed := rapid.Uint64().Draw(rt, "seed")
				limits := func() func() (int, int) {
					r := rand.New(rand.NewPCG(seed, 1))
					part := 1 + r.IntN(MaxRead)
					return func() (int, int) { return part + r.IntN(MaxRead), part }
				}
				serve := func(seed uint64) func(*gorilla.Conn) {
					return func(peer *gorilla.Conn) { writeInPieces(peer.UnderlyingConn(), stream, rand.New(rand.NewPCG(seed, 2))) }
				}
				waiting := start(t, transport, serve(seed))
				trying := start(t, transport, serve(seed+1))
				fd := detach(t, trying, func() { t.Error("woken for nothing") })
				var a, b reader
				endA := a.readAll(waiting, limits())
				endB := b.tryAll(t, trying, fd, limits())
				if !reflect.DeepEqual(a.messages, b.messages) || a.open != b.open {
					rt.Fatalf("messages differ: %.200q and %.200q", a.messages, b.messages)
				}
				if ending(endA) != ending(endB) {
					rt.Fatalf("ends differ: %v and %v", endA, endB)
				}
				waiting.Close(CodeNormal)
				trying.Close(CodeNormal)
			})
		})
	}
}

// writeInPieces writes a stream in pieces of random sizes, says that no more comes, and waits for the other end: who closes a socket with
// something unread in it takes back what he wrote.
func writeInPieces(nc net.Conn, stream string, r *rand.Rand) {
	for stream != "" {
		n := min(1+r.IntN(1+len(stream)/(1+r.IntN(8))), len(stream))
		if _, err := io.WriteString(nc, stream[:n]); err != nil {
			return
		}
		stream = stream[n:]
	}
	_ = nc.(interface{ CloseWrite() error }).CloseWrite() // the other end may be gone
	_, _ = io.Copy(io.Discard, nc)
}

// TestADetachedConnIsWokenWhenThePeerIsSilent: a peer that answers no ping is given up, and whoever waits for the socket is told.
func TestADetachedConnIsWokenWhenThePeerIsSilent(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			pinged := make(chan struct{})
			c := start(t, transport, func(peer *gorilla.Conn) {
				peer.SetPingHandler(func(string) error { close(pinged); return nil })
				_, _, _ = peer.ReadMessage()
			})
			woken := make(chan struct{}, 1)
			detach(t, c, func() { woken <- struct{}{} })
			if b, drained, err := c.TryRead(MaxRead, MaxRead); b != nil || !drained || err != nil {
				t.Fatalf("TryRead: %v, %v, %v", b, drained, err)
			}
			c.Expect()
			c.Keepalive(10*time.Millisecond, 10*time.Millisecond)
			<-pinged
			<-woken
			var silent *TimeoutError
			if _, _, err := c.TryRead(MaxRead, MaxRead); !errors.As(err, &silent) {
				t.Errorf("TryRead: %v", err)
			}
		})
	}
}

// TestADetachedConnAnswersPingsAndEndsProperly: what is written needs no goroutine that waits.
func TestADetachedConnAnswersPingsAndEndsProperly(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			ponged, ended := make(chan string, 1), make(chan error, 1)
			c := start(t, transport, func(peer *gorilla.Conn) {
				peer.SetPongHandler(func(s string) error { ponged <- s; return nil })
				if _, m, err := peer.ReadMessage(); err != nil || len(m) != 100 {
					t.Errorf("the peer read %d bytes, %v", len(m), err)
				}
				_ = peer.WriteMessage(gorilla.PingMessage, []byte("are you there"))
				_, _, err := peer.ReadMessage()
				ended <- err
			})
			fd := detach(t, c, func() {})
			if err := c.WriteMessage(Text, bytes.Repeat([]byte("x"), 100)); err != nil {
				t.Error(err)
			}
			awaitReadable(t, fd)
			if b, drained, err := c.TryRead(MaxRead, MaxRead); b != nil || !drained || err != nil {
				t.Fatalf("TryRead: %v, %v, %v", b, drained, err)
			}
			if s := <-ponged; s != "are you there" {
				t.Errorf("pong %q", s)
			}
			c.Close(CodeGoingAway)
			if err := <-ended; !gorilla.IsCloseError(err, CodeGoingAway) {
				t.Errorf("the peer read %v", err)
			}
			if _, _, err := c.TryRead(MaxRead, MaxRead); !errors.Is(err, net.ErrClosed) {
				t.Errorf("TryRead after Close: %v", err)
			}
		})
	}
}

// TestADetachedConnFailsRatherThanWait: a peer that takes nothing holds up neither writer nor Close.
func TestADetachedConnFailsRatherThanWait(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	c := start(t, "tcp", func(*gorilla.Conn) { <-release })
	detach(t, c, func() {})
	var err error
	for err == nil {
		err = c.WriteMessage(Binary, make([]byte, 1<<20))
	}
	if !errors.Is(err, unix.EAGAIN) {
		t.Errorf("WriteMessage: %v", err)
	}
	c.Close(CodeNormal)
}

// TestOnlySocketsAreDetached: any other connection stays as it is.
func TestOnlySocketsAreDetached(t *testing.T) {
	c, peer := pair(t)
	if _, ok := c.Detach(func() {}); ok {
		t.Error("a pipe was detached")
	}
	go func() { _, _ = io.WriteString(peer, frame(final|opText, "hello")) }()
	if _, m := next(t, c, &reader{limit: MaxRead, part: MaxRead}); string(m) != "hello" {
		t.Errorf("got %q", m)
	}
	peer.Close()
	c.Close(CodeNormal)
}
