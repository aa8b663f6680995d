package mux

import (
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// sender is the outgoing direction of a channel: it numbers frames, keeps to the credit, and holds what is not acknowledged.
//
//	segs:  [ sent, not acknowledged = the replay buffer | not sent yet ]
//	       0                                      next ^             len
//
// invariant: ackedCost <= end, and what was numbered as Data was within limit when it was numbered. A sender has no lock; its channel has.
type sender struct {
	role    Role
	channel uint32
	plain   bool // nothing is acknowledged: what was given to the link is done with

	seq   uint64 // last number given
	end   uint64 // cumulative cost of all numbered frames
	bytes uint64 // cumulative payload of all numbered Data

	segs  []*Segment
	next  int    // first segment that is not sent
	from  int    // where in segs[next] to begin, after a resume
	taken uint64 // highest number ever given to a link

	acked     uint64 // highest acknowledged number
	ackedCost uint64 // cumulative cost up to and with acked
	limit     uint64 // cumulative cost that Data may reach
	window    uint64 // the last credit received, for the size of pieces
	most      uint64 // more credit than this is not used
	held      int    // bytes in segs

	bare    []uint64        // numbers of the unacknowledged frames without payload, oldest first
	waiting []proto.Message // frames without payload that are not numbered, since too many are unacknowledged
	shut    bool            // no more Data: CloseSend was said, or the peer wants the end
	ended   bool            // the last frame is numbered or waits for its number: nothing follows
}

// room is the credit for Data: payload and [FrameCost] a frame.
func (s *sender) room() int {
	if s.shut || s.ended || len(s.waiting) > 0 { // what waits for a number comes before any Data
		return 0
	}
	return int(int64(s.limit - s.end)) // negative when frames without payload have overdrawn it
}

// piece is the largest payload of a frame now.
func (s *sender) piece() int {
	if s.window >= LargeWindow {
		return LargePiece
	}
	return SmallPiece
}

// offer numbers the leading pieces for which room suffices and returns how many, and the segment to encode them in (nil for none), which
// the caller fills with encode and hands to queue. Between offer and queue the caller keeps other producers of this channel out.
func (s *sender) offer(pieces []data.Piece, room int) (taken int, first uint64, g *Segment) {
	room = min(room, s.room())
	size, cost, seq := 0, 0, s.seq
	for i := range pieces {
		p := &pieces[i]
		payload := p.Len()
		c := payload + FrameCost
		n := dataFrameSize(s.channel, seq+1, p, payload)
		if cost+c > room || payload > s.piece() || taken > 0 && size+n > batchTarget {
			break
		}
		cost += c
		seq++
		size += n
		s.bytes += uint64(payload)
		taken++
	}
	if taken == 0 {
		return 0, 0, nil
	}
	first = s.seq + 1
	s.seq, s.end = seq, s.end+uint64(cost)
	g = newSegment(size)
	g.first, g.last, g.cost = first, s.seq, s.end
	return taken, first, g
}

// encode fills g with the pieces, numbered from first.
func (g *Segment) encode(channel uint32, first uint64, pieces []data.Piece) {
	for i := range pieces {
		g.b = appendData(g.b, channel, first+uint64(i), &pieces[i])
	}
}

// queue makes an encoded segment ready to be sent.
func (s *sender) queue(g *Segment) {
	s.segs = append(s.segs, g)
	s.held += len(g.b)
}

// say queues a frame without payload, or lets it wait for its number. An unnumbered ChannelState or Resize gives way to a newer one of its
// kind. It reports whether something became ready.
func (s *sender) say(m proto.Message) bool {
	if s.ended {
		return false
	}
	if _, ok := m.(*sluicev1.CloseSend); ok {
		if s.shut {
			return false
		}
		s.shut = true
	}
	if s.numberable(m) && len(s.waiting) == 0 {
		s.number(m)
		return true
	}
	for i, w := range s.waiting {
		if replaces(m, w) {
			s.waiting = append(s.waiting[:i], s.waiting[i+1:]...)
			break
		}
	}
	s.waiting = append(s.waiting, m)
	return false
}

// numberable reports whether a frame without payload may have its number now. The channel's first and last are beside the count.
func (s *sender) numberable(m proto.Message) bool { return len(s.bare) < MaxBare || !countsAsBare(m) }

func countsAsBare(m proto.Message) bool {
	switch m.(type) {
	case *sluicev1.Open, *sluicev1.Close, *sluicev1.Closed:
		return false
	}
	return true
}

// finish queues the channel's last frame of this direction. abruptly drops what still waits for its number; otherwise the last frame follows it.
func (s *sender) finish(m proto.Message, abruptly bool) bool {
	if abruptly {
		s.waiting = nil
	}
	ready := s.say(m)
	s.ended = true
	return ready
}

func replaces(m, w proto.Message) bool {
	switch m := m.(type) {
	case *sluicev1.Resize:
		_, ok := w.(*sluicev1.Resize)
		return ok
	case *sluicev1.ChannelState:
		w, ok := w.(*sluicev1.ChannelState)
		return ok && w.GetKind() == m.GetKind()
	}
	return false
}

func (s *sender) number(m proto.Message) {
	s.seq++
	s.end += FrameCost
	g := newMessageSegment(s.role, s.channel, s.seq, m)
	g.cost = s.end
	if countsAsBare(m) {
		s.bare = append(s.bare, s.seq)
	}
	s.queue(g)
}

// ready reports whether there is something to send.
func (s *sender) ready() bool { return s.next < len(s.segs) }

// opening reports whether what is sent next is the channel's first frame: a client's Open.
func (s *sender) opening() bool { return s.next == 0 && s.segs[0].first == 1 }

// size is the size of the next segment to send.
func (s *sender) size() int { return len(s.segs[s.next].b) - s.from }

// take gives the next segment to the link.
func (s *sender) take() Part {
	g := s.segs[s.next]
	p := Part{g, s.from}
	s.next++
	s.from = 0
	s.taken = max(s.taken, g.last)
	if !s.plain {
		g.ref()
		return p
	}
	// Nobody will acknowledge it: the reference goes with the part, the credit comes back.
	s.held -= len(g.b)
	s.forget(1)
	s.acked, s.ackedCost = g.last, g.cost
	s.limit = s.ackedCost + s.window
	s.settle()
	return p
}

// forget drops the first n segments without freeing them.
func (s *sender) forget(n int) {
	rest := copy(s.segs, s.segs[n:])
	clear(s.segs[rest:])
	s.segs = s.segs[:rest]
	s.next -= n
	if rest == 0 {
		s.segs = nil // an idle channel holds nothing
	}
}

// ack applies an Ack: frees what was consumed and raises the limit. It reports whether a waiting frame got its number.
func (s *sender) ack(seq, window uint64) (ready bool, err error) {
	switch {
	case s.plain || seq < s.acked: // older than what is known
		return false, nil
	case seq > s.taken:
		return false, status.Violation("channel %d: Ack of %d, but only %d was sent", s.channel, seq, s.taken)
	}
	window = min(window, s.most)
	if seq > s.acked {
		if err := s.release(seq); err != nil {
			return false, err
		}
	}
	if window < s.window {
		return false, status.Violation("channel %d: Ack with a window of %d after one of %d: a window never shrinks",
			s.channel, window, s.window)
	}
	s.grant(window)
	return s.settle(), nil
}

// grant raises the limit to what window allows, never beyond most.
func (s *sender) grant(window uint64) {
	s.window = max(s.window, min(window, s.most))
	s.limit = max(s.limit, s.ackedCost+s.window)
}

// settle forgets the frames without payload that are acknowledged, and numbers those that waited for it. It reports whether there were any.
func (s *sender) settle() (ready bool) {
	k := 0
	for k < len(s.bare) && s.bare[k] <= s.acked {
		k++
	}
	s.bare = s.bare[k:]
	for len(s.waiting) > 0 && s.numberable(s.waiting[0]) {
		m := s.waiting[0]
		s.waiting = s.waiting[1:]
		s.number(m)
		ready = true
	}
	if len(s.bare) == 0 {
		s.bare = nil
	}
	if len(s.waiting) == 0 {
		s.waiting = nil
	}
	return ready
}

// release frees what lies at or below seq.
func (s *sender) release(seq uint64) error {
	n := 0
	for n < len(s.segs) && s.segs[n].last <= seq {
		g := s.segs[n]
		s.ackedCost = g.cost
		s.held -= len(g.b)
		g.free()
		n++
	}
	if n > s.next { // acknowledged by an older link's receiver while the segment waited to be sent again
		s.next, s.from = n, 0
	}
	s.forget(n)
	s.acked = seq
	if len(s.segs) == 0 || s.segs[0].first > seq {
		return nil
	}
	after, err := s.costAfter(s.segs[0], seq)
	s.ackedCost = s.segs[0].cost - after
	return err
}

// costAfter is the cost of g's frames after seq. Frames describe themselves: no table of boundaries is kept.
func (s *sender) costAfter(g *Segment, seq uint64) (cost uint64, err error) {
	var f frame
	for b := g.b; len(b) > 0; {
		if b, err = nextFrame(b, s.role, &f); err != nil {
			return 0, err
		}
		if f.seq > seq {
			cost += uint64(len(f.payload)) + FrameCost
		}
	}
	return cost, nil
}

// rewind makes what follows received unsent again. It fails if the peer cannot have received that.
func (s *sender) rewind(received uint64) error {
	if received > s.taken || received < s.acked {
		return status.Violation("channel %d: received %d is outside what was sent and not acknowledged, %d to %d",
			s.channel, received, s.acked, s.taken)
	}
	s.next, s.from = 0, 0
	for s.next < len(s.segs) && s.segs[s.next].last <= received {
		s.next++
	}
	if s.next == len(s.segs) || s.segs[s.next].first > received {
		return nil
	}
	var f frame
	g := s.segs[s.next]
	for b := g.b; ; {
		s.from = len(g.b) - len(b)
		rest, err := nextFrame(b, s.role, &f)
		if err != nil || f.seq > received {
			return err
		}
		b = rest
	}
}

// drop frees everything: the channel is over.
func (s *sender) drop() {
	for _, g := range s.segs {
		g.free()
	}
	s.segs, s.next, s.from, s.held = nil, 0, 0, 0
	s.bare, s.waiting, s.ended = nil, nil, true
}
