package mux

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// noise is what payloads are cut from: no two pieces of it are alike.
var noise = func() []byte {
	b := make([]byte, 1<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b)
	return b
}()

// machine is a schedule: its methods are what can happen.
type machine struct {
	*pair
	used   int // of noise
	number uint32
}

// TestMachineLosesNothing runs schedules of everything that can happen to a session, against queues of what was offered: whatever happens,
// each channel gives exactly that, once and in order, or its end says what was lost; and at the end nothing is held (I1 to I5, H1, C15).
func TestMachineLosesNothing(t *testing.T) { rapid.Check(t, schedule) }

// schedule is one story of a session, told by t.
func schedule(t *rapid.T) {
	cfg := Config{MessageBytes: 1 << 20, WindowBytes: 512 << 10}
	if rapid.Bool().Draw(t, "tight") {
		cfg.SessionBytes = rapid.IntRange(1, 256<<10).Draw(t, "session bytes")
		cfg.Budget = NewBudget(128<<10, nil)
	}
	m := &machine{pair: newPair(t, cfg)}
	m.split = rapid.Bool().Draw(t, "split")
	m.dialOrCut(t)
	for range rapid.IntRange(0, 4).Draw(t, "channels") {
		m.openOne(t)
	}
	m.exchange(t)
	t.Repeat(map[string]func(*rapid.T){
		"":            func(*rapid.T) { m.invariants() },
		"dial":        m.dialOrCut,
		"redial":      m.dialOrCut,
		"open":        m.openOne,
		"offer":       m.offerSome,
		"offer more":  m.offerSome,
		"offer all":   m.offerSome,
		"say":         m.saySomething,
		"stream":      m.stream,
		"clientSends": func(t *rapid.T) { m.clientSends(few(t)) },
		"serverSends": func(t *rapid.T) { m.serverSends(few(t)) },
		"serverTakes": func(t *rapid.T) { m.serverReceives(few(t)) },
		"clientTakes": func(t *rapid.T) { m.clientReceives(few(t)) },
		"both":        m.exchange,
		"next":        m.takeSome,
		"acks":        func(*rapid.T) { m.client.sendAcks(); m.server.sendAcks() },
		"close":       m.closeOne,
		"finish":      m.finishOne,
		"session":     m.ofSession,
	})
	m.settle(t)
}

func few(t *rapid.T) int { return rapid.IntRange(1, 4).Draw(t, "n") }

func (m *machine) dialOrCut(t *rapid.T) {
	switch {
	case m.link == nil:
		m.forget = m.server.link > 0 && rapid.IntRange(0, 19).Draw(t, "forget") == 19
		m.dial()
		m.late()
	case rapid.Bool().Draw(t, "cut"):
		m.cut(rapid.Bool().Draw(t, "client notices"), rapid.Bool().Draw(t, "server notices"))
	}
}

func (m *machine) openOne(t *rapid.T) {
	if len(m.flows) >= 12 {
		return
	}
	eager := rapid.Bool().Draw(t, "eager")
	m.opened = func(f *flow) {
		if eager {
			f.tell()
		}
	}
	m.open(rapid.SampledFrom([]uint64{0, 1, 64 << 10, 100_000, 256 << 10, 1 << 30}).Draw(t, "window"), rapid.Bool().Draw(t, "sunk"))
}

// pick is one of the channels, if there are any.
func (m *machine) pick(t *rapid.T) *flow {
	if len(m.flows) == 0 {
		t.Skip("no channel")
	}
	return m.flows[rapid.IntRange(0, len(m.flows)-1).Draw(t, "channel")]
}

// lane is one direction of a channel.
func (m *machine) lane(t *rapid.T) (*flow, *lane) {
	f := m.pick(t)
	if rapid.Bool().Draw(t, "up") {
		return f, &f.up
	}
	return f, &f.down
}

