package client

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// wire is one end of a link in memory, for tests whose time is not the clock's.
type wire struct {
	in, out chan []byte
	gone    chan struct{}
}

func (w wire) Recv() ([]byte, error) {
	select {
	case b := <-w.in:
		return b, nil
	case <-w.gone:
		return nil, io.ErrUnexpectedEOF
	}
}

func (w wire) Send(b mux.Batch) error {
	var all []byte
	for _, p := range b {
		all = append(all, p.Bytes()...)
	}
	b.Free()
	select {
	case w.out <- all:
		return nil
	case <-w.gone:
		return io.ErrUnexpectedEOF
	}
}

// accepting gives channels on as they stand.
type accepting chan *mux.Channel

func (a accepting) Accept(c *mux.Channel, _ *sluicev1.Open) {
	c.Opened(&sluicev1.Opened{})
	a <- c
}

// joined is a client whose session is joined in memory to a server's, which gives its channels on. end ends both.
func joined(ctx context.Context) (c *Client, channels <-chan *mux.Channel, end func()) {
	c = &Client{cfg: Config{}.withDefaults(), swapped: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	k := c.newCarrier(nil)
	c.current = k
	accepted := make(accepting, 9)
	server := mux.NewServer(mux.Config{}, false, accepted)
	server.Identify("s", []byte("secret"))
	up, down, gone := make(chan []byte, 9), make(chan []byte, 9), make(chan struct{})
	var both sync.WaitGroup
	both.Go(func() { _ = k.ses.ServeClient(ctx, wire{down, up, gone}, &sluicev1.Hello{}) }) // the end is the test's
	both.Go(func() {
		l := wire{up, down, gone}
		g, err := mux.Greet(ctx, l)
		if err == nil {
			_ = server.ServeServer(ctx, l, g) // as above
		}
	})
	return c, accepted, func() {
		c.cancel(errClosed)
		k.end(errClosed)
		server.End(nil)
		close(gone)
		both.Wait()
		k.ses.Wait()
		server.Wait()
		c.running.Wait()
	}
}

// A pod that does not close its end of a closed connection is waited for as long as TCP waits, and what was written before is delivered.
func TestAClosedForwardLingers(t *testing.T) {
	for name, is := range map[string]struct {
		pod   func(*mux.Channel)
		after time.Duration // the pod's end is reset; 0 for not at all
	}{
		"for a FIN that does not come": {func(*mux.Channel) {}, lingerFor},
		"for a FIN":                    {func(c *mux.Channel) { c.CloseSend(); c.Finish(nil, nil, false) }, 0},
		"not for more bytes":           {func(c *mux.Channel) { c.Offer([]data.Piece{{Bytes: []byte("x")}}) }, time.Nanosecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, channels, end := joined(t.Context())
				defer end()
				f, err := c.PortForward(t.Context(), PortForwardRequest{})
				if err != nil {
					t.Fatal(err)
				}
				pod := <-channels
				if _, err := f.Write([]byte("last words")); err != nil {
					t.Fatal(err)
				}
				read := make(chan error, 1)
				go func() { _, err := f.Read(make([]byte, 1)); read <- err }()
				synctest.Wait()
				begin := time.Now()
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
				if err := <-read; !errors.Is(err, net.ErrClosed) || time.Since(begin) > 0 {
					t.Errorf("a Read that waited ended after %v with %v", time.Since(begin), err)
				}
				if ev, err := pod.Next(t.Context()); err != nil || string(ev.Data) != "last words" {
					t.Fatalf("got %q, %v", ev.Data, err)
				}
				if ev, err := pod.Next(t.Context()); err != nil || ev.Kind != mux.EventCloseSend {
					t.Fatalf("instead of a FIN: %v, %v", ev, err)
				}
				<-time.After(time.Nanosecond) // the pod takes some time
				is.pod(pod)
				<-pod.Context().Done()
				left := time.Since(begin)
				switch e := status.From(context.Cause(pod.Context())); {
				case is.after == 0 && e.Reason == sluicev1.Reason_REASON_CLOSED_BY_PEER, is.after != 0 && (e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER || left != is.after):
					t.Errorf("ended after %v with %v", left, e)
				}
				if is.after != 0 {
					pod.Finish(nil, nil, true)
				}
				synctest.Wait()
				if n := len(c.current.pinned); n != 0 {
					t.Errorf("%d channels are still pinned", n)
				}
			})
		})
	}
}

