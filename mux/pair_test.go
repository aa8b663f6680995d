package mux

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// reporter is what a pair reports to: a test, or a property.
type reporter interface {
	Helper()
	Fatalf(format string, args ...any)
}

// pair is a client's and a server's session, the links between them and what should come out of each channel: all driven by one goroutine,
// so that a schedule is a list of calls and a failure repeats.
type pair struct {
	t      reporter
	cfg    Config
	client *Session
	server *Session
	link   *wires   // nil while there is none
	stale  []*wires // links that were cut, with what was in flight
	flows  []*flow
	live   map[uint32]*flow
	segs   map[*Segment]bool // all that were ever seen
	forget bool              // the server does not know the session at the next Hello
	drain  *sluicev1.Drain   // as the client has heard
	auth   *sluicev1.AuthState
	split  bool        // batches travel as one frame each: batching means nothing
	opened func(*flow) // what the server does with a new channel, beside Opened
}

// wires is a link: what is in flight each way.
type wires struct {
	toServer, toClient [][]byte
	cgen, sgen         uint64
}

// flow is one channel, seen from both ends.
type flow struct {
	id     uint32
	c, s   *Channel
	sunk   bool // the client's events come through a Sink
	told   bool // Opened was said
	up     lane // client to server
	down   lane // server to client
	closed bool // the client has called Close
	ended  *sluicev1.Closed
	over   bool // the client has seen the end
	lost   bool // with its session
}

// lane is one direction of a channel: the queue of what was offered and must come out.
type lane struct {
	from, to *Channel
	source   []data.Piece // waits for credit
	begun    []byte       // the pieces of a message that were taken, while it goes on
	wanted   []item       // taken and not come out yet
	hand     []Event      // come out and not used yet
	sent     uint64       // payload bytes taken
	shut     bool         // CloseSend was said, or the end
	quiet    bool         // its receiver has left: nothing more needs to come out
}

// item is what must come out.
type item struct {
	kind   EventKind
	data   []byte
	text   bool
	stream sluicev1.Stream
	state  sluicev1.ChannelState_Kind
	number uint32
}

func newPair(t reporter, cfg Config) *pair {
	p := &pair{t: t, cfg: cfg, live: map[uint32]*flow{}, segs: map[*Segment]bool{}}
	p.client = NewClient(cfg, p)
	p.server = p.newServer()
	return p
}

func (p *pair) newServer() *Session {
	s := NewServer(p.cfg, false, p)
	s.Identify(fmt.Sprintf("session-%d", rand.Uint32()), []byte("secret"))
	return s
}

// Welcomed implements Observer.
func (p *pair) Welcomed(w *sluicev1.Welcome) {
	if w.GetDraining() != nil {
		p.drain = w.GetDraining()
	}
	for _, a := range w.GetAuth() {
		p.auth = a
	}
}

// AuthState implements Observer.
func (p *pair) AuthState(a *sluicev1.AuthState) { p.auth = a }

// Draining implements Observer.
func (p *pair) Draining(d *sluicev1.Drain) { p.drain = d }

// Accept implements Acceptor.
func (p *pair) Accept(c *Channel, o *sluicev1.Open) {
	f := p.live[c.ID()]
	if f == nil {
		p.t.Fatalf("channel %d was opened at the server and not by the client", c.ID())
	}
	if f.s != nil {
		p.t.Fatalf("channel %d was opened twice", c.ID())
	}
	if o.GetCluster() != f.name() {
		p.t.Fatalf("channel %d opens %q", c.ID(), o.GetCluster())
	}
	f.s, f.up.to, f.down.from = c, c, c
	if p.opened != nil {
		p.opened(f)
	}
}

func (f *flow) name() string { return fmt.Sprint("cluster-", f.id) }

// Deliver implements Sink.
func (f *flow) Deliver(ev *Event) {
	e := *ev
	e.Data = bytes.Clone(ev.Data)
	f.down.hand = append(f.down.hand, e)
}

