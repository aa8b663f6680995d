package websocket

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// pings reads the client's frames and reports the time of each ping; answer decides what the server writes then.
func pings(peer net.Conn, answer func() string) (<-chan time.Time, <-chan struct{}) {
	at, done := make(chan time.Time, 100), make(chan struct{})
	go func() {
		defer close(done)
		for {
			b := make([]byte, 6) // a ping without payload
			if _, err := io.ReadFull(peer, b); err != nil || b[0] != final|opPing {
				return
			}
			at <- time.Now()
			if _, err := io.WriteString(peer, answer()); err != nil {
				return
			}
		}
	}()
	return at, done
}

func TestKeepaliveFindsSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t)
		at, done := pings(peer, func() string { return "" })
		begin := time.Now()
		c.Keepalive(15*time.Second, 10*time.Second)
		var silent *TimeoutError
		if _, err := c.Read(MaxRead, MaxRead); !errors.As(err, &silent) || silent.After != 10*time.Second {
			t.Fatalf("got %v", err)
		}
		if d := (<-at).Sub(begin); d != 15*time.Second {
			t.Errorf("ping after %v", d)
		}
		if d := time.Since(begin); d != 25*time.Second {
			t.Errorf("given up after %v", d)
		}
		c.Close(CodeNormal)
		<-done
	})
}

func TestKeepaliveIsAnsweredByAnyBytes(t *testing.T) {
	for name, answer := range map[string]string{"pong": frame(final|opPong, ""), "half a message": "\x82", "message": frame(final|opText, "x")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := pair(t)
				answers := 0
				at, done := pings(peer, func() string {
					answers++
					if answers > 3 || answers > 1 && answer == "\x82" {
						return ""
					}
					return answer
				})
				begin := time.Now()
				c.Keepalive(15*time.Second, 10*time.Second)
				var err error
				for err == nil {
					var b *Batch
					if b, err = c.Read(MaxRead, MaxRead); err == nil {
						b.Release()
					}
				}
				if _, ok := errors.AsType[*TimeoutError](err); !ok {
					t.Fatalf("got %v", err)
				}
				want := 4 * 15 * time.Second
				if answer == "\x82" {
					want = 2 * 15 * time.Second
				}
				if d := time.Since(begin); d < want || d > want+20*time.Second {
					t.Errorf("given up after %v, pings %d", d, len(at))
				}
				c.Close(CodeNormal)
				<-done
			})
		})
	}
}

// TestKeepaliveConcludesNothingWhileNobodyReads: a channel without credit does not read, and its upstream is not to blame.
func TestKeepaliveConcludesNothingWhileNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t)
		at, done := pings(peer, func() string { return frame(final|opText, "here") })
		c.Keepalive(15*time.Second, 10*time.Second)
		<-time.After(time.Hour)
		if len(at) != 0 {
			t.Errorf("%d pings while nobody reads", len(at))
		}
		if _, m := next(t, c, &reader{limit: MaxRead, part: MaxRead}); string(m) != "here" {
			t.Errorf("got %q", m)
		}
		c.Close(CodeNormal)
		<-done
	})
}

// TestKeepaliveWaitsForBlockedWriter: a process that does not read its input holds up the ping; that is no reason to give up.
func TestKeepaliveWaitsForBlockedWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(t)
		c.Keepalive(15*time.Second, 10*time.Second)
		wrote, read := make(chan error, 1), make(chan error, 1)
		go func() { wrote <- c.WriteMessage(Binary, []byte("input")) }()
		go func() {
			_, err := c.Read(MaxRead, MaxRead)
			read <- err
		}()
		select {
		case err := <-read:
			t.Errorf("given up: %v", err)
		case <-time.After(time.Hour):
		}
		c.Close(CodeNormal)
		if werr, rerr := <-wrote, <-read; werr == nil || rerr == nil {
			t.Errorf("after Close: write %v, read %v", werr, rerr)
		}
	})
}

