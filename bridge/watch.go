package bridge

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// watch follows the changes of objects, or begins with a list of them.
type watch struct {
	follower

	// Immutable after newWatch.
	target  *sluicev1.WatchTarget
	cursors *cursors

	// Owned as the follower.
	events  framer
	version string // where the next upstream goes on; empty when it must begin with a list
	listing bool   // what comes are the objects of a list, in no order: they carry no cursor
	paged   bool   // the API server does not stream lists: ask for pages
	tried   bool   // the last upstream was to begin with a list
	abrupt  uint8  // upstreams in a row that ended well, at once, and without an event
	said    []byte // a bookmark or error that waits until what came before it is taken
	invalid error  // what came is no event; this too waits
}

var _ kind = (*watch)(nil)

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
	w := &watch{target: target, cursors: watchCursors(up.Identity(), target), events: framer{text: open.GetText()}}
	w.follower = follower{ctx: ctx, done: done, up: up, ch: ch, opts: opts, kind: w}
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

// open implements kind.
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

// release implements kind: the pieces of events lie where they were read.
func (w *watch) release() {}

// reset implements kind.
func (w *watch) reset() {
	w.events.msg, w.listing, w.said, w.invalid = message{}, false, nil, nil
}

// lost implements kind. A version that is gone is followed by a list.
func (w *watch) lost(e *ending) (again bool) {
	gone := expired(e.cause) || w.endsAbruptly(e)
	if gone {
		w.version = ""
	}
	return gone
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

// detour implements kind: an API server that does not stream lists is asked for pages.
func (w *watch) detour(e *ending) bool {
	if !w.tried || w.version != "" || !unstreamable(e) {
		return false
	}
	w.paged = true
	return true
}

// follow watches from w.version on.
func (w *watch) follow() (*live, error) {
	q := w.watchQuery()
	q.Set("resourceVersion", w.version)
	return w.dial(watchPath(w.target), q, w.askFuture)
}

// streamList has the watch itself begin with the objects there are (KEP-3157). It asks for no version, which means the newest: a list never
// goes back in time.
func (w *watch) streamList() (*live, error) {
	q := w.watchQuery()
	q.Set("sendInitialEvents", "true")
	q.Set("resourceVersionMatch", "NotOlderThan")
	l, err := w.dial(watchPath(w.target), q, func(context.Context) (*status.Error, bool) {
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the API server does not begin the list"), false
	})
	if err == nil {
		w.beginList()
	}
	return l, err
}

// unstreamable reports whether a streamed list ended because the API server cannot do that; if something else is wrong with the request,
// the list in pages will show it.
func unstreamable(e *ending) bool {
	switch e.cause.HTTPCode {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return true
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusGone, http.StatusTooManyRequests:
		return false
	}
	return e.said || e.silent // what it says is that etcd cannot tell its progress, or that the resource has no watch cache
}

func (w *watch) watchQuery() url.Values {
	q := selection(w.target)
	q.Set("watch", "true")
	q.Set("allowWatchBookmarks", "true")
	return q
}

// askFuture lists one object at a version not older than the watch's: an API server that has not reached it says so.
func (w *watch) askFuture(ctx context.Context) (verdict *status.Error, again bool) {
	q := selection(w.target)
	q.Set("limit", "1")
	q.Set("resourceVersion", w.version)
	q.Set("resourceVersionMatch", "NotOlderThan")
	res, err := w.up.Get(ctx, watchPath(w.target), q)
	if err != nil {
		if e := status.From(err); inFuture(e) {
			return e, false
		}
		return nil, true
	}
	_ = res.Body.Close() // what it lists is of no interest
	return nil, false
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

// frame implements kind. It stops at a bookmark or an error.
func (w *watch) frame(fragments []websocket.Fragment) (through int, halted bool) {
	w.events.queue = w.queue
	for ; through < len(fragments) && w.said == nil && w.invalid == nil; through++ {
		f := &fragments[through]
		w.said, w.invalid = w.events.add(f.Bytes, f.Text, f.Last)
	}
	if w.invalid == nil {
		w.live.hear()
	}
	return through, w.said != nil || w.invalid != nil
}

// settle implements kind.
func (w *watch) settle() error {
	if w.invalid != nil {
		return w.invalid
	}
	return w.obey()
}

// obey does what a bookmark or an error says.
func (w *watch) obey() error {
	var c control
	err := json.Unmarshal(w.said, &c)
	w.said = nil
	if err != nil {
		return brokenEvent("a bookmark or an error is not JSON").Wrap(err)
	}
	if c.Type == "ERROR" {
		return &ending{cause: said(w.up.Cluster(), c.Object), said: true}
	}
	var o bookmarked
	if err := json.Unmarshal(c.Object, &o); err != nil {
		return brokenEvent("a bookmark holds no object").Wrap(err)
	}
	w.bookmark(&o)
	return nil
}

// bookmarked is the object of a BOOKMARK (https://kubernetes.io/docs/reference/using-api/api-concepts/#watch-bookmarks).
type bookmarked struct {
	Metadata struct {
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
}

// initialEventsEnd is the annotation of the bookmark that ends a streamed list (KEP-3157).
const initialEventsEnd = "k8s.io/initial-events-end"

// bookmark takes the version of a bookmark, which is not delivered: the next event's cursor is beyond it.
func (w *watch) bookmark(o *bookmarked) {
	complete, _ := strconv.ParseBool(o.Metadata.Annotations[initialEventsEnd])
	switch version := o.Metadata.ResourceVersion; {
	case w.listing && complete:
		w.endList(version)
	case !w.listing && nameable(version):
		w.version, w.moved = version, true
	}
}

// offerRun implements kind: the last event of the run carries a cursor.
func (w *watch) offerRun(n int) (taken int) {
	q := w.queue
	marked, version := -1, ""
	if !w.listing {
		if marked, version = q.last(n); marked >= 0 {
			q.pieces[marked].Cursor = w.cursors.at(version)
		}
	}
	taken = w.ch.Offer(q.pieces[q.head : q.head+n])
	if taken == 0 {
		return 0
	}
	if !w.listing {
		if marked >= q.head+taken { // the channel took less than it said it would
			q.pieces[marked].Cursor = ""
			marked, version = q.last(taken)
		}
		if marked >= 0 {
			w.version, w.moved = version, true
		}
	}
	q.head += taken
	w.partial, w.known = q.pieces[q.head-1].More, true
	return taken
}
