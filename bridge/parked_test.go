package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/ready"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// socketUpstream serves one watch by writing bytes to a socket, and refuses every other.
type socketUpstream struct {
	t     testing.TB
	serve func(net.Conn)

	mu      sync.Mutex
	dials   int
	writers sync.WaitGroup
}

func newSocketUpstream(t testing.TB, serve func(net.Conn)) *socketUpstream {
	u := &socketUpstream{t: t, serve: serve}
	t.Cleanup(u.writers.Wait)
	return u
}

func (u *socketUpstream) Cluster() string { return "socket" }

func (u *socketUpstream) Identity() string { return "uid-of-the-socket" }

func (u *socketUpstream) Sharing() string { return "principal" }

func (u *socketUpstream) Dial(ctx context.Context, _ string, _ url.Values, _ ...string) (*websocket.Conn, string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dials++
	if u.dials > 1 {
		return nil, "", status.New(codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "there is one upstream only")
	}
	here, there := socketPair(ctx, u.t)
	u.writers.Go(func() {
		defer there.Close()
		u.serve(there)
	})
	return websocket.NewConn(here, nil), "", nil
}

func (u *socketUpstream) Get(context.Context, string, url.Values) (*http.Response, error) {
	return nil, status.New(codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "no lists")
}

// socketPair is the two ends of a TCP connection.
func socketPair(ctx context.Context, t testing.TB) (here, there net.Conn) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String()); err == nil {
		there, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	return here, there
}

// scene is what an upstream says and how slowly its events are taken.
type scene struct {
	Stream string
	Seed   uint64
	Window int // of the channel; 0 takes everything at once
}

// play runs a scene with an upstream that is left to a loop, or not, and returns what the client hears and why the watch ends.
func (s scene) play(t testing.TB, loops *ready.Loops) (heard []string, err error) {
	up := newSocketUpstream(t, func(nc net.Conn) {
		r := rand.New(rand.NewPCG(s.Seed, 1))
		for rest := s.Stream; rest != ""; {
			n := min(1+r.IntN(1+len(rest)/(1+r.IntN(8))), len(rest))
			if _, err := nc.Write([]byte(rest[:n])); err != nil {
				return
			}
			rest = rest[n:]
		}
		_ = nc.(*net.TCPConn).CloseWrite() // the other end may be gone
		_, _ = io.Copy(io.Discard, nc)     // who closes a socket with something unread in it takes back what he wrote
	})
	cursor := watchCursors(up.Identity(), pods()).at("1")
	ch := newTestChannel(silent{t}, cursor)
	ctx, cancel := context.WithCancel(within(t))
	var consumer sync.WaitGroup
	if s.Window > 0 {
		ch.window, ch.held = ch.piece+pieceCost+s.Window, true
		consumer.Go(func() { ch.trickle(ctx, rand.New(rand.NewPCG(s.Seed, 2))) })
	}
	opts := Options{Loops: loops, Jitter: func() float64 { return 0 }}
	err = Run(ctx, up, openOf(pods(), cursor), ch, WithDefaults(opts)).Err
	cancel()
	consumer.Wait()
	for _, x := range ch.told() {
		if x.event != nil {
			heard = append(heard, fmt.Sprintf("%v %x", x.event.Text, x.event.Bytes))
			continue
		}
		heard = append(heard, fmt.Sprint(x.state.GetKind(), x.state.GetStatus().GetMessage()))
	}
	return heard, err // where an unfinished event was cut off is a matter of chance
}

// silent does not mind what a stream that nobody would send does to a channel: only that it does the same twice.
type silent struct{ testing.TB }

func (silent) Errorf(string, ...any) {}

// trickle consumes a little at a time.
func (c *testChannel) trickle(ctx context.Context, r *rand.Rand) {
	for c.await(ctx, func() bool { return c.used > 0 }) == nil {
		c.consume(1 + r.IntN(20_000))
	}
}