func (m *machine) offerSome(t *rapid.T) {
	for range few(t) {
		f, l := m.lane(t)
		if l == &f.down {
			f.tell()
		}
		if l.from == nil || l.shut {
			continue
		}
		if len(l.source) < 100 {
			m.write(t, l, rapid.SampledFrom([]string{"event", "huge", "tiny", "piece", "empty"}).Draw(t, "what"))
		}
		l.offer(t)
	}
}

// stream lets everything flow that is not stalled.
func (m *machine) stream(t *rapid.T) {
	m.exchange(t)
	stalled := m.pick(t)
	for _, f := range m.flows {
		if f == stalled {
			continue
		}
		for _, l := range []*lane{&f.up, &f.down} {
			m.take(f, l, 1000)
			l.use(len(l.hand) - 1)
			l.offer(t)
		}
	}
	m.client.sendAcks()
	m.server.sendAcks()
}

// write puts messages into a lane's source.
func (m *machine) write(t *rapid.T, l *lane, what string) {
	switch what {
	case "tiny":
		for range rapid.IntRange(1, 40).Draw(t, "tiny ones") {
			m.message(t, l, 1)
		}
	case "event":
		m.message(t, l, rapid.IntRange(100, 8<<10).Draw(t, "bytes"))
	case "piece":
		m.message(t, l, l.from.MaxPiece())
	case "huge":
		if l.from.s.role == Client && m.cfg.SessionBytes > 0 { // a server does not put together more than the session may hold
			m.message(t, l, l.from.MaxPiece())
			return
		}
		m.message(t, l, rapid.IntRange(20<<10, 300<<10).Draw(t, "bytes"))
	case "empty":
		m.message(t, l, 0)
	}
}

// message puts one message into a lane's source, in pieces.
func (m *machine) message(t *rapid.T, l *lane, n int) {
	text, stream := false, sluicev1.Stream(0)
	b := noise[m.used : m.used+n]
	if n > 0 && n < 200 {
		text, stream = rapid.Bool().Draw(t, "text"), sluicev1.Stream_STREAM_STDOUT
	}
	if text {
		b = fmt.Appendf(nil, "%*d é", n, m.used)
	}
	m.used = (m.used + n + 1) % (len(noise) - 300<<10 - 2)
	for most := l.from.MaxPiece(); len(b) > most; b = b[most:] {
		l.source = append(l.source, data.Piece{Bytes: b[:most], More: true, Stream: stream, Text: text})
	}
	l.source = append(l.source, data.Piece{Bytes: b, Stream: stream, Text: text, Cursor: cursorOf(n)})
}

func cursorOf(n int) string {
	if n%3 == 0 {
		return fmt.Sprint("after-", n)
	}
	return ""
}

func (m *machine) saySomething(t *rapid.T) {
	f, l := m.lane(t)
	if l.from == nil || l.shut || f.lost || l.from.state == closed {
		return
	}
	m.number++
	switch {
	case l == &f.down && !f.told:
		f.tell()
	case rapid.IntRange(0, 9).Draw(t, "close send") == 9:
		l.say(item{kind: EventCloseSend}, l.from.CloseSend)
		l.shut = true
	case l == &f.up:
		l.say(item{kind: EventResize, number: m.number}, func() { f.c.Resize(m.number, 1) })
	default:
		k := sluicev1.ChannelState_Kind(rapid.IntRange(1, 3).Draw(t, "kind"))
		for range rapid.SampledFrom([]int{1, 1, 1, 20}).Draw(t, "times") {
			m.number++
			l.say(item{kind: EventState, state: k, number: m.number}, func() {
				f.s.State(&sluicev1.ChannelState{Kind: k, Attempt: m.number})
			})
		}
	}
}

func (m *machine) takeSome(t *rapid.T) {
	f, l := m.lane(t)
	if l.to == nil {
		return
	}
	m.take(f, l, rapid.IntRange(1, 30).Draw(t, "events"))
	if len(l.hand) > 0 {
		l.use(rapid.IntRange(0, len(l.hand)).Draw(t, "used"))
	}
}

