package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/link"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// carrier carries one session over its links. Its goroutine ends with the session or the client, and is waited for by Close.
//
// A gateway that goes away is left in two steps: with the first Welcome of the next session that one takes over, and what can be continued by
// a cursor moves there; what is pinned stays, and the session with it, until the last of it has ended.
type carrier struct {
	// Immutable after newCarrier.
	c      *Client
	ses    *mux.Session
	ctx    context.Context // ends with the client, and when the session is given up: no link is made any more
	cancel context.CancelFunc

	// Owned by the link's reader, then by run: there is one link at a time.
	old      *carrier // whose channels move here with the first Welcome; nil once they have
	welcomed bool
	ttl      time.Duration // how long the session outlives its link

	// Owned by run.
	token string      // the one of the last link
	until time.Time   // when a session without a link is over; zero when nobody has said
	late  *time.Timer // ends a link that is not welcomed by then

	// Guarded by Client.mu.
	moving bool // another session is on its way
	former bool // another session has taken over, and what could has moved
	pinned map[*mux.Channel]struct{}
}

func (c *Client) newCarrier(old *carrier) *carrier {
	k := &carrier{c: c, old: old, pinned: map[*mux.Channel]struct{}{}}
	k.ctx, k.cancel = context.WithCancel(c.ctx)
	k.ses = mux.NewClient(mux.Config{}, k)
	return k
}

// tell tells of the session.
func (k *carrier) tell(s State) {
	k.c.mu.Lock()
	s.Former = k.former
	k.c.mu.Unlock()
	if s.Session == "" {
		s.Session = k.ses.ID()
	}
	k.c.tell(s)
}

// run makes links until the session has ended.
func (k *carrier) run() {
	defer k.ses.Wait()
	defer k.cancel()
	c := k.c
	for attempt := 1; ; attempt++ {
		k.tell(State{Phase: Connecting, Attempt: attempt})
		k.welcomed = false
		err := k.carry()
		if k.welcomed {
			attempt = 0
			k.until = time.Time{}
			if k.ttl > 0 {
				k.until = time.Now().Add(k.ttl)
			}
		}
		switch {
		case c.ctx.Err() != nil:
			k.ses.End(errClosed)
			if c.isCurrent(k) {
				k.tell(State{Phase: Closed, Err: c.Err()})
			}
			return
		case k.ended() || k.terminal(err):
			k.finish(err)
			return
		}
		k.pause(attempt, err)
		if k.expired() {
			k.ses.End(errDetached)
			k.finish(err)
			return
		}
	}
}

// expired reports whether no gateway can have the session any more: it has been without a link for too long.
func (k *carrier) expired() bool { return !k.until.IsZero() && !time.Now().Before(k.until) }

var errDetached = status.New(codes.Unavailable, sluicev1.Reason_REASON_DETACH_EXPIRED,
	"no gateway has answered for longer than a session outlives its link").WithResumable(true)

// ended reports whether the session has, by Goodbye or because its channels moved on.
func (k *carrier) ended() bool {
	select {
	case <-k.ses.Done():
		return true
	default:
		return false
	}
}

// end ends the session, with or without a link.
func (k *carrier) end(err *status.Error) {
	k.ses.End(err)
	k.cancel()
}

// carry makes one link and carries the session over it until it ends.
func (k *carrier) carry() error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(k.c.ctx)) // outlives the client by the time that Goodbye takes
	defer cancel()
	token, err := k.c.token(k.ctx)
	if err != nil {
		return err
	}
	k.token = token
	conn, err := k.c.newConn()
	if err != nil {
		return err
	}
	defer conn.Close()
	if !k.until.IsZero() {
		k.late = time.AfterFunc(time.Until(k.until), cancel)
		defer k.late.Stop()
	}
	dialling := context.AfterFunc(k.ctx, cancel)
	stream, err := sluicev1.NewGatewayServiceClient(conn).Connect(authorized(ctx, token), grpc.ForceCodecV2(link.NewCodec()))
	if err != nil {
		return fmt.Errorf("connect: %w", status.From(err))
	}
	dialling()
	stop := context.AfterFunc(k.c.ctx, func() { k.ses.End(errClosed) }) // so that the gateway is told
	defer stop()
	err = k.ses.ServeClient(ctx, link.NewStream(stream), k.c.cfg.hello())
	if k.ended() {
		k.leave()
	}
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return nil
}

// leave lets the gateway have the Goodbye, which it answers by ending the call: cancelling the call at once would overtake it. A gateway that
// does not answer is left anyway. The call is not half-closed: the writer may still be in it.
func (k *carrier) leave() {
	gone := make(chan struct{})
	go func() { // ends with the call, which the caller cancels
		defer close(gone)
		k.ses.Wait()
	}()
	t := time.NewTimer(leaveWithin)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	}
}

