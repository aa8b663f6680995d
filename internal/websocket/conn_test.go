package websocket

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// next reads until one message is whole.
func next(t testing.TB, c *Conn, r *reader) (kind string, message []byte) {
	t.Helper()
	m, err := r.next(c)
	if err != nil {
		t.Fatal(err)
	}
	return m[:1], []byte(m[1:])
}

// reader joins the fragments of a Conn.
type reader struct {
	limit, part int
	messages    []string
	open        string
	longest     int
}

func (r *reader) next(c *Conn) (string, error) {
	for len(r.messages) == 0 {
		b, err := c.Read(r.limit, r.part)
		if err != nil {
			return "", err
		}
		r.take(b)
	}
	m := r.messages[0]
	r.messages = r.messages[1:]
	return m, nil
}

func (r *reader) take(b *Batch) {
	defer b.Release()
	for _, f := range b.Fragments {
		if r.open == "" {
			r.open = describe(f)[:1]
		}
		r.longest = max(r.longest, len(f.Bytes))
		if r.open += string(f.Bytes); f.Last {
			r.messages, r.open = append(r.messages, r.open), ""
		}
	}
}

func TestMessagesArriveWhole(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			var sent []string
			for _, n := range []int{0, 1, 500, 2048, 16<<10 - 1, 16 << 10, 16<<10 + 1, 64 << 10, 300_000, 3 << 20, 7} {
				p := make([]byte, n)
				_, _ = rand.Read(p)
				sent = append(sent, "B"+string(p))
			}
			c := start(t, transport, func(peer *gorilla.Conn) {
				for _, m := range sent {
					if peer.WriteMessage(gorilla.BinaryMessage, []byte(m[1:])) != nil {
						return
					}
				}
				_ = peer.WriteMessage(gorilla.TextMessage, []byte("end"))
				_, _, _ = peer.ReadMessage()
			})
			if c.Subprotocol() != "v5.channel.k8s.io" {
				t.Errorf("subprotocol %q", c.Subprotocol())
			}
			r := &reader{limit: 48 << 10, part: 16 << 10}
			for i, want := range sent {
				if got, err := r.next(c); err != nil || got != want {
					t.Fatalf("message %d of %d bytes: got %d bytes, %v", i, len(want)-1, len(got)-1, err)
				}
			}
			if kind, m := next(t, c, r); kind != "T" || string(m) != "end" {
				t.Errorf("got %s %q", kind, m)
			}
			if r.longest > r.part {
				t.Errorf("a fragment of %d bytes", r.longest)
			}
		})
	}
}

func TestEchoOfWrites(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			c := start(t, transport, func(peer *gorilla.Conn) {
				for {
					kind, p, err := peer.ReadMessage()
					if err != nil || peer.WriteMessage(kind, p) != nil {
						return
					}
				}
			})
			r := &reader{limit: MaxRead, part: MaxRead}
			for _, n := range []int{0, 1, 3, 4, 5, 125, 126, 65535, 65536, 100_001} {
				p := make([]byte, n)
				_, _ = rand.Read(p)
				var writers sync.WaitGroup
				for range 3 {
					writers.Go(func() {
						if err := c.WriteMessage(Binary, p); err != nil {
							t.Error(err)
						}
					})
				}
				for range 3 {
					if _, m := next(t, c, r); !bytes.Equal(m, p) {
						t.Fatalf("%d bytes came back as %d others", n, len(m))
					}
				}
				writers.Wait()
			}
		})
	}
}

func TestCloseOfPeerComesAfterItsMessages(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			answer := make(chan error, 1)
			c := start(t, transport, func(peer *gorilla.Conn) {
				_ = peer.WriteMessage(gorilla.TextMessage, []byte("last words"))
				_ = peer.WriteMessage(gorilla.CloseMessage, gorilla.FormatCloseMessage(1001, "restart"))
				_, _, err := peer.ReadMessage()
				answer <- err
			})
			r := &reader{limit: MaxRead, part: MaxRead}
			if _, m := next(t, c, r); string(m) != "last words" {
				t.Errorf("got %q", m)
			}
			for range 2 { // it is final
				var closed *CloseError
				if _, err := r.next(c); !errors.As(err, &closed) || *closed != (CloseError{Code: 1001, Reason: "restart"}) {
					t.Fatalf("got %v", err)
				}
			}
			if err := <-answer; !gorilla.IsCloseError(err, 1001) {
				t.Errorf("the peer's close was answered by %v", err)
			}
			if err := c.WriteMessage(Text, []byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("write after close: %v", err)
			}
		})
	}
}

// TestEndWithLastBytesIsSeen: an end of file that arrives together with the last bytes makes the socket readable only once.
func TestEndWithLastBytesIsSeen(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			c := start(t, transport, func(peer *gorilla.Conn) {
				_ = peer.WriteMessage(gorilla.TextMessage, []byte("whole"))
			})
			r := &reader{limit: MaxRead, part: MaxRead}
			if _, m := next(t, c, r); string(m) != "whole" {
				t.Errorf("got %q", m)
			}
			if _, err := r.next(c); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCloseUnblocksRead(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			said := make(chan error, 1)
			c := start(t, transport, func(peer *gorilla.Conn) {
				_, _, err := peer.ReadMessage()
				said <- err
			})
			read := make(chan error, 1)
			go func() {
				_, err := c.Read(MaxRead, MaxRead)
				read <- err
			}()
			var closers sync.WaitGroup
			for range 3 {
				closers.Go(func() { c.Close(CodeGoingAway) })
			}
			closers.Wait()
			if err := <-read; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read: %v", err)
			}
			if err := <-said; !gorilla.IsCloseError(err, CodeGoingAway) {
				t.Errorf("the peer was told %v", err)
			}
		})
	}
}