// exchange carries all that can be carried now.
func (m *machine) exchange(*rapid.T) {
	for m.clientSends(4) || m.serverReceives(4) || m.serverSends(4) || m.clientReceives(4) {
		m.invariants()
	}
}

func (m *machine) closeOne(t *rapid.T) {
	f := m.pick(t)
	if rapid.IntRange(0, 3).Draw(t, "close") == 3 {
		f.close()
	}
	m.react(f)
}

func (m *machine) finishOne(t *rapid.T) {
	f := m.pick(t)
	if f.s == nil || rapid.IntRange(0, 3).Draw(t, "finish") < 3 {
		return
	}
	if rapid.Bool().Draw(t, "aborted") {
		m.finish(f, status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "gone"), true)
	} else {
		m.finish(f, nil, false)
	}
}

func (m *machine) ofSession(t *rapid.T) {
	m.number++
	switch rapid.IntRange(0, 3).Draw(t, "what") {
	case 0:
		m.server.Drain(&sluicev1.Drain{ReconnectAfter: durationpb.New(1)})
	case 1:
		m.server.SetAuth(&sluicev1.AuthState{Version: uint64(m.number)})
	case 2:
		m.server.sendPing()
	case 3: // a copy of the client that knows an older link only
		heard := m.server.heard
		if heard == 0 {
			return
		}
		gen := m.server.gen
		r := &sluicev1.Resume{Session: m.server.ID(), LastLink: heard - 1}
		if _, err := m.server.attachServer(&sluicev1.Hello{Resume: r}); !isReason(err, sluicev1.Reason_REASON_SUPERSEDED) || m.server.gen != gen {
			t.Fatalf("a copy is let in: %v", err)
		}
	}
}

// invariants are what holds at all times.
func (m *machine) invariants() {
	for _, s := range []*Session{m.client, m.server} {
		held, counted := 0, 0
		for id, c := range s.chans {
			if c.id != id || id > s.highest {
				m.t.Fatalf("%v channel %d in the table under %d, highest %d", s.role, c.id, id, s.highest)
			}
			m.channelInvariants(c)
			held += c.out.held
			if c.counted {
				counted++
			}
		}
		if s.Held() != held {
			m.t.Fatalf("role %v: the budget says %d, the channels hold %d", s.role, s.Held(), held)
		}
		if s.openings != counted {
			m.t.Fatalf("role %v: %d openings, %d channels that count", s.role, s.openings, counted)
		}
		m.turnsInvariants(s)
	}
	for _, f := range m.flows {
		for _, l := range []*lane{&f.up, &f.down} {
			m.laneInvariants(l)
		}
	}
	if b := m.cfg.Budget; b != nil && b.Held() != m.client.Held()+m.server.Held()+m.server.putting.Held() {
		m.t.Fatalf("the process's budget says %d, the sessions hold %d and %d", b.Held(), m.client.Held(), m.server.Held())
	}
	put := 0
	for _, c := range m.server.chans {
		put += c.in.putting
		for _, w := range c.in.whole {
			put += w.n
		}
	}
	if m.server.putting.Held() != put {
		m.t.Fatalf("%d bytes of messages are charged, %d are held", m.server.putting.Held(), put)
	}
}

