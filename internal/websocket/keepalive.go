package websocket

import (
	"encoding/binary"
	"time"
)

// keepalive is the state of [Conn.Keepalive]. Guarded by Conn.mu.
type keepalive struct {
	every, timeout time.Duration
	timer          *time.Timer
	asked          int64 // when a ping was ordered that is not answered, 0 for none
	sent           int64 // when it was written, 0 while it was not
}

// stop says whether it has kept the timer from firing.
func (k *keepalive) stop() bool { return k.timer != nil && k.timer.Stop() }

// Keepalive has a ping sent whenever a Read, or who called Expect, has waited for `every` without any bytes, and fails that Read with a *[TimeoutError]
// when nothing arrives within timeout after it either. While nobody reads, nothing is concluded from silence; nor while the peer
// does not take the message that is being written, which holds up the ping; nor while it is not known to have read the messages
// that were sent before the ping: it may wait for somebody who does not take them, and the ping waits behind them. Then TCP
// finds out what is lost. It is driven by a timer and costs no goroutine. It must be called at most once.
func (c *Conn) Keepalive(every, timeout time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.alive = keepalive{every: every, timeout: timeout}
	c.running.Add(1)
	c.alive.timer = time.AfterFunc(every, c.onTimer)
}

// onTimer looks whether the peer is alive and when to look again. It is counted as running until it does not set the timer again.
func (c *Conn) onTimer() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.running.Done()
		return
	}
	next := c.check(c.waiting.Load(), c.now())
	if c.timeout != nil {
		c.running.Done()
		c.endRead()
		return
	}
	c.alive.timer.Reset(next)
}

// endRead has the reader find out that it waited in vain. mu is held.
func (c *Conn) endRead() {
	c.broken.Store(true)
	if c.direct != nil {
		c.wake()
		return
	}
	_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // long ago: Read returns at once
}

// check concludes from since when Read has waited, and returns when to look again. mu is held.
func (c *Conn) check(since, now int64) time.Duration {
	k := &c.alive
	if since >= k.asked {
		k.asked = 0 // something has arrived, or another Read has begun
	}
	silent := time.Duration(now - since)
	switch {
	case since == 0:
		return k.every
	case k.asked != 0 && (k.sent == 0 || c.taken.Load() < c.written.Load()):
		return k.timeout
	case k.asked != 0 && now-k.sent >= int64(k.timeout):
		c.timeout = &TimeoutError{After: k.timeout}
		return 0
	case k.asked != 0:
		return k.timeout - time.Duration(now-k.sent)
	case silent < k.every:
		return k.every - silent
	}
	k.asked, k.sent, c.ping = now, 0, true
	c.flush()
	return k.timeout
}

// noteSent notes that a ping was written.
func (c *Conn) noteSent() {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.alive.asked != 0 && c.alive.sent == 0 {
		c.alive.sent = now
	}
}

// pingPayload says how many messages were written before the ping; nothing without any. writing is held.
func (c *Conn) pingPayload() []byte {
	n := c.written.Load()
	if n == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint64(nil, uint64(n))
}

// noteTaken notes what a pong proves. It carries the payload of the ping that it answers (RFC 6455 section 5.5.3); one that answers none proves
// nothing.
func (c *Conn) noteTaken(pong []byte) {
	if len(pong) != 8 {
		return
	}
	if n := int64(binary.BigEndian.Uint64(pong)); n > c.taken.Load() && n <= c.written.Load() {
		c.taken.Store(n)
	}
}