// open opens a channel at the client.
func (p *pair) open(window uint64, sunk bool) *flow {
	p.t.Helper()
	f := &flow{id: uint32(len(p.flows) + 1), sunk: sunk}
	var sink Sink
	if sunk {
		sink = f
	}
	p.live[f.id] = f
	p.flows = append(p.flows, f)
	c, err := p.client.Open(&sluicev1.Open{Cluster: f.name(), Window: window}, sink)
	if err != nil {
		p.t.Fatalf("open: %v", err)
	}
	if c.ID() != f.id {
		p.t.Fatalf("channel %d has the id %d", f.id, c.ID())
	}
	f.c, f.up.from, f.down.to = c, c, c
	return f
}

// dial makes a link, as a client does, and takes its first batch to the server.
func (p *pair) dial() {
	p.t.Helper()
	gen, err := p.client.attachClient(&sluicev1.Hello{Client: "test"})
	if err != nil {
		p.t.Fatalf("attach: %v", err)
	}
	w := &wires{cgen: gen}
	p.link = w
	p.clientSends(1)
	if len(w.toServer) != 1 {
		p.t.Fatalf("a link begins with %d batches instead of Hello", len(w.toServer))
	}
	g := greet(&oneBatch{b: w.toServer[0]})
	w.toServer = w.toServer[1:]
	if g.err != nil || g.Hello() == nil {
		p.t.Fatalf("greet: %v, %v", g.err, g.hello)
	}
	if p.forget || g.hello.GetResume().GetSession() != p.server.ID() {
		p.renew(g.hello.GetResume() != nil)
	}
	if w.sgen, err = p.server.attachServer(g.hello); err != nil {
		p.t.Fatalf("attach at the server: %v", err)
	}
	if err := p.server.receive(w.sgen, g.first); err != nil {
		p.t.Fatalf("first batch: %v", err)
	}
}

// renew gives the server a new session in place of one that it has forgotten, or whose Welcome was lost.
func (p *pair) renew(resumed bool) {
	p.server.End(nil)
	p.server = p.newServer()
	p.forget = false
	for _, f := range p.live {
		if f.s == nil && (!resumed || f.c.out.taken == 0) {
			continue
		}
		f.lost = true
		f.up.quiet = true
	}
}

// oneBatch is a link that brings one batch.
type oneBatch struct{ b []byte }

func (o *oneBatch) Recv() ([]byte, error) {
	if o.b == nil {
		return nil, io.EOF
	}
	b := o.b
	o.b = nil
	return b, nil
}

func (*oneBatch) Send(b Batch) error { b.Free(); return nil }

// carry is a batch as it travels, or one for each of its frames. The batch is freed, as a link does.
func (p *pair) carry(from Role, b Batch) [][]byte {
	p.t.Helper()
	all := p.flat(b)
	if !p.split {
		return [][]byte{all}
	}
	var out [][]byte
	var f frame
	for len(all) > 0 {
		rest, err := nextFrame(all, from, &f)
		if err != nil {
			p.t.Fatalf("a batch of ours: %v", err)
		}
		out = append(out, all[:len(all)-len(rest)])
		all = rest
	}
	return out
}

func (p *pair) flat(b Batch) []byte {
	var out []byte
	for _, part := range b {
		p.segs[part.seg] = true
		out = append(out, part.Bytes()...)
	}
	if len(out) > MaxBatch {
		p.t.Fatalf("a batch of %d bytes", len(out))
	}
	b.Free()
	return out
}

// clientSends lets the client send up to n batches and reports whether there was one.
func (p *pair) clientSends(n int) (some bool) {
	if p.link == nil {
		return false
	}
	for ; n > 0; n-- {
		b := p.client.collect(p.link.cgen)
		if len(b) == 0 {
			break
		}
		p.link.toServer = append(p.link.toServer, p.carry(Client, b)...)
		some = true
	}
	return some
}

func (p *pair) serverSends(n int) (some bool) {
	if p.link == nil || p.link.sgen == 0 {
		return false
	}
	for ; n > 0; n-- {
		b := p.server.collect(p.link.sgen)
		if len(b) == 0 {
			break
		}
		p.link.toClient = append(p.link.toClient, p.carry(Server, b)...)
		some = true
	}
	return some
}