// compare plays a scene both ways.
func (s scene) compare(t testing.TB, loops *ready.Loops, fatalf func(string, ...any)) {
	parked, errParked := s.play(t, loops)
	pumped, errPumped := s.play(t, nil)
	for i := range max(len(parked), len(pumped)) {
		if a, b := at(parked, i), at(pumped, i); a != b {
			fatalf("of %d and %d, the %d. is by the loop %.200q, by a goroutine %.200q; they end with %v and %v", len(parked), len(pumped), i, a, b,
				errParked, errPumped)
		}
	}
	if errParked == nil || errPumped == nil || errParked.Error() != errPumped.Error() {
		fatalf("by the loop: %v; by a goroutine: %v", errParked, errPumped)
	}
}

// at is the i-th of all, if there is one.
func at(all []string, i int) string {
	if i < len(all) {
		return all[i]
	}
	return "missing"
}

// serverFrame is a frame of a server.
func serverFrame(first byte, payload string) string {
	switch n := len(payload); {
	case n < 126:
		return string([]byte{first, byte(n)}) + payload
	case n < 1<<16:
		return string([]byte{first, 126, byte(n >> 8), byte(n)}) + payload
	default:
		return string([]byte{first, 127, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}) + payload
	}
}

// drawScene draws what an API server says, and how it may end.
func drawScene(t *rapid.T) scene {
	var b strings.Builder
	for i := range rapid.IntRange(0, 12).Draw(t, "messages") {
		event := fmt.Sprintf(`{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"p%d","resourceVersion":"%d"},"x":%q}}`, i, i+2,
			strings.Repeat("é", rapid.OneOf(rapid.IntRange(0, 50), rapid.IntRange(1000, 9000), rapid.IntRange(30_000, 70_000)).Draw(t, "size")))
		switch rapid.IntRange(0, 5).Draw(t, "what") {
		case 0:
			b.WriteString(serverFrame(0x81, `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}`))
		case 1:
			b.WriteString(serverFrame(0x89, "ping"))
		case 2:
			cut := rapid.IntRange(0, len(event)).Draw(t, "cut")
			b.WriteString(serverFrame(0x01, event[:cut]) + serverFrame(0x80, event[cut:]))
		default:
			b.WriteString(serverFrame(0x81, event))
		}
	}
	b.WriteString(rapid.SampledFrom([]string{
		"", serverFrame(0x88, "\x03\xe8"), serverFrame(0x81, errorEvent(403, "Forbidden")), "\xf1\x00", "\x81\x7e\xff", serverFrame(0x81, "nonsense"),
	}).Draw(t, "end"))
	return scene{b.String(), rapid.Uint64().Draw(t, "seed"), rapid.SampledFrom([]int{0, 1, 5000, 60_000}).Draw(t, "window")}
}

// TestTheLoopReadsWhatAGoroutineReads: a client cannot tell which of the two reads its watch.
func TestTheLoopReadsWhatAGoroutineReads(t *testing.T) {
	loops := loopsFor(t)
	rapid.Check(t, func(rt *rapid.T) { drawScene(rt).compare(t, loops, rt.Fatalf) })
}

// FuzzTheLoopReadsWhatAGoroutineReads: nor can it when the upstream sends what no API server would.
func FuzzTheLoopReadsWhatAGoroutineReads(f *testing.F) {
	f.Add([]byte(serverFrame(0x81, `{"type":"ADDED","object":{"kind":"Pod","metadata":{"name":"a","resourceVersion":"2"}}}`)), uint64(1), uint16(0))
	f.Add([]byte(serverFrame(0x81, errorEvent(410, "Expired"))+"\x89\x01x\x88\x00"), uint64(2), uint16(100))
	f.Add([]byte("\x01\x05{\"typ\x80\x03e\":"), uint64(3), uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64, window uint16) {
		scene{string(stream), seed, int(window)}.compare(t, loopsFor(t), t.Fatalf)
	})
}

