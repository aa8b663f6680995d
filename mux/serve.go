package mux

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// carrier carries a session over one link, with a reader and a writer. Both are started by serve and end when the link does, or with their
// next call once it has been replaced; wait waits for them.
type carrier struct {
	s      *Session
	link   Link
	prompt Prompt // the link, if it is one
	gen    uint64

	sending sync.Mutex // one batch at a time, from its collection on

	heard atomic.Int64 // when a batch came, as the time since begin
	sent  atomic.Int64 // when a batch left
	begin time.Time
	over  chan error // the ends of reader and writer
	stuck chan error // why the writer cannot send
	stop  chan struct{}
}

// ServeServer carries a server's session over a link, begun with g, until the link or the session ends. It returns why: nil after the end of
// a session that ended well, the session's error if it has ended, else what ended the link, and then the session is detached.
//
// The caller must then end the link (a gRPC handler by returning), and wait for the goroutines that use it with [Session.Wait].
func (s *Session) ServeServer(ctx context.Context, l Link, g *Greeting) error {
	gen, err := s.attachServer(g.hello)
	if err != nil {
		return err
	}
	return s.serve(ctx, l, gen, g)
}

// ServeClient carries a client's session over a link, as ServeServer does a server's. hello gives what the client says of itself.
func (s *Session) ServeClient(ctx context.Context, l Link, hello *sluicev1.Hello) error {
	gen, err := s.attachClient(hello)
	if err != nil {
		return err
	}
	return s.serve(ctx, l, gen, nil)
}

// serve supervises: it neither receives nor sends, so that nothing a peer does or leaves undone holds it up.
func (s *Session) serve(ctx context.Context, l Link, gen uint64, g *Greeting) error {
	c := &carrier{s: s, link: l, gen: gen, begin: time.Now(), over: make(chan error, 2), stuck: make(chan error, 1), stop: make(chan struct{})}
	if s.role == Server { // a client's callers may hold locks that its reader needs
		c.prompt, _ = l.(Prompt)
	}
	s.carry(c)
	s.nudge() // what the link before this one left to be timed
	go c.read(g)
	go c.write()
	err := c.supervise(ctx)
	s.detach(gen)
	s.nudge() // what was meant for the supervisor of the next link may have come to this one
	close(c.stop)
	if bye, ok := errors.AsType[*farewell](err); ok {
		s.End(bye.err)
		return bye.err.OrNil()
	}
	return err
}

// Wait waits for the goroutines of all links that the session was carried over. Every link must have ended.
func (s *Session) Wait() { s.wg.Wait() }

// detach makes what still comes over the link of generation gen unheard.
func (s *Session) detach(gen uint64) {
	s.recvMu.Lock()
	defer s.recvMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen == gen {
		s.gen++
		s.carrier = nil
	}
}

// carry notes what carries the session now.
func (s *Session) carry(c *carrier) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen == c.gen {
		s.carrier = c
	}
}

// read applies what the link brings. Started by serve; ends with the link, at a server also with the first batch after it was replaced. A
// client that has ended the session goes on to read, so that whoever waits for the link's end knows when the server has heard its Goodbye.
func (c *carrier) read(g *Greeting) {
	defer c.s.wg.Done()
	err := c.readAll(g)
	c.over <- err
	for errors.Is(err, errOldLink) && c.s.role == Client {
		if _, lost := c.link.Recv(); lost != nil {
			return
		}
	}
}

func (c *carrier) readAll(g *Greeting) error {
	if g != nil {
		if err := c.s.receive(c.gen, g.first); err != nil {
			return err
		}
		g.first = nil
	}
	for {
		b, err := c.link.Recv()
		if c.s.plain && errors.Is(err, io.EOF) {
			c.s.inputEnded()
			return nil // only the reader's end: the session lives until its channels end
		}
		if err != nil {
			return err
		}
		c.heard.Store(int64(time.Since(c.begin)))
		if err := c.s.receive(c.gen, b); err != nil {
			return err
		}
	}
}

// inputEnded notes that a plain session's client sends no more.
func (s *Session) inputEnded() {
	s.mu.Lock()
	s.eof = true
	s.mu.Unlock()
	s.wake()
}

// write sends what there is. Started by serve; ends when it is stopped, when a Send fails, or when the session is over and all is sent.
func (c *carrier) write() {
	defer c.s.wg.Done()
	if err := c.writeAll(); errors.Is(err, errOver) {
		c.over <- err
	} else {
		c.fail(err)
	}
}

func (c *carrier) writeAll() error {
	for {
		sent, over, err := c.writeNext()
		switch {
		case err != nil:
			return err
		case sent:
		case over:
			c.s.wake() // it may have been meant for the writer of the next link
			return errOver
		default:
			select {
			case <-c.s.woken:
			case <-c.stop:
				return errOver
			}
		}
	}
}

