package mux

import (
	"maps"
	"slices"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Close asks the server for a client's channel's end. What has arrived and was not taken is dropped; Closed still arrives. An Open that
// was never given to a link is withdrawn instead: the server does not hear of the channel, which has ended when Close returns.
func (c *Channel) Close(reason string) { c.stop(reason, nil) }

// Leave ends those of a client's channels for which leaves is true: the server is asked for their end, and here they end with err at once.
// What has arrived of them can still be taken. It is whole batches, so the last cursor taken is that of the last event. Leave must not be
// called from an Observer or a Sink of the session.
func (s *Session) Leave(err *status.Error, leaves func(*Channel) bool) {
	s.recvMu.Lock() // no batch is applied meanwhile
	defer s.recvMu.Unlock()
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.chans))
	s.mu.Unlock()
	for _, c := range all {
		if leaves(c) {
			c.stop("the client goes on elsewhere", err)
		}
	}
}

// Sent reports whether a client's Open was ever given to a link, and so may have reached the server.
func (c *Channel) Sent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.taken > 0
}

// stop is Close, or with err what Leave does to a channel.
func (c *Channel) stop(reason string, err *status.Error) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.mu.Lock()
	if c.state >= stopping {
		c.mu.Unlock()
		return
	}
	if c.out.taken == 0 {
		c.withdraw(err)
		return
	}
	ready := c.charged(func() bool { return c.out.finish(&sluicev1.Close{Reason: cut(reason, 256)}, true) })
	c.state = stopping
	if err == nil {
		c.in.drop()
	} else {
		c.in.leave()
	}
	c.wakeSender()
	c.mu.Unlock()
	if err != nil {
		c.end(err)
	}
	c.s.owe(c, true)
	if ready {
		c.s.enqueue(c)
	}
}

// withdraw ends a channel whose Open has not left. mu is held, and released.
func (c *Channel) withdraw(err *status.Error) {
	c.charged(func() bool { c.out.drop(); return false })
	c.state = closed
	c.wakeSender()
	c.mu.Unlock()
	c.end(finished(err))
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.forget(c)
}
