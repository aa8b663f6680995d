package client

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// pinned is a channel that leads to a process or a TCP connection: what it leads to exists once, so the channel lives and dies with its
// session, and an Open that may have left is never sent again.
type pinned struct {
	*mux.Channel // Immutable, as all of it.
	k            *carrier
	lost         string // what is said of it when its session is lost
}

// release lets the session go, if it lives on for this channel alone. It may be called more than once.
func (p *pinned) release() { p.k.unpin(p.Channel) }

// pin opens a channel and waits until it stands. onState is told of states before that; nil for nobody. When ctx ends, the channel is closed.
// Only as long as its Open has not left another session may have it.
func (c *Client) pin(ctx context.Context, o *sluicev1.Open, lost string, onState func(*sluicev1.ChannelState)) (*pinned, *sluicev1.Opened, error) {
	o.Window = uint64(c.cfg.Window)
	for {
		k, ch, err := c.open(o, nil, true)
		if err == nil {
			ch.Widen() // what it leads to may have much to say, and there are few of its kind
			p := &pinned{ch, k, lost}
			var opened *sluicev1.Opened
			if opened, err = p.awaitOpened(ctx, onState); err == nil {
				return p, opened, nil
			}
			p.release()
			if ch.Sent() {
				return nil, nil, err
			}
		}
		if !status.From(err).Resumable || ctx.Err() != nil { // the session's end is, and the next may have the Open
			return nil, nil, err
		}
		if err := c.awaitSession(ctx); err != nil {
			return nil, nil, err
		}
	}
}

func (p *pinned) awaitOpened(ctx context.Context, onState func(*sluicev1.ChannelState)) (*sluicev1.Opened, error) {
	for {
		ev, err := p.Next(ctx)
		if err != nil {
			return nil, p.ended(ctx, err)
		}
		p.Used(&ev)
		switch m := ev.Message.(type) {
		case *sluicev1.Opened:
			return m, nil
		case *sluicev1.ChannelState:
			if onState != nil {
				onState(m)
			}
		case *sluicev1.Closed:
			if e := status.FromProto(m.GetStatus()); e != nil {
				return nil, e.WithResumable(false)
			}
			return nil, status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, "the gateway closed the channel before it stood")
		}
	}
}

// ended is why the channel gives no more events, without a Closed: ctx has ended, and the channel is closed for it, or its session was lost.
func (p *pinned) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		p.stop("the caller has left")
		return ctx.Err()
	}
	if p.k.c.closed() {
		return errClosed
	}
	if !p.Sent() {
		return err
	}
	return p.gone(err)
}

// stop closes the channel and waits a moment for the gateway to say that it is closed.
func (p *pinned) stop(reason string) {
	p.Close(reason)
	t := time.NewTimer(closeWithin)
	defer t.Stop()
	select {
	case <-p.Context().Done():
	case <-t.C:
	}
}

// closeWithin is how long the gateway may take to close a channel.
const closeWithin = 2 * time.Second

// gone is the error of a channel that was lost. A new one would not continue it.
func (p *pinned) gone(err error) *Error {
	e := status.From(err)
	code, reason := codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST
	switch e.Reason {
	case sluicev1.Reason_REASON_CHANNEL_NOT_FOUND, sluicev1.Reason_REASON_DATA_LOSS, sluicev1.Reason_REASON_PROTOCOL_VIOLATION,
		sluicev1.Reason_REASON_RESET, sluicev1.Reason_REASON_TARGET_GONE, sluicev1.Reason_REASON_LIMIT:
		code, reason = e.Code, e.Reason
	}
	return status.New(code, reason, "%s", p.lost).Wrap(e)
}
