package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// follow watches from w.version on.
func (w *watch) follow(ctx context.Context) error {
	q := w.watchQuery()
	q.Set("resourceVersion", w.version)
	return w.stream(ctx, q, w.askFuture)
}

// streamList has the watch itself begin with the objects there are (KEP-3157). It asks for no version, which means the newest: a list never
// goes back in time.
func (w *watch) streamList(ctx context.Context) error {
	q := w.watchQuery()
	q.Set("sendInitialEvents", "true")
	q.Set("resourceVersionMatch", "NotOlderThan")
	return w.stream(ctx, q, func(context.Context) (*status.Error, bool) {
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the API server does not begin the list"), false
	})
}

// unstreamable reports whether a streamed list ended because the API server cannot do that; if something else is wrong with the request,
// the list in pages will show it.
func (w *watch) unstreamable(err error) bool {
	var e *ending
	if !errors.As(err, &e) {
		return false
	}
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

// stream opens an upstream and pumps it until it ends. When it says nothing at all for Options.Silence, suspect is asked why; what it
// returns ends the upstream.
func (w *watch) stream(ctx context.Context, query url.Values, suspect suspicion) error {
	conn, subprotocol, err := w.up.Dial(ctx, watchPath(w.target), query)
	if err != nil {
		return refused(err)
	}
	l := w.begin(ctx, conn, suspect)
	defer l.end()
	w.stands(subprotocol)
	if query.Has("sendInitialEvents") {
		w.beginList()
	}
	return l.ending(w.pump(l))
}

// live is an upstream that stands.
type live struct {
	// Immutable after begin.
	ctx    context.Context // ends with the channel's, and with the upstream
	cancel context.CancelFunc
	conn   *websocket.Conn
	since  time.Time
	closed chan struct{} // closed when ctx's end has closed conn

	// Owned by run's goroutine.
	silence *silence // nil once an event or a bookmark has come
}

// begin takes charge of conn: it is closed when ctx ends, or by end.
func (w *watch) begin(ctx context.Context, conn *websocket.Conn, suspect suspicion) *live {
	ctx, cancel := context.WithCancel(ctx)
	l := &live{ctx: ctx, cancel: cancel, conn: conn, since: time.Now(), closed: make(chan struct{})}
	context.AfterFunc(ctx, func() {
		conn.Close(websocket.CodeGoingAway)
		close(l.closed)
	})
	conn.Configure(websocket.Options{FragmentCost: pieceCost})
	conn.Keepalive(w.opts.PingEvery, w.opts.PingTimeout)
	l.silence = listen(ctx, w.opts.Silence, cancel, suspect)
	return l
}

// end closes the upstream and returns when nothing of it runs any more.
func (l *live) end() {
	l.cancel()
	l.hear()
	<-l.closed
}

// hear notes that the upstream has said something.
func (l *live) hear() {
	if l.silence != nil {
		_ = l.silence.stop() // whatever it was about to say, the upstream has spoken
		l.silence = nil
	}
}

// ending is why the upstream ended, given why its pump did.
func (l *live) ending(err error) error {
	var e *ending
	if !errors.As(err, &e) {
		return err
	}
	e.stood, e.heard = time.Since(l.since), l.silence == nil
	if !e.heard {
		if verdict := l.silence.stop(); verdict != nil {
			e.cause, e.proper, e.silent = verdict, false, true
		}
	}
	return e
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

// pump reads the upstream until it ends, always within credit.
func (w *watch) pump(l *live) error {
	r := reading{watch: w, live: l}
	defer r.release()
	need := w.quantum()
	for {
		err := w.await(l.ctx, need)
		if err == nil {
			need, err = r.step()
		}
		switch {
		case err == nil:
		case l.ctx.Err() != nil:
			return lost(err)
		default:
			return err
		}
	}
}

// reading is what a read has brought and the channel has not taken yet: usually nothing between two steps.
type reading struct {
	*watch
	live  *live
	batch *websocket.Batch
	next  int    // first fragment that is not framed
	said  []byte // a bookmark or error that waits until what came before it is taken
}

// step takes what there is to read, at most the credit, frames it and offers it. It returns the credit that is needed for the next step. A
// step blocks in the upstream's Read only.
func (r *reading) step() (need int, err error) {
	if r.batch == nil {
		credit := r.ch.Credit()
		if credit < r.quantum() {
			return r.quantum(), nil // a budget was cut since
		}
		r.batch, err = r.live.conn.Read(min(credit, websocket.MaxRead+pieceCost), r.ch.MaxPiece())
		if err != nil {
			return 0, lost(err)
		}
		r.queue = queues.Get().(*queue)
	}
	for {
		if need := r.offer(); need > 0 {
			return need, nil
		}
		switch {
		case r.said != nil:
			err = r.obey()
		case r.next < len(r.batch.Fragments):
			err = r.frame()
		default:
			r.release()
			return r.quantum(), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// release gives back what the read brought.
func (r *reading) release() {
	if r.batch == nil {
		return
	}
	r.queue.release()
	r.batch.Release()
	r.batch, r.queue, r.next, r.said = nil, nil, 0, nil
}

// frame queues fragments, up to a bookmark or an error.
func (r *reading) frame() error {
	for r.said == nil && r.next < len(r.batch.Fragments) {
		f := &r.batch.Fragments[r.next]
		said, err := r.add(f.Bytes, f.Text, f.Last)
		if err != nil {
			return err
		}
		r.said = said
		r.next++
	}
	r.live.hear()
	return nil
}

// obey does what a bookmark or an error says.
func (r *reading) obey() error {
	var c control
	err := json.Unmarshal(r.said, &c)
	r.said = nil
	if err != nil {
		return brokenEvent("a bookmark or an error is not JSON").Wrap(err)
	}
	if c.Type == "ERROR" {
		return &ending{cause: said(r.up.Cluster(), c.Object), said: true}
	}
	var o bookmarked
	if err := json.Unmarshal(c.Object, &o); err != nil {
		return brokenEvent("a bookmark holds no object").Wrap(err)
	}
	r.bookmark(&o)
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

// offer hands over what is queued, run by run, and returns the credit that the next piece lacks; 0 when nothing is left.
func (w *watch) offer() (need int) {
	for q := w.queue; !q.empty(); {
		n := q.fit(w.ch.Credit())
		if n == 0 || w.offerRun(n) == 0 {
			return q.need()
		}
	}
	return 0
}

// offerRun hands over the next n pieces as a run, whose last event carries a cursor.
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
