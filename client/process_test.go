package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

const (
	stdout = sluicev1.Stream_STREAM_STDOUT
	stderr = sluicev1.Stream_STREAM_STDERR
)

// cat is a process that writes what it reads, and exits with its command as the code once its input ends; or a TCP server that does so.
func cat(ch *served, o *sluicev1.Open) {
	ch.Opened(&sluicev1.Opened{Subprotocol: "v5.channel.k8s.io", Capabilities: &sluicev1.Capabilities{HalfClose: true}})
	for {
		ev, ok := ch.next()
		if !ok {
			return
		}
		switch ev.Kind {
		case mux.EventData:
			to := sluicev1.Stream_STREAM_UNSPECIFIED
			if ev.Stream == sluicev1.Stream_STREAM_STDIN {
				to = stdout
			}
			if !ch.send(to, "", ev.Data) {
				return
			}
		case mux.EventCloseSend:
			if x := o.GetTarget().GetExec(); x != nil {
				var code int32
				if _, err := fmt.Sscan(x.GetCommand()[0], &code); err != nil {
					code = -1
				}
				ch.exit(code)
				return
			}
			ch.CloseSend()
			ch.Finish(nil, nil, false)
			return
		}
		ch.Used(&ev)
	}
}

func command(words ...string) *sluicev1.ExecTarget {
	return &sluicev1.ExecTarget{Namespace: "default", Pod: "p", Command: words}
}

// seeded is a stream of n bytes that a seed decides, in reads of any length.
type seeded struct {
	bytes, lengths *rand.Rand
	left           int
}

func newSeeded(seed uint64, n int) *seeded {
	return &seeded{rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2)), n}
}

func (s *seeded) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), s.left, 1+s.lengths.IntN(40<<10))
	for i := range n {
		b[i] = byte(s.bytes.Uint32())
	}
	s.left -= n
	return n, nil
}

func all(t require, r io.Reader) []byte {
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type require interface{ Fatal(args ...any) }

// What goes in comes out, whatever becomes of the links: each byte once, in order, both ways, and the exit code after the last of them.
func TestExecIsByteExactOverCutLinks(t *testing.T) {
	g, relay, c := relayed(t, mux.Config{}, cat)
	ctx := within(t)
	rapid.Check(t, func(t *rapid.T) {
		seed, n := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 300<<10).Draw(t, "bytes")
		code := rapid.IntRange(0, 255).Draw(t, "code")
		cuts := rapid.SliceOfN(rapid.IntRange(0, n), 0, 4).Draw(t, "cuts")
		before := g.opens.Load()
		var out bytes.Buffer
		err := c.Exec(ctx, client.ExecRequest{Target: command(fmt.Sprint(code)), Streams: client.Streams{
			Stdin: newSeeded(seed, n), Stdout: cutter(&out, cuts, relay.Cut),
		}})
		if e, ok := errors.AsType[*client.ExitError](err); code == 0 && err != nil || code != 0 && (!ok || e.Code != code) {
			t.Fatalf("ended with %v, want exit code %d", err, code)
		}
		if !bytes.Equal(out.Bytes(), all(t, newSeeded(seed, n))) {
			t.Fatalf("%d bytes came back of %d, or others", out.Len(), n)
		}
		if n := g.opens.Load() - before; n != 1 {
			t.Fatalf("the process was started %d times", n)
		}
	})
}

// writes is a Writer by its Write.
type writes func(b []byte) (int, error)

func (w writes) Write(b []byte) (int, error) { return w(b) }

// cutter calls cut as soon as so many bytes were written to w.
func cutter(w io.Writer, at []int, cut func()) io.Writer {
	written := 0
	return writes(func(b []byte) (int, error) {
		n, err := w.Write(b)
		for _, k := range at {
			if k > written && k <= written+n {
				cut()
			}
		}
		written += n
		return n, err
	})
}