// TestKeepaliveWaitsForWhatWasWritten: a peer that waits for somebody to take a message reads nothing behind it, no ping either. When it has
// answered one, silence is silence again.
func TestKeepaliveWaitsForWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer := pair(t)
		at, done := make(chan []byte, 100), make(chan struct{})
		go func() {
			defer close(done)
			for {
				b := make([]byte, 14) // a message or a ping of 8 bytes
				if _, err := io.ReadFull(peer, b); err != nil || b[0] == final|opClose {
					return
				}
				if b[0] == final|opPing {
					applyMask(b[6:], [4]byte(b[2:6]))
					at <- b[6:]
				}
			}
		}()
		c.Keepalive(15*time.Second, 10*time.Second)
		failed := make(chan error, 1)
		go func() {
			_, err := c.Read(MaxRead, MaxRead)
			failed <- err
		}()
		if err := c.WriteMessage(Binary, []byte("the input")[:8]); err != nil {
			t.Fatal(err)
		}
		alive := func(d time.Duration) {
			t.Helper()
			select {
			case err := <-failed:
				t.Fatalf("given up: %v", err)
			case <-time.After(d):
			}
		}
		alive(time.Hour)
		ping := <-at
		if len(at) != 0 {
			t.Errorf("%d pings more while one is not answered", len(at))
		}
		for _, strange := range []string{"", "another\x00", "\xff\xff\xff\xff\xff\xff\xff\xff", "\x00\x00\x00\x00\x00\x00\x00\x02"} {
			if _, err := io.WriteString(peer, frame(final|opPong, strange)); err != nil {
				t.Fatal(err)
			}
		}
		alive(time.Hour) // they answer nothing
		<-at             // but they were bytes
		if _, err := io.WriteString(peer, frame(final|opPong, string(ping))); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := <-failed; !isTimeout(err) || time.Since(begin) != 25*time.Second {
			t.Errorf("ended with %v after %v", err, time.Since(begin))
		}
		c.Close(CodeNormal)
		_ = peer.Close()
		<-done
	})
}

// TestAProbeIsNoExcuse: a peer that has passed on all before it has room for it, so that its silence means what silence means. Behind a message that may
// still be there a probe is like any other.
func TestAProbeIsNoExcuse(t *testing.T) {
	for name, passed := range map[string]int64{"all was passed on": 2, "not all was": 1, "more than there is was": 3} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer := pair(t)
				drained := make(chan struct{})
				go func() {
					defer close(drained)
					_, _ = io.Copy(io.Discard, peer)
				}()
				c.Keepalive(15*time.Second, 10*time.Second)
				failed := make(chan error, 1)
				begin := time.Now()
				go func() {
					_, err := c.Read(MaxRead, MaxRead)
					failed <- err
				}()
				for range 2 {
					if err := c.WriteMessage(Binary, []byte("input")); err != nil {
						t.Fatal(err)
					}
				}
				c.Passed(passed)
				n, err := c.WriteProbe(Binary, []byte("are you there?"))
				if want := int64(3); err != nil || passed == 2 && n != 2 || passed != 2 && n != want {
					t.Errorf("WriteProbe returns %d, %v", n, err)
				}
				if passed != 2 {
					select {
					case err := <-failed:
						t.Fatalf("given up: %v", err)
					case <-time.After(time.Hour):
					}
					begin = time.Now().Add(-25 * time.Second)
					c.Passed(n)
				}
				if err := <-failed; !isTimeout(err) || time.Since(begin) > 35*time.Second || time.Since(begin) < 25*time.Second {
					t.Errorf("ended with %v after %v", err, time.Since(begin))
				}
				c.Close(CodeNormal)
				if _, err := c.WriteProbe(Binary, nil); !errors.Is(err, net.ErrClosed) {
					t.Errorf("WriteProbe after Close: %v", err)
				}
				_ = peer.Close()
				<-drained
			})
		})
	}
}

func isTimeout(err error) bool {
	_, ok := errors.AsType[*TimeoutError](err)
	return ok
}
