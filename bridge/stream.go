package bridge

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/websocket"
)

// live is an upstream that stands.
type live struct {
	// Immutable after begin.
	follower *follower
	conn     *websocket.Conn
	since    time.Time
	suspect  suspicion // nil when silence is nothing

	interrupted atomic.Bool // by silence: nothing more is expected of it

	// Owned by run's goroutine, or by the loop's.
	reading
	silence *silence // nil once it has said something, or nobody minds
	parked
}

// begin takes charge of conn, which ended closes.
func (f *follower) begin(conn *websocket.Conn, suspect suspicion) *live {
	f.live = &live{follower: f, conn: conn, since: time.Now(), suspect: suspect}
	conn.Configure(websocket.Options{FragmentCost: pieceCost})
	return f.live
}

// attend looks after the upstream from now on. wake has its reading look at interrupted.
func (l *live) attend(wake func()) {
	o := l.follower.opts
	if l.suspect != nil {
		l.silence = listen(l.follower.ctx, o.Silence, func() {
			l.interrupted.Store(true)
			wake()
		}, l.suspect)
	}
	l.conn.Keepalive(o.PingEvery, o.PingTimeout)
}

// end closes the upstream and returns when nothing of it runs any more.
func (l *live) end() {
	l.hear()
	l.release()
	l.unpark()
	l.conn.Close(websocket.CodeGoingAway)
	l.follower.live = nil
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
	e.had, e.stood, e.heard = true, time.Since(l.since), l.silence == nil
	if !e.heard {
		if verdict := l.silence.stop(); verdict != nil {
			e.cause, e.proper, e.silent = verdict, false, true
		}
	}
	return e
}
