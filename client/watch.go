package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// WatchRequest says what to watch.
type WatchRequest struct {
	// Cluster is the cluster's name; it may be empty when the gateway has one.
	Cluster string
	// Target names the objects.
	Target *sluicev1.WatchTarget
	// Cursor is where to continue: of an earlier Event. Empty begins with the objects that there are.
	Cursor string
}

// Event is one change, or a change of the watch's own state.
type Event struct {
	// Type is "ADDED", "MODIFIED" or "DELETED"; empty when State is set.
	Type string
	// Object is the object as JSON. It is the caller's.
	Object json.RawMessage
	// Raw is the whole watch event as the API server sent it. It is the caller's.
	Raw []byte
	// Cursor is where a new watch continues after this event. It is empty where none can: before the end of a list, and where the gateway has
	// said nothing; the last one seen since the list's end is then right.
	Cursor string
	// State is what became of the upstream. After KIND_RESYNC_BEGIN a whole list follows, and what it does not name until KIND_RESYNC_END is
	// gone; the end of the first list is told by KIND_RESYNC_END alone.
	State *sluicev1.ChannelState
}

// Into decodes the event's object, such as a *corev1.Pod.
func (e Event) Into(object any) error {
	if err := json.Unmarshal(e.Object, object); err != nil {
		return fmt.Errorf("decode the object of a %s event: %w", e.Type, err)
	}
	return nil
}

// Watch follows the objects of one resource for as long as the client lives, over lost links, lost sessions and ended upstreams. One
// goroutine calls Next; Close may be called from any.
type Watch struct {
	req WatchRequest // Immutable after Client.Watch.
	f   *follower

	// Owned by Next.
	follow  position
	pending *Event // to be told before the next channel's events
}

// Watch opens a watch. It does not wait: refusals are told by Next.
func (c *Client) Watch(req WatchRequest) *Watch {
	return &Watch{req: req, f: newFollower(c, "watch"), follow: position{cursor: req.Cursor, listing: req.Cursor == ""}}
}

// Close ends the watch. Next returns an error from then on.
func (w *Watch) Close() { w.f.close() }

// Next waits for the next event. io.EOF says that the gateway has ended the watch without an error. An *[Error] is the end of the watch; the
// end of ctx is not: Next may be called again.
func (w *Watch) Next(ctx context.Context) (ev Event, err error) {
	err = w.f.steps(ctx, func(ctx context.Context) (last bool, err error) {
		ev, last, err = w.next(ctx)
		return last, err
	})
	if err != nil {
		return Event{}, err
	}
	return ev, nil
}

// next is one step: an event, an error, or neither when there is to be another step.
func (w *Watch) next(ctx context.Context) (Event, bool, error) {
	if w.pending != nil {
		ev := *w.pending
		w.pending = nil
		return ev, true, nil
	}
	if w.f.ch == nil {
		return Event{}, false, w.open(nil)
	}
	me, ok, err := w.f.next(ctx)
	if !ok {
		return Event{}, false, err
	}
	defer w.f.used(&me)
	return w.event(&me)
}

// open opens a channel where the watch stands. In the middle of a list that is at its beginning, and the caller is told.
func (w *Watch) open(sink mux.Sink) error {
	if w.follow.begins() {
		w.pending = &Event{State: &sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RESYNC_BEGIN}}
	}
	return w.f.open(&sluicev1.Open{
		Cluster: w.req.Cluster, Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: w.req.Target}}, Cursor: w.follow.cursor,
	}, sink)
}