// Both outputs are kept apart, and a half-close without a byte of input arrives.
func TestExecKeepsItsStreamsApart(t *testing.T) {
	_, _, c := relayed(t, mux.Config{}, func(ch *served, o *sluicev1.Open) {
		x := o.GetTarget().GetExec()
		ch.Opened(&sluicev1.Opened{})
		ch.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
		ev, _ := ch.next()
		ch.send(stdout, "", fmt.Appendf(nil, "%v,%v,%v,%v", x.GetStdin(), x.GetStdout(), x.GetStderr(), ev.Kind == mux.EventCloseSend))
		ch.send(stderr, "", []byte("oops"))
		ch.exit(3)
	})
	var out, errs bytes.Buffer
	var opened, states int
	req := client.ExecRequest{
		Target: command("x"), Streams: client.Streams{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errs},
		OnOpened: func(*sluicev1.Opened) { opened++ }, OnState: func(*sluicev1.ChannelState) { states++ },
	}
	err := c.Exec(within(t), req)
	if e, ok := errors.AsType[*client.ExitError](err); !ok || e.Code != 3 {
		t.Errorf("ended with %v", err)
	}
	if out.String() != "true,true,true,true" || errs.String() != "oops" || opened != 1 || states != 1 {
		t.Errorf("stdout %q, stderr %q, opened %d times, %d states", &out, &errs, opened, states)
	}
	if req.Target.GetStdin() {
		t.Error("the caller's target was changed")
	}
	out.Reset()
	if err := c.Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdin: strings.NewReader(""), Stdout: &out}}); err == nil ||
		out.String() != "true,true,false,true" {
		t.Errorf("without stderr: %q, %v", &out, err)
	}
}

// Every way in which a process can end, or not be had, is told apart.
func TestHowAProcessEnds(t *testing.T) {
	upstream := status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "gone").WithResumable(true)
	for name, c := range map[string]struct {
		script script
		code   codes.Code
		reason sluicev1.Reason
		http   int
	}{
		"refused": {refuse, codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED, 404},
		"lost": {func(ch *served, _ *sluicev1.Open) {
			ch.Opened(&sluicev1.Opened{})
			ch.Finish(upstream, nil, true)
		}, codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, 0},
		"without an exit code": {func(ch *served, _ *sluicev1.Open) {
			ch.Opened(&sluicev1.Opened{})
			ch.Finish(nil, nil, false)
		}, codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, 0},
		"closed before it stood": {func(ch *served, _ *sluicev1.Open) { ch.exit(0) }, codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, cl := relayed(t, mux.Config{}, c.script)
			err := cl.Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: io.Discard}})
			e, ok := errors.AsType[*client.Error](err)
			if !ok || e.Code != c.code || e.Reason != c.reason || e.HTTPCode != c.http || e.Resumable {
				t.Errorf("got %v", err)
			}
		})
	}
	_, _, cl := relayed(t, mux.Config{}, func(ch *served, o *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{})
		if o.GetTarget().GetAttach().GetTty() {
			ch.exit(7)
			return
		}
		ch.Finish(nil, nil, false)
	})
	if err := cl.Attach(within(t), client.AttachRequest{Target: &sluicev1.AttachTarget{}, Streams: client.Streams{Stdout: io.Discard}}); err != nil {
		t.Errorf("attach to what ended well: %v", err)
	}
	err := cl.Attach(within(t), client.AttachRequest{Target: &sluicev1.AttachTarget{Tty: true}, Streams: client.Streams{Stdout: io.Discard}})
	if e, ok := errors.AsType[*client.ExitError](err); !ok || e.Code != 7 {
		t.Errorf("attach to what ended with 7: %v", err)
	}
}

// idle is a process that neither reads nor writes, until it is closed.
func idle(stands chan<- *served) script {
	return func(ch *served, _ *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{})
		stands <- ch
		<-ch.Context().Done()
		ch.Finish(status.From(context.Cause(ch.Context())), nil, true)
	}
}