func (m *machine) channelInvariants(c *Channel) {
	o, i := &c.out, &c.in
	held, last := 0, o.acked
	for k, g := range o.segs {
		m.segs[g] = true
		held += len(g.b)
		if k == 0 && g.first <= o.acked {
			last = g.first - 1 // part of it is acknowledged
		}
		if g.refs.Load() < 1 || g.first != last+1 || g.last < g.first {
			m.t.Fatalf("channel %d: a segment of %d to %d with %d references follows %d", c.id, g.first, g.last, g.refs.Load(), last)
		}
		last = g.last
	}
	switch {
	case held != o.held:
		m.t.Fatalf("channel %d: %d bytes held, %d said", c.id, held, o.held)
	case c.state != closed && last != o.seq:
		m.t.Fatalf("channel %d: the last segment ends at %d of %d", c.id, last, o.seq)
	case o.ackedCost > o.end || o.acked == o.seq && c.state != closed && o.ackedCost != o.end || o.acked > o.taken || o.taken > o.seq || o.limit > o.ackedCost+o.most:
		m.t.Fatalf("channel %d: impossible positions: %+v", c.id, o)
	case uint64(o.held) > o.most+MaxBare*FrameCost+maxSegment:
		m.t.Fatalf("channel %d: holds %d of a window of %d", c.id, o.held, o.window)
	case len(o.bare) > MaxBare || len(i.bare) > MaxBare:
		m.t.Fatalf("channel %d: %d frames without payload unacknowledged, %d unconsumed", c.id, len(o.bare), len(i.bare))
	case i.taken > i.seq || i.ackedSeq > i.taken || i.takenCost > i.cost || i.event > i.seq:
		m.t.Fatalf("channel %d: impossible positions: %+v", c.id, i)
	}
	if inbox := inboxBytes(i); inbox > int(i.window) && !i.parted && len(i.inbox) > 0 && inbox > m.cfg.MessageBytes+int(i.window) {
		m.t.Fatalf("channel %d: %d bytes wait to be taken in a window of %d", c.id, inbox, i.window)
	}
}

// laneInvariants checks that nothing is acknowledged before it was used.
func (m *machine) laneInvariants(l *lane) {
	if l.to == nil || l.to.sink != nil || l.to.state >= stopping {
		return
	}
	if l.from != nil && l.from.state < stopping && l.from.out.limit > l.to.in.granted() {
		m.t.Fatalf("channel %d: the sender may go to %d, the receiver allows %d", l.to.id, l.from.out.limit, l.to.in.granted())
	}
	open := append(append([]Event(nil), l.hand...), l.to.in.inbox...)
	if len(open) > 0 && l.to.in.taken >= open[0].Seq {
		m.t.Fatalf("channel %d: %d counts as consumed, and %d is not", l.to.id, l.to.in.taken, open[0].Seq)
	}
}

// maxSegment is the longest segment: it may be acknowledged in part and is held as a whole.
const maxSegment = 72 << 10

func inboxBytes(r *receiver) (n int) {
	for i := range r.inbox {
		n += len(r.inbox[i].Data)
	}
	return n
}

// turnsInvariants checks that a channel is in exactly one place when it has something to send.
func (m *machine) turnsInvariants(s *Session) {
	in := map[*Channel]int{}
	for _, r := range []*ring{&s.ready.light, &s.ready.heavy} {
		n := 0
		for c := r.head; c != nil; c = c.nextReady {
			in[c]++
			n++
		}
		if n != r.n {
			m.t.Fatalf("role %v: a ring of %d says %d", s.role, n, r.n)
		}
	}
	for _, c := range s.opens {
		in[c]++
	}
	for _, c := range s.chans {
		if ready := c.out.ready(); in[c] > 1 || ready && in[c] != 1 && (s.role == Server || !s.holding) || c.isReady != (in[c] == 1) {
			m.t.Fatalf("role %v: channel %d is ready=%v and in %d places, isReady=%v", s.role, c.id, ready, in[c], c.isReady)
		}
	}
}

// settle ends the schedule: all that is missing comes, all channels end, and nothing is left.
func (m *machine) settle(t *rapid.T) {
	switch rapid.SampledFrom([]string{"finish", "finish", "client ends", "server ends"}).Draw(t, "end") {
	case "finish":
		m.finishAll()
	case "client ends":
		m.farewell(m.client, m.server, m.clientSends, m.serverBye)
	case "server ends":
		m.farewell(m.server, m.client, m.serverSends, m.clientBye)
	}
	m.nothingIsLeft()
}

