package bridge

import (
	"context"
	"errors"

	"github.com/sluice-gateway/sluice/internal/websocket"
)

// pump reads the upstream on this goroutine until it ends, always within credit. It is for upstreams that are not left to a loop.
func (l *live) pump() error {
	f := l.follower
	ctx, cancel := context.WithCancel(f.ctx)
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
	need := f.quantum()
	for {
		err := f.await(ctx, need)
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
	batch  *websocket.Batch
	next   int  // first fragment that is not framed
	halted bool // the kind waits until all that is queued is taken
}

// step takes what there is to read, at most the credit, frames it and offers it. It returns the credit that is needed for the next step, and
// errNothing when read has brought nothing. A step blocks in read only, if at all.
func (l *live) step(read func(limit, part int) error) (need int, err error) {
	f := l.follower
	if l.batch == nil {
		credit := f.ch.Credit()
		if credit < f.quantum() {
			return f.quantum(), nil // a budget was cut since
		}
		if err := read(min(credit, websocket.MaxRead+pieceCost), f.ch.MaxPiece()); err != nil {
			return 0, lost(err)
		}
		if l.batch == nil {
			return 0, errNothing
		}
		f.queue = queues.Get().(*queue)
	}
	for {
		if need := f.offer(); need > 0 {
			return need, nil
		}
		switch {
		case l.halted:
			l.halted = false
			if err := f.kind.settle(); err != nil {
				return 0, err
			}
		case l.next < len(l.batch.Fragments):
			l.frame()
		default:
			l.release()
			return f.quantum(), nil
		}
	}
}

// frame queues fragments, up to where something has to wait.
func (l *live) frame() {
	through, halted := l.follower.kind.frame(l.batch.Fragments[l.next:])
	l.next, l.halted = l.next+through, halted
}

// errNothing says that there was nothing to read.
var errNothing = errors.New("nothing to read")

// release gives back what the read brought.
func (l *live) release() {
	if l.batch == nil {
		return
	}
	l.follower.queue.release()
	l.follower.kind.release()
	l.batch.Release()
	l.follower.queue, l.reading = nil, reading{}
}