// A gateway that was killed is a process that is lost: not started again, not waited for; also if it had not said yet that the process stands.
func TestExecIsNeverStartedAgain(t *testing.T) {
	for name, stands := range map[string]bool{"a process": true, "what may have become one": false} {
		t.Run(name, func(t *testing.T) {
			opened := make(chan struct{}, 9)
			g, relay, c := relayed(t, mux.Config{}, func(ch *served, _ *sluicev1.Open) {
				if stands {
					ch.Opened(&sluicev1.Opened{})
				}
				opened <- struct{}{}
				<-ch.Context().Done()
				ch.Finish(status.From(context.Cause(ch.Context())), nil, true)
			})
			ended := make(chan error, 1)
			go func() {
				ended <- c.Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: io.Discard}})
			}()
			<-opened
			g.forget()
			relay.Cut()
			e, ok := errors.AsType[*client.Error](<-ended)
			if !ok || e.Code != codes.Unavailable || e.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST || e.Resumable || !strings.Contains(e.Error(), "exit status unknown") {
				t.Errorf("ended with %v", e)
			}
			if n := g.opens.Load(); n != 1 {
				t.Errorf("the process was started %d times", n)
			}
		})
	}
}

// A gateway that does not come back is not waited for longer than it would know the session.
func TestExecIsLostWithTheSession(t *testing.T) {
	for _, how := range []string{"no gateway", "a deaf gateway"} {
		t.Run(how, func(t *testing.T) {
			stands := make(chan *served, 9)
			g, relay, c := relayed(t, mux.Config{DetachTTL: 300 * time.Millisecond}, idle(stands))
			ctx, cancel := context.WithTimeout(within(t), mux.GiveUpAfter/2) // a link that is silent is no reason to wait
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				ended <- c.Exec(ctx, client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: io.Discard}})
			}()
			<-stands
			if how == "no gateway" {
				relay.Retarget("127.0.0.1:1")
			} else {
				g.mu.Lock()
				g.deaf = true
				g.mu.Unlock()
			}
			relay.Cut()
			e, ok := errors.AsType[*client.Error](<-ended)
			if !ok || e.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST || ctx.Err() != nil {
				t.Errorf("ended with %v", e)
			}
			if cause, ok := errors.AsType[*client.Error](errors.Unwrap(e)); !ok || cause.Reason != sluicev1.Reason_REASON_DETACH_EXPIRED {
				t.Errorf("because of %v", cause)
			}
		})
	}
}

// The end of ctx closes the process and is told as such; before there was a link nothing was started.
func TestExecEndsWithItsContext(t *testing.T) {
	stands := make(chan *served, 9)
	g, _, c := relayed(t, mux.Config{}, idle(stands))
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	run := func() {
		ended <- c.Exec(ctx, client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: io.Discard}})
	}
	go run()
	ch := <-stands
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	<-ch.Context().Done()

	c = g.client(t, "127.0.0.1:1")
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	run()
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without a gateway: %v", err)
	}
	if n := g.opens.Load(); n != 1 {
		t.Errorf("%d processes were started", n)
	}
}

// An Open that was withdrawn before there was a link never reaches a gateway that comes later.
func TestAWithdrawnExecIsNotStarted(t *testing.T) {
	stands := make(chan *served, 9)
	g, relay, c := relayed(t, mux.Config{}, idle(stands))
	relay.Retarget("127.0.0.1:1")
	relay.Cut()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Exec(ctx, client.ExecRequest{Target: command("withdrawn")}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	relay.Retarget(g.addr())
	ctx, cancel = context.WithCancel(within(t))
	ended := make(chan error, 1)
	go func() {
		ended <- c.Exec(ctx, client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: io.Discard}})
	}()
	<-stands
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the second ended with %v", err)
	}
	if n := g.opens.Load(); n != 1 {
		t.Errorf("%d processes were started, want only the second", n)
	}
}