// A deadline wakes who waits when it passes, and not before, however often it is moved.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeadline()
		begin := time.Now()
		passes := func(by until) time.Duration {
			<-by.Done()
			if !errors.Is(by.Err(), os.ErrDeadlineExceeded) {
				t.Errorf("passed with %v", by.Err())
			}
			return time.Since(begin)
		}
		waits := d.wait()
		d.set(begin.Add(time.Hour))
		d.set(time.Time{})
		<-time.After(2 * time.Hour)
		if err := waits.Err(); err != nil {
			t.Errorf("a deadline that was taken back: %v", err)
		}
		d.set(begin.Add(5 * time.Hour))
		d.set(begin.Add(3 * time.Hour))
		if at := passes(waits); at != 3*time.Hour {
			t.Errorf("a deadline that was moved passes after %v", at)
		}
		d.set(begin.Add(4 * time.Hour))
		if at := passes(d.wait()); at != 4*time.Hour {
			t.Errorf("a new deadline passes after %v", at)
		}
		d.set(begin)
		if at := passes(d.wait()); at != 4*time.Hour {
			t.Errorf("a deadline in the past passes after %v", at)
		}
		d.set(time.Time{})
		if err := d.wait().Err(); err != nil {
			t.Errorf("no deadline: %v", err)
		}
	})
}

// A gateway that does not answer a Close is not waited for long.
func TestAnUnansweredCloseIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, channels, end := joined(t.Context())
		defer end()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		begin := time.Now()
		err := c.Exec(ctx, ExecRequest{Target: &sluicev1.ExecTarget{Command: []string{"x"}}, Streams: Streams{Stdout: io.Discard}})
		if left := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || left != time.Hour+closeWithin {
			t.Errorf("ended after %v with %v", left, err)
		}
		(<-channels).Finish(nil, nil, true)
	})
}

// What is written late is consumed late: the process learns how slow its reader is.
func TestOutputIsConsumedOnceItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, channels, end := joined(t.Context())
		defer end()
		written := make(chan struct{})
		ended := make(chan error, 1)
		go func() {
			ended <- c.Exec(t.Context(), ExecRequest{Streams: Streams{Stdout: writing(func(b []byte) (int, error) { <-written; return len(b), nil })}})
		}()
		process := <-channels
		<-time.After(mux.AckAfter)
		synctest.Wait()
		process.Offer([]data.Piece{{Bytes: []byte("x"), Stream: sluicev1.Stream_STREAM_STDOUT}})
		<-time.After(time.Minute)
		synctest.Wait()
		if process.Held() == 0 {
			t.Error("consumed before it was written")
		}
		close(written)
		<-time.After(mux.AckAfter)
		synctest.Wait()
		if n := process.Held(); n != 0 {
			t.Errorf("%d bytes are held that were written", n)
		}
		process.Finish(nil, &sluicev1.Exit{}, false)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

type writing func(b []byte) (int, error)

func (w writing) Write(b []byte) (int, error) { return w(b) }

// Whoever reads when the client ends is told the same of it, whichever end comes first, the client's or the session's: that the connection is lost,
// and why, or that the client was closed.
func TestAForwardTellsARefusedClientFromAClosedOne(t *testing.T) {
	expired := status.Unauthenticated(sluicev1.Reason_REASON_EXPIRED, "the credential has expired")
	lost := status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "")
	for name, by := range map[string]struct{ end, want error }{"refused": {expired, lost}, "closed": {errClosed, errClosed}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, channels, end := joined(t.Context())
				defer end()
				f, err := c.PortForward(t.Context(), PortForwardRequest{})
				if err != nil {
					t.Fatal(err)
				}
				<-channels
				c.cancel(by.end)
				c.current.ses.End(status.From(by.end))
				_, err = f.Read(make([]byte, 1))
				if !errors.Is(err, by.want) || !errors.Is(err, by.end) {
					t.Errorf("%v, want %v because of %v", err, by.want, by.end)
				}
			})
		})
	}
}