// TestAnEventThatComesWhileThereIsNoCreditIsNotForgotten: the loop is told of it once, and must remember that it could not read it.
func TestAnEventThatComesWhileThereIsNoCreditIsNotForgotten(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	cursor := watchCursors(c.up.Identity(), pods()).at(c.put(t, "first", ""))
	ch := newTestChannel(t, cursor)
	ch.hold(true)
	r := start(t, c.up, openOf(pods(), cursor), ch, Options{})
	ctx := within(t)
	for i := 0; ; i++ { // until less is left than a read needs; all that was sent was read
		name := fmt.Sprintf("filler-%d", i)
		version := c.put(t, name, strings.Repeat("x", 5000))
		must(t, r.awaitEvent(ctx, name, version))
		ch.mu.Lock()
		short := ch.window-ch.used < ch.piece+pieceCost
		ch.mu.Unlock()
		if short {
			break
		}
	}
	version := c.put(t, "late", "")
	must(t, ch.await(ctx, func() bool { return ch.notify != nil }))
	ch.hold(false)
	must(t, r.awaitEvent(ctx, "late", version))
}

// TestAStalledChannelGivesItsUpstreamUp to the loop as to a goroutine, and gets another one when it takes something again.
func TestAStalledChannelGivesItsUpstreamUp(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	cursor := watchCursors(c.up.Identity(), pods()).at(c.put(t, "first", ""))
	ch := newTestChannel(t, cursor)
	ch.hold(true)
	r := start(t, c.up, openOf(pods(), cursor), ch, Options{Stall: 20 * time.Millisecond})
	must(t, c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 1 }))
	version := ""
	for i := range 20 {
		version = c.put(t, fmt.Sprintf("filler-%d", i), strings.Repeat("x", 5000))
	}
	must(t, c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 0 }))
	ch.hold(false)
	must(t, r.awaitEvent(within(t), "filler-19", version))
	if n := len(c.up.attempts()); n < 2 {
		t.Errorf("the upstream was opened %d times", n)
	}
}

// panicky is a channel with a bug.
type panicky struct{ *testChannel }

func (panicky) Offer([]data.Piece) int { panic("a bug") }

// TestAPanicInTheLoopEndsOneWatch and leaves the loop to the others.
func TestAPanicInTheLoopEndsOneWatch(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	cursor := watchCursors(c.up.Identity(), pods()).at(c.put(t, "first", ""))
	opts := WithDefaults(Options{Loops: loopsFor(t)})
	other := newTestChannel(t, cursor)
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, c.up, openOf(pods(), cursor), other, opts).Err }()
	broken := newTestChannel(t, cursor)
	c.put(t, "second", "")
	err := Run(ctx, c.up, openOf(pods(), cursor), panicky{broken}, opts).Err
	var bug *PanicError
	if !errors.As(err, &bug) || bug.Value != "a bug" || !strings.Contains(string(bug.Stack), "Offer") {
		t.Errorf("Run ends with %v", err)
	}
	must(t, other.awaitEvent(ctx, "third", c.put(t, "third", "")))
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the other watch ends with %v", err)
	}
}

// TestADeadUpstreamIsNoticedByTheLoop through a ping that nobody answers.
func TestADeadUpstreamIsNoticedByTheLoop(t *testing.T) {
	up := newSocketUpstream(t, func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) })
	cursor := watchCursors(up.Identity(), pods()).at("1")
	opts := Options{Loops: loopsFor(t), PingEvery: 10 * time.Millisecond, PingTimeout: 10 * time.Millisecond, Jitter: func() float64 { return 0 }}
	err := Run(within(t), up, openOf(pods(), cursor), newTestChannel(t, cursor), WithDefaults(opts)).Err
	if e := status.From(err); e.Code != codes.NotFound { // of the second upstream, which there is none of
		t.Errorf("the watch ends with %v", err)
	}
}
