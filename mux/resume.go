package mux

import (
	"crypto/subtle"
	"maps"
	"slices"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Proves reports whether r proves the right to resume the session. It takes the same time whatever the secret.
func (s *Session) Proves(r *sluicev1.Resume) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.secret) > 0 && subtle.ConstantTimeCompare(s.secret, r.GetSecret()) == 1
}

// CheckResume reports why hello cannot resume the session, before anything is changed for it: SUPERSEDED by a later link, or a hello that
// breaks a rule.
func (s *Session) CheckResume(hello *sluicev1.Hello) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resumable(hello)
}

// resumable is CheckResume. mu is held.
func (s *Session) resumable(hello *sluicev1.Hello) error {
	last := hello.GetResume().GetLastLink()
	switch {
	case s.link == 0:
		return nil
	case last > s.link:
		return status.Violation("a resume after link %d of a session that has had %d", last, s.link)
	case last < s.heard:
		return status.New(codes.Aborted, sluicev1.Reason_REASON_SUPERSEDED,
			"the session went on with link %d after link %d, which this client knows last", s.heard, last)
	case len(hello.GetChannels()) > MaxChannels: // the answer names each of them, in one batch
		return status.Limit("limits.session_channels", "a resume of %d channels, more than %d", len(hello.GetChannels()), MaxChannels)
	}
	return nil
}

// attachServer makes a new link the session's: the one before is no longer listened to. For a full session it computes the Welcome.
func (s *Session) attachServer(hello *sluicev1.Hello) (gen uint64, err error) {
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, s.endError()
	}
	if err := s.resumable(hello); err != nil {
		return 0, err
	}
	s.replace()
	s.pong, s.ping, s.drained = nil, false, false
	if s.plain {
		return s.gen, nil
	}
	resumed := s.link > 0
	s.link++
	w := &sluicev1.Welcome{
		Session: s.id, Link: s.link, Resumed: resumed, Draining: s.drain, DetachTtl: s.detachTTL(), Limits: s.limits(),
	}
	if s.heard == 0 {
		w.Secret = s.secret
	}
	w.Auth, s.authDue = slices.Clone(s.auth), nil
	s.drained = s.drain != nil
	s.welcome = w
	if resumed {
		w.Channels = s.continueChannels(hello.GetChannels())
	}
	s.rearrange()
	s.wake()
	return s.gen, nil
}

// replace makes the link before this one unheard, and counts the goroutines that serve starts for the new one: here, where a session that
// has ended is told apart, so that Wait misses none. recvMu and mu are held.
func (s *Session) replace() {
	s.wg.Add(2)
	s.gen++
	if s.replaced != nil {
		close(s.replaced)
	}
	s.replaced = make(chan struct{})
}

// continueChannels brings the channels to where the client stands, and forgets those it does not name. recvMu and mu are held.
func (s *Session) continueChannels(named []*sluicev1.ChannelPosition) []*sluicev1.ChannelPosition {
	kept := make(map[uint32]bool, len(named))
	answer := make([]*sluicev1.ChannelPosition, 0, len(named))
	for _, p := range named {
		if kept[p.GetChannel()] {
			continue
		}
		kept[p.GetChannel()] = true
		answer = append(answer, s.continueChannel(p))
	}
	for id, c := range s.chans {
		if !kept[id] {
			s.loseLocked(c, status.New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "the client has forgotten the channel"))
		}
	}
	return answer
}

func (s *Session) continueChannel(p *sluicev1.ChannelPosition) *sluicev1.ChannelPosition {
	id := p.GetChannel()
	a := &sluicev1.ChannelPosition{Channel: id, Verdict: sluicev1.Verdict_VERDICT_CONTINUE, Window: MinWindow}
	c := s.chans[id]
	if c == nil && id > s.highest { // its Open has not arrived: it comes again
		return a
	}
	err := errChannelGone
	if c != nil {
		err = s.position(c, p)
	}
	if err != nil {
		a.Verdict, a.Status, a.Window = sluicev1.Verdict_VERDICT_LOST, err.Proto(), 0
		if c != nil {
			s.loseLocked(c, err)
		}
		return a
	}
	c.mu.Lock()
	a.Received = c.in.seq
	a.Consumed, a.Window = c.in.ack()
	c.mu.Unlock()
	return a
}