func (p *pair) serverReceives(n int) (some bool) {
	p.t.Helper()
	for ; n > 0 && p.link != nil && len(p.link.toServer) > 0; n-- {
		b := p.link.toServer[0]
		p.link.toServer = p.link.toServer[1:]
		p.inOrder(p.server, b)
		if err := p.server.receive(p.link.sgen, scratch(b)); err != nil {
			p.t.Fatalf("the server refuses a batch: %v", err)
		}
		some = true
	}
	return some
}

func (p *pair) clientReceives(n int) (some bool) {
	p.t.Helper()
	for ; n > 0 && p.link != nil && len(p.link.toClient) > 0; n-- {
		b := p.link.toClient[0]
		p.link.toClient = p.link.toClient[1:]
		p.inOrder(p.client, b)
		buf := scratch(b)
		if err := p.client.receive(p.link.cgen, buf); err != nil {
			p.t.Fatalf("the client refuses a batch: %v", err)
		}
		clear(buf) // a batch is the link's again after receive: nothing may point into it
		some = true
	}
	return some
}

// inOrder checks that a batch brings nothing that was received already: a resume repeats what is missing and no more.
func (p *pair) inOrder(s *Session, b []byte) {
	p.t.Helper()
	next := map[uint32]uint64{}
	for f := (frame{}); ; {
		rest, err := nextFrame(b, s.role.peer(), &f)
		if err != nil || f.kind == kindNone {
			return
		}
		b = rest
		c := s.chans[f.channel]
		if !f.kind.sequenced() || c == nil || c.state == closed {
			continue
		}
		if next[f.channel] == 0 {
			next[f.channel] = c.in.seq + 1
		}
		if f.seq != next[f.channel] {
			p.t.Fatalf("channel %d: %v has the number %d, and %d is to come", f.channel, f.kind, f.seq, next[f.channel])
		}
		next[f.channel]++
	}
}

func scratch(b []byte) []byte { return bytes.Clone(b) }

// cut loses the link and what is in flight on it. An end that does not notice still believes in it.
func (p *pair) cut(clientNotices, serverNotices bool) {
	if p.link == nil {
		return
	}
	if clientNotices {
		p.client.detach(p.link.cgen)
	}
	if serverNotices {
		p.server.detach(p.link.sgen)
	}
	p.stale = append(p.stale, p.link)
	p.link = nil
}

// late brings what was in flight on links that another has replaced: it must have no effect.
func (p *pair) late() {
	p.t.Helper()
	for _, w := range p.stale {
		if p.link == nil || w.sgen == p.link.sgen {
			return
		}
		for _, b := range w.toServer {
			if err := p.server.receive(w.sgen, b); !isReason(err, sluicev1.Reason_REASON_SUPERSEDED) {
				p.t.Fatalf("the server takes a frame of an older link: %v", err)
			}
		}
		for _, b := range w.toClient {
			if err := p.client.receive(w.cgen, b); !isReason(err, sluicev1.Reason_REASON_SUPERSEDED) {
				p.t.Fatalf("the client takes a frame of an older link: %v", err)
			}
		}
		if b := p.server.collect(w.sgen); len(b) > 0 {
			p.t.Fatalf("the server gives %d parts to an older link", len(b))
		}
	}
	p.stale = nil
}

func isReason(err error, r sluicev1.Reason) bool { return err != nil && status.Reason(err) == r }

// tell says Opened, once.
func (f *flow) tell() {
	if f.s == nil || f.told || f.ended != nil {
		return
	}
	f.told = true
	f.down.say(item{kind: EventOpened}, func() { f.s.Opened(&sluicev1.Opened{}) })
}