// finishAll lets all come out, ends every channel well and compares.
func (m *machine) finishAll() {
	if m.link == nil || m.client.holding {
		m.cut(true, true)
		m.dial()
		m.late()
	}
	m.flush()
	for _, f := range m.flows {
		if !f.lost && f.ended == nil && !f.closed {
			m.finish(f, nil, false)
		}
	}
	m.flush()
	for _, f := range m.flows {
		for _, l := range []*lane{&f.up, &f.down} {
			if !l.quiet && !f.lost && len(l.wanted) > 0 {
				m.t.Fatalf("channel %d: %d events never came out, first %s", f.id, len(l.wanted), brief(l.wanted[0]))
			}
		}
		if !f.lost && !f.closed && !f.over {
			m.t.Fatalf("channel %d never ended", f.id)
		}
	}
	if m.server.drain != nil && m.drain == nil {
		m.t.Fatalf("the client was not told of the drain")
	}
	if a := m.server.auth; len(a) > 0 && m.auth.GetVersion() != a[0].GetVersion() {
		m.t.Fatalf("the client knows credential %d of %d", m.auth.GetVersion(), a[0].GetVersion())
	}
}

// flush runs until nothing happens any more.
func (m *machine) flush() {
	for busy := true; busy; {
		busy = false
		m.client.sendAcks()
		m.server.sendAcks()
		for m.clientSends(9) || m.serverReceives(9) || m.serverSends(9) || m.clientReceives(9) {
			busy = true
		}
		for _, f := range m.flows {
			f.tell()
			m.react(f)
			for _, l := range []*lane{&f.up, &f.down} {
				busy = l.offer(m.t) || busy
				busy = m.take(f, l, 1000) || busy
				l.use(len(l.hand) - 1)
			}
		}
		m.invariants()
	}
}

// farewell ends the session at one end; the other hears of it, or ends for itself.
func (m *machine) farewell(a, b *Session, send func(int) bool, bye func()) {
	a.End(status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "bye"))
	if m.link != nil {
		for send(9) {
			continue
		}
		bye()
	}
	b.End(nil)
	for _, f := range m.flows {
		for _, c := range []*Channel{f.c, f.s} {
			if c != nil && context.Cause(c.Context()) == nil {
				m.t.Fatalf("channel %d outlives its session", c.id)
			}
		}
	}
}

func (m *machine) serverBye() { m.hear(m.server, m.link.sgen, m.link.toServer) }
func (m *machine) clientBye() { m.hear(m.client, m.link.cgen, m.link.toClient) }

// hear brings all that is in flight; its end is Goodbye, unless that may not be said before Welcome.
func (m *machine) hear(s *Session, gen uint64, batches [][]byte) {
	for i, b := range batches {
		err := s.receive(gen, b)
		if bye, ok := errors.AsType[*farewell](err); ok {
			if i != len(batches)-1 || status.Reason(bye.err) != sluicev1.Reason_REASON_DRAINING {
				m.t.Fatalf("batch %d of %d says goodbye: %v", i, len(batches), bye.err)
			}
			return
		}
		if err != nil {
			m.t.Fatalf("before Goodbye: %v", err)
		}
	}
	if !m.client.holding {
		m.t.Fatalf("no Goodbye came in %d batches", len(batches))
	}
}

// nothingIsLeft checks that both tables are empty, nothing is charged and every segment was freed.
func (m *machine) nothingIsLeft() {
	for _, s := range []*Session{m.client, m.server} {
		if len(s.chans) > 0 || s.openings > 0 || s.Held() > 0 || !s.ready.empty() || len(s.opens) > 0 {
			m.t.Fatalf("role %v: %d channels, %d openings, %d bytes, %d ready are left",
				s.role, len(s.chans), s.openings, s.Held(), s.ready.light.n+s.ready.heavy.n)
		}
	}
	if b := m.cfg.Budget; b != nil && b.Held() != 0 {
		m.t.Fatalf("the process still holds %d bytes", b.Held())
	}
	for g := range m.segs {
		if n := g.refs.Load(); n != 0 {
			m.t.Fatalf("segment %d to %d has %d references left", g.first, g.last, n)
		}
	}
}