// A Reader that waits for ever keeps nobody: it is interrupted by what it has for it, or left.
func TestAWaitingStdinIsInterrupted(t *testing.T) {
	waits := make(chan struct{}, 1)
	_, _, c := relayed(t, mux.Config{}, func(ch *served, _ *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{})
		<-waits
		ch.exit(0)
	})
	run := func(t *testing.T, r io.Reader) {
		t.Helper()
		if err := c.Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdin: r}}); err != nil {
			t.Error(err)
		}
	}
	t.Run("by Close", func(t *testing.T) {
		r, w := io.Pipe()
		run(t, struct {
			io.Reader
			io.Closer
		}{reads(func(b []byte) (int, error) { waits <- struct{}{}; return r.Read(b) }), r})
		if _, err := w.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("the pipe is open: %v", err)
		}
	})
	t.Run("by a deadline, which is taken back", func(t *testing.T) {
		d := &deadlined{waits: waits, set: make(chan time.Time, 2)}
		run(t, d)
		if at := <-d.set; !at.IsZero() {
			t.Errorf("the deadline is left at %v", at)
		}
	})
	t.Run("or left", func(t *testing.T) {
		more, left := make(chan struct{}), make(chan struct{})
		run(t, reads(func([]byte) (int, error) {
			defer close(left)
			waits <- struct{}{}
			<-more
			return 1, nil
		}))
		close(more)
		<-left
	})
}

type reads func(b []byte) (int, error)

func (r reads) Read(b []byte) (int, error) { return r(b) }

// deadlined is a Reader that only a deadline interrupts.
type deadlined struct {
	waits chan<- struct{}
	set   chan time.Time
}

func (d *deadlined) Read([]byte) (int, error) {
	d.waits <- struct{}{}
	<-d.set
	return 0, context.DeadlineExceeded
}

func (d *deadlined) SetReadDeadline(t time.Time) error { d.set <- t; return nil }

var errBroken = errors.New("broken")

// What is wrong with the caller's own streams is the caller's error, and closes the process: no half of an input passes for the whole.
func TestBrokenStreamsCloseTheProcess(t *testing.T) {
	inputs := make(chan mux.EventKind, 99)
	closed := make(chan error, 9)
	_, _, c := relayed(t, mux.Config{}, func(ch *served, _ *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{})
		ch.send(stdout, "", []byte("out"))
		for {
			ev, err := ch.Next(ch.Context())
			if err != nil {
				break
			}
			inputs <- ev.Kind
			ch.Used(&ev)
		}
		ch.Finish(status.From(context.Cause(ch.Context())), nil, true)
		closed <- context.Cause(ch.Context())
	})
	broken := reads(func([]byte) (int, error) { return 0, errBroken })
	if err := c.Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdin: broken}}); !errors.Is(err, errBroken) {
		t.Errorf("a broken stdin: %v", err)
	}
	byClient := func() {
		t.Helper()
		if e := status.From(<-closed); e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
			t.Errorf("the process ended with %v", e)
		}
	}
	byClient()
	full := writes(func([]byte) (int, error) { return 0, errBroken })
	if err := c.Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: full}}); !errors.Is(err, errBroken) {
		t.Errorf("a broken stdout: %v", err)
	}
	byClient()
	short := writes(func(b []byte) (int, error) { return len(b) - 1, nil })
	if err := c.Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: short}}); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a short stdout: %v", err)
	}
	byClient()
	select {
	case k := <-inputs:
		t.Errorf("the process got input: %v", k)
	default:
	}
}

// A caller that does not take the output is not sent more than the window, and what it does not take the process keeps.
func TestASlowWriterHoldsUpTheProcess(t *testing.T) {
	stalled := make(chan struct{})
	sent := make(chan int, 1)
	_, _, c := relayed(t, mux.Config{}, func(ch *served, _ *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{})
		n := 0
		for b := make([]byte, 1<<10); ch.Credit() >= len(b)+mux.FrameCost; n += len(b) {
			ch.send(stdout, "", b)
		}
		sent <- n
		<-stalled
		ch.send(stdout, "", []byte("end"))
		ch.exit(0)
	}, func(c *client.Config) { c.Window = 64 << 10 })
	var out bytes.Buffer
	var once sync.Once
	err := c.Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: writes(func(b []byte) (int, error) {
		once.Do(func() {
			if n := <-sent; n > 64<<10 {
				t.Errorf("%d bytes were sent to who takes none", n)
			}
			close(stalled)
		})
		return out.Write(b)
	})}})
	if err != nil || !bytes.HasSuffix(out.Bytes(), []byte("end")) {
		t.Errorf("%d bytes, %v", out.Len(), err)
	}
}

