package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
)

// delivered is an event as the client of a channel has it: whole, with what came with it.
type delivered struct {
	Type    string
	Name    string
	Version string
	Cursor  string
	Listed  bool // an object of a list
	Text    bool
	Bytes   []byte
}

// told is what a client hears of a channel, in order: one of the two.
type told struct {
	event *delivered
	state *sluicev1.ChannelState
}

// testChannel is a Channel that enforces its contract and plays the receiver behind it. What the bridge does wrong fails the test.
type testChannel struct {
	t      testing.TB
	piece  int // MaxPiece
	window int
	calls  atomic.Int32 // inside a method right now

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	notify  func()        // called at the next change; nil for none
	used    int           // of the window, not consumed
	held    bool          // the receiver consumes nothing
	stingy  bool          // a budget that others share: credit comes and goes, and Offer takes less than was said
	asked   int           // calls of Credit
	offers  int
	pieces  int
	opened  *sluicev1.Opened
	listing bool
	partial []byte
	log     []told
	ended   error

	sent   []data.Input     // by the client, not taken yet
	taken  *data.Input      // by Next, not used yet
	uses   int              // inputs that were used
	bytes  func(data.Piece) // takes the pieces of a kind whose messages are no watch events
	closed bool             // CloseSend was said
}

// newTestChannel makes a channel with a window of 64 KiB. One that is opened at a cursor does not begin with a list.
func newTestChannel(t testing.TB, cursor string) *testChannel {
	return &testChannel{t: t, piece: 16 << 10, window: 64 << 10, changed: make(chan struct{}), listing: cursor == ""}
}

// enter checks that calls come one at a time.
func (c *testChannel) enter() (leave func()) {
	if c.calls.Add(1) > 1 {
		c.t.Error("the channel is called by two goroutines at once")
	}
	c.mu.Lock()
	return func() {
		c.mu.Unlock()
		c.calls.Add(-1)
	}
}

// tell wakes who awaits something of the channel.
func (c *testChannel) tell() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// change tells of a change that may have brought credit.
func (c *testChannel) change() {
	c.tell()
	if f := c.notify; f != nil {
		c.notify = nil
		f()
	}
}

func (c *testChannel) Credit() int {
	defer c.enter()()
	c.asked++
	if c.closed {
		return 0
	}
	if c.stingy && c.asked%3 == 0 {
		return min(c.window-c.used, pieceCost+c.asked%100)
	}
	return c.window - c.used
}

func (c *testChannel) MaxPiece() int {
	defer c.enter()()
	return c.piece
}

func (c *testChannel) AwaitCredit(ctx context.Context, n int) error {
	if n > c.piece+pieceCost {
		c.t.Errorf("AwaitCredit of %d: no channel promises that", n)
	}
	c.calls.Add(1)
	defer c.calls.Add(-1)
	c.mu.Lock()
	closed := c.closed
	c.mu.Unlock()
	if closed {
		return errors.New("credit after CloseSend")
	}
	return c.await(ctx, func() bool { return c.window-c.used >= n })
}

func (c *testChannel) NotifyCredit(n int, f func()) (told bool, err error) {
	if n > c.piece+pieceCost {
		c.t.Errorf("NotifyCredit of %d: no channel promises that", n)
	}
	defer c.enter()()
	if c.ended != nil || c.window-c.used >= n {
		return false, c.ended
	}
	c.notify = f
	c.tell()
	return true, nil
}

