package mux

import (
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// errOldLink ends the reader of a link that another has replaced.
var errOldLink = status.New(codes.Aborted, sluicev1.Reason_REASON_SUPERSEDED, "another link of this session has taken its place")

// receive applies a batch of the link of generation gen. An error ends the link, not the session.
func (s *Session) receive(gen uint64, b []byte) error {
	if len(b) > MaxBatch {
		return status.Limit("limits.batch_bytes", "a batch of %d bytes is longer than %d", len(b), MaxBatch)
	}
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	if gen != s.gen {
		return errOldLink
	}
	f := &s.buf
	defer func() { *f = frame{} }() // the batch is the link's again
	for {
		rest, err := nextFrame(b, s.role.peer(), f)
		if err != nil {
			return err
		}
		if f.kind == kindNone {
			return nil
		}
		b = rest
		if err := s.handle(f); err != nil {
			return err
		}
	}
}

func (s *Session) handle(f *frame) error {
	switch {
	case f.kind == kindUnknown && f.seq == 0: // of a later version
		return nil
	case f.kind.ofSession() != (f.channel == 0) && f.kind != kindUnknown:
		return status.Violation("%v on channel %d", f.kind, f.channel)
	case f.channel == 0:
		return s.handleSession(f)
	}
	if s.holding { // read under recvMu: only Welcome, which comes through here, changes it while a link is attached
		return status.Violation("%v before Welcome", f.kind)
	}
	s.mu.Lock()
	s.heard = s.link
	c, highest := s.chans[f.channel], s.highest
	s.mu.Unlock()
	if c == nil {
		return s.handleAbsent(f, f.channel > highest)
	}
	return s.handleChannel(c, f)
}

// handleAbsent applies a frame whose channel does not exist.
func (s *Session) handleAbsent(f *frame, isNew bool) error {
	known := gone
	if isNew {
		known = idle
	}
	switch absent[s.role][known][f.kind] {
	case act: // Open
		return s.accept(f)
	case breach:
		s.refuse(f.channel, f.seq, status.Violation("channel %d: %v on a channel that is not open; ids rise and are never used again",
			f.channel, f.kind))
	case endLink:
		return status.Violation("channel %d: %v on a channel that was never opened", f.channel, f.kind)
	}
	return nil
}

// accept opens a channel at a server.
func (s *Session) accept(f *frame) error {
	if f.seq != 1 && (!s.plain || f.seq != 0) {
		s.refuse(f.channel, f.seq, status.Violation("channel %d: Open has number %d, not 1", f.channel, f.seq))
		return nil
	}
	o, _ := f.body.(*sluicev1.Open)
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return nil
	}
	full, crowded := s.openings >= s.cfg.Channels, len(s.chans) >= 4*s.cfg.Channels
	if crowded {
		s.mu.Unlock()
		return status.Limit("limits.session_channels", "%d channels wait for their end to be acknowledged", len(s.chans))
	}
	c := s.add(f.channel)
	s.mu.Unlock()
	c.mu.Lock()
	c.in.count(0)
	c.in.consume(c.in.seq, c.in.cost)
	c.out.grant(o.GetWindow())
	c.mu.Unlock()
	s.owe(c, false)
	if full {
		c.Finish(status.Limit("limits.session_channels", "%d channels are open; close one, or use another session", s.cfg.Channels), nil, true)
		return nil
	}
	s.acceptor.Accept(c, o)
	return nil
}

// add makes a server's channel. mu is held.
func (s *Session) add(id uint32) *Channel {
	c := newChannel(s, id, nil)
	c.state = open
	s.highest = max(s.highest, id)
	s.enter(c)
	return c
}

// refuse answers a frame for a channel that does not exist with its Closed.
func (s *Session) refuse(id uint32, seq uint64, err *status.Error) {
	s.mu.Lock()
	if s.ended || len(s.chans) >= 4*s.cfg.Channels {
		s.mu.Unlock()
		return
	}
	c := s.add(id)
	s.mu.Unlock()
	c.mu.Lock()
	c.in.seq = seq
	c.mu.Unlock()
	c.Finish(err, nil, true)
}

