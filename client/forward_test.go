package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

var errReset = status.New(codes.Aborted, sluicev1.Reason_REASON_RESET, "connection reset in the pod")

// port is what listens on a port of the scripted pod.
func port(n uint32) client.PortForwardRequest {
	return client.PortForwardRequest{Target: &sluicev1.PortForwardTarget{Namespace: "default", Pod: "web", Port: n}}
}

// The ports of the scripted pod.
const (
	echoing   = 7  // sends back what comes, and FINs after a FIN
	refused   = 1  // the gateway refuses the channel
	resetting = 2  // resets after the first bytes, which it answers
	speaking  = 3  // sends and FINs at once, and goes on to count what comes
	silent    = 4  // takes nothing
	flooding  = 5  // sends for ever
	keeping   = 80 // sends nothing and never FINs
)

// pod is a script of a pod with these ports. over is told why each channel was ended from outside.
func pod(over chan<- error) script {
	return func(ch *served, o *sluicev1.Open) {
		t := o.GetTarget().GetPortForward()
		switch t.GetPort() {
		case refused:
			refuse(ch, o)
			return
		case echoing:
			cat(ch, o)
		default:
			ch.Opened(&sluicev1.Opened{Subprotocol: "SPDY/3.1+portforward.k8s.io", Capabilities: &sluicev1.Capabilities{HalfClose: true}})
		}
		switch t.GetPort() {
		case resetting:
			if ev, ok := ch.next(); ok {
				ch.send(0, "", append([]byte("got "), ev.Data...))
				ch.Finish(errReset, nil, true)
			}
		case speaking:
			ch.send(0, "", []byte("hello"))
			ch.CloseSend()
			for {
				ev, ok := ch.next()
				if !ok {
					break
				}
				if ev.Kind == mux.EventCloseSend {
					ch.Finish(nil, nil, false)
					break
				}
				ch.Used(&ev)
			}
		case flooding:
			for b := make([]byte, 16<<10); ch.send(0, "", b); {
			}
		case silent:
			<-ch.Context().Done()
			ch.Finish(status.From(context.Cause(ch.Context())), nil, true)
		case keeping:
			for {
				ev, ok := ch.next()
				if !ok {
					break
				}
				ch.Used(&ev)
			}
		}
		if over != nil {
			over <- context.Cause(ch.Context())
		}
	}
}

func dial(ctx context.Context, t *testing.T, c *client.Client, n uint32) *client.Forward {
	t.Helper()
	f, err := c.PortForward(ctx, port(n))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Reset)
	return f
}

// What passes is the same at both ends, each way, over lost links; and both FINs arrive.
func TestForwardIsByteExactOverCutLinks(t *testing.T) {
	_, relay, c := relayed(t, mux.Config{}, pod(nil))
	ctx := within(t)
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 300<<10).Draw(t, "bytes")
		seed := rapid.Uint64().Draw(t, "seed")
		cuts := rapid.SliceOfN(rapid.IntRange(0, n), 0, 4).Draw(t, "cuts")
		whole := rapid.Bool().Draw(t, "by Read and Write")
		f, err := c.PortForward(ctx, port(echoing))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Reset()
		var got bytes.Buffer
		sent := make(chan error, 1)
		go func() {
			var err error
			if whole {
				_, err = io.Copy(struct{ io.Writer }{f}, newSeeded(seed, n))
			} else {
				_, err = f.ReadFrom(newSeeded(seed, n))
			}
			sent <- errors.Join(err, f.CloseWrite())
		}()
		if whole {
			_, err = io.Copy(cutter(&got, cuts, relay.Cut), struct{ io.Reader }{f})
		} else {
			_, err = f.WriteTo(cutter(&got, cuts, relay.Cut))
		}
		if err := errors.Join(err, <-sent); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), all(t, newSeeded(seed, n))) {
			t.Fatalf("%d bytes of %d came back, or others", got.Len(), n)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A connection that cannot be made says why; one that is reset gives first what had arrived.
func TestHowAForwardEnds(t *testing.T) {
	g, relay, c := relayed(t, mux.Config{}, pod(nil))
	ctx := within(t)
	_, err := c.PortForward(ctx, port(refused))
	if e, ok := errors.AsType[*client.Error](err); !ok || e.HTTPCode != 404 {
		t.Errorf("refused with %v", err)
	}
	f := dial(ctx, t, c, resetting)
	if f.LocalAddr().Network() != "sluice" || f.RemoteAddr().String() != "default/web:2" {
		t.Errorf("from %v to %v", f.LocalAddr(), f.RemoteAddr())
	}
	if !f.Opened().GetCapabilities().GetHalfClose() {
		t.Errorf("opened: %v", f.Opened())
	}
	_, _ = f.Write([]byte("x"))
	got, err := io.ReadAll(f)
	if e, ok := errors.AsType[*client.Error](err); string(got) != "got x" || !ok || e.Reason != sluicev1.Reason_REASON_RESET || e.Resumable {
		t.Errorf("reset: %q, %v", got, err)
	}
	if _, err := f.Write([]byte("x")); status.Reason(err) != sluicev1.Reason_REASON_RESET {
		t.Errorf("a write after it: %v", err)
	}

	f = dial(ctx, t, c, speaking)
	if got, err := io.ReadAll(f); string(got) != "hello" || err != nil {
		t.Errorf("half closed: %q, %v", got, err)
	}
	if n, err := f.Write([]byte("goes on")); n != 7 || err != nil {
		t.Errorf("a write after the pod's FIN: %d, %v", n, err)
	}
	if err := f.CloseWrite(); err != nil {
		t.Error(err)
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write after the own FIN: %v", err)
	}

	f = dial(ctx, t, c, keeping)
	g.forget()
	relay.Cut()
	_, err = f.Read(make([]byte, 1))
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST || e.Resumable {
		t.Errorf("lost: %v", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.PortForward(canceled, port(echoing)); !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %v", err)
	}
}

// Deadlines are those of net.Conn: of all calls that wait, movable, and no end.
func TestDeadlinesOfAForward(t *testing.T) {
	_, _, c := relayed(t, mux.Config{}, pod(nil))
	ctx := within(t)
	f := dial(ctx, t, c, echoing)
	past := time.Unix(1, 0)
	if err := f.SetDeadline(past); err != nil {
		t.Fatal(err)
	}
	var timeout net.Error
	if _, err := f.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Errorf("a read too late: %v", err)
	}
	if _, err := f.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write too late: %v", err)
	}
	if err := f.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	echoesBack(t, f, "goes on")
	waits := make(chan error, 1)
	go func() { _, err := f.Read(make([]byte, 1)); waits <- err }()
	if err := f.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a read that waited: %v", err)
	}
	s := dial(ctx, t, c, silent)
	go func() { _, err := io.Copy(struct{ io.Writer }{s}, newSeeded(1, 1<<20)); waits <- err }()
	if err := s.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a write that waited: %v", err)
	}
}