// await returns once ok, which is called with mu held.
func (c *testChannel) await(ctx context.Context, ok func() bool) error {
	for {
		c.mu.Lock()
		done, changed, ended := ok(), c.changed, c.ended
		c.mu.Unlock()
		if done {
			return nil
		}
		if ended != nil {
			return ended
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Offer takes pieces, and consumes them at once unless the receiver is held.
func (c *testChannel) Offer(pieces []data.Piece) (n int) {
	defer c.enter()()
	if c.opened == nil {
		c.t.Error("pieces before Opened")
	}
	last := -1
	for _, p := range pieces {
		p.Bytes, p.Rest = slices.Concat(append([][]byte{p.Bytes}, p.Rest...)...), nil // as a frame has it
		cost := len(p.Bytes) + pieceCost
		if len(p.Bytes) > c.piece {
			c.t.Errorf("a piece of %d bytes", len(p.Bytes))
		}
		if c.used+cost > c.window || c.stingy && 2*n > len(pieces) {
			break
		}
		c.used += cost
		c.take(p)
		if !p.More {
			last = n
		}
		n++
	}
	if n < len(pieces) && !c.stingy {
		c.t.Errorf("%d pieces are offered, there is credit for %d", len(pieces), n)
	}
	if last >= 0 && c.bytes == nil && !c.listing && !c.stingy && pieces[last].Cursor == "" {
		c.t.Errorf("the last whole event of an offer carries no cursor: %s", pieces[last].Bytes)
	}
	c.offers++
	c.pieces += n
	if !c.held {
		c.used = 0
	}
	c.change()
	return n
}

// take reassembles events as a client does.
func (c *testChannel) take(p data.Piece) {
	if c.bytes != nil {
		c.bytes(p)
		return
	}
	switch {
	case p.Cursor != "" && p.More:
		c.t.Error("a piece with more carries a cursor")
	case p.Cursor != "" && c.listing:
		c.t.Error("an object of a list carries a cursor")
	case p.Text && !utf8.Valid(p.Bytes):
		c.t.Errorf("a text piece is not UTF-8: %q", p.Bytes)
	}
	c.partial = append(c.partial, p.Bytes...)
	if p.More {
		return
	}
	e := &delivered{Cursor: p.Cursor, Listed: c.listing, Text: p.Text, Bytes: c.partial}
	c.partial = nil
	if err := e.decode(); err != nil {
		c.t.Errorf("%v: %.200s", err, e.Bytes)
	}
	c.log = append(c.log, told{event: e})
}

func (e *delivered) decode() error {
	var v struct {
		Type   string
		Object struct {
			Kind     string
			Metadata struct{ Name, ResourceVersion string }
		}
	}
	if err := json.Unmarshal(bytes.ToValidUTF8(e.Bytes, []byte("?")), &v); err != nil {
		return err
	}
	e.Type, e.Name, e.Version = v.Type, v.Object.Metadata.Name, v.Object.Metadata.ResourceVersion
	if e.Name == "" || v.Object.Kind == "" || e.Type != "ADDED" && e.Type != "MODIFIED" && e.Type != "DELETED" {
		return errors.New("not a change of an object")
	}
	return nil
}

func (c *testChannel) Opened(o *sluicev1.Opened) {
	defer c.enter()()
	if c.opened != nil {
		c.t.Error("Opened twice")
	}
	c.opened = o
	c.change()
}

// State takes a state, which ends an unfinished event without a trace.
func (c *testChannel) CloseSend() {
	defer c.enter()()
	if c.closed {
		c.t.Error("CloseSend was said twice")
	}
	c.closed = true
	c.tell()
}

// Next implements Channel. It is another goroutine's than the rest.
func (c *testChannel) Next(ctx context.Context) (in data.Input, err error) {
	err = c.await(ctx, func() bool {
		if len(c.sent) == 0 {
			return false
		}
		if c.taken != nil {
			c.t.Error("Next is called before what it returned last was used")
		}
		in = c.sent[0]
		c.sent, c.taken = c.sent[1:], &in
		return true
	})
	return in, err
}

func (c *testChannel) Used() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken == nil {
		c.t.Error("Used is called without an input")
	}
	c.taken = nil
	c.uses++
	c.tell()
}

// send has the client send inputs.
func (c *testChannel) send(inputs ...data.Input) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, inputs...)
	c.tell()
}