// TestCloseDoesNotWaitForStuckPeer: a writer waits for a peer that takes nothing; Close ends both.
func TestCloseDoesNotWaitForStuckPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(t)
		wrote := make(chan error, 1)
		go func() { wrote <- c.WriteMessage(Binary, make([]byte, 100_000)) }()
		synctest.Wait()
		begin := time.Now()
		c.Close(CodeNormal)
		if err := <-wrote; !errors.Is(err, net.ErrClosed) {
			t.Errorf("WriteMessage: %v", err)
		}
		if d := time.Since(begin); d > closeTime {
			t.Errorf("Close took %v", d)
		}
	})
}

func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(t)
		c.Configure(Options{WriteTimeout: time.Minute})
		begin := time.Now()
		var timeout net.Error
		if err := c.WriteMessage(Binary, make([]byte, 100)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("got %v", err)
		}
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("after %v", d)
		}
		c.Close(CodeNormal)
	})
}

func TestPingIsAnswered(t *testing.T) {
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			pongs := make(chan string, 1)
			c := start(t, transport, func(peer *gorilla.Conn) {
				peer.SetPongHandler(func(data string) error {
					pongs <- data
					return peer.WriteMessage(gorilla.TextMessage, []byte("heard"))
				})
				_ = peer.WriteMessage(gorilla.PingMessage, []byte("are you there"))
				_, _, _ = peer.ReadMessage()
			})
			if _, m := next(t, c, &reader{limit: MaxRead, part: MaxRead}); string(m) != "heard" {
				t.Errorf("got %q", m)
			}
			if got := <-pongs; got != "are you there" {
				t.Errorf("pong %q", got)
			}
		})
	}
}

// TestPingsOfPeerThatTakesNothing: a peer that pings and never reads delays no message, and its pings are not queued.
func TestPingsOfPeerThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t)
		go func() {
			_, _ = io.WriteString(peer, strings.Repeat(frame(final|opPing, "p"), 1000)+frame(final|opText, "message"))
		}()
		if _, m := next(t, c, &reader{limit: MaxRead, part: MaxRead}); string(m) != "message" {
			t.Errorf("got %q", m)
		}
		c.mu.Lock()
		if string(c.pong) != "p" || !c.flushing {
			t.Errorf("waiting to be sent: %q, flushing %v", c.pong, c.flushing)
		}
		c.mu.Unlock()
		c.Close(CodeNormal)
	})
}

func TestViolationIsAnsweredAndFinal(t *testing.T) {
	for stream, code := range map[string]byte{frame(final|3, ""): 0xea, frame(final|1, "\xff"): 0xef} {
		synctest.Test(t, func(t *testing.T) {
			c, peer := pair(t)
			c.Configure(Options{CheckText: true})
			answer := make(chan []byte, 1)
			go func() {
				_, _ = io.WriteString(peer, stream)
				b := make([]byte, 8)
				_, _ = io.ReadFull(peer, b)
				applyMask(b[6:], [4]byte(b[2:6]))
				answer <- b
			}()
			for range 2 {
				var broken *ProtocolError
				if _, err := c.Read(MaxRead, MaxRead); !errors.As(err, &broken) {
					t.Fatalf("got %v", err)
				}
			}
			if b := <-answer; b[0] != final|opClose || b[6] != 3 || b[7] != code {
				t.Errorf("close frame % x", b)
			}
			c.Close(CodeNormal)
		})
	}
}

func TestBytesThatCameWithTheAnswer(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	stream := strings.Repeat(frame(final|opBinary, strings.Repeat("x", 999)), 200)
	c := NewConn(ours, []byte(stream[:150_000]))
	var peer sync.WaitGroup
	defer peer.Wait()
	defer c.Close(CodeNormal)
	peer.Go(func() {
		_, _ = io.WriteString(theirs, stream[150_000:])
		_, _ = io.Copy(io.Discard, theirs)
	})
	r := &reader{limit: 5000, part: 1000}
	for i := range 200 {
		if m, err := r.next(c); err != nil || len(m) != 1000 {
			t.Fatalf("message %d: %d bytes, %v", i, len(m), err)
		}
	}
}

// TestLimitHolds: what Read hands over never takes more than the limit, whatever the peer sends, and always makes progress.
func TestLimitHolds(t *testing.T) {
	const cost = 64
	c := start(t, "tcp", func(peer *gorilla.Conn) {
		for i := range 3000 {
			n := i % 7
			if i%100 == 0 {
				n = 20_000
			}
			if peer.WriteMessage(gorilla.BinaryMessage, make([]byte, n)) != nil {
				return
			}
		}
		_, _, _ = peer.ReadMessage()
	})
	c.Configure(Options{FragmentCost: cost})
	for count, size := 0, 0; count < 3000; {
		limit := cost + minPart + pick(t, 30_000)
		b, err := c.Read(limit, 16<<10)
		if err != nil {
			t.Fatal(err)
		}
		spent := 0
		for _, f := range b.Fragments {
			spent += len(f.Bytes) + cost
			if size += len(f.Bytes); f.Last {
				if want := count % 7; count%100 != 0 && size != want || count%100 == 0 && size != 20_000 {
					t.Fatalf("message %d has %d bytes", count, size)
				}
				count, size = count+1, 0
			}
		}
		if spent > limit || len(b.Fragments) == 0 {
			t.Fatalf("%d fragments took %d of %d", len(b.Fragments), spent, limit)
		}
		b.Release()
	}
}

func pick(t *testing.T, n int64) int {
	x, err := rand.Int(rand.Reader, big.NewInt(n))
	if err != nil {
		t.Fatal(err)
	}
	return int(x.Int64())
}