// Close is TCP's: a FIN after what was written; a reset from who has not read all there is.
func TestCloseOfAForward(t *testing.T) {
	over := make(chan error, 9)
	_, _, c := relayed(t, mux.Config{}, pod(over))
	ctx := within(t)
	f := dial(ctx, t, c, speaking)
	if _, err := io.ReadAll(f); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 30<<10)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if e := status.From(<-over); e.Reason == sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("a good close arrived as %v", e)
	}
	for name, err := range map[string]error{
		"a second close": f.Close(), "a CloseWrite": f.CloseWrite(), "a deadline": f.SetDeadline(time.Time{}),
		"a read": second(f.Read(make([]byte, 1))), "a write": second(f.Write([]byte("x"))),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after it: %v", name, err)
		}
	}
	f = dial(ctx, t, c, flooding)
	if _, err := f.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if e := status.From(<-over); e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("a close with bytes unread arrived as %v", e)
	}
	f = dial(ctx, t, c, keeping)
	waits := make(chan error, 1)
	go func() { waits <- second(f.Read(make([]byte, 1))) }()
	f.Reset()
	if err := <-waits; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a read that waited: %v", err)
	}
	if e := status.From(<-over); e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("a reset arrived as %v", e)
	}
	f = dial(ctx, t, c, flooding) // closed before anything of it was read
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if e := status.From(<-over); e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("a close of what goes on to send arrived as %v", e)
	}
}

func second(_ int, err error) error { return err }

// forwarding is a ForwardListener, and what it says of its connections.
type forwarding struct {
	addr  string
	ends  chan error
	stop  context.CancelFunc
	ended chan error
}

func forwardTo(ctx context.Context, t *testing.T, c *client.Client, n uint32) *forwarding {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &forwarding{addr: l.Addr().String(), ends: make(chan error, 1000), stop: cancel, ended: make(chan error, 1)}
	var done sync.WaitGroup
	done.Go(func() { f.ended <- c.ForwardListener(ctx, l, port(n), func(_ net.Addr, err error) { f.ends <- err }) })
	t.Cleanup(done.Wait)
	t.Cleanup(cancel)
	return f
}