// leaveWithin is how long the gateway may take to answer a Goodbye.
const leaveWithin = time.Second

// terminal reports whether another attempt can change nothing.
func (k *carrier) terminal(err error) bool {
	e := status.From(err)
	if e == nil {
		return false
	}
	switch e.Code {
	case codes.Unauthenticated:
		return e.Reason != sluicev1.Reason_REASON_EXPIRED || !k.renewed()
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented, codes.FailedPrecondition:
		return true
	case codes.Aborted:
		return e.Reason == sluicev1.Reason_REASON_SUPERSEDED
	}
	return false
}

// renewed reports whether there is another token than the one that was refused.
func (k *carrier) renewed() bool {
	token, err := k.c.token(k.c.ctx)
	return err == nil && token != k.token
}

// finish follows the session's end: another session takes over, or the client is at its end too.
func (k *carrier) finish(err error) {
	if e := k.ses.Err(); e != nil {
		err = e
	}
	c := k.c
	if c.isCurrent(k) && k.terminal(err) {
		end := status.From(err)
		c.cancel(end)
		k.ses.End(end)
		k.tell(State{Phase: Closed, Err: end})
		return
	}
	next := c.newCarrier(nil)
	if !c.replace(k, next) {
		next.cancel()
		k.ses.End(status.From(err)) // and what is still pinned to it
		return
	}
	k.ses.End(errMoved)
	k.pause(1, err)
	if !c.spawn(next.run) {
		next.end(errClosed)
	}
}

// errMoved ends the channels of a session whose place another has taken.
var errMoved = status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "the session was replaced by another").WithResumable(true)

// pause waits before the next attempt, no longer than the session may be without a link.
func (k *carrier) pause(attempt int, err error) {
	bound := k.c.cfg.MaxBackoff
	if attempt < 20 {
		bound = min(bound, k.c.cfg.MinBackoff<<attempt)
	}
	wait := rand.N(bound + 1) //nolint:gosec // spreads attempts, guards nothing
	if e := status.From(err); e != nil && e.RetryAfter > wait {
		wait = e.RetryAfter
	}
	if !k.until.IsZero() {
		wait = max(min(wait, time.Until(k.until)), 0)
	}
	k.tell(State{Phase: Waiting, Attempt: attempt, Err: err, Next: wait})
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-k.ctx.Done():
	}
}

// Welcomed implements mux.Observer.
func (k *carrier) Welcomed(w *sluicev1.Welcome) {
	k.welcomed = true
	k.ttl = w.GetDetachTtl().AsDuration()
	if k.late != nil {
		k.late.Stop()
	}
	if old := k.old; old != nil { // what was open there is opened here
		k.old = nil
		before := k.c.swap(k) // old, or what followed it when it ended before we came
		k.c.spawn(func() {
			before.retire()
			if before != old {
				old.retire()
			}
		})
	}
	k.tell(State{Phase: Connected, Session: w.GetSession(), Resumed: w.GetResumed()})
	if d := w.GetDraining(); d != nil {
		k.Draining(d)
	}
}

// retire lets another session take over: what is not pinned moves there.
func (k *carrier) retire() {
	k.ses.Leave(errMoved, func(ch *mux.Channel) bool {
		k.c.mu.Lock()
		defer k.c.mu.Unlock()
		_, stays := k.pinned[ch]
		return !stays
	})
	k.c.mu.Lock()
	k.former = true
	idle := len(k.pinned) == 0
	k.c.mu.Unlock()
	if idle {
		k.end(errMoved)
	}
}

// unpin notes that a pinned channel is over. A session that lived on for it alone ends.
func (k *carrier) unpin(ch *mux.Channel) {
	k.c.mu.Lock()
	delete(k.pinned, ch)
	idle := k.former && len(k.pinned) == 0
	k.c.mu.Unlock()
	if idle {
		k.end(errMoved)
	}
}

// AuthState implements mux.Observer: this version renews by a new session.
func (k *carrier) AuthState(*sluicev1.AuthState) {}

// Draining implements mux.Observer: the next session is made before this one breaks.
func (k *carrier) Draining(d *sluicev1.Drain) {
	c := k.c
	c.mu.Lock()
	first := !k.moving && c.current == k
	k.moving = true
	c.mu.Unlock()
	if !first {
		return
	}
	after := d.GetReconnectAfter().AsDuration()
	k.tell(State{Phase: Draining, Next: after})
	c.spawn(func() { k.move(after) })
}

// move starts the session that takes over, unless this one ends by itself before.
func (k *carrier) move(after time.Duration) {
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-t.C:
		if next := k.c.newCarrier(k); !k.c.spawn(next.run) {
			next.end(errClosed)
		}
	case <-k.ses.Done():
	case <-k.c.ctx.Done():
	}
}
