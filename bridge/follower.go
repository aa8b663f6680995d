package bridge

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// follower is one channel's way along something that goes on for longer than an upstream lasts: a watch or a log. run opens one upstream after
// the other; what moves an upstream's messages is either its pump, on run's goroutine, or the readiness loop, and then run ends and another one
// begins after the upstream. Either way step is one read. A follower holds no message while it waits.
type follower struct {
	// Immutable after the kind has made it.
	ctx  context.Context // the channel's
	done func(Outcome)
	up   Upstream
	ch   Channel
	opts *Options
	kind kind

	// Owned by run's goroutine, or by the loop's.
	live    *live     // the upstream that stands; nil for none
	queue   *queue    // nil unless something was read
	partial bool      // the last piece that was taken is not the last of its message
	known   bool      // the client has a state: that of a cursor, or what it was sent
	opened  bool      // Opened was said
	waiting bool      // RECONNECTING was said, and nothing since
	moved   bool      // what comes has changed where the channel stands since the last upstream ended
	attempt uint32    // upstreams in a row that brought nothing
	refused time.Time // since when the API server refuses what it let in before; zero when it does not
}

// kind is what a follower follows: it knows where the channel stands, what to ask an API server for, and what the answer means. All of it
// is called by the owner of the follower.
type kind interface {
	// open opens the upstream that continues the channel. An error that is no *ending ends the channel; errEnded does so well.
	open() (*live, error)
	// frame makes pieces of the bytes of fragments, in the follower's queue, and returns how many fragments it is through with. halted says that
	// it stopped since something has to wait until what is queued is taken: then comes settle, and then the rest.
	frame(fragments []websocket.Fragment) (through int, halted bool)
	// settle does what waited.
	settle() error
	// offerRun hands over the next n pieces of the queue, with their cursors, and returns how many the channel took.
	offerRun(n int) (taken int)
	// release gives back what frame has made of a read.
	release()
	// reset forgets what was read of an upstream that has ended, or was not had, and not taken.
	reset()
	// detour reports whether, after this end, there is something else to ask, which is done at once and without a word.
	detour(e *ending) bool
	// lost takes note of an upstream's end, and moves the place to go on from if need be. again says that the next upstream is no second attempt at
	// the same: the first of its kind is made at once.
	lost(e *ending) (again bool)
}

// errEnded is the end of what was followed: the channel has all of it.
var errEnded = errors.New("all was delivered")

// run opens upstreams until the context or the channel ends, or the API server refuses for good; or until an upstream is left to the loop.
func (f *follower) run() {
	parked, err := f.upstreams()
	if !parked {
		f.over(err)
	}
}

// over is the end of all.
func (f *follower) over(err error) {
	if errors.Is(err, errEnded) {
		err = nil
	}
	f.done(Outcome{Err: err})
}

// upstreams opens and pumps upstreams. parked says that the last one goes on without it.
func (f *follower) upstreams() (parked bool, err error) {
	defer func() { err = f.survive(recover(), err) }()
	for {
		l, err := f.kind.open()
		if err == nil {
			if parked, err = l.park(); parked {
				return true, nil
			}
			if err == nil {
				err = l.pump()
			}
			err = l.ended(err)
		}
		if err = f.after(err); err != nil {
			return false, err
		}
	}
}

// survive makes what recover has returned the end of this channel, if that is a panic.
func (f *follower) survive(recovered any, err error) error {
	e := panicked(recovered)
	if e == nil {
		return err
	}
	if f.live != nil {
		f.live.end()
	}
	return e
}

// resume goes on after an upstream that the loop has let go, because of err. Started by the loop; ends as run does.
func (f *follower) resume(l *live, err error) {
	if err = f.finish(l, err); err != nil {
		f.over(err)
		return
	}
	f.run()
}

// finish ends an upstream and decides what follows.
func (f *follower) finish(l *live, err error) (final error) {
	defer func() { final = f.survive(recover(), final) }()
	return f.after(l.ended(err))
}