// handleChannel applies a frame of a channel.
func (s *Session) handleChannel(c *Channel, f *frame) error {
	c.mu.Lock()
	a := actionFor(s.role, c.state, f.kind)
	if f.kind == kindAck {
		err := s.acknowledged(c, f, a)
		return err
	}
	if a == ignore {
		c.mu.Unlock()
		return nil
	}
	if over := f.size - len(f.payload); s.role == Server && over > MaxOverhead {
		c.mu.Unlock()
		return s.breach(c, status.Violation("channel %d: %v with %d bytes beside its payload, more than %d", c.id, f.kind, over, MaxOverhead))
	}
	switch c.in.place(f.seq) {
	case duplicate:
		c.mu.Unlock()
		if f.seq == 0 {
			return s.breach(c, status.Violation("channel %d: %v without a number", c.id, f.kind))
		}
		return nil
	case hole:
		return s.hole(c, f)
	case inOrder:
	}
	err := c.apply(f, a)
	due, now := c.in.owes()
	over := c.state == closed
	c.mu.Unlock()
	if due {
		s.owe(c, now || over)
	}
	if over && f.kind == kindClosed {
		s.over(c)
	}
	if err != nil {
		return s.breach(c, err)
	}
	return nil
}

// acknowledged applies an Ack. c.mu is held, and released.
func (s *Session) acknowledged(c *Channel, f *frame, a action) error {
	if a != act {
		c.mu.Unlock()
		return nil
	}
	var err error
	ready := c.charged(func() bool {
		var ready bool
		ready, err = c.out.ack(f.ackSeq, f.window)
		return ready
	})
	c.wakeSender()
	over := s.role == Server && c.state == closed && c.out.acked == c.out.seq && len(c.out.waiting) == 0
	c.mu.Unlock()
	if over {
		s.mu.Lock()
		s.forget(c)
		s.mu.Unlock()
	}
	if ready {
		s.enqueue(c)
	}
	if err != nil {
		return s.breach(c, status.From(err))
	}
	return nil
}

// hole ends the link, so that a resume mends it; a second one without progress ends the channel. c.mu is held, and released.
func (s *Session) hole(c *Channel, f *frame) error {
	again, want := c.in.holed, c.in.seq+1
	c.in.holed = true
	c.mu.Unlock()
	err := status.New(codes.DataLoss, sluicev1.Reason_REASON_DATA_LOSS, "channel %d: %v has number %d, not %d", c.id, f.kind, f.seq, want)
	if again || s.plain {
		return s.breach(c, err)
	}
	return err
}

// breach closes a channel whose peer broke a rule.
func (s *Session) breach(c *Channel, err *status.Error) error {
	if s.role == Server {
		c.Finish(err, nil, true)
		return nil
	}
	c.mu.Lock()
	wasOpen := c.state < stopping
	c.mu.Unlock()
	c.Close(status.ReasonName(err.Reason))
	if wasOpen {
		c.end(err)
	}
	return nil
}

// apply takes a sequenced frame that is in order. mu is held.
func (c *Channel) apply(f *frame, a action) *status.Error {
	switch a {
	case discard:
		c.in.bytes += uint64(len(f.payload))
		c.in.count(len(f.payload))
		c.in.consume(c.in.seq, c.in.cost)
		return nil
	case act:
	default:
		c.in.bytes += uint64(len(f.payload))
		c.in.count(len(f.payload))
		c.in.consume(c.in.seq, c.in.cost)
		return status.Violation("channel %d: %v while %v", c.id, f.kind, c.state)
	}
	if f.kind == kindData {
		ev, ok, err := c.in.data(f)
		if ok {
			c.deliver(ev)
		}
		return asStatus(err)
	}
	return c.applyMessage(f)
}

func asStatus(err error) *status.Error {
	if err == nil {
		return nil
	}
	return status.From(err)
}

var eventOf = map[kind]EventKind{
	kindCloseSend: EventCloseSend, kindResize: EventResize, kindOpened: EventOpened, kindChannelState: EventState, kindClosed: EventClosed,
}

