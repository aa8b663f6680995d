package bridge

import (
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// detour implements kind: it draws the conclusions from an upstream's end. What such an end leaves to be asked is asked at once.
func (g *logs) detour(e *ending) bool {
	if !e.had {
		return g.stage == logRest && g.missing(e)
	}
	moved := g.pos != g.from
	if g.moved = moved; moved {
		g.attempt, g.reader.lenient, g.doubted = 0, false, time.Time{}
	}
	g.silent = g.silent || g.virgin && e.stood >= g.opts.Steady
	if !e.proper {
		g.proper, g.empty, g.amiss = 0, 0, 0
		g.restartEnd()
		return false
	}
	return g.conclude(moved)
}

// restartEnd forgets a last line that did not come whole.
func (g *logs) restartEnd() {
	switch {
	case g.stage != logEnd:
	case g.pos.offset > 0:
		g.pos = position{instance: g.pos.instance}
	case g.pos.begun():
		g.stage, g.virgin = logCurrent, false
	}
}

// promptAttempts is how many attempts make the wait for the next one longer while a container is waited for: up to 6.4 s, which is less than a
// kubelet takes before it starts a container anew for the second time, so that none starts and ends unseen.
const promptAttempts = 6

// lost implements kind. After an end that looks proper the API server may not know yet what became of the container.
func (g *logs) lost(e *ending) (again bool) {
	doubted := !g.doubted.IsZero()
	if doubted || g.idle {
		g.attempt = min(g.attempt, promptAttempts)
	}
	e.quiet = e.had && doubted || e.proper && g.attempt < quietAttempts
	return e.proper
}

// newsTime is how long an API server may take to learn of a container that was started anew: its kubelet has that one's log at once.
const newsTime = 10 * time.Second

// doubts reports whether the log, which is not what the client has, may be that of a new container, of which the API server has yet to learn. It is
// asked for again then.
func (g *logs) doubts() bool {
	if g.settled || !g.seen {
		return false
	}
	if g.doubted.IsZero() {
		g.doubted = time.Now()
	}
	return time.Since(g.doubted) < newsTime
}

// manyEnds is how many proper ends in a row are believed although each has brought something: the log is written faster than it is read.
const manyEnds = 8

// conclude draws the conclusions from a proper end.
func (g *logs) conclude(moved bool) (again bool) {
	found := g.reader.found() || g.reader.lenient
	if found {
		g.doubted = time.Time{}
	}
	g.count(moved, found)
	switch {
	case g.stage == logEnd:
		g.stage, g.virgin, g.silent = logCurrent, !g.pos.begun(), true
		g.tellEnd()
		return true
	case g.stage == logRest && !moved:
		if found && g.proper > 1 || g.amiss > 1 {
			g.stage, g.carried = logRested, !found
		}
		return true
	case moved:
		g.whole = g.check && !g.follows() && g.proper >= manyEnds
		return true
	case g.check && g.amiss > 1 && g.doubts():
		return false
	case g.check && g.amiss > 1:
		g.tellGap("the log is shorter than what was read of it before: it was rotated or truncated")
		g.reader.lenient, g.whole = true, true
		return true
	}
	g.whole = g.proper > 1 && g.check && found || g.reader.spoken && found // the kubelet says why there is no more
	return g.whole || !g.follows() && g.proper == 1
}

// mayBeAnother reports whether the log that was had again may be that of a new container, where nothing was read of the old one's that would show it.
// What the old one has written unread would be lost without a word.
func (g *logs) mayBeAnother() bool {
	if !g.running || g.pos.begun() || g.stage > logEnd {
		return false
	}
	first := g.pos.instance.restarts == 0
	switch {
	case first && g.firstRun():
		return false
	case g.doubts():
		return true
	case first: // the kubelet has one before it
		g.tellGap("the container was started anew; the log of the one before may be missing")
		g.strayed = true
	}
	return false
}

// anotherLog is why an upstream is given up whose log may not be the one that was read.
func anotherLog() *ending {
	return &ending{cause: status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the log is not known to be the one that was read; it is asked for again")}
}

// count counts the ends in a row that looked proper.
func (g *logs) count(moved, found bool) {
	g.proper++
	g.empty++
	g.amiss++
	if moved {
		g.empty = 0
	}
	if moved || found {
		g.amiss = 0
	}
}

// missing takes note that there is no log of the container that was started anew.
func (g *logs) missing(e *ending) bool {
	if code := e.cause.HTTPCode; code != http.StatusBadRequest && code != http.StatusNotFound {
		return false
	}
	g.stage = logRested
	g.tellGap("the log of the container that was started anew is gone; its last lines may be missing")
	return true
}

// refusal is what becomes of a channel whose log is refused: one that had an upstream waits for its container to run.
func (g *logs) refusal(err error) error {
	var e *ending
	if !errors.As(err, &e) || !g.granted {
		return err
	}
	switch code := e.cause.HTTPCode; {
	case code == http.StatusNotFound && g.seen: // the kubelet has just started: a pod that is gone would not have been seen
		return waited(e)
	case g.stage == logRest:
		return err
	case code == http.StatusNotFound:
		return g.gone("the pod is gone")
	case code == http.StatusBadRequest && g.seen: // it is waiting to start
		return waited(e)
	}
	return err
}

// waited is a refusal that will not last.
func waited(e *ending) *ending {
	cause := *e.cause
	cause.Code, cause.HTTPCode = codes.Unavailable, 0
	return &ending{cause: &cause}
}

// gone is the end of a log whose container is gone.
func (g *logs) gone(what string) *status.Error {
	return status.New(codes.NotFound, sluicev1.Reason_REASON_TARGET_GONE, "%s; the log ends", what)
}

// notRunning is why there is no upstream now.
func (g *logs) notRunning() *ending {
	g.idle = true
	return &ending{cause: status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the container does not run; it is waited for")}
}
