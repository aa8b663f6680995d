package bridge

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// watch is one channel's watch, over as many upstreams as it takes. It is made of three nested parts: run opens one upstream after the
// other, pump reads one until it ends, step is one read. It holds no event while it waits.
type watch struct {
	// Immutable after newWatch.
	up      Upstream
	ch      Channel
	opts    *Options
	target  *sluicev1.WatchTarget
	cursors *cursors

	// Owned by run's goroutine.
	framer
	version string    // where the next upstream goes on; empty when it must begin with a list
	listing bool      // what comes are the objects of a list, in no order: they carry no cursor
	partial bool      // the last piece that was taken is not the last of its event
	paged   bool      // the API server does not stream lists: ask for pages
	known   bool      // the client has a state: a list is announced to it as a resync
	opened  bool      // Opened was said
	waiting bool      // RECONNECTING was said, and nothing since
	moved   bool      // an event or bookmark has changed version since the last upstream ended
	abrupt  uint8     // upstreams in a row that ended well, at once, and without an event
	attempt uint32    // upstreams in a row that brought nothing
	refused time.Time // since when the API server refuses a watch that it let in before; zero when it does not
}

func newWatch(up Upstream, open *sluicev1.Open, ch Channel, opts *Options) (*watch, error) {
	target := open.GetTarget().GetWatch()
	w := &watch{up: up, ch: ch, opts: opts, target: target, cursors: watchCursors(up.Identity(), target)}
	w.text = open.GetText()
	if open.GetCursor() == "" {
		return w, nil
	}
	version, err := w.cursors.version(open.GetCursor())
	if err != nil {
		return nil, err
	}
	w.version, w.known = version, true
	return w, nil
}

// run opens upstreams until ctx or the channel ends, or the API server refuses for good.
func (w *watch) run(ctx context.Context) error {
	for {
		err := w.once(ctx)
		w.queue, w.msg, w.listing = nil, message{}, false
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := w.recover(ctx, err); err != nil {
			return err
		}
	}
}

// once opens what continues the watch, and returns why it ended.
func (w *watch) once(ctx context.Context) error {
	switch {
	case w.version != "":
		return w.follow(ctx)
	case w.target.GetChangesOnly() && !w.known:
		if err := w.beginNow(ctx); err != nil {
			return err
		}
		return w.follow(ctx)
	case !w.paged:
		err := w.streamList(ctx)
		if w.version != "" || !w.unstreamable(err) {
			return err
		}
		w.queue, w.msg, w.paged = nil, message{}, true
	}
	if err := w.listPages(ctx); err != nil {
		return err
	}
	return w.follow(ctx)
}

// recover decides what follows the end of an upstream: nil when the next may be opened, after a wait if need be; otherwise the error
// that ends the watch.
func (w *watch) recover(ctx context.Context, err error) error {
	var e *ending
	switch {
	case errors.Is(err, errStalled):
		return w.awaitReceiver(ctx)
	case !errors.As(err, &e): // of the channel
		return err
	case terminal(e.cause) && !w.doubtful(e):
		return e.cause
	}
	gone := expired(e.cause) || w.endsAbruptly(e)
	if gone {
		w.version = ""
	}
	if w.moved || e.stood >= w.opts.Steady {
		w.attempt = 0
	}
	w.moved = false
	w.attempt++
	if w.attempt == 1 && (gone || e.stood >= w.opts.Steady) {
		w.abandon(e.cause)
		return nil
	}
	wait := w.opts.backoff(w.attempt, e.cause.RetryAfter)
	w.reconnecting(e.cause, wait)
	return sleep(ctx, wait)
}

// doubtful reports whether a refusal may not be meant. An API server that has just started knows neither its roles nor its issuers' keys
// yet: it answers 403 and 401 to those whom it let in before. It is believed when it has said so for Options.Doubt.
func (w *watch) doubtful(e *ending) bool {
	code := e.cause.HTTPCode
	if e.said || !w.opened && !w.known || code != http.StatusForbidden && code != http.StatusUnauthorized {
		return false
	}
	if w.refused.IsZero() {
		w.refused = time.Now()
	}
	return time.Since(w.refused) < w.opts.Doubt
}

// endsAbruptly reports the second end in a row that is proper but within a moment and without any event.
func (w *watch) endsAbruptly(e *ending) bool {
	if !e.proper || e.heard || e.stood >= w.opts.Abrupt {
		w.abrupt = 0
		return false
	}
	w.abrupt++
	if w.abrupt < 2 {
		return false
	}
	w.abrupt = 0
	return true
}

// awaitReceiver waits, for as long as it takes, until the channel takes something again.
func (w *watch) awaitReceiver(ctx context.Context) error {
	if err := w.ch.AwaitCredit(ctx, w.quantum()); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	w.abandon(status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the receiver took nothing; the watch is opened again"))
	return nil
}

// abandon tells the client that the event whose pieces it has will begin anew.
func (w *watch) abandon(cause *status.Error) {
	if w.partial {
		w.reconnecting(cause, 0)
	}
}

func (w *watch) reconnecting(cause *status.Error, wait time.Duration) {
	w.say(&sluicev1.ChannelState{
		Kind: sluicev1.ChannelState_KIND_RECONNECTING, Attempt: max(w.attempt, 1), Status: cause.Proto(), NextTry: durationpb.New(wait),
	})
	w.waiting = true
}

// stands tells the client that there is an upstream, unless it never knew that there was none.
func (w *watch) stands(subprotocol string) {
	w.refused = time.Time{}
	if !w.opened {
		w.opened = true
		w.ch.Opened(&sluicev1.Opened{Subprotocol: subprotocol, Capabilities: &sluicev1.Capabilities{Resumable: true}})
	}
	if w.waiting {
		w.waiting = false
		w.say(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
	}
}

// beginList makes what follows the objects of a list, from the first one on.
func (w *watch) beginList() {
	w.listing = true
	if w.known {
		w.say(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RESYNC_BEGIN})
	}
}

// endList says that the list is complete as of a version, from which the watch goes on.
func (w *watch) endList(version string) {
	w.listing, w.known, w.version = false, true, version
	w.say(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RESYNC_END, Cursor: w.cursors.at(version)})
}

// say sends a state. A receiver drops what it has of an event when it hears one.
func (w *watch) say(s *sluicev1.ChannelState) {
	w.partial = false
	w.ch.State(s)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
