package bridge

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/ready"
)

// parked is what an upstream needs that a readiness loop drives: no goroutine is its own. The loop lets it go when the upstream or the channel
// has ended, and resume goes on, on a goroutine.
type parked struct {
	// Immutable once armed.
	handle *ready.Handle
	wake   func()      // has the loop call Step
	stop   func() bool // ends the waiting for the channel's end

	armed atomic.Bool // all of the above is set

	// Owned by the loop, then by resume.
	drained bool        // this turn's read has emptied the socket
	hangup  bool        // the peer has ended, which is still to be read
	err     error       // why the upstream was let go
	need    int         // credit that is waited for; 0 for none
	had     int         // credit when that began
	began   time.Time   // when that began
	stalls  *time.Timer // wakes when it has taken too long; nil until credit was waited for
}

var _ ready.Source = (*live)(nil)

// park leaves the upstream to the readiness loop, if there is one and the upstream is a socket. From then on nothing of it may be touched here.
func (l *live) park() (parked bool, err error) {
	loops := l.follower.opts.Loops
	if loops == nil {
		return false, nil
	}
	l.wake = func() { l.handle.Wake() }
	fd, ok := l.conn.Detach(l.wake)
	if !ok {
		return false, nil
	}
	if l.handle, err = loops.Add(fd, l); err != nil {
		return false, lost(err)
	}
	l.stop = context.AfterFunc(l.follower.ctx, l.wake) // harmless when it comes after the end
	l.attend(l.wake)
	l.armed.Store(true)
	l.handle.Wake()
	return true, nil
}

// unpark ends what wakes the loop.
func (l *live) unpark() {
	if l.stop != nil {
		l.stop()
	}
	if l.stalls != nil {
		l.stalls.Stop()
	}
}

// Step implements ready.Source.
func (l *live) Step(hangup bool) (next ready.Next) {
	l.hangup = l.hangup || hangup
	if !l.armed.Load() {
		return ready.Pause
	}
	defer func() {
		if e := panicked(recover()); e != nil {
			l.err = e
		}
		if l.err != nil {
			next = ready.Leave
		}
	}()
	next, l.err = l.turn()
	return next
}

// Left implements ready.Source.
func (l *live) Left() { go l.follower.resume(l, l.err) }

// turn is one turn of the loop: a step, if there is credit for it.
func (l *live) turn() (ready.Next, error) {
	if l.follower.ctx.Err() != nil || l.interrupted.Load() {
		return ready.Leave, lost(net.ErrClosed)
	}
	if l.need > 0 {
		if l.follower.ch.Credit() < l.need {
			return l.await(l.need)
		}
		l.need = 0
		l.stalls.Stop()
	}
	l.drained = false // nothing is known before it is read
	need, err := l.step(l.try)
	nothing := errors.Is(err, errNothing)
	switch {
	case (nothing || err == nil && l.batch == nil && l.drained) && !l.hangup:
		l.conn.Expect()
		return ready.Await, nil
	case nothing: // there is still the end, of which nobody tells again
		return ready.Again, nil
	case err != nil:
		return ready.Leave, err
	}
	return l.await(need)
}

// try reads the upstream if it has said something.
func (l *live) try(limit, part int) (err error) {
	l.batch, l.drained, err = l.conn.TryRead(limit, part)
	return err
}

// await pauses until the channel takes n bytes, or goes on if it does. It gives up with errStalled when for as long as Options.Stall the channel took
// nothing at all.
func (l *live) await(n int) (ready.Next, error) {
	f := l.follower
	told, err := f.ch.NotifyCredit(n, l.wake)
	if !told || err != nil {
		l.need = 0
		return ready.Again, err
	}
	credit := f.ch.Credit()
	switch {
	case l.need == 0 || credit > l.had && time.Since(l.began) >= f.opts.Stall:
		l.need, l.had, l.began = n, credit, time.Now()
		l.restart()
	case time.Since(l.began) >= f.opts.Stall:
		return ready.Leave, errStalled
	}
	return ready.Pause, nil
}

// restart sets the timer of a channel that takes nothing.
func (l *live) restart() {
	if l.stalls == nil {
		l.stalls = time.AfterFunc(l.follower.opts.Stall, l.wake)
		return
	}
	l.stalls.Reset(l.follower.opts.Stall)
}