func (f *forwarding) dial(ctx context.Context, t *testing.T) *net.TCPConn {
	t.Helper()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// T-C14: many connections of one port, of which some are reset and some left: those that are not get each byte, both FINs, and no notice of it.
func TestT_C14_OneFailedForwardTouchesNoOther(t *testing.T) {
	_, relay, c := relayed(t, mux.Config{}, pod(nil))
	ctx := within(t)
	f := forwardTo(ctx, t, c, echoing)
	var both sync.WaitGroup
	for i := range 60 {
		conn := f.dial(ctx, t)
		if i%3 == 1 { // a reset in the middle
			both.Go(func() {
				_, _ = io.Copy(struct{ io.Writer }{conn}, newSeeded(uint64(i), 50<<10))
				_ = conn.SetLinger(0)
				_ = conn.Close()
			})
			continue
		}
		sent := newSeeded(uint64(i), 100<<10)
		both.Go(func() {
			_, err := io.Copy(struct{ io.Writer }{conn}, sent)
			if err := errors.Join(err, conn.CloseWrite()); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, all(t, newSeeded(uint64(i), 100<<10))) {
				t.Errorf("connection %d: %d bytes, %v", i, len(got), err)
			}
		})
		if i%20 == 10 {
			relay.Cut()
		}
	}
	both.Wait()
	good, bad := 0, 0
	for range 60 {
		select {
		case err := <-f.ends:
			if err == nil {
				good++
			} else {
				bad++
			}
		case <-ctx.Done():
			t.Fatalf("%d ended well, %d badly; the others live on", good, bad)
		}
	}
	if good != 40 || bad != 20 {
		t.Errorf("%d ended well, %d badly", good, bad)
	}
}

// What becomes of the pod's side becomes of the local one: a reset of a reset and of a refusal, a FIN of a FIN.
func TestForwardListenerPassesEndsOn(t *testing.T) {
	over := make(chan error, 9)
	_, _, c := relayed(t, mux.Config{}, pod(over))
	ctx := within(t)
	read := func(conn net.Conn) (string, error) {
		got, err := io.ReadAll(conn)
		return string(got), err
	}

	f := forwardTo(ctx, t, c, refused)
	if got, err := read(f.dial(ctx, t)); got != "" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refused: %q, %v", got, err)
	}
	if e, ok := errors.AsType[*client.Error](<-f.ends); !ok || e.HTTPCode != 404 {
		t.Errorf("refused, and told %v", e)
	}

	f = forwardTo(ctx, t, c, resetting)
	conn := f.dial(ctx, t)
	_, _ = conn.Write([]byte("x"))
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "got x" {
		t.Errorf("before the reset: %q, %v", got, err)
	}
	if got, err := read(conn); got != "" || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %q, %v", got, err)
	}
	if e, ok := errors.AsType[*client.Error](<-f.ends); !ok || e.Reason != sluicev1.Reason_REASON_RESET {
		t.Errorf("reset, and told %v", e)
	}
	if err := <-over; err == nil {
		t.Error("the channel has not ended")
	}

	f = forwardTo(ctx, t, c, speaking)
	conn = f.dial(ctx, t)
	if got, err := read(conn); got != "hello" || err != nil {
		t.Errorf("half closed: %q, %v", got, err)
	}
	if _, err := conn.Write([]byte("goes on")); err != nil {
		t.Error(err)
	}
	_ = conn.Close()
	if err := <-f.ends; err != nil {
		t.Errorf("half closed, and told %v", err)
	}
	if err := <-over; err == nil {
		t.Error("the channel has not ended")
	}

	f = forwardTo(ctx, t, c, keeping)
	conn = f.dial(ctx, t)
	_, _ = conn.Write([]byte("x"))
	_ = conn.SetLinger(0)
	_ = conn.Close()
	if e := status.From(<-over); e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("a local reset arrived as %v", e)
	}
	if err := <-f.ends; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a local reset, and told %v", err)
	}
	conn = f.dial(ctx, t)
	_, _ = conn.Write([]byte("x"))
	f.stop()
	if err := <-f.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
	if got, err := read(conn); got != "" || err == nil {
		t.Errorf("what was joined when it was stopped: %q, %v", got, err)
	}
	if _, err := (&net.Dialer{}).DialContext(ctx, "tcp", f.addr); err == nil {
		t.Error("the listener listens on")
	}
}

// A listener that fails says so, and lets go of what is joined.
func TestAFailedListenerIsTold(t *testing.T) {
	_, _, c := relayed(t, mux.Config{}, pod(nil))
	l := &failing{errs: []error{syscall.EMFILE, syscall.ECONNABORTED, errBroken}}
	if err := c.ForwardListener(within(t), l, port(echoing), nil); !errors.Is(err, errBroken) {
		t.Errorf("ended with %v", err)
	}
	if len(l.errs) > 0 || !l.closed {
		t.Errorf("%v left, closed %v", l.errs, l.closed)
	}
}

// A client that has ended makes no more connections, so nobody is left waiting at its listener.
func TestAForwardListenerEndsWithItsClient(t *testing.T) {
	_, _, c := relayed(t, mux.Config{}, pod(nil))
	ctx := within(t)
	f := forwardTo(ctx, t, c, echoing)
	conn := f.dial(ctx, t)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-f.ended; err == nil || !errors.Is(err, c.Err()) {
		t.Errorf("ended with %v, the client with %v", err, c.Err())
	}
	if got, err := io.ReadAll(conn); len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("what was joined: %q, %v", got, err)
	}
}

type failing struct {
	errs   []error
	closed bool
}

func (l *failing) Accept() (net.Conn, error) {
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, fmt.Errorf("accept: %w", err)
}

func (l *failing) Close() error   { l.closed = true; return nil }
func (l *failing) Addr() net.Addr { return client.Addr("here") }