// event translates a channel's event.
func (w *Watch) event(me *mux.Event) (Event, bool, error) {
	switch m := me.Message.(type) {
	case *sluicev1.ChannelState:
		w.follow.state(m)
		return Event{State: m, Cursor: m.GetCursor()}, true, nil
	case *sluicev1.Closed:
		if e := status.FromProto(m.GetStatus()); e != nil {
			return Event{}, false, w.f.again(e)
		}
		return Event{}, false, io.EOF
	}
	if me.Kind != mux.EventData {
		return Event{}, false, nil
	}
	w.follow.data(me.Cursor)
	ev := Event{Raw: me.Data, Cursor: me.Cursor}
	var parts struct {
		Type   string          `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	if err := json.Unmarshal(me.Data, &parts); err != nil {
		return ev, false, status.New(codes.Internal, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, "an event is not JSON").Wrap(err)
	}
	ev.Type, ev.Object = parts.Type, parts.Object
	return ev, true, nil
}

// position is where a watch stands.
type position struct {
	cursor  string // where to open it again; empty in a list
	listing bool   // in a list, or before it
	told    bool   // the caller has been told something of the list
}

// begins reports whether the list that a new channel brings must be announced: the caller has seen a part of another.
func (p *position) begins() bool {
	again := p.listing && p.told
	p.told = p.told || again
	return again
}

func (p *position) state(s *sluicev1.ChannelState) {
	switch s.GetKind() {
	case sluicev1.ChannelState_KIND_RESYNC_BEGIN:
		p.cursor, p.listing, p.told = "", true, true
	case sluicev1.ChannelState_KIND_RESYNC_END:
		p.cursor, p.listing, p.told = s.GetCursor(), false, false
	}
}

func (p *position) data(cursor string) {
	if p.listing {
		p.told = true
	}
	if cursor != "" {
		p.cursor, p.listing = cursor, false
	}
}

// Raw is an event in the buffer it arrived in.
type Raw struct {
	// Data is the watch event as the API server sent it. It is only borrowed until the callback returns. Empty when State is set.
	Data []byte
	// Cursor and State are as in [Event].
	Cursor string
	State  *sluicev1.ChannelState
}

// WatchRaw is a watch for those who count microseconds: f is called for each event on the goroutine that reads the link, without a copy and
// without a hand-off. It must not block: it holds up every channel of the client. WatchRaw returns when ctx or the watch ends, with the error
// that Next would have returned; f is not called after that.
func (c *Client) WatchRaw(ctx context.Context, req WatchRequest, f func(Raw)) error {
	w := c.Watch(req)
	defer w.Close()
	for {
		s := &rawSink{w: w, f: f, ended: make(chan error, 1)}
		if err := w.open(s); err != nil {
			return err
		}
		if w.pending != nil {
			f(Raw{State: w.pending.State})
			w.pending = nil
		}
		if w.f.ch == nil {
			continue
		}
		if err := s.wait(ctx); !errors.Is(err, errAgain) {
			return err
		}
	}
}

// errAgain says that the watch is to be opened again.
var errAgain = errors.New("open the watch again")

// rawSink is the sink of one channel of WatchRaw.
type rawSink struct {
	w     *Watch
	f     func(Raw)
	ended chan error // the Closed's error, nil for a good end
}

// Deliver implements mux.Sink.
func (s *rawSink) Deliver(me *mux.Event) {
	switch m := me.Message.(type) {
	case *sluicev1.ChannelState:
		s.w.follow.state(m)
		s.f(Raw{State: m, Cursor: m.GetCursor()})
		return
	case *sluicev1.Closed:
		if e := status.FromProto(m.GetStatus()); e != nil {
			s.ended <- e
			return
		}
		s.ended <- io.EOF
		return
	}
	if me.Kind == mux.EventData {
		s.w.follow.data(me.Cursor)
		s.f(Raw{Data: me.Data, Cursor: me.Cursor})
	}
}

// wait waits for the channel's end.
func (s *rawSink) wait(ctx context.Context) error {
	f := s.w.f
	select {
	case <-ctx.Done():
		f.ch.Close(f.reason()) // nothing is delivered after this
		return fmt.Errorf("watch: %w", ctx.Err())
	case <-f.ch.Context().Done():
	}
	err := context.Cause(f.ch.Context())
	select {
	case err = <-s.ended:
	default:
	}
	if errors.Is(err, io.EOF) {
		return err
	}
	if err := f.again(err); err != nil {
		return err
	}
	return errAgain
}
