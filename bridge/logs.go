package bridge

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// logSubprotocol has the API server send the log's bytes as they are.
const logSubprotocol = "binary.k8s.io"

// quietAttempts is how many attempts after an end that looks proper are made without a word: so long it may take an API server to learn that a
// container has ended.
const quietAttempts = 5

// logs follows the log of a container, and of those that take its place. An API server says nothing of how a log ends: what has ended because the
// log has, because it was rotated, or because something broke, all end alike. So at each end the pod is asked, and the log once more.
type logs struct {
	follower

	// Immutable after newLogs.
	target  *sluicev1.LogTarget
	cursors *cursors

	// Owned as the follower.
	reader  logReader
	through int      // bytes of the first fragment that were read before a gap
	pos     position // after all that the channel has taken
	stage   logStage
	granted bool      // an upstream was had, or a cursor shows that one was
	from    position  // where the upstream began
	virgin  bool      // the client has nothing: the target says where to begin
	silent  bool      // an upstream stood and brought nothing: the log was empty
	seen    bool      // the caller may see the pod
	dialled time.Time // first
	check   bool      // the upstream shows whether there is more: it was opened when the log should have been complete
	whole   bool      // it has shown that there is not
	proper  int       // proper ends in a row
	empty   int       // those at last that brought nothing
	amiss   int       // those at last that did not even bring what the client has
	carried bool      // the position may be one in the new container's log: not in the old one's, as was believed
	strayed bool      // what was read since a gap may be a new container's: the API server did not learn of it in time, if there is one
	doubted time.Time // since when what comes has not been what the client has, and may be a new container's; zero when it has been
	running bool      // the container runs, as far as is known
	settled bool      // no other container has taken its place when the log was last asked for, whatever the API server has yet to learn
	idle    bool      // the container does not run now; it is waited for
}

// logStage is what the upstream is read for.
type logStage uint8

const (
	logCurrent logStage = iota // the log of the container as it is
	logEnd                     // its last line, behind which the client's log begins
	logRest                    // what the container wrote at last that was started anew since
	logRested                  // all of that was delivered
)

var _ kind = (*logs)(nil)

// startLogs is Start for a log. Nothing is written to its upstream.
func startLogs(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options, done func(Outcome)) {
	g, err := newLogs(ctx, up, open, ch, opts, done)
	if err != nil {
		done(Outcome{Err: err})
		return
	}
	g.run()
}

func newLogs(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options, done func(Outcome)) (*logs, error) {
	target := open.GetTarget().GetLogs()
	g := &logs{target: target, cursors: logCursors(up.Identity(), target), virgin: true}
	g.follower = follower{ctx: ctx, done: done, up: up, ch: ch, opts: opts, kind: g}
	g.reader.stamps, g.reader.text = target.GetTimestamps(), open.GetText()
	if open.GetCursor() == "" {
		if g.follows() && target.TailLines != nil && target.GetTailLines() == 0 {
			g.stage = logEnd
		}
		return g, nil
	}
	p, err := g.cursors.position(open.GetCursor())
	if err != nil {
		return nil, err
	}
	g.pos, g.known, g.granted, g.virgin = p, true, true, false
	return g, nil
}

// validateLogs is Validate for a log.
func validateLogs(t *sluicev1.LogTarget) error {
	if err := validatePod("logs", t.GetNamespace(), t.GetPod(), t.GetContainer()); err != nil {
		return err
	}
	switch {
	case t.GetSince() != nil && t.GetSinceTime() != nil:
		return invalidField("logs.since_time", "there is a since already")
	case t.GetSince() != nil && (t.GetSince().CheckValid() != nil || t.GetSince().AsDuration() <= 0):
		return invalidField("logs.since", "it is not a time that has gone by")
	case t.GetSinceTime() != nil && t.GetSinceTime().CheckValid() != nil:
		return invalidField("logs.since_time", "it is not a time")
	case t.GetTailLines() < 0:
		return invalidField("logs.tail_lines", "it is negative")
	}
	return nil
}

// follows reports whether the log goes on. That of an earlier container does not.
func (g *logs) follows() bool { return g.target.GetFollow() && !g.target.GetPrevious() }

// open implements kind.
func (g *logs) open() (*live, error) {
	again := g.granted
	if again {
		if err := g.decide(); err != nil {
			return nil, err
		}
		g.settled = g.settled || !g.doubted.IsZero() && g.pos.instance.restarts == 0 && g.firstRun()
	}
	l, err := g.dial(podPath(g.target.GetNamespace(), g.target.GetPod(), "log"), g.query(), nil, logSubprotocol)
	if err != nil {
		return nil, g.refusal(err)
	}
	g.idle = false
	if g.dialled.IsZero() {
		g.dialled = time.Now()
	}
	if !g.granted {
		g.granted = true
		g.identify()
	}
	g.whole, g.from = false, g.pos
	g.reader.begins(g.pos)
	g.reader.hidden = g.stage == logEnd
	if again && g.mayBeAnother() {
		return nil, l.ended(anotherLog())
	}
	return l, nil
}

