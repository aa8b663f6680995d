package bridge

import (
	"bytes"
	"encoding/json"
	"sync"
	"unicode/utf8"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// eventKind is what a bridge tells apart of a watch's events
// (https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.37/#watchevent-v1-meta).
type eventKind uint8

const (
	unread   eventKind = iota // the event's beginning has not come
	change                    // ADDED, MODIFIED, DELETED, or what a later Kubernetes may add: delivered
	bookmark                  // consumed for its version
	failure                   // ERROR: consumed, and the end of its upstream
)

// typePath is where an event's type is, if it is not at the beginning.
var typePath = []string{"type"}

// classify reads the kind of an event off its first bytes, all there are if whole. Every API server puts the type first; what does not and
// does not fit in one piece is no event of a watch.
func classify(b []byte, whole bool) (eventKind, bool) {
	if rest, ok := bytes.CutPrefix(b, []byte(`{"type":"`)); ok && len(rest) > 0 && (rest[0] == 'A' || rest[0] == 'M' || rest[0] == 'D') {
		return change, true
	}
	if !whole {
		b = b[:min(len(b), maxTypeOffset)]
	}
	s := scanner{path: typePath}
	if !s.feed(b) {
		return unread, false
	}
	switch s.found {
	case "BOOKMARK":
		return bookmark, true
	case "ERROR":
		return failure, true
	}
	return change, true
}

const (
	// maxTypeOffset is where the type of an event that comes in pieces must have ended.
	maxTypeOffset = 1 << 10
	// maxControl is how large a bookmark or an error may be, in bytes.
	maxControl = 64 << 10
)

// control is a bookmark or an error: an event that is the bridge's, not the client's.
type control struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// message is what is known of the event that is being read.
type message struct {
	kind  eventKind
	text  bool
	begun bool    // pieces of it were made
	held  []byte  // of a bookmark or error: what has come so far
	scan  scanner // of a change that comes in pieces
	runes runes   // of a text that comes in pieces
}

// framer makes pieces of events. Whatever is in its queue, it refers to the bytes that it was given.
type framer struct {
	text  bool // Immutable. The channel asked for text.
	queue *queue
	msg   message
}

// add takes the next bytes of the current event; last says that they are its last. It returns the event itself if it is a bookmark or an
// error and whole; that is valid only as long as b.
func (f *framer) add(b []byte, text, last bool) (whole []byte, err error) {
	m := &f.msg
	if m.kind == unread {
		if len(b) == 0 && last {
			return nil, nil // nothing was said
		}
		kind, ok := classify(b, last)
		if !ok {
			return nil, brokenEvent("what came is not an event of a watch")
		}
		m.kind, m.text = kind, text && f.text
	}
	if m.kind == change {
		return nil, f.piece(b, last)
	}
	return f.hold(b, last)
}

// hold puts a bookmark or an error together.
func (f *framer) hold(b []byte, last bool) ([]byte, error) {
	m := &f.msg
	if len(m.held)+len(b) > maxControl {
		return nil, brokenEvent("a bookmark or an error is longer than 64 KiB")
	}
	if !last {
		m.held = append(m.held, b...)
		return nil, nil
	}
	if len(m.held) > 0 {
		b = append(m.held, b...)
	}
	f.msg = message{}
	return b, nil
}

// piece queues the next bytes of a change.
func (f *framer) piece(b []byte, last bool) error {
	m := &f.msg
	if !m.begun && last {
		f.queue.add(data.Piece{Bytes: b, Text: m.text && utf8.Valid(b)}, end{kind: wholeEvent})
		f.msg = message{}
		return nil
	}
	if !m.begun {
		m.begun, m.scan = true, scanner{path: versionPath}
	}
	m.scan.feed(b)
	if !m.text {
		f.queue.add(data.Piece{Bytes: b, More: !last}, m.end(last))
	} else if err := f.cut(b, last); err != nil {
		return err
	}
	if last {
		f.msg = message{}
	}
	return nil
}

// cut queues the next bytes of a text in pieces that end with whole runes.
func (f *framer) cut(b []byte, last bool) error {
	m := &f.msg
	first, rest, ok := m.runes.cut(b, last)
	if !ok {
		return brokenEvent("a text message that was begun is not UTF-8 (RFC 6455 section 8.1)")
	}
	if len(first) > 0 {
		more := !last || len(rest) > 0
		f.queue.add(data.Piece{Bytes: first, Text: true, More: more}, m.end(!more))
		if !more {
			return nil
		}
	}
	if len(rest) > 0 || last {
		f.queue.add(data.Piece{Bytes: rest, Text: true, More: !last}, m.end(last))
	}
	return nil
}

// end is what the queue notes of a piece of an event that comes in several.
func (m *message) end(last bool) end {
	if !last {
		return end{kind: partOfEvent}
	}
	return end{kind: endOfEvent, version: m.scan.found}
}

func brokenEvent(what string) *status.Error {
	return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, "%s", what)
}

// queue are the pieces that were framed and not taken.
type queue struct {
	pieces []data.Piece
	ends   []end // one for each piece
	head   int   // how many were taken
}

// end says what of an event ends with a piece.
type end struct {
	kind    endKind
	version string // with endOfEvent
}

type endKind uint8

const (
	partOfEvent endKind = iota
	wholeEvent          // the piece is the event; its version is looked for when it is needed
	endOfEvent
)

var queues = sync.Pool{New: func() any { return new(queue) }}

// release gives the queue back.
func (q *queue) release() {
	q.reset()
	queues.Put(q)
}

// reset empties the queue. What was not taken is dropped.
func (q *queue) reset() {
	clear(q.pieces)
	clear(q.ends)
	*q = queue{pieces: q.pieces[:0], ends: q.ends[:0]}
}

func (q *queue) add(p data.Piece, e end) {
	q.pieces, q.ends = append(q.pieces, p), append(q.ends, e)
}

func (q *queue) empty() bool { return q.head == len(q.pieces) }

// need is the credit that the next piece takes.
func (q *queue) need() int { return len(q.pieces[q.head].Bytes) + pieceCost }

// maxRun is the most that is offered at once, in credit, unless a single piece is more.
const maxRun = 64 << 10

// fit is how many of the next pieces make one run within the credit.
func (q *queue) fit(credit int) (n int) {
	cost := 0
	for i := q.head; i < len(q.pieces); i++ {
		cost += len(q.pieces[i].Bytes) + pieceCost
		if cost > credit || cost > maxRun && n > 0 {
			break
		}
		n++
	}
	return n
}

// last is the last event that ends within the next n pieces: the index of its last piece, and its version. -1 when none ends there.
func (q *queue) last(n int) (index int, version string) {
	for i := q.head + n - 1; i >= q.head; i-- {
		switch q.ends[i].kind {
		case wholeEvent:
			return i, resourceVersion(q.pieces[i].Bytes)
		case endOfEvent:
			return i, q.ends[i].version
		}
	}
	return -1, ""
}