func (c *testChannel) State(s *sluicev1.ChannelState) {
	defer c.enter()()
	c.partial = nil
	switch s.GetKind() {
	case sluicev1.ChannelState_KIND_RESYNC_BEGIN:
		c.listing = true
	case sluicev1.ChannelState_KIND_RESYNC_END:
		if !c.listing {
			c.t.Error("RESYNC_END outside of a list")
		}
		if s.GetCursor() == "" {
			c.t.Error("RESYNC_END without a cursor")
		}
		c.listing = false
	case sluicev1.ChannelState_KIND_RECONNECTING:
		if s.GetAttempt() == 0 || s.GetStatus().GetCode() == 0 || s.GetNextTry() == nil {
			c.t.Errorf("a RECONNECTING that does not say why and when: %v", s)
		}
	}
	c.log = append(c.log, told{state: proto.CloneOf(s)})
	c.change()
}

// hold stops the receiver, or lets it consume all there is and go on.
func (c *testChannel) hold(held bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = held
	if !held {
		c.used = 0
	}
	c.change()
}

// end ends the channel.
func (c *testChannel) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = err
	c.change()
}

// told returns what the client has heard so far.
func (c *testChannel) told() []told {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]told(nil), c.log...)
}

// events returns the events so far.
func (c *testChannel) events() (all []*delivered) {
	for _, x := range c.told() {
		if x.event != nil {
			all = append(all, x.event)
		}
	}
	return all
}

// states returns the states of a kind so far.
func (c *testChannel) states(kind sluicev1.ChannelState_Kind) (all []*sluicev1.ChannelState) {
	for _, x := range c.told() {
		if x.state != nil && x.state.GetKind() == kind {
			all = append(all, x.state)
		}
	}
	return all
}

// awaitEvent waits for an event of this object at this version.
func (c *testChannel) awaitEvent(ctx context.Context, name, version string) error {
	return c.await(ctx, func() bool {
		for _, x := range c.log {
			if x.event != nil && x.event.Name == name && x.event.Version == version {
				return true
			}
		}
		return false
	})
}

// awaitState waits for the n-th state of this kind.
func (c *testChannel) awaitState(ctx context.Context, kind sluicev1.ChannelState_Kind, n int) error {
	return c.await(ctx, func() bool {
		seen := 0
		for _, x := range c.log {
			if x.state != nil && x.state.GetKind() == kind {
				seen++
			}
		}
		return seen >= n
	})
}

// running is a Run in the background.
type running struct {
	*testChannel
	stop context.CancelFunc
	done chan error
}

// start runs a bridge until the test ends, at the latest.
func start(t testing.TB, up Upstream, open *sluicev1.Open, ch *testChannel, opts Options) *running {
	ctx, stop := context.WithCancel(context.Background())
	r := &running{testChannel: ch, stop: stop, done: make(chan error, 1)}
	if u, ok := up.(*testUpstream); ok && u.scheme == "https" { // what is reached through a pipe waits on a goroutine
		opts.Loops = loopsFor(t)
	}
	go func() { r.done <- Run(ctx, up, open, ch, WithDefaults(opts)).Err }()
	t.Cleanup(func() {
		stop()
		if err := <-r.done; err == nil {
			t.Error("a watch ended well, which none does")
		}
	})
	return r
}

// wait returns the error that Run ended with.
func (r *running) wait() error {
	err := <-r.done
	r.done <- err
	return err
}

// halt ends the Run from outside.
func (r *running) halt() {
	r.stop()
	if err := r.wait(); !errors.Is(err, context.Canceled) {
		r.t.Errorf("Run ends with %v", err)
	}
}

func openOf(target *sluicev1.WatchTarget, cursor string) *sluicev1.Open {
	return &sluicev1.Open{Target: watchOf(target), Cursor: cursor}
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// consume lets a held receiver consume n bytes.
func (c *testChannel) consume(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = max(c.used-n, 0)
	c.change()
}
