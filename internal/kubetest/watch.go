package kubetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// wire carries the messages of one watch to its client. Used by the watch's
// handler alone.
type wire interface {
	// send queues one message.
	send(message []byte) error
	// flush puts what was queued on its way.
	flush() error
	// raw queues bytes as they are, outside of any message.
	raw(data []byte) error
	// cut sends the beginning of a message and breaks off.
	cut()
	// end ends the watch properly with a close code; HTTP has none.
	end(code int)
	// reset breaks off with a TCP reset where that is possible.
	reset()
	// expire bounds the writes from now on, also one that blocks.
	expire(at time.Time)
	// close waits until nothing of the wire runs.
	close()
}

// liveWatch is a watch whose client is told that it runs.
type liveWatch struct{ cancel context.CancelCauseFunc }

// endGrace is how long a client may take to read what was sent before the end
// of its watch, once that is decided.
const endGrace = 2 * time.Second

// serveWatch serves one watch, by WebSocket if the client wants one, until its
// timeout, the client or the server ends it.
func (s *Server) serveWatch(c *call, o *listOptions) error {
	start, err := o.start()
	if err != nil {
		return unclassified(err.Error())
	}
	ctx, stop := context.WithTimeoutCause(c.r.Context(), s.timeout(o), errEnded)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	release := context.AfterFunc(s.ctx, func() { cancel(errEnded) })
	defer release()

	p := &pump{server: s, options: o, plan: &c.plan}
	p.watcher, p.initial, p.version, err = s.store.watch(o.kind, start, func() { cancel(errSlow) })
	if err == nil {
		defer s.store.unwatch(p.watcher)
		err = p.tooNew(start)
	}
	if err != nil && !errors.As(err, &p.refusal) {
		return err
	}
	live := &liveWatch{cancel}
	defer s.leave(live)
	p.wire, err = openWire(c, func() { s.enter(live) }, func() { cancel(errGone) })
	if err != nil {
		return err
	}
	if p.wire == nil {
		return nil // The handshake was refused, and answered so.
	}
	defer p.wire.close()
	unhand := context.AfterFunc(ctx, func() { p.wire.expire(time.Now().Add(endGrace)) })
	defer unhand()
	p.finish(ctx, p.run(ctx))
	return nil
}

var errGone = errors.New("the client is gone")

// enter counts a live watch, and lets it be broken off.
func (s *Server) enter(l *liveWatch) {
	s.mu.Lock()
	s.live[l] = struct{}{}
	s.mu.Unlock()
	s.counters.live(1)
}

// leave takes back what enter did, if it did.
func (s *Server) leave(l *liveWatch) {
	s.mu.Lock()
	_, entered := s.live[l]
	delete(s.live, l)
	s.mu.Unlock()
	if entered {
		s.counters.live(-1)
	}
}

// start resolves the query's resourceVersion and sendInitialEvents
// (https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-watch).
func (o *listOptions) start() (watchStart, error) {
	version, err := parseVersion(o.version)
	if err != nil {
		return watchStart{}, err
	}
	st := watchStart{scope: o.selector.scope(), after: version}
	switch {
	case o.initial != nil && *o.initial:
		st.initial = true
	case o.initial != nil && version == 0:
		st.now = true
	case version == 0:
		st.initial = true
	}
	return st, nil
}

func tooOld(asked, floor uint64) string {
	return fmt.Sprintf("too old resource version: %d (%d)", asked, floor)
}

// pump writes the events of one watch. Owned by its handler.
type pump struct {
	server  *Server
	options *listOptions
	plan    *plan
	wire    wire
	watcher *watcher
	initial []*revision
	version uint64  // of the initial objects
	refusal *Status // sent as the only event, if set
	sent    int
}

// tooNew refuses initial events that must be newer than the store is. Without
// initial events a future version is no error: the watch is silent.
func (p *pump) tooNew(start watchStart) error {
	if start.initial && start.after > p.version {
		return futureVersion(start.after, p.version)
	}
	return nil
}

// errStruck ends a watch that a fault has already ended in its own way.
var errStruck = errors.New("struck by a fault")

// run sends events until the watch ends; nil is its proper end.
func (p *pump) run(ctx context.Context) error {
	if err := p.strike(ctx); err != nil {
		return err
	}
	if p.refusal != nil {
		return p.sendRefusal(ctx)
	}
	if err := p.sendInitial(ctx); err != nil {
		return err
	}
	return p.follow(ctx)
}

// finish ends the wire in the way that fits why run returned.
func (p *pump) finish(ctx context.Context, err error) {
	switch {
	case errors.Is(err, errStruck):
	case errors.Is(context.Cause(ctx), errReset):
		p.wire.reset()
	default:
		p.wire.end(closeNormal)
	}
}

