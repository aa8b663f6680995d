package mux

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Sink receives a channel's events in place of [Channel.Next], on the goroutine that reads the link. Deliver must not block, must not call
// the channel, and has the event's Data only until it returns; the event counts as consumed then. It costs no copy and no hand-off.
type Sink interface {
	Deliver(ev *Event)
}

// Channel is one logical stream of a session. Its two directions are independent. Offer, State, Opened, CloseSend and Finish may be called
// from one goroutine at a time and Next, Used from another; the rest is safe for concurrent use.
type Channel struct {
	// Immutable after open.
	s    *Session
	id   uint32
	sink Sink
	ctx  context.Context // ends when the channel does, or when the peer asks for its end
	end  context.CancelCauseFunc

	sendMu sync.Mutex // one producer at a time; before mu

	mu      sync.Mutex
	out     sender        // Guarded by mu; numbers are given under sendMu too.
	in      receiver      // Guarded by mu.
	state   state         // Guarded by mu.
	credit  chan struct{} // closed when credit comes; nil while nobody waits. Guarded by mu.
	notify  func()        // called when credit comes; nil while nobody is to be told. Guarded by mu.
	arrived chan struct{} // closed when an event comes; nil while nobody waits. Guarded by mu.

	// Owned by the session, guarded by Session.mu.
	nextReady *Channel // in Session.ready
	deficit   int      // bytes that the channel may send before its turn ends
	round     uint64   // of the turns, that deficit belongs to
	isReady   bool     // in Session.ready or Session.opens
	ackDue    bool     // in Session.owing
	counted   bool     // in Session.openings
}

// state is where a channel is. The two directions' half-closes are told by halfClosed flags of the table.
type state uint8

const (
	opening state = iota // a client's: Open was sent, Opened has not come
	open
	halfClosed // the peer sends no more data
	stopping   // the client has sent Close
	closed     // the server has sent Closed, or the client has received it
	states
)

var stateNames = [states]string{"opening", "open", "half-closed", "stopping", "closed"}

func (s state) String() string { return stateNames[s] }

func newChannel(s *Session, id uint32, sink Sink) *Channel {
	c := &Channel{s: s, id: id, sink: sink}
	c.ctx, c.end = context.WithCancelCause(context.Background())
	c.out = sender{role: s.role, channel: id, plain: s.plain, limit: MinWindow, window: MinWindow, most: uint64(s.cfg.WindowBytes)}
	c.in = receiver{channel: id, plain: s.plain, budget: s.putting, window: MinWindow, limit: s.cfg.MessageBytes}
	if s.role == Server && !s.plain {
		c.in.most, c.in.promised = uint64(s.cfg.WindowBytes), s.promised
	}
	return c
}

// ID is the channel's number in its session.
func (c *Channel) ID() uint32 { return c.id }

// Context ends when the channel has ended, when the peer has asked for its end, and when the session has; [context.Cause] says why.
func (c *Channel) Context() context.Context { return c.ctx }

// Credit is how many bytes Offer would take now: the sum of payload and [FrameCost] a piece. It may be zero or negative.
func (c *Channel) Credit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	room, _ := c.room()
	return room
}

// room is the credit, cut to what the budgets leave, and which of them cut it; a channel that holds no more than bare frames may always take
// one frame of it. mu is held.
func (c *Channel) room() (room int, by *Budget) {
	credit := c.out.room()
	if credit <= 0 {
		return credit, nil
	}
	room, by = c.s.budget.room(c.out.held, int(c.out.window))
	if c.out.held <= MaxBare*FrameCost {
		room = max(room, c.out.piece()+FrameCost)
	}
	return min(credit, room), by
}

// AwaitCredit returns once Credit is at least n, which may be up to MaxPiece+FrameCost. It fails when ctx ends, and when nothing more can be
// sent: after CloseSend and Close, and after the channel's end.
func (c *Channel) AwaitCredit(ctx context.Context, n int) error {
	var asked *Budget // that tells through freed when room has come back
	var freed <-chan struct{}
	for {
		wait, by, err := c.awaitCredit(n)
		switch {
		case wait == nil:
			return err
		case by != nil && by != asked: // ask to be told, and look again: it may have come in between
			asked, freed = by, by.freed()
			continue
		}
		select {
		case <-wait:
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return context.Cause(c.ctx)
		}
		asked, freed = nil, nil
	}
}

