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

// watch is one channel's watch, over as many upstreams as it takes. run opens one after the other; what moves an upstream's events is either
// its pump, on run's goroutine, or the readiness loop, and then run ends and another one begins after the upstream. Either way step is one
// read. A watch holds no event while it waits.
type watch struct {
	// Immutable after newWatch.
	ctx     context.Context // the channel's
	done    func(Outcome)
	up      Upstream
	ch      Channel
	opts    *Options
	target  *sluicev1.WatchTarget
	cursors *cursors

	// Owned by run's goroutine, or by the loop's.
	framer
	live    *live     // the upstream that stands; nil for none
	version string    // where the next upstream goes on; empty when it must begin with a list
	listing bool      // what comes are the objects of a list, in no order: they carry no cursor
	partial bool      // the last piece that was taken is not the last of its event
	paged   bool      // the API server does not stream lists: ask for pages
	tried   bool      // the last upstream was to begin with a list
	known   bool      // the client has a state: a list is announced to it as a resync
	opened  bool      // Opened was said
	waiting bool      // RECONNECTING was said, and nothing since
	moved   bool      // an event or bookmark has changed version since the last upstream ended
	abrupt  uint8     // upstreams in a row that ended well, at once, and without an event
	attempt uint32    // upstreams in a row that brought nothing
	refused time.Time // since when the API server refuses a watch that it let in before; zero when it does not
}

// startWatch is Start for a watch. Client data is none of its business: nothing is written to its upstream.
func startWatch(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options, done func(Outcome)) {
	w, err := newWatch(ctx, up, open, ch, opts, done)
	if err != nil {
		done(Outcome{Err: err})
		return
	}
	w.run()
}

func newWatch(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options, done func(Outcome)) (*watch, error) {
	target := open.GetTarget().GetWatch()
	w := &watch{ctx: ctx, done: done, up: up, ch: ch, opts: opts, target: target, cursors: watchCursors(up.Identity(), target)}
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

// run opens upstreams until the context or the channel ends, or the API server refuses for good; or until an upstream is left to the loop.
func (w *watch) run() {
	parked, err := w.upstreams()
	if !parked {
		w.done(Outcome{Err: err})
	}
}

// upstreams opens and pumps upstreams. parked says that the last one goes on without it.
func (w *watch) upstreams() (parked bool, err error) {
	defer func() { err = w.survive(recover(), err) }()
	for {
		l, err := w.open()
		if err == nil {
			if parked, err = l.park(); parked {
				return true, nil
			}
			if err == nil {
				err = l.pump()
			}
			err = l.ended(err)
		}
		if err = w.after(err); err != nil {
			return false, err
		}
	}
}

// survive makes what recover has returned the end of this watch, if that is a panic.
func (w *watch) survive(recovered any, err error) error {
	e := panicked(recovered)
	if e == nil {
		return err
	}
	if w.live != nil {
		w.live.end()
	}
	return e
}

// resume goes on after an upstream that the loop has let go, because of err. Started by the loop; ends as run does.
func (w *watch) resume(l *live, err error) {
	if err = w.finish(l, err); err != nil {
		w.done(Outcome{Err: err})
		return
	}
	w.run()
}

// finish ends an upstream and decides what follows.
func (w *watch) finish(l *live, err error) (final error) {
	defer func() { final = w.survive(recover(), final) }()
	return w.after(l.ended(err))
}

// open opens the upstream that continues the watch.
func (w *watch) open() (*live, error) {
	w.tried = false
	switch {
	case w.version != "":
		return w.follow()
	case w.target.GetChangesOnly() && !w.known:
		if err := w.beginNow(w.ctx); err != nil {
			return nil, err
		}
		return w.follow()
	case !w.paged:
		w.tried = true
		return w.streamList()
	}
	if err := w.listPages(w.ctx); err != nil {
		return nil, err
	}
	return w.follow()
}

// after decides what follows an upstream that has ended, or was not had: nil when the next may be opened, otherwise the error that ends the
// watch.
func (w *watch) after(err error) error {
	w.queue, w.msg, w.listing = nil, message{}, false
	if w.ctx.Err() != nil {
		return w.ctx.Err()
	}
	if w.tried && w.version == "" && w.unstreamable(err) {
		w.paged = true
		return nil
	}
	return w.recover(w.ctx, err)
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
