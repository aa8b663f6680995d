package bridge

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// follow watches from w.version on.
func (w *watch) follow() (*live, error) {
	q := w.watchQuery()
	q.Set("resourceVersion", w.version)
	return w.stream(q, w.askFuture)
}

// streamList has the watch itself begin with the objects there are (KEP-3157). It asks for no version, which means the newest: a list never
// goes back in time.
func (w *watch) streamList() (*live, error) {
	q := w.watchQuery()
	q.Set("sendInitialEvents", "true")
	q.Set("resourceVersionMatch", "NotOlderThan")
	l, err := w.stream(q, func(context.Context) (*status.Error, bool) {
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the API server does not begin the list"), false
	})
	if err == nil {
		w.beginList()
	}
	return l, err
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

// stream opens an upstream. When it says nothing at all for Options.Silence, suspect is asked why; what it returns ends the upstream.
func (w *watch) stream(query url.Values, suspect suspicion) (*live, error) {
	conn, subprotocol, err := w.up.Dial(w.ctx, watchPath(w.target), query)
	if err != nil {
		return nil, refused(err)
	}
	l := w.begin(conn, suspect)
	w.stands(subprotocol)
	return l, nil
}

// live is an upstream that stands.
type live struct {
	// Immutable after begin.
	watch   *watch
	conn    *websocket.Conn
	since   time.Time
	suspect suspicion

	interrupted atomic.Bool // by silence: nothing more is expected of it

	// Owned by run's goroutine, or by the loop's.
	reading
	silence *silence // nil once an event or a bookmark has come
	parked
}

// begin takes charge of conn, which ended closes.
func (w *watch) begin(conn *websocket.Conn, suspect suspicion) *live {
	w.live = &live{watch: w, conn: conn, since: time.Now(), suspect: suspect}
	conn.Configure(websocket.Options{FragmentCost: pieceCost})
	return w.live
}

// attend looks after the upstream from now on. wake has its reading look at interrupted.
func (l *live) attend(wake func()) {
	o := l.watch.opts
	l.silence = listen(l.watch.ctx, o.Silence, func() {
		l.interrupted.Store(true)
		wake()
	}, l.suspect)
	l.conn.Keepalive(o.PingEvery, o.PingTimeout)
}

// end closes the upstream and returns when nothing of it runs any more.
func (l *live) end() {
	l.hear()
	l.release()
	l.unpark()
	l.conn.Close(websocket.CodeGoingAway)
	l.watch.live = nil
}

// hear notes that the upstream has said something.
func (l *live) hear() {
	if l.silence != nil {
		_ = l.silence.stop() // whatever it was about to say, the upstream has spoken
		l.silence = nil
	}
}

// ended ends the upstream, whose reading has ended with err, and returns why it ended.
func (l *live) ended(err error) error {
	defer l.end()
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
