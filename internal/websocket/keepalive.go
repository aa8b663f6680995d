package websocket

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// attempts is how many questions in a row TCP must have asked in vain until its peer counts as gone.
const attempts = 3

// keepalive is the state of [Conn.Keepalive]. Guarded by Conn.mu.
type keepalive struct {
	every, timeout time.Duration
	timer          *time.Timer
	host           prober // nil where nobody can tell whether the peer's host is there
	asked          int64  // when a ping was ordered that is not answered, 0 for none
	sent           int64  // when it was written, 0 while it was not
}

// prober knows of a connection what TCP knows: whether the other end's host is there, whatever its program does.
type prober interface {
	// probe has TCP ask the host when nothing was heard of it for idle, and go on asking, several times within timeout. It is a wish.
	probe(idle, timeout time.Duration)
	// gone reports whether the host has answered nothing for so long although it was asked more than once. Where that is not known, it is not.
	gone(after time.Duration) bool
}

// stop says whether it has kept the timer from firing.
func (k *keepalive) stop() bool { return k.timer != nil && k.timer.Stop() }

// Keepalive has a ping sent whenever a Read, or who called Expect, has waited for `every` without any bytes, and fails that Read with a *[TimeoutError]
// when nothing arrives within timeout after it either. While nobody reads, nothing is concluded from silence.
//
// Silence means nothing while the peer does not take the message that is being written, which holds up the ping; nor while it is not known to
// have read the messages that were sent before the ping: it may wait for somebody who does not take them, and the ping waits behind them. Its host
// answers all the same, and be it that there is no room (RFC 9293 section 3.8.6.1). So what counts then is TCP: the Read fails when the host has
// not answered for timeout, several times. That is known of a TCP connection of Linux, with and without Secure; any other is left to itself, and
// TCP finds out what is lost.
//
// It is driven by a timer and costs no goroutine. It must be called at most once.
func (c *Conn) Keepalive(every, timeout time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.alive = keepalive{every: every, timeout: timeout}
	if host, ok := c.socket.(prober); ok { // one that was detached writes no messages, so that its silence is never ambiguous
		c.alive.host = host
		host.probe(every, timeout)
	}
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
		if k.host != nil && k.host.gone(k.timeout) {
			c.timeout = &TimeoutError{After: k.timeout, Host: true}
			return 0
		}
		return k.timeout / 2
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
	if n := int64(binary.BigEndian.Uint64(pong)); n <= c.written.Load() {
		raise(&c.taken, n)
	}
}

// raise makes a at least n.
func raise(a *atomic.Int64, n int64) {
	for {
		if old := a.Load(); n <= old || a.CompareAndSwap(old, n) {
			return
		}
	}
}

// Passed says that the first n messages have left the peer: who is behind it has answered what came after them, by a message of his own. So the peer has
// room again, and a WriteProbe is no reason for its silence.
func (c *Conn) Passed(n int64) {
	if n <= c.written.Load() {
		raise(&c.passed, n)
		raise(&c.taken, n)
	}
}