// applyMessage takes a sequenced frame without payload. mu is held.
func (c *Channel) applyMessage(f *frame) *status.Error {
	switch m := f.body.(type) {
	case *sluicev1.Close:
		return c.applyClose(m)
	case *sluicev1.Closed:
		return c.applyClosed(m)
	case *sluicev1.Opened:
		c.state = open
		c.out.grant(m.GetWindow())
		c.wakeSender()
	case *sluicev1.CloseSend:
		c.state = halfClosed
	}
	ev, err := c.in.message(eventOf[f.kind], f.body)
	if err != nil {
		return status.From(err)
	}
	c.deliver(ev)
	return nil
}

// applyClose takes a client's wish for the end: whoever serves the channel sees its context end, and finishes it.
func (c *Channel) applyClose(m *sluicev1.Close) *status.Error {
	c.in.count(0)
	c.in.drop()
	c.out.shut = true
	c.state = stopping
	c.end(status.New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "closed by the client: %q", cut(m.GetReason(), 256)))
	return nil
}

// applyClosed takes the channel's end at a client. Everything is consumed with it: there is no more window to account for.
func (c *Channel) applyClosed(m *sluicev1.Closed) *status.Error {
	stopped := c.state == stopping
	c.in.count(0)
	var end error = errFinished
	if e := status.FromProto(m.GetStatus()); e != nil {
		end = e
	}
	if m.GetBytesOut() != c.in.bytes || m.GetBytesIn() > c.out.bytes {
		end = dataLoss(c.id, m, c.in.bytes, c.out.bytes)
		m = proto.CloneOf(m)
		m.Status = status.From(end).Proto()
	}
	if !stopped {
		ev := Event{Kind: EventClosed, Seq: c.in.seq, Message: m}
		c.deliver(ev)
	}
	c.in.consume(c.in.seq, c.in.cost)
	c.in.settleWindow()
	c.charged(func() bool { c.out.drop(); return false })
	c.state = closed
	c.wakeSender()
	c.end(end)
	return nil
}

// cut is at most n bytes of s, and whole characters of it.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// handleSession applies a frame of channel 0.
func (s *Session) handleSession(f *frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holding && f.kind != kindWelcome && f.kind != kindGoodbye {
		return status.Violation("%v before Welcome", f.kind)
	}
	if f.kind != kindHello && f.kind != kindWelcome {
		s.heard = s.link
	}
	switch m := f.body.(type) {
	case *sluicev1.Ping:
		s.pong = &sluicev1.Pong{Nonce: m.GetNonce()}
		s.wake()
	case *sluicev1.Pong:
	case *sluicev1.Authenticate:
		s.refuseCredential(m)
	case *sluicev1.AuthState:
		s.observe(func(o Observer) { o.AuthState(m) })
	case *sluicev1.Drain:
		s.observe(func(o Observer) { o.Draining(m) })
	case *sluicev1.Welcome:
		return s.welcomed(m)
	case *sluicev1.Goodbye:
		return &farewell{status.FromProto(m.GetStatus())}
	default:
		return status.Violation("%v in the middle of a session", f.kind)
	}
	return nil
}

// observe calls the observer without mu, which is held.
func (s *Session) observe(f func(Observer)) {
	if s.observer == nil {
		return
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	f(s.observer)
}

// refuseCredential answers an Authenticate: this version renews by a new session only. mu is held.
func (s *Session) refuseCredential(m *sluicev1.Authenticate) {
	s.rejected = &sluicev1.AuthState{
		Cluster: m.GetCluster(), Number: m.GetNumber(), State: sluicev1.AuthState_STATE_REJECTED,
		Status: status.New(codes.Unimplemented, sluicev1.Reason_REASON_NOT_IMPLEMENTED,
			"this gateway does not renew credentials in band; open a new session with the new one").Proto(),
	}
	s.wake()
}

// farewell is the error with which a peer's Goodbye ends its link and the session.
type farewell struct{ err *status.Error }

func (f *farewell) Error() string { return "the peer said goodbye" }