// awaitCredit gives what is closed when more credit comes, and the budget that is short if there is credit; nothing to wait for when there
// is enough of both, or when there will never be.
func (c *Channel) awaitCredit(n int) (wait <-chan struct{}, by *Budget, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room, by, err := c.credited()
	if err != nil || room >= n {
		return nil, nil, err
	}
	if c.credit == nil {
		c.credit = make(chan struct{})
	}
	return c.credit, by, nil
}

// NotifyCredit is AwaitCredit for those who cannot wait: unless Credit is at least n now, f is called once when more has come, or with the
// channel's end, and told is true. The credit may still be short then: ask again. f must not block and not call the channel; it may be called
// before NotifyCredit returns. A later call replaces f.
func (c *Channel) NotifyCredit(n int, f func()) (told bool, err error) {
	for asked := (*Budget)(nil); ; {
		by, enough, err := c.notifyCredit(n, f)
		switch {
		case enough || err != nil:
			return false, err
		case by == nil || by == asked:
			return true, nil
		}
		asked = by // ask to be told, and look again: it may have come in between
		by.tell(c, f)
	}
}

// notifyCredit leaves f to be called when more credit comes, unless there is enough, or there will never be. by is the budget that is short.
func (c *Channel) notifyCredit(n int, f func()) (by *Budget, enough bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	room, by, err := c.credited()
	if err != nil || room >= n {
		c.notify = nil
		return nil, err == nil, err
	}
	c.notify = f
	return by, false, nil
}

// credited is room, for as long as there may come more of it. mu is held.
func (c *Channel) credited() (room int, by *Budget, err error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, nil, err
	}
	if c.out.shut || c.out.ended {
		return 0, nil, errFinished
	}
	room, by = c.room()
	return room, by, nil
}

// MaxPiece is the largest payload a piece may have now: [SmallPiece], or [LargePiece] for windows of at least [LargeWindow]. It never shrinks.
func (c *Channel) MaxPiece() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.piece()
}

// Offer takes the leading pieces for which there is credit, copying them, and returns how many. What it takes it also sends, in order;
// what it leaves stays the caller's. Offer never blocks.
func (c *Channel) Offer(pieces []data.Piece) int {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.mu.Lock()
	room, _ := c.room()
	taken, first, g := c.out.offer(pieces, room)
	c.mu.Unlock()
	if taken == 0 {
		return 0
	}
	g.encode(c.id, first, pieces[:taken]) // without mu: nobody waits for a copy
	c.mu.Lock()
	if c.state == closed { // the session ended meanwhile
		c.mu.Unlock()
		g.free()
		return taken
	}
	size := len(g.b)
	c.out.queue(g)
	c.s.budget.charge(size)
	c.mu.Unlock()
	c.s.hand(c, size)
	return taken
}

// say sends a frame without payload, in order.
func (c *Channel) say(m proto.Message) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.mu.Lock()
	ready := c.charged(func() bool { return c.out.say(m) })
	if c.out.shut {
		c.wakeSender()
	}
	c.mu.Unlock()
	if ready {
		c.s.enqueue(c)
	}
}

// charged runs f and charges the budget for what it made the channel hold, or gives back what it freed. mu is held.
func (c *Channel) charged(f func() bool) bool {
	before := c.out.held
	ready := f()
	if d := c.out.held - before; d > 0 {
		c.s.budget.charge(d)
	} else if d < 0 {
		c.s.budget.release(-d)
	}
	return ready
}

// Opened tells the client that the upstream stands.
func (c *Channel) Opened(o *sluicev1.Opened) {
	o.Window = MinWindow
	c.say(o)
}

// State tells the client what became of the upstream.
func (c *Channel) State(s *sluicev1.ChannelState) {
	s.Status = fitting(s.GetStatus())
	c.say(s)
}

// CloseSend tells the peer that no more data comes from this side: Offer takes nothing any more.
func (c *Channel) CloseSend() { c.say(&sluicev1.CloseSend{}) }

// Resize tells the server the size of the client's terminal.
func (c *Channel) Resize(width, height uint32) { c.say(&sluicev1.Resize{Width: width, Height: height}) }