func (p *pump) sendRefusal(ctx context.Context) error {
	body, err := json.Marshal(p.refusal)
	if err != nil {
		return err
	}
	if err := p.send(ctx, "ERROR", body); err != nil {
		return err
	}
	return p.wire.flush()
}

// sendInitial sends the objects there were at the start, in the order of their
// keys, and the bookmark that says they are complete.
func (p *pump) sendInitial(ctx context.Context) error {
	slices.SortFunc(p.initial, comparePaths)
	for _, r := range p.initial {
		if !p.options.selector.matches(r) {
			continue
		}
		if err := p.send(ctx, "ADDED", r.encoded); err != nil {
			return err
		}
	}
	p.initial = nil
	if p.options.bookmarks && p.options.initial != nil && *p.options.initial {
		if err := p.sendBookmark(ctx, p.version, true); err != nil {
			return err
		}
	}
	return p.wire.flush()
}

// follow sends changes as they come, and bookmarks in between.
func (p *pump) follow(ctx context.Context) error {
	end, _ := ctx.Deadline()
	bookmark := time.NewTimer(p.nextBookmark(end))
	defer bookmark.Stop()
	for {
		select {
		case <-p.watcher.wake:
			if err := p.sendChanges(ctx); err != nil {
				return err
			}
		case <-bookmark.C:
			if err := p.bookmark(ctx); err != nil {
				return err
			}
			bookmark.Reset(p.nextBookmark(end))
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Server) timeout(o *listOptions) time.Duration {
	if o.timeout > 0 {
		return o.timeout
	}
	return s.options.MinRequestTimeout + rand.N(s.options.MinRequestTimeout) //nolint:gosec // it spreads load, it hides nothing
}

// lastBookmark is how long before its timeout a watch gets a bookmark, so that
// the next one starts as late as possible.
const lastBookmark = 2 * time.Second

func (p *pump) nextBookmark(end time.Time) time.Duration {
	next := p.server.options.BookmarkInterval
	if last := time.Until(end) - lastBookmark; last > 0 && last < next {
		return last
	}
	return next
}

func (p *pump) sendChanges(ctx context.Context) error {
	batch, overrun := p.watcher.take()
	if overrun {
		return errSlow
	}
	for _, c := range batch {
		event, object, err := p.options.selector.event(c)
		if err != nil {
			return err
		}
		if event == "" {
			continue
		}
		if err := p.send(ctx, event, object); err != nil {
			return err
		}
	}
	return p.wire.flush()
}

// event is what a change looks like through the selector; "" if it is outside.
// An object that leaves the selection is shown as it was inside, at the
// version of the change.
func (s *selector) event(c *change) (event string, object []byte, err error) {
	was := c.before != nil && s.matches(c.before)
	is := !c.deleted && s.matches(c.after)
	switch {
	case is && was:
		return "MODIFIED", c.after.encoded, nil
	case is:
		return "ADDED", c.after.encoded, nil
	case was && c.deleted:
		return "DELETED", c.after.encoded, nil
	case was:
		last, err := c.before.at(c.version)
		if err != nil {
			return "", nil, err
		}
		return "DELETED", last.encoded, nil
	}
	return "", nil, nil
}

// bookmark sends the version that the watch has caught up with, unless there
// is something newer to send first.
func (p *pump) bookmark(ctx context.Context) error {
	version, settled := p.server.store.settled(p.watcher)
	if !p.options.bookmarks || !settled || version < p.watcher.from {
		return nil
	}
	if err := p.sendBookmark(ctx, version, false); err != nil {
		return err
	}
	return p.wire.flush()
}

func (p *pump) sendBookmark(ctx context.Context, version uint64, complete bool) error {
	annotations := ""
	if complete {
		annotations = `,"annotations":{"k8s.io/initial-events-end":"true"}`
	}
	k := p.options.kind
	return p.send(ctx, "BOOKMARK", fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d"%s}}`,
		k.Kind, k.groupVersion(), version, annotations))
}

// send sends one event, and then what a fault has planned for after it.
func (p *pump) send(ctx context.Context, event string, object []byte) error {
	b := messages.Get().(*bytes.Buffer)
	defer messages.Put(b)
	b.Reset()
	b.WriteString(`{"type":"`)
	b.WriteString(event)
	b.WriteString(`","object":`)
	b.Write(object)
	b.WriteString("}\n")
	if err := p.wire.send(b.Bytes()); err != nil {
		return err
	}
	p.sent++
	return p.strike(ctx)
}

// messages are the buffers in which events are assembled, shared because an
// idle watch should hold none.
var messages = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// strike lets the fault act whose turn it is.
func (p *pump) strike(ctx context.Context) error {
	if p.plan.act == nil || p.sent != p.plan.after {
		return nil
	}
	if err := p.wire.flush(); err != nil {
		return err
	}
	p.plan.act(ctx, p.wire)
	return errStruck
}
