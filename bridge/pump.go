package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/websocket"
)

// pump reads the upstream on this goroutine until it ends, always within credit. It is for upstreams that are not left to a loop.
func (l *live) pump() error {
	w := l.watch
	ctx, cancel := context.WithCancel(w.ctx)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		l.conn.Close(websocket.CodeGoingAway) // who waits for it to say something waits no longer
		close(closed)
	})
	defer func() {
		cancel()
		<-closed
	}()
	l.attend(cancel)
	need := w.quantum()
	for {
		err := w.await(ctx, need)
		if err == nil {
			need, err = l.step(l.wait)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return lost(err)
		default:
			return err
		}
	}
}

// wait reads the upstream, waiting for it to say something.
func (l *live) wait(limit, part int) (err error) {
	l.batch, err = l.conn.Read(limit, part)
	return err
}

// reading is what a read has brought and the channel has not taken yet: usually nothing between two steps.
type reading struct {
	batch   *websocket.Batch
	next    int    // first fragment that is not framed
	said    []byte // a bookmark or error that waits until what came before it is taken
	invalid error  // what came is no event; this too waits
}

// step takes what there is to read, at most the credit, frames it and offers it. It returns the credit that is needed for the next step, and
// errNothing when read has brought nothing. A step blocks in read only, if at all.
func (l *live) step(read func(limit, part int) error) (need int, err error) {
	w := l.watch
	if l.batch == nil {
		credit := w.ch.Credit()
		if credit < w.quantum() {
			return w.quantum(), nil // a budget was cut since
		}
		if err := read(min(credit, websocket.MaxRead+pieceCost), w.ch.MaxPiece()); err != nil {
			return 0, lost(err)
		}
		if l.batch == nil {
			return 0, errNothing
		}
		w.queue = queues.Get().(*queue)
	}
	for {
		if need := w.offer(); need > 0 {
			return need, nil
		}
		switch {
		case l.invalid != nil:
			return 0, l.invalid
		case l.said != nil:
			if err := l.obey(); err != nil {
				return 0, err
			}
		case l.next < len(l.batch.Fragments):
			l.frame()
		default:
			l.release()
			return w.quantum(), nil
		}
	}
}

// errNothing says that there was nothing to read.
var errNothing = errors.New("nothing to read")

// release gives back what the read brought.
func (l *live) release() {
	if l.batch == nil {
		return
	}
	l.watch.queue.release()
	l.batch.Release()
	l.watch.queue, l.reading = nil, reading{}
}

// frame queues fragments, up to a bookmark or an error.
func (l *live) frame() {
	for l.said == nil && l.invalid == nil && l.next < len(l.batch.Fragments) {
		f := &l.batch.Fragments[l.next]
		l.said, l.invalid = l.watch.add(f.Bytes, f.Text, f.Last)
		l.next++
	}
	if l.invalid == nil {
		l.hear()
	}
}

// obey does what a bookmark or an error says.
func (l *live) obey() error {
	var c control
	err := json.Unmarshal(l.said, &c)
	l.said = nil
	if err != nil {
		return brokenEvent("a bookmark or an error is not JSON").Wrap(err)
	}
	if c.Type == "ERROR" {
		return &ending{cause: said(l.watch.up.Cluster(), c.Object), said: true}
	}
	var o bookmarked
	if err := json.Unmarshal(c.Object, &o); err != nil {
		return brokenEvent("a bookmark holds no object").Wrap(err)
	}
	l.watch.bookmark(&o)
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