// Finish ends a server's channel: Closed follows all data that was taken. Nothing may be sent after it. err nil means success, which an
// aborted channel never reports.
func (c *Channel) Finish(err *status.Error, exit *sluicev1.Exit, aborted bool) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if err == nil && aborted {
		err = errAborted
	}
	m := &sluicev1.Closed{Exit: exit, Aborted: aborted}
	if err != nil {
		m.Status = fitting(err.Proto())
	}
	c.mu.Lock()
	if c.state == closed {
		c.mu.Unlock()
		return
	}
	m.BytesIn, m.BytesOut = c.in.bytes, c.out.bytes
	ready := c.charged(func() bool { return c.out.finish(m, aborted) })
	c.state = closed
	c.in.drop()
	c.wakeSender()
	c.mu.Unlock()
	c.end(finished(err))
	c.s.over(c)
	if ready {
		c.s.enqueue(c)
	}
}

func finished(err *status.Error) error {
	if err != nil {
		return err
	}
	return errFinished
}

var (
	errFinished = status.New(codes.Canceled, sluicev1.Reason_REASON_UNSPECIFIED, "the channel has ended")
	errAborted  = status.New(codes.Aborted, sluicev1.Reason_REASON_UNSPECIFIED, "the upstream was not read to its end")
)

// Next is the next event. It waits until there is one, ctx ends or the channel has ended; events that have arrived come before the end. The
// event counts as consumed when it is given to Used, or with the next call of Used for a later one.
func (c *Channel) Next(ctx context.Context) (Event, error) {
	for {
		ev, ok, wait := c.next()
		if ok {
			return ev, nil
		}
		if wait == nil {
			return Event{}, context.Cause(c.ctx)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		case <-c.ctx.Done():
		}
	}
}

func (c *Channel) next() (ev Event, ok bool, wait <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ev, ok = c.in.first(); ok {
		return ev, true, nil
	}
	if c.ctx.Err() != nil {
		return ev, false, nil
	}
	if c.arrived == nil {
		c.arrived = make(chan struct{})
	}
	return ev, false, c.arrived
}

// Used says that the caller is done with an event of Next: the peer may be told that it was consumed.
func (c *Channel) Used(ev *Event) {
	c.mu.Lock()
	if c.state == closed && c.s.role == Server {
		c.mu.Unlock()
		return
	}
	c.in.used(ev)
	due, now := c.in.owes()
	c.mu.Unlock()
	if due {
		c.s.owe(c, now)
	}
}

// Widen lets the window of a client's channel grow as those of a server's do: with each Ack, as long as the caller takes what comes as fast as it
// comes, up to [Config].WindowBytes, and those of all channels of the session by Config.SessionBytes together.
func (c *Channel) Widen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != closed { // which has given back what it had
		c.in.most, c.in.promised = uint64(c.s.cfg.WindowBytes), c.s.promised
	}
}

// Received says up to where the channel has received: its last cursor, in whose hands or not.
func (c *Channel) Received() (cursor string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.cursor
}

// Bytes are the payload bytes of Data received and sent so far.
func (c *Channel) Bytes() (in, out uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.bytes, c.out.bytes
}

// Held is how many bytes the channel holds to be sent or acknowledged.
func (c *Channel) Held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.held
}

// deliver hands an event over. mu is held.
func (c *Channel) deliver(ev Event) {
	if c.sink != nil {
		c.in.hand(&ev)
		c.sink.Deliver(&ev)
		c.in.used(&ev)
		return
	}
	c.in.keep(ev)
	if c.arrived != nil {
		close(c.arrived)
		c.arrived = nil
	}
}

// wakeSender wakes who waits for credit. mu is held.
func (c *Channel) wakeSender() {
	if c.credit != nil {
		close(c.credit)
		c.credit = nil
	}
	if f := c.notify; f != nil {
		c.notify = nil
		f()
	}
}

// abandon ends the channel with its session, or because the peer has lost it. Events that have arrived can still be taken.
func (c *Channel) abandon(err *status.Error) {
	c.mu.Lock()
	c.charged(func() bool { c.out.drop(); return false })
	c.in.settleWindow()
	if c.s.role == Server { // a client's caller may still take what has arrived
		c.in.drop()
	}
	c.state = closed
	c.wakeSender()
	c.mu.Unlock()
	c.end(err)
}