// offer takes what there is credit for, and notes it as wanted.
func (l *lane) offer(t reporter) (some bool) {
	if l.from == nil || l.shut || len(l.source) == 0 {
		return false
	}
	credit := l.from.Credit()
	n := l.from.Offer(l.source)
	cost := 0
	for _, p := range l.source[:n] {
		cost += len(p.Bytes) + FrameCost
		l.sent += uint64(len(p.Bytes))
		l.begun = append(l.begun, p.Bytes...)
		if !p.More {
			l.wanted = append(l.wanted, item{kind: EventData, data: l.begun, text: p.Text, stream: p.Stream})
			l.begun = nil
		}
	}
	l.source = l.source[n:]
	if cost > max(credit, 0) || n > 0 && l.from.state != closed && l.from.out.end > l.from.out.limit {
		t.Fatalf("channel %d took %d with a credit of %d: end %d, limit %d", l.from.id, cost, credit, l.from.out.end, l.from.out.limit)
	}
	return n > 0
}

// say does what says a frame without payload, and notes it: what waits for its number and is replaced will not come out.
func (l *lane) say(it item, do func()) {
	l.begun = cutMessage(l, it)
	w := len(l.from.out.waiting)
	do()
	if len(l.from.out.waiting) > 0 {
		for i := len(l.wanted) - w; i < len(l.wanted); i++ {
			if a := l.wanted[i]; a.kind == it.kind && a.state == it.state && (it.kind == EventState || it.kind == EventResize) {
				l.wanted = slices.Delete(l.wanted, i, i+1)
				break
			}
		}
	}
	l.wanted = append(l.wanted, it)
}

// cutMessage drops what is left of a message that a ChannelState, CloseSend or Closed ends.
func cutMessage(l *lane, it item) []byte {
	if it.kind == EventResize || it.kind == EventOpened {
		return l.begun
	}
	for len(l.source) > 0 && l.begun != nil {
		more := l.source[0].More
		l.source = l.source[1:]
		if !more {
			break
		}
	}
	return nil
}

// take lets up to n events come out and compares them with what is wanted.
func (p *pair) take(f *flow, l *lane, n int) (some bool) {
	p.t.Helper()
	if l.to == nil {
		return false
	}
	if f.sunk && l == &f.down {
		some = len(l.hand) > 0
		for _, ev := range l.hand {
			p.check(f, l, ev)
		}
		l.hand = nil
		return some
	}
	for ; n > 0; n-- {
		ev, ok, _ := l.to.next()
		if !ok {
			break
		}
		p.check(f, l, ev)
		l.hand = append(l.hand, ev)
		some = true
	}
	return some
}

// check compares an event with the first that is wanted.
func (p *pair) check(f *flow, l *lane, ev Event) {
	p.t.Helper()
	if len(l.wanted) == 0 {
		p.t.Fatalf("channel %d: event %d of kind %d comes from nowhere", f.id, ev.Seq, ev.Kind)
	}
	want := l.wanted[0]
	l.wanted = l.wanted[1:]
	got := item{kind: ev.Kind, data: ev.Data, text: ev.Text, stream: ev.Stream}
	switch m := ev.Message.(type) {
	case *sluicev1.ChannelState:
		got.state, got.number = m.GetKind(), m.GetAttempt()
	case *sluicev1.Resize:
		got.number = m.GetWidth()
	case *sluicev1.Closed:
		f.over = true
		if !proto.Equal(m, f.ended) {
			p.t.Fatalf("channel %d ends with %v instead of %v", f.id, m, f.ended)
		}
	}
	if got.kind != want.kind || got.text != want.text || got.stream != want.stream || got.state != want.state || got.number != want.number {
		p.t.Fatalf("channel %d: event %d is %v instead of %v", f.id, ev.Seq, brief(got), brief(want))
	}
	if !bytes.Equal(got.data, want.data) {
		p.t.Fatalf("channel %d: event %d has %d bytes that differ from the %d wanted", f.id, ev.Seq, len(got.data), len(want.data))
	}
}

func brief(it item) string {
	return fmt.Sprintf("kind %d state %v number %d, %d bytes", it.kind, it.state, it.number, len(it.data))
}

// use says that event i of those in hand was used, and with it all before.
func (l *lane) use(i int) {
	if i < 0 || i >= len(l.hand) {
		return
	}
	l.to.Used(&l.hand[i])
	l.hand = l.hand[i+1:]
}