var errChannelGone = status.New(codes.NotFound, sluicev1.Reason_REASON_CHANNEL_NOT_FOUND, "the channel has ended")

// position applies where the peer stands: its Ack, then everything above what it received is sent again. mu is held.
func (s *Session) position(c *Channel, p *sluicev1.ChannelPosition) *status.Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	c.charged(func() bool {
		if _, err = c.out.ack(p.GetConsumed(), p.GetWindow()); err == nil {
			err = c.out.rewind(p.GetReceived())
		}
		return false
	})
	if err != nil {
		return status.From(err)
	}
	c.wakeSender()
	return nil
}

// loseLocked ends a channel that one side does not have any more. mu is held.
func (s *Session) loseLocked(c *Channel, err *status.Error) {
	s.forget(c)
	s.mu.Unlock()
	defer s.mu.Lock()
	c.abandon(err)
}

// attachClient makes a new link the session's and says Hello on it.
func (s *Session) attachClient(hello *sluicev1.Hello) (gen uint64, err error) {
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return 0, s.endError()
	}
	s.replace()
	s.pong = nil
	s.holding = true
	s.hello = &sluicev1.Hello{Protocol: 1, Features: hello.GetFeatures(), Client: hello.GetClient(), Credential: hello.GetCredential()}
	if s.id != "" {
		s.hello.Resume = &sluicev1.Resume{Session: s.id, Secret: s.secret, LastLink: s.link}
		s.hello.Channels = s.positions()
	}
	s.wake()
	return s.gen, nil
}

// positions is where a client stands in its channels. recvMu and mu are held.
func (s *Session) positions() []*sluicev1.ChannelPosition {
	out := make([]*sluicev1.ChannelPosition, 0, len(s.chans))
	for _, id := range slices.Sorted(maps.Keys(s.chans)) {
		c := s.chans[id]
		c.mu.Lock()
		if c.state != closed && c.out.taken > 0 {
			p := &sluicev1.ChannelPosition{Channel: id, Received: c.in.seq}
			p.Consumed, p.Window = c.in.ack()
			out = append(out, p)
		}
		c.mu.Unlock()
	}
	return out
}

// welcomed brings a client up to date with the server. recvMu and mu are held.
func (s *Session) welcomed(w *sluicev1.Welcome) error {
	if !s.holding {
		return status.Violation("a second Welcome")
	}
	if !w.GetResumed() {
		s.loseAll()
		s.id, s.secret = w.GetSession(), nil
	}
	if len(w.GetSecret()) > 0 {
		s.secret = w.GetSecret()
	}
	s.link = w.GetLink()
	named := make(map[uint32]bool, len(w.GetChannels()))
	for _, p := range w.GetChannels() {
		named[p.GetChannel()] = true
		s.continueAtClient(p)
	}
	for id, c := range s.chans {
		c.mu.Lock()
		sent, over := c.out.taken > 0, c.state == closed
		c.mu.Unlock()
		switch {
		case over: // its end has arrived; the server has forgotten it, as it was not named
			s.forget(c)
		case sent && !named[id]:
			s.loseLocked(c, errChannelGone)
		}
	}
	s.rearrange()
	s.holding = false
	s.observe(func(o Observer) { o.Welcomed(w) })
	s.wake()
	return nil
}

// loseAll ends the channels of a session that the server does not have any more. Those whose Open never left are kept. mu is held.
func (s *Session) loseAll() {
	for _, c := range s.chans {
		c.mu.Lock()
		sent := c.out.taken > 0
		c.mu.Unlock()
		if sent {
			s.loseLocked(c, status.New(codes.Unavailable, sluicev1.Reason_REASON_SESSION_NOT_FOUND,
				"the gateway does not have the session any more").WithResumable(true))
		}
	}
}

func (s *Session) continueAtClient(p *sluicev1.ChannelPosition) {
	c := s.chans[p.GetChannel()]
	if c == nil {
		return
	}
	if p.GetVerdict() == sluicev1.Verdict_VERDICT_LOST {
		err := status.FromProto(p.GetStatus())
		if err == nil {
			err = errChannelGone
		}
		s.loseLocked(c, err)
		return
	}
	if err := s.position(c, p); err != nil {
		s.loseLocked(c, err)
	}
}
