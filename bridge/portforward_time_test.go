package bridge

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/spdystream/spdy"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// faultyConn is a connection of which one direction can fail.
type faultyConn struct {
	net.Conn
	deaf, mute *atomic.Bool
}

func (c faultyConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.deaf.Load() {
			return n, err
		}
	}
}

func (c faultyConn) Write(p []byte) (int, error) {
	if c.mute.Load() {
		return 0, errors.New("broken pipe")
	}
	return c.Conn.Write(p)
}

// timedForward is a forward in a bubble, and when it began.
type timedForward struct {
	*forwarding
	began      time.Time
	deaf, mute atomic.Bool
}

func forwardInTime(t *testing.T, script func(*scriptedTunnel)) *timedForward {
	f := &timedForward{began: time.Now()}
	up := scriptedInMemory(t, script)
	dial := up.dial
	up.dial = func(ctx context.Context) (net.Conn, error) {
		nc, err := dial(ctx)
		return faultyConn{nc, &f.deaf, &f.mute}, err
	}
	f.forwarding = forwardTo(t, up, 80, Options{Pods: refusedPods(t)})
	return f
}

// check waits for the end, and checks what it is and when it comes: at a time, or less than two seconds later.
func (f *timedForward) check(t *testing.T, after time.Duration, code codes.Code, reason sluicev1.Reason, text string) {
	t.Helper()
	e := status.From(f.outcome().Err)
	took := time.Since(f.began)
	if code == codes.OK && e != nil || code != codes.OK && (e == nil || e.Code != code || e.Reason != reason) {
		t.Errorf("it ends with %v", e)
	}
	if took < after || took > after+2*time.Second {
		t.Errorf("it ends after %v", took)
	}
	if f.text() != text {
		t.Errorf("%q is delivered", f.text())
	}
}

func TestTimesOfAPortForward(t *testing.T) {
	const lost, reset = sluicev1.Reason_REASON_UPSTREAM_LOST, sluicev1.Reason_REASON_RESET
	for name, test := range map[string]func(*testing.T){
		"a node that does not answer": func(t *testing.T) {
			forwardInTime(t, (*scriptedTunnel).drain).check(t, replyTimeout, codes.Unavailable, lost, "")
		},
		"both directions end and no verdict comes": func(t *testing.T) {
			f := forwardInTime(t, saysAll(says("hello"), ends(dataStream)))
			f.CloseWrite()
			f.check(t, lastWords, codes.OK, 0, "hello")
		},
		"one direction ends": func(t *testing.T) {
			f := forwardInTime(t, saysAll(says("hello"), ends(dataStream)))
			elapse(time.Hour)
			f.stop(nil)
			f.outcome()
			if time.Since(f.began) < time.Hour {
				t.Error("it has ended by itself")
			}
		},
		"an error that does not end": func(t *testing.T) {
			forwardInTime(t, saysAll(says("hello"), complains("no such luck"))).check(t, lastWords, codes.Aborted, reset, "hello")
		},
		"nothing can be written any more": func(t *testing.T) {
			more := make(chan struct{})
			f := forwardInTime(t, func(s *scriptedTunnel) {
				_ = s.say(append(accepts(), says("hello"))...)
				<-more
				_ = s.say(says(" and goodbye"))
				s.drain()
			})
			f.awaitBytes(t, 5)
			f.mute.Store(true)
			_, _ = io.WriteString(f, "x")
			synctest.Wait()
			close(more)
			f.check(t, lastWords, codes.Unavailable, lost, "hello and goodbye")
		},
		"an API server that is silent": func(t *testing.T) {
			f := forwardInTime(t, saysAll(says("hello")))
			elapse(20 * time.Second)
			f.deaf.Store(true)
			f.check(t, 40*time.Second, codes.Unavailable, lost, "hello")
		},
		"one that is silent from the beginning": func(t *testing.T) {
			f := forwardInTime(t, saysAll(says("hello")))
			f.awaitBytes(t, 5)
			f.deaf.Store(true)
			f.check(t, 25*time.Second, codes.Unavailable, lost, "hello")
		},
		"one that falls silent between pings that were answered": func(t *testing.T) {
			f := forwardInTime(t, answersPings(nil))
			f.awaitOpened(t)
			_, _ = io.WriteString(f, "what it has not confirmed by anything but the answer to a later ping")
			elapse(time.Hour + 7*time.Second)
			f.deaf.Store(true)
			f.check(t, time.Hour+25*time.Second, codes.Unavailable, lost, "")
		},
		"a node that ends while the client has more to say": func(t *testing.T) {
			end := make(chan struct{})
			f := forwardInTime(t, func(s *scriptedTunnel) {
				_ = s.say(append(accepts(), says("hello"))...)
				<-end // the pipe is full at once, and heard after a thousand frames
				_ = s.say(ends(errorStream), ends(dataStream))
				s.drain()
			})
			f.awaitBytes(t, 5)
			for range 1100 {
				_, _ = io.WriteString(f, "x")
			}
			f.CloseWrite()
			synctest.Wait()
			close(end)
			f.check(t, 0, codes.Aborted, reset, "hello")
		},
		"a node that reads nothing": func(t *testing.T) {
			over := make(chan struct{})
			f := forwardInTime(t, func(s *scriptedTunnel) {
				_ = s.say(append(accepts(), says("hello"))...)
				<-over // the pipe is full at once, and heard after a thousand frames
			})
			defer close(over)
			f.awaitBytes(t, 5)
			for range 1100 {
				_, _ = io.WriteString(f, "x")
			}
			synctest.Wait()
			f.stop(nil)
			f.outcome()
			if took := time.Since(f.began); took > 2*time.Second {
				t.Errorf("its end took %v", took)
			}
		},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
	}
}

// answersPings is a node that accepts the streams and answers each ping, for as long as it is told to.
func answersPings(answer func() bool) func(*scriptedTunnel) {
	return func(s *scriptedTunnel) {
		_ = s.say(accepts()...)
		for x := range s.heard {
			if p, ok := x.(*spdy.PingFrame); ok && (answer == nil || answer()) {
				_ = s.say(p)
			}
		}
	}
}

func TestAForwardAsksInTimeAndOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const every = 15 * time.Second
		began, asked := time.Now(), make(chan time.Duration, 100)
		f := forwardInTime(t, answersPings(func() bool {
			asked <- time.Since(began).Round(time.Second)
			return len(asked) < 4
		}))
		elapse(5 * time.Minute)
		f.stop(nil)
		f.outcome()
		synctest.Wait()
		next := every
		for len(asked) > 0 {
			if at := <-asked; at != next {
				t.Errorf("it asks after %v", at)
			}
			next += every
		}
		if next != 5*every {
			t.Errorf("it stops asking after %v", next-every)
		}
	})
}

func TestAnErrorIsReadable(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "refused\n": "refused", "\x1b[2Jé\u202e": "[2J", strings.Repeat(" ", 9): "", "a\tb": "a b",
	} {
		if got := readable([]byte(in)); got != want {
			t.Errorf("%q is read as %q", in, got)
		}
	}
}
