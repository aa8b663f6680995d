package mux

import (
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// receiver is the incoming direction of a channel: it puts frames in order, gives credit, and keeps what the caller has not taken.
// A receiver has no lock; its channel has.
type receiver struct {
	channel uint32
	plain   bool

	seq    uint64 // highest number received
	cost   uint64 // cumulative cost up to and with seq
	bytes  uint64 // cumulative payload of Data
	holed  bool   // a hole ended a link since the last progress
	cursor string // the last one received

	taken     uint64 // highest number consumed
	takenCost uint64 // cumulative cost up to and with taken
	ackedSeq  uint64 // as of the last Ack
	ackedCost uint64
	window    uint64   // the credit that each Ack gives after its number
	most      uint64   // what window may be widened to; 0 for a window that stays
	promised  *Budget  // of what all windows of the session are widened by
	widened   int      // of promised
	bare      []uint64 // numbers of the frames without payload that are not consumed, oldest first

	inbox   []Event // complete and not taken, oldest first
	event   uint64  // number of the last event, in the inbox or in the caller's hands
	partial []byte  // the beginning of a message
	parted  bool    // the last Data said that its message goes on
	// The last piece of partial, consumed as soon as everything before it is: acknowledgements are cumulative.
	pieceSeq, pieceCost uint64
	limit               int     // bytes of the largest message that is put together
	budget              *Budget // of all messages that a server's session puts together; nil at a client, which trusts its gateway
	putting             int     // of budget, for partial
	whole               []put   // messages that were put together and are not consumed, oldest first
}

// put is a message that was put together from n bytes; seq is its last frame's number.
type put struct {
	seq uint64
	n   int
}

// order is what becomes of a frame by its number.
type order uint8

const (
	inOrder order = iota
	duplicate
	hole
)

// place says what a number means here. In a plain session a client's frames are numbered as they come.
func (r *receiver) place(seq uint64) order {
	switch {
	case r.plain && seq == 0, seq == r.seq+1:
		return inOrder
	case seq <= r.seq:
		return duplicate
	}
	return hole
}

// count takes the next number for a frame of n payload bytes.
func (r *receiver) count(n int) {
	r.seq++
	r.cost += uint64(n) + FrameCost
	r.holed = false
}

// data takes a Data frame that is in order. The event is complete when ok; otherwise the message goes on.
func (r *receiver) data(f *frame) (ev Event, ok bool, err error) {
	n := uint64(len(f.payload))
	r.count(len(f.payload))
	r.bytes += n
	switch {
	case r.plain && r.cost > r.granted():
		return ev, false, r.overrun()
	case r.cost > r.granted():
		return ev, false, status.Violation("channel %d: Data %d is %d bytes past the window", r.channel, r.seq, r.cost-r.granted())
	case n > LargePiece:
		return ev, false, status.Violation("channel %d: Data %d carries %d bytes, more than %d", r.channel, r.seq, n, LargePiece)
	}
	if len(f.cursor) > 0 && string(f.cursor) != r.cursor {
		r.cursor = string(f.cursor)
	}
	ev = Event{Kind: EventData, Seq: r.seq, Stream: f.stream, Text: f.text, Data: f.payload}
	if len(f.cursor) > 0 {
		ev.Cursor = r.cursor
	}
	if !f.more && !r.parted {
		return ev, true, nil
	}
	if len(r.partial)+len(f.payload) > r.limit {
		return ev, false, status.Limit("limits.message_bytes", "channel %d: a message is longer than %d bytes", r.channel, r.limit)
	}
	if err := r.charge(len(f.payload)); err != nil {
		return ev, false, err
	}
	r.partial, r.parted = append(r.partial, f.payload...), f.more
	if f.more {
		r.pieceSeq, r.pieceCost = r.seq, r.cost
		r.consumePiece()
		return ev, false, nil
	}
	ev.Data, r.partial = r.partial, nil
	ev.owned = true
	if r.putting > 0 {
		r.whole, r.putting = append(r.whole, put{r.seq, r.putting}), 0
	}
	return ev, true, nil
}

// charge accounts for bytes that are held beyond the window, since their frames are acknowledged before their message is taken.
func (r *receiver) charge(n int) error {
	switch {
	case r.budget == nil:
		return nil
	case r.budget.Held()+n > int(r.budget.limit):
		return status.Limit("limits.session_bytes", "channel %d: messages of more than %d bytes are being put together in this session",
			r.channel, r.budget.limit)
	}
	r.budget.charge(n)
	r.putting += n
	return nil
}

// giveUp forgets the message that was begun.
func (r *receiver) giveUp() {
	r.partial, r.parted = nil, false
	r.budget.release(r.putting)
	r.putting = 0
}

// overrun is the error for a plain session's client that sends faster than the upstream takes.
func (r *receiver) overrun() error {
	return status.Limit("limits.plain_bytes",
		"channel %d: %d bytes are not written yet; begin the session with Hello to have flow control", r.channel, r.cost-r.takenCost)
}

// message takes a sequenced frame without payload that is in order.
func (r *receiver) message(k EventKind, body proto.Message) (Event, error) {
	r.count(0)
	r.bare = append(r.bare, r.seq)
	if k == EventState || k == EventCloseSend { // the message that was begun will not be completed
		r.giveUp()
	}
	switch {
	case r.plain && r.cost > r.granted():
		return Event{}, r.overrun()
	case len(r.bare) > MaxBare && !r.plain:
		return Event{}, status.Violation("channel %d: more than %d frames without payload are unacknowledged", r.channel, MaxBare)
	}
	return Event{Kind: k, Seq: r.seq, Message: body}, nil
}

// granted is the cumulative cost that the sender's Data may reach.
func (r *receiver) granted() uint64 {
	if r.plain {
		return r.takenCost + r.window
	}
	return r.ackedCost + r.window
}

// keep puts an event in the inbox, with its own copy of the payload.
func (r *receiver) keep(ev Event) {
	if !ev.owned && len(ev.Data) > 0 {
		ev.copyData()
	}
	r.hand(&ev)
	r.inbox = append(r.inbox, ev)
}

// hand notes that an event is on its way to the caller: what follows it is consumed after it.
func (r *receiver) hand(ev *Event) {
	ev.cost = r.cost
	r.event = ev.Seq
}

// first takes the oldest event out of the inbox.
func (r *receiver) first() (Event, bool) {
	if len(r.inbox) == 0 {
		return Event{}, false
	}
	ev := r.inbox[0]
	r.inbox[0] = Event{}
	if r.inbox = r.inbox[1:]; len(r.inbox) == 0 {
		r.inbox = nil
	}
	return ev, true
}

// used marks an event as consumed, and with it everything before.
func (r *receiver) used(ev *Event) {
	r.consume(ev.Seq, ev.cost)
	r.consumePiece()
}

// consumePiece marks the pieces of a message that is not complete as consumed, if no event before them is still to be.
func (r *receiver) consumePiece() {
	if r.taken >= r.event {
		r.consume(r.pieceSeq, r.pieceCost)
	}
}

// consume marks everything up to seq as consumed.
func (r *receiver) consume(seq, cost uint64) {
	if seq <= r.taken {
		return
	}
	r.taken, r.takenCost = seq, cost
	k := 0
	for k < len(r.bare) && r.bare[k] <= seq {
		k++
	}
	if r.bare = r.bare[k:]; len(r.bare) == 0 {
		r.bare = nil
	}
	for len(r.whole) > 0 && r.whole[0].seq <= seq {
		r.budget.release(r.whole[0].n)
		r.whole = r.whole[1:]
	}
	if len(r.whole) == 0 {
		r.whole = nil
	}
}

// owes reports whether an Ack is due at all, and whether it should leave at once: when half of the window is consumed, or most of the frames
// without payload that may be outstanding.
func (r *receiver) owes() (due, now bool) {
	if r.plain || r.taken <= r.ackedSeq {
		return false, false
	}
	return true, r.takenCost-r.ackedCost >= r.window/2 || r.taken-r.ackedSeq >= MaxBare/2
}

// widen doubles the window of a channel whose upstream takes what comes as fast as it comes: over a long way the window is what bounds its
// speed. A window never shrinks, so that the widening of all is bounded too.
func (r *receiver) widen() {
	keepsUp := r.takenCost-r.ackedCost >= r.window/2 && r.cost-r.takenCost <= r.window/4
	by := int(min(r.window, r.most-min(r.window, r.most)))
	if !keepsUp || by == 0 || r.promised.Held()+by > int(r.promised.limit) {
		return
	}
	r.promised.charge(by)
	r.widened += by
	r.window += uint64(by)
}

// ack is the Ack to send now.
func (r *receiver) ack() (seq, window uint64) {
	r.widen()
	r.ackedSeq, r.ackedCost = r.taken, r.takenCost
	return r.taken, r.window
}

// drop frees everything: the caller has left.
func (r *receiver) drop() {
	r.inbox = nil
	r.leave()
}

// leave lets the peer have all credit back, and keeps what is complete for the caller.
func (r *receiver) leave() {
	r.giveUp()
	r.consume(r.seq, r.cost)
	r.settleWindow()
}

// settleWindow gives back what the window was widened by: nothing more comes.
func (r *receiver) settleWindow() {
	r.promised.release(r.widened)
	r.most, r.widened = 0, 0
}

// EventKind is what a channel's caller receives.
type EventKind uint8

// The kinds of events. A client receives all but EventOpen, EventResize and EventClose.
const (
	// EventData is a whole message of the peer.
	EventData EventKind = iota
	// EventCloseSend says that no more data comes.
	EventCloseSend
	// EventResize carries a Resize.
	EventResize
	// EventOpened carries an Opened.
	EventOpened
	// EventState carries a ChannelState.
	EventState
	// EventClosed carries the Closed, and is the last.
	EventClosed
)

// Event is what a channel's caller receives, in order.
type Event struct {
	Kind EventKind
	// Seq is the number of the event's last frame.
	Seq uint64
	// Of EventData. In a [Sink] Data is only borrowed.
	Stream sluicev1.Stream
	Text   bool
	Data   []byte
	// Cursor is where the channel can be opened again after this event; empty when nothing was said.
	Cursor string
	// Message is the frame of every other kind.
	Message proto.Message

	cost  uint64  // the direction's cumulative cost up to and with Seq
	owned bool    // Data is the event's own
	held  *[]byte // what Data lies in, if that can be used again
}

// leastHeld is from how many bytes on a copy lies in memory that is used again: a smaller one would take much more than it is long.
const leastHeld = 4 << 10

// payloads are what copies of Data lie in, by the classes of segments.
var payloads [maxClass - minClass + 1]sync.Pool

// copyData gives the event its own copy of Data.
func (e *Event) copyData() {
	e.owned = true
	k := classOf(len(e.Data))
	if len(e.Data) < leastHeld || k < 0 {
		e.Data = append([]byte(nil), e.Data...)
		return
	}
	e.held, _ = payloads[k].Get().(*[]byte)
	if e.held == nil {
		b := make([]byte, 0, classSize(k))
		e.held = &b
	}
	e.Data = append(*e.held, e.Data...)
}

// Free gives Data's memory back to be used again: nobody may have it any more, in no copy of the event. It is not a must: whoever keeps Data, or
// hands it on, leaves it.
func (e *Event) Free() {
	if e.held != nil {
		payloads[classOf(cap(*e.held))].Put(e.held)
	}
	e.held, e.Data = nil, nil
}

// dataLoss is the error for a Closed whose counts differ from ours.
func dataLoss(channel uint32, c *sluicev1.Closed, received, sent uint64) *status.Error {
	return status.New(codes.DataLoss, sluicev1.Reason_REASON_DATA_LOSS,
		"channel %d: the gateway counts %d bytes to us and %d from us, we count %d and %d",
		channel, c.GetBytesOut(), c.GetBytesIn(), received, sent)
}