// A Reader is read only as fast as the process reads.
func TestStdinIsReadWithinCredit(t *testing.T) {
	stands := make(chan *served, 1)
	_, _, c := relayed(t, mux.Config{}, idle(stands))
	ctx, cancel := context.WithCancel(within(t))
	read, full := 0, sync.OnceFunc(cancel) // read is the Reader's, then the test's
	err := c.Exec(ctx, client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdin: reads(func(b []byte) (int, error) {
		if read += len(b); read > mux.MinWindow-8<<10 {
			full()
		}
		return len(b), nil
	})}})
	if most := mux.MinWindow - 4*mux.FrameCost; read > most || !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes were read, when %d can be sent; %v", read, most, err)
	}
}

// Sizes of the terminal arrive, the last one in any case.
func TestResize(t *testing.T) {
	got := make(chan *sluicev1.Resize, 1)
	_, _, c := relayed(t, mux.Config{}, func(ch *served, _ *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{Capabilities: &sluicev1.Capabilities{Resize: true}})
		for {
			ev, ok := ch.next()
			if !ok {
				return
			}
			ch.Used(&ev)
			if m, ok := ev.Message.(*sluicev1.Resize); ok && m.GetWidth() == 99 {
				got <- m
				ch.exit(0)
				return
			}
		}
	})
	sizes := make(chan client.Size)
	go func() {
		for w := range uint32(100) {
			sizes <- client.Size{Width: w, Height: 50}
		}
		close(sizes)
	}()
	x := command("x")
	x.Tty = true
	if err := c.Exec(within(t), client.ExecRequest{Target: x, Streams: client.Streams{Stdout: io.Discard, Resize: sizes}}); err != nil {
		t.Error(err)
	}
	if m := <-got; m.GetHeight() != 50 {
		t.Errorf("got %v", m)
	}
}

// Counts that differ are told, whatever the exit code.
func TestMissingOutputIsDataLoss(t *testing.T) {
	g := newGateway(t, mux.Config{}, nil, func(s sluicev1.GatewayService_ConnectServer) error {
		say := func(frames ...*sluicev1.ServerFrame) error { return s.Send(&sluicev1.ConnectResponse{Frames: frames}) }
		if err := say(&sluicev1.ServerFrame{Frame: &sluicev1.ServerFrame_Welcome{Welcome: &sluicev1.Welcome{Session: "s", Secret: []byte("x"), Link: 1}}}); err != nil {
			return err
		}
		for opened := false; ; {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			for _, f := range m.GetFrames() {
				if f.GetOpen() == nil || opened {
					continue
				}
				opened = true
				err := say(
					&sluicev1.ServerFrame{Channel: 1, Seq: 1, Frame: &sluicev1.ServerFrame_Opened{Opened: &sluicev1.Opened{}}},
					&sluicev1.ServerFrame{Channel: 1, Seq: 2, Frame: &sluicev1.ServerFrame_Closed{Closed: &sluicev1.Closed{Exit: &sluicev1.Exit{}, BytesOut: 5}}},
				)
				if err != nil {
					return err
				}
			}
		}
	})
	err := g.client(t, g.addr()).Exec(within(t), client.ExecRequest{Target: command("x"), Streams: client.Streams{Stdout: io.Discard}})
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != sluicev1.Reason_REASON_DATA_LOSS {
		t.Errorf("ended with %v", err)
	}
}
