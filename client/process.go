package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// Size is that of a terminal.
type Size struct {
	// Width and Height are in columns and rows.
	Width, Height uint32
}

// Streams are what a process is connected with. What is nil is not connected.
type Streams struct {
	// Stdin is read from when the process can take it; its end is the end of the process's standard input, where [sluicev1.Capabilities] has
	// half_close. An error of it other than io.EOF closes the channel: the process must not take half an input for the whole. A Read that still
	// waits when the process has ended is interrupted: by SetReadDeadline, where Stdin has it and it works, else by Close, unless Stdin is an
	// *os.File. Where neither can be, the Read is left to itself, with a goroutine, and what it brings is lost.
	Stdin io.Reader
	// Stdout and Stderr are written to by one goroutine, the caller's. While a Write waits the process is not read, and nothing interrupts it.
	// Stderr must be nil for a terminal, which has only one output.
	Stdout, Stderr io.Writer
	// Resize brings the sizes of the terminal, the first one too. Of several that could not be sent yet only the last is. Closed or nil: no more.
	Resize <-chan Size
}

// ExecRequest says which process to start.
type ExecRequest struct {
	// Cluster is the cluster's name; it may be empty when the gateway has one.
	Cluster string
	// Target names the container and the command. Its Stdin, Stdout and Stderr are set from Streams.
	Target *sluicev1.ExecTarget
	// OnDetachExpiry is what becomes of the process when the session stays without a link for too long.
	OnDetachExpiry sluicev1.DetachPolicy
	Streams
	// OnOpened is told that the process stands, and what its upstream can do, before any output. OnState is told what becomes of the upstream.
	// Both are called by the caller's goroutine, and may be nil.
	OnOpened func(*sluicev1.Opened)
	OnState  func(*sluicev1.ChannelState)
}

// AttachRequest says which container to attach to. Its fields are those of [ExecRequest].
type AttachRequest struct {
	Cluster        string
	Target         *sluicev1.AttachTarget
	OnDetachExpiry sluicev1.DetachPolicy
	Streams
	OnOpened func(*sluicev1.Opened)
	OnState  func(*sluicev1.ChannelState)
}

// ExitError says that a process has ended with another exit code than 0.
type ExitError struct {
	// Code is the exit code.
	Code int
}

// Error implements error.
func (e *ExitError) Error() string {
	return fmt.Sprintf("the process has ended with exit code %d", e.Code)
}

// Exec starts a process in a container and joins it with the request's streams until it has ended. nil says that it ended with exit code 0 and
// that all of its output was written; an *[ExitError] has any other code. An *[Error] is a refusal, or says that the exit is not known: the
// process is never started again. Lost links are bridged: keys typed meanwhile arrive afterwards.
//
// When ctx ends, the gateway is asked to let go of the process, and Exec returns ctx's error; if there was no link yet, nothing was started.
func (c *Client) Exec(ctx context.Context, req ExecRequest) error {
	t := &sluicev1.ExecTarget{}
	if req.Target != nil {
		t = proto.CloneOf(req.Target)
	}
	t.Stdin, t.Stdout, t.Stderr = req.Stdin != nil, req.Stdout != nil, req.Stderr != nil
	p := &process{streams: req.Streams, onOpened: req.OnOpened, onState: req.OnState}
	ended, err := p.run(ctx, c, &sluicev1.Open{
		Cluster: req.Cluster, Target: &sluicev1.Target{Target: &sluicev1.Target_Exec{Exec: t}}, OnDetachExpiry: req.OnDetachExpiry,
	})
	switch {
	case err != nil:
		return err
	case ended.GetExit() == nil:
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, "the gateway has not told the exit code: "+exitUnknown)
	}
	return exited(ended)
}

// Attach joins the main process of a container with the request's streams, as Exec does. nil says that the process has ended, with exit code
// 0 or with one that the cluster does not tell.
func (c *Client) Attach(ctx context.Context, req AttachRequest) error {
	t := &sluicev1.AttachTarget{}
	if req.Target != nil {
		t = proto.CloneOf(req.Target)
	}
	t.Stdin, t.Stdout, t.Stderr = req.Stdin != nil, req.Stdout != nil, req.Stderr != nil
	p := &process{streams: req.Streams, onOpened: req.OnOpened, onState: req.OnState}
	ended, err := p.run(ctx, c, &sluicev1.Open{
		Cluster: req.Cluster, Target: &sluicev1.Target{Target: &sluicev1.Target_Attach{Attach: t}}, OnDetachExpiry: req.OnDetachExpiry,
	})
	if err != nil {
		return err
	}
	return exited(ended)
}

const exitUnknown = "exit status unknown"

func exited(c *sluicev1.Closed) error {
	if code := c.GetExit().GetCode(); code != 0 {
		return &ExitError{Code: int(code)}
	}
	return nil
}

// process is one run of Exec or Attach.
type process struct {
	streams  Streams
	onOpened func(*sluicev1.Opened)
	onState  func(*sluicev1.ChannelState)
}

// run opens the channel and joins it with the streams until it has ended well.
func (p *process) run(ctx context.Context, c *Client, o *sluicev1.Open) (*sluicev1.Closed, error) {
	ch, opened, err := c.pin(ctx, o, "the process was lost: "+exitUnknown, p.onState)
	if err != nil {
		return nil, err
	}
	defer ch.release()
	if p.onOpened != nil {
		p.onOpened(opened)
	}
	broken, breaks := context.WithCancelCause(ctx) // ends with ctx, and when the input breaks
	defer breaks(nil)
	var pumps sync.WaitGroup
	defer pumps.Wait()
	if p.streams.Stdin != nil {
		in := startStdin(broken, ch.Channel, p.streams.Stdin, breaks)
		defer in.stop()
	}
	done := make(chan struct{})
	defer close(done)
	if p.streams.Resize != nil {
		pumps.Go(func() { resize(ch.Channel, p.streams.Resize, done) })
	}
	ended, err := p.output(broken, ch)
	if errors.Is(err, context.Canceled) && ctx.Err() == nil {
		err = context.Cause(broken)
	}
	return ended, err
}

// output writes what the process writes, until the channel has ended.
func (p *process) output(ctx context.Context, ch *pinned) (*sluicev1.Closed, error) {
	for {
		ev, err := ch.Next(ctx)
		if err != nil {
			return nil, ch.ended(ctx, err)
		}
		switch m := ev.Message.(type) {
		case *sluicev1.ChannelState:
			if p.onState != nil {
				p.onState(m)
			}
		case *sluicev1.Closed:
			if e := status.FromProto(m.GetStatus()); e != nil {
				return nil, e.WithResumable(false)
			}
			return m, nil
		}
		if err := p.write(&ev); err != nil {
			ch.stop("the output cannot be written")
			return nil, err
		}
		ch.Used(&ev) // only now: who writes slowly is not sent more than the window
		ev.Free()
	}
}

func (p *process) write(ev *mux.Event) error {
	w, name := p.streams.Stdout, "stdout"
	if ev.Stream == sluicev1.Stream_STREAM_STDERR {
		w, name = p.streams.Stderr, "stderr"
	}
	if w == nil || len(ev.Data) == 0 {
		return nil
	}
	if _, err := writeAll(w, ev.Data); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// resize passes the terminal's sizes on until done is closed. The mux lets a newer one replace one that could not be sent.
func resize(ch *mux.Channel, sizes <-chan Size, done <-chan struct{}) {
	for {
		select {
		case s, ok := <-sizes:
			if !ok {
				return
			}
			ch.Resize(s.Width, s.Height)
		case <-done:
			return
		}
	}
}