// writeNext sends the next batch, if there is one; over says that there will be none.
func (c *carrier) writeNext() (sent, over bool, err error) {
	c.sending.Lock()
	defer c.sending.Unlock()
	b, over := c.s.next(c.gen)
	if len(b) == 0 {
		return false, over, nil
	}
	return true, false, c.send(b)
}

// send sends a batch. sending is held.
func (c *carrier) send(b Batch) error {
	if err := c.link.Send(b); err != nil {
		return err
	}
	c.sent.Store(int64(time.Since(c.begin)))
	return nil
}

// sendNow sends what there is on the goroutine that has brought it, if that takes but a moment, and reports whether all was sent. Who gets
// false must wake the writer.
func (c *carrier) sendNow() bool {
	if c.prompt == nil || !c.sending.TryLock() {
		return false
	}
	defer c.sending.Unlock()
	if !c.prompt.Idle() {
		return false
	}
	b := c.s.collect(c.gen)
	if len(b) == 0 {
		return true
	}
	size := b.Len() // which nobody knows once it is sent
	if err := c.send(b); err != nil {
		c.fail(err)
	}
	return size < batchTarget
}

// fail tells the supervisor that the link does not send. Once is enough.
func (c *carrier) fail(err error) {
	select {
	case c.stuck <- err:
	default:
	}
}

// errOver is a writer's good end.
var errOver = errors.New("mux: nothing is left to send")

// next is the next batch for the link of generation gen; over says that there will be none.
func (s *Session) next(gen uint64) (b Batch, over bool) {
	if b = s.collect(gen); len(b) > 0 {
		return b, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil, gen != s.gen || s.ended && !s.holding && s.goodbye == nil || s.plain && s.eof && len(s.chans) == 0
}

// supervise waits for the first reason to end, and keeps the times of the protocol.
func (c *carrier) supervise(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var acks time.Time // when owed acknowledgements leave at the latest
	done, replaced := c.s.done, c.s.replacement(c.gen)
	var late <-chan time.Time
	last := errOver
	for {
		next, err := c.times(acks)
		if err != nil {
			return err
		}
		timer.Reset(next)
		select {
		case err := <-c.over:
			if err == nil { // a plain session's reader
				continue
			}
			return c.s.reason(c.gen, err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-replaced:
			return errOldLink
		case <-done: // the writer sends what there is; who does not read it is not waited for
			done, late = nil, time.After(time.Second)
		case last = <-c.stuck: // the reader knows why the link has ended, and may still bring a Goodbye
			late = time.After(time.Second)
		case <-late:
			return c.s.reason(c.gen, last)
		case <-c.s.nudged:
			acks = time.Now().Add(AckAfter)
		case <-timer.C:
		}
		if !acks.IsZero() && !time.Now().Before(acks) {
			acks = time.Time{}
			c.s.sendAcks()
		}
	}
}

// reason is why serve returns, when err ended it.
func (s *Session) reason(gen uint64, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended:
		return s.err.OrNil()
	case s.gen != gen:
		return errOldLink
	case errors.Is(err, errOver):
		return nil
	}
	return err
}

// replacement is closed when the link of generation gen is replaced.
func (s *Session) replacement(gen uint64) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gen != gen {
		gone := make(chan struct{})
		close(gone)
		return gone
	}
	return s.replaced
}

func (s *Session) sendAcks() {
	s.mu.Lock()
	s.ackNow = len(s.owing) > 0
	s.mu.Unlock()
	s.wake()
}

// times keeps the heartbeat and says when to look again.
func (c *carrier) times(acks time.Time) (time.Duration, error) {
	now := time.Since(c.begin)
	next := time.Hour
	if !acks.IsZero() {
		next = min(next, time.Until(acks))
	}
	if c.s.plain {
		return max(next, 0), nil
	}
	silent := now - time.Duration(c.heard.Load())
	if silent >= GiveUpAfter {
		return 0, status.New(codes.Unavailable, sluicev1.Reason_REASON_HEARTBEAT_TIMEOUT, "no frame arrived for %v", GiveUpAfter)
	}
	next = min(next, GiveUpAfter-silent)
	if c.s.role == Server {
		quiet := now - time.Duration(c.sent.Load())
		if quiet >= PingAfter {
			c.sent.Store(int64(now)) // asked; a writer that is stuck is told by the silence
			c.s.sendPing()
			quiet = 0
		}
		next = min(next, PingAfter-quiet)
	}
	return max(next, 0), nil
}

func (s *Session) sendPing() {
	s.mu.Lock()
	s.ping = true
	s.mu.Unlock()
	s.wake()
}
