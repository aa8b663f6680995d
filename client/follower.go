package client

import (
	"context"
	"fmt"
	"sync"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// follower is a channel that is opened again where it stands, in whatever session there is: a watch's, or a log's. One goroutine calls
// it; close may be called from any.
type follower struct {
	// Immutable after newFollower.
	c      *Client
	name   string          // what is followed, for errors
	ctx    context.Context // ends with close, and with the client
	cancel context.CancelFunc

	mu sync.Mutex
	ch *mux.Channel // Owned by the caller, who writes it under mu: close reads it.

	err error // why it has ended; nil while it has not. Owned by the caller.
}

func newFollower(c *Client, name string) *follower {
	f := &follower{c: c, name: name}
	f.ctx, f.cancel = context.WithCancel(c.ctx)
	return f
}

// close ends it.
func (f *follower) close() {
	f.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ch != nil {
		f.ch.Close(f.reason())
	}
}

func (f *follower) reason() string { return "the " + f.name + " is closed" }

// use makes ch the channel, unless the follower is closed: then the channel is closed too.
func (f *follower) use(ch *mux.Channel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ch = ch
	if ch != nil && f.ctx.Err() != nil {
		ch.Close(f.reason())
	}
}

// steps takes one step after another until one is the last, fails, or ctx ends. Only a failure is the follower's end.
func (f *follower) steps(ctx context.Context, step func(ctx context.Context) (last bool, err error)) error {
	if f.err != nil {
		return f.err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(f.ctx, cancel)
	defer stop()
	for {
		last, err := step(ctx)
		switch {
		case last:
			return nil
		case err == nil:
		case f.ctx.Err() != nil:
			f.fail(f.closedError())
			return f.err
		case ctx.Err() != nil:
			return err
		default:
			f.fail(err)
			return err
		}
	}
}

func (f *follower) closedError() error {
	if err := f.c.Err(); err != nil {
		return err
	}
	return status.New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "%s", f.reason())
}

func (f *follower) fail(err error) {
	f.err = err
	if f.ch != nil {
		f.ch.Close(f.reason())
	}
}

// open opens a channel. There is none afterwards if the session has just ended: then another is there, or nil is not returned.
func (f *follower) open(o *sluicev1.Open, sink mux.Sink) error {
	o.Window = uint64(f.c.cfg.Window)
	_, ch, err := f.c.open(o, sink, false)
	switch {
	case err == nil:
		f.use(ch)
		return nil
	case tooLong(err):
		return err
	}
	f.use(nil) // the session has ended: its carrier puts another in its place, or gives up
	return f.c.awaitSession(f.ctx)
}

// next is the channel's next event; ok is false when the channel has ended and is to be opened again.
func (f *follower) next(ctx context.Context) (ev mux.Event, ok bool, err error) {
	ev, err = f.ch.Next(ctx)
	switch {
	case err == nil:
		return ev, true, nil
	case ctx.Err() != nil:
		return ev, false, fmt.Errorf("%s: %w", f.name, ctx.Err())
	}
	return ev, false, f.again(err)
}

// used says that an event of next is in the caller's hands.
func (f *follower) used(ev *mux.Event) {
	if f.ch != nil { // nil when the event was the channel's end
		f.ch.Used(ev)
	}
}

// again gives the channel up, if what ended it can be continued in another. Otherwise it returns what that was.
func (f *follower) again(err error) error {
	e := status.From(err)
	if !e.Resumable || f.c.ctx.Err() != nil {
		return err
	}
	f.use(nil)
	return f.c.awaitSession(f.ctx)
}