// query is what to ask for: what continues the position, or what the target says where there is none.
func (g *logs) query() url.Values {
	t, q := g.target, url.Values{"timestamps": {"true"}}
	if t.GetContainer() != "" {
		q.Set("container", t.GetContainer())
	}
	if t.GetPrevious() || g.stage == logRest {
		q.Set("previous", "true")
	} else if g.follows() && g.stage != logEnd {
		q.Set("follow", "true")
	}
	switch {
	case g.pos.begun():
		q.Set("sinceTime", g.pos.since().Format(time.RFC3339))
	case g.virgin:
		g.beginning(q)
	}
	return q
}

// beginning adds where the target has the log begin. A time ago is one from when it was asked for first.
func (g *logs) beginning(q url.Values) {
	t := g.target
	if t.GetSince() != nil {
		ago := t.GetSince().AsDuration()
		if !g.dialled.IsZero() {
			ago += time.Since(g.dialled)
		}
		q.Set("sinceSeconds", strconv.FormatInt(int64((ago+time.Second-1)/time.Second), 10))
	}
	if t.GetSinceTime() != nil {
		q.Set("sinceTime", t.GetSinceTime().AsTime().Format(time.RFC3339))
	}
	switch {
	case t.TailLines == nil || g.silent: // what came since then is more than a tail
	case g.stage == logEnd:
		q.Set("tailLines", "1")
	default:
		q.Set("tailLines", strconv.FormatInt(t.GetTailLines(), 10))
	}
}

// frame implements kind. It stops at a gap.
func (g *logs) frame(fragments []websocket.Fragment) (through int, halted bool) {
	r := &g.reader
	r.fill(g.queue, g.ch.MaxPiece())
	for ; through < len(fragments) && !r.gap; through++ {
		b := fragments[through].Bytes[g.through:]
		if n := r.read(b); n < len(b) {
			g.through += n
			break
		}
		g.through = 0
	}
	r.flush()
	if r.hidden {
		g.pos = r.pos
	}
	if r.found() && !r.gap {
		g.doubted = time.Time{}
		g.carried = g.carried && !r.timed
	}
	return through, r.gap
}

// settle implements kind: it tells of the gap, unless it may be none.
func (g *logs) settle() error {
	if g.doubts() {
		return anotherLog()
	}
	g.tellGap("the log was rotated or truncated; lines before the next one are missing")
	g.strayed = !g.settled
	g.reader.lenient = true // until there is a new position
	g.reader.goOn()
	g.reader.flush()
	return nil
}

// tellGap says that something is missing after all that the client has, and that the log of a new container begins if that was not said.
func (g *logs) tellGap(what string) {
	g.say(&sluicev1.ChannelState{
		Kind:   sluicev1.ChannelState_KIND_GAP,
		Status: status.New(codes.DataLoss, sluicev1.Reason_REASON_DATA_LOSS, "%s", what).Proto(),
		Cursor: g.cursors.atPosition(&g.pos),
	})
	if g.carried {
		g.carried = false
		g.tellRestart("") // the next line need not be its log's first
	}
}

func (g *logs) tellRestart(cursor string) {
	g.say(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RESTARTED, Cursor: cursor})
}

// tellEnd gives the client the cursor of the log's end, with no bytes, where its log begins behind that: a client that is lost before the first
// line would begin behind the end that the log has then. A channel that takes nothing now goes without.
func (g *logs) tellEnd() {
	cursor := g.cursors.atPosition(&g.pos)
	if cursor == "" {
		cursor = g.cursors.atBeginning(&g.pos)
	}
	if cursor != "" && g.ch.Credit() >= pieceCost {
		_ = g.ch.Offer([]data.Piece{{Cursor: cursor}}) // see above
	}
}

// offerRun implements kind: every piece carries a cursor.
func (g *logs) offerRun(n int) (taken int) {
	q, places := g.queue, g.reader.places
	for i := q.head; i < q.head+n; i++ {
		q.pieces[i].Cursor = g.cursors.atPosition(&places[i])
	}
	taken = g.ch.Offer(q.pieces[q.head : q.head+n])
	if taken == 0 {
		return 0
	}
	q.head += taken
	if p := &places[q.head-1]; p.begun() && *p != g.pos {
		g.pos, g.virgin, g.reader.lenient = *p, false, false
	}
	g.known = true
	return taken
}

// release implements kind.
func (g *logs) release() { g.reader.release() }

// reset implements kind.
func (g *logs) reset() { g.through = 0 }