// finish ends a channel at the server.
func (p *pair) finish(f *flow, err *status.Error, aborted bool) {
	if f.s == nil || f.ended != nil || f.lost {
		return
	}
	l := &f.down
	if aborted {
		l.wanted = l.wanted[:len(l.wanted)-len(f.s.out.waiting)]
	}
	in, _ := f.s.Bytes()
	f.ended = &sluicev1.Closed{Aborted: aborted, BytesIn: in, BytesOut: l.sent}
	if err != nil {
		f.ended.Status = err.Proto()
	}
	l.say(item{kind: EventClosed}, func() { f.s.Finish(err, nil, aborted) })
	l.shut, f.up.quiet = true, true
}

// close asks for a channel's end at the client: nothing needs to come out any more.
func (f *flow) close() {
	if f.closed || f.over || f.lost || f.c.state == closed {
		return
	}
	f.closed = true
	f.c.Close("enough")
	f.up.shut, f.up.quiet, f.down.quiet = true, true, true
}

// react does what a server does whose channel's context has ended.
func (p *pair) react(f *flow) {
	if f.s != nil && f.ended == nil && f.s.Context().Err() != nil && !f.lost {
		p.finish(f, status.From(context.Cause(f.s.Context())), true)
	}
}

// connected is a pair with a link and n open channels.
func connected(t reporter, cfg Config, n int) *pair {
	t.Helper()
	p := newPair(t, cfg)
	p.opened = func(f *flow) { f.tell() }
	p.dial()
	for range n {
		p.open(0, false)
	}
	p.settled()
	return p
}

// settled carries everything, acknowledgements too, until nothing is left to carry.
func (p *pair) settled() {
	p.t.Helper()
	p.client.sendAcks()
	p.server.sendAcks()
	for p.clientSends(9) || p.serverReceives(9) || p.serverSends(9) || p.clientReceives(9) {
		continue
	}
}

// toServer lets the server receive frames as one batch, and toClient the client.
func (p *pair) toServer(frames ...[]byte) error {
	return p.server.receive(p.link.sgen, bytes.Join(frames, nil))
}

func (p *pair) toClient(frames ...[]byte) error {
	return p.client.receive(p.link.cgen, bytes.Join(frames, nil))
}

// says is what a session sends now, decoded and not carried any further.
func (p *pair) says(s *Session) (all []frame) {
	p.t.Helper()
	for b := s.collect(s.gen); len(b) > 0; b = s.collect(s.gen) {
		for rest := p.flat(b); ; {
			var f frame
			var err error
			if rest, err = nextFrame(rest, s.role, &f); err != nil {
				p.t.Fatalf("a batch of ours: %v", err)
			}
			if f.kind == kindNone {
				break
			}
			all = append(all, f)
		}
	}
	return all
}

// kindsOf is what kinds frames have.
func kindsOf(all []frame) (out []kind) {
	for i := range all {
		out = append(out, all[i].kind)
	}
	return out
}

// find is the first frame of a kind.
func find(all []frame, k kind) *frame {
	for i := range all {
		if all[i].kind == k {
			return &all[i]
		}
	}
	return nil
}

func clientFrame(channel uint32, seq uint64, m proto.Message) []byte {
	return newMessageSegment(Client, channel, seq, m).b
}

func serverFrame(channel uint32, seq uint64, m proto.Message) []byte {
	return newMessageSegment(Server, channel, seq, m).b
}

func dataFrame(channel uint32, seq uint64, n int, more bool) []byte {
	return appendData(nil, channel, seq, &data.Piece{Bytes: noise[:n], More: more})
}

// unknownFrame is a frame of a later version.
func unknownFrame(channel uint32, seq uint64) []byte {
	b := binary.AppendUvarint([]byte{tagChannel}, uint64(channel))
	b = binary.AppendUvarint(append(b, tagSeq), seq)
	b = append(b, 15<<3|2, 0)
	return append([]byte{tagFrames, byte(len(b))}, b...)
}