// dial opens an upstream. When it says nothing at all for Options.Silence, suspect is asked why; what it returns ends the upstream. A nil
// suspect allows silence.
func (f *follower) dial(path string, query url.Values, suspect suspicion, subprotocols ...string) (*live, error) {
	conn, subprotocol, err := f.up.Dial(f.ctx, path, query, subprotocols...)
	if err != nil {
		return nil, refused(err)
	}
	l := f.begin(conn, suspect)
	f.stands(subprotocol)
	return l, nil
}

// after decides what follows an upstream that has ended, or was not had: nil when the next may be opened, after a wait if need be; otherwise
// the error that ends the channel.
func (f *follower) after(err error) error {
	f.queue = nil
	f.kind.reset()
	var e *ending
	switch {
	case f.ctx.Err() != nil:
		return f.ctx.Err()
	case errors.Is(err, errStalled):
		return f.awaitReceiver()
	case !errors.As(err, &e): // of the channel
		return err
	case f.kind.detour(e):
		return nil
	case terminal(e.cause) && !f.doubtful(e):
		return e.cause
	}
	return f.recover(e)
}

// recover waits as long as the end of an upstream asks for.
func (f *follower) recover(e *ending) error {
	again := f.kind.lost(e)
	if f.moved || e.stood >= f.opts.Steady {
		f.attempt = 0
	}
	f.moved = false
	f.attempt++
	if f.attempt == 1 && (again || e.stood >= f.opts.Steady) {
		f.abandon(e.cause)
		return nil
	}
	wait := f.opts.backoff(f.attempt, e.cause.RetryAfter)
	if !e.quiet {
		f.reconnecting(e.cause, wait)
	}
	return sleep(f.ctx, wait)
}

// doubtful reports whether a refusal may not be meant. An API server that has just started knows neither its roles nor its issuers' keys
// yet: it answers 403 and 401 to those whom it let in before. It is believed when it has said so for Options.Doubt.
func (f *follower) doubtful(e *ending) bool {
	code := e.cause.HTTPCode
	if e.said || !f.opened && !f.known || code != http.StatusForbidden && code != http.StatusUnauthorized {
		return false
	}
	if f.refused.IsZero() {
		f.refused = time.Now()
	}
	return time.Since(f.refused) < f.opts.Doubt
}

// awaitReceiver waits, for as long as it takes, until the channel takes something again.
func (f *follower) awaitReceiver() error {
	if err := f.ch.AwaitCredit(f.ctx, f.quantum()); err != nil {
		if f.ctx.Err() != nil {
			return f.ctx.Err()
		}
		return err
	}
	f.abandon(status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the receiver took nothing; the upstream is opened again"))
	return nil
}

// abandon tells the client that the message whose pieces it has will begin anew.
func (f *follower) abandon(cause *status.Error) {
	if f.partial {
		f.reconnecting(cause, 0)
	}
}

func (f *follower) reconnecting(cause *status.Error, wait time.Duration) {
	f.say(&sluicev1.ChannelState{
		Kind: sluicev1.ChannelState_KIND_RECONNECTING, Attempt: max(f.attempt, 1), Status: cause.Proto(), NextTry: durationpb.New(wait),
	})
	f.waiting = true
}

// stands tells the client that there is an upstream, unless it never knew that there was none.
func (f *follower) stands(subprotocol string) {
	f.refused = time.Time{}
	if !f.opened {
		f.opened = true
		f.ch.Opened(&sluicev1.Opened{Subprotocol: subprotocol, Capabilities: &sluicev1.Capabilities{Resumable: true}})
	}
	if f.waiting {
		f.waiting = false
		f.say(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
	}
}

// say sends a state. A receiver drops what it has of a message when it hears one.
func (f *follower) say(s *sluicev1.ChannelState) {
	f.partial = false
	f.ch.State(s)
}

// offer hands over what is queued, run by run, and returns the credit that the next piece lacks; 0 when nothing is left.
func (f *follower) offer() (need int) {
	for q := f.queue; !q.empty(); {
		n := q.fit(f.ch.Credit())
		if n == 0 || f.kind.offerRun(n) == 0 {
			return q.need()
		}
	}
	return 0
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
