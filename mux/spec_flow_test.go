package mux

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// These tests are of proto/SPEC.md's rules about flow control; the id of the rule stands behind each.

func piece(n int) []data.Piece { return []data.Piece{{Bytes: noise[:n]}} }

// fill offers pieces until there is no credit for one more and returns how many were taken.
func fill(c *Channel, n int) (taken int) {
	for c.Offer(piece(n)) == 1 {
		taken++
	}
	return taken
}

// [FLOW-1] [FLOW-3] The example of the specification, line by line.
func TestSPEC_TheCreditExample(t *testing.T) {
	p := connected(t, Config{}, 1)
	c := p.flows[0].s
	credit := func(want int) {
		t.Helper()
		if got := int(int64(c.out.limit - c.out.end)); got != want {
			t.Errorf("credit %d instead of %d", got, want)
		}
	}
	credit(65472)
	for _, left := range []int{49024, 32576, 16128} {
		c.Offer(piece(16384))
		credit(left)
	}
	if c.Offer(piece(16065)) != 0 {
		t.Error("one byte beyond the credit is taken")
	}
	c.Offer(piece(16064))
	credit(0)
	c.State(&sluicev1.ChannelState{})
	credit(-64)
	if c.Offer(piece(0)) != 0 || c.Credit() > 0 {
		t.Error("data is taken without credit")
	}
	p.says(p.server)
	if err := p.toServer(appendAck(nil, 1, 3, 65536)); err != nil {
		t.Fatal(err)
	}
	credit(32896)
	c.Offer(piece(16384))
	c.Offer(piece(16384))
	credit(0)
}

// [FLOW-2] Standard input may be sent before Opened.
func TestSPEC_DataMayComeBeforeOpened(t *testing.T) {
	p := newPair(t, Config{})
	p.dial()
	p.settled()
	f := p.open(0, false)
	if n := fill(f.c, SmallPiece-FrameCost); n != 3 { // 64 KiB hold four but for the Open
		t.Errorf("%d pieces were taken", n)
	}
	p.settled()
	if got := come(f.s); len(got) != 3 {
		t.Errorf("%d pieces came", len(got))
	}
}

// [FLOW-4] [FLOW-6].
func TestSPEC_WindowsAreKeptWithinTheirBounds(t *testing.T) {
	for asked, want := range map[uint64]uint64{0: MinWindow, 1: MinWindow, MinWindow: MinWindow, 100_000: 100_000, 1 << 40: 300_000, math.MaxUint64: 300_000} {
		p := connected(t, Config{WindowBytes: 300_000}, 0)
		p.server.acceptor = acceptAll{}
		if err := p.toServer(clientFrame(1, 1, &sluicev1.Open{Window: asked})); err != nil {
			t.Fatal(err)
		}
		c := p.server.chans[1]
		if c.out.limit != want {
			t.Errorf("a window of %d gives a credit of %d instead of %d", asked, c.out.limit, want)
		}
		if err := p.toServer(appendAck(nil, 1, 0, math.MaxUint64)); err != nil {
			t.Fatal(err)
		}
		if c.out.limit != 300_000 || c.Credit() != 300_000 {
			t.Errorf("an endless Ack gives a credit of %d", c.out.limit)
		}
	}
	p := connected(t, Config{WindowBytes: 300_000}, 1)
	if err := p.toClient(serverFrame(2, 1, &sluicev1.Opened{})); err == nil {
		t.Error("a channel that was not opened is Opened")
	}
	f := p.open(0, false)
	f.tell()
	p.opened = nil
	if err := p.toClient(appendAck(nil, 1, 1, 1<<50)); err != nil || p.flows[0].c.out.window != 300_000 {
		t.Errorf("at the client: %v, window %d", err, p.flows[0].c.out.window)
	}
}

// [FLOW-5] [FLOW-8].
func TestSPEC_AcksThatContradictCloseTheChannel(t *testing.T) {
	for name, ack := range map[string][]byte{
		"a smaller window": appendAck(nil, 1, 1, MinWindow-1), "no window": appendAck(nil, 1, 1, 0),
		"of what was not sent": appendAck(nil, 1, 2, MinWindow), "of the end of all numbers": appendAck(nil, 1, math.MaxUint64, MinWindow),
	} {
		t.Run(name, func(t *testing.T) {
			for _, bring := range []func(*pair) (c, beside *Channel, err error){
				func(p *pair) (c, beside *Channel, err error) { return p.flows[0].s, p.flows[1].s, p.toServer(ack) },
				func(p *pair) (c, beside *Channel, err error) { return p.flows[0].c, p.flows[1].c, p.toClient(ack) },
			} {
				c, beside, err := bring(connected(t, Config{}, 2))
				if err != nil {
					t.Fatal(err)
				}
				wantBreach(t, c, beside, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
			}
		})
	}
}

// [FLOW-8] An Ack of what is numbered and was not given to a link is one of what was not sent, too.
func TestSPEC_AnAckOfWhatWaitsToBeSentIsABreach(t *testing.T) {
	p := connected(t, Config{}, 2)
	p.flows[0].s.Offer(piece(10))
	if err := p.toServer(appendAck(nil, 1, 2, MinWindow)); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[0].s, p.flows[1].s, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
}

// [FLOW-3] [FLOW-8].
func TestSPEC_AnOlderAckTakesNothingBack(t *testing.T) {
	p := connected(t, Config{}, 1)
	c := p.flows[0].s
	c.Offer(piece(1000))
	c.Offer(piece(1000))
	p.says(p.server)
	for _, seq := range []uint64{3, 1, 2, 0} {
		if err := p.toServer(appendAck(nil, 1, seq, MinWindow)); err != nil {
			t.Fatal(err)
		}
	}
	if c.out.acked != 3 || c.out.limit != 64+2*1064+MinWindow || c.Context().Err() != nil || c.Held() != 0 {
		t.Errorf("acknowledged %d, limit %d, %v", c.out.acked, c.out.limit, c.Context().Err())
	}
}

// [FLOW-7].
func TestSPEC_DataBeyondTheCreditClosesTheChannel(t *testing.T) {
	for _, role := range []Role{Server, Client} {
		p := connected(t, Config{}, 2)
		c, beside, bring := p.flows[0].s, p.flows[1].s, p.toServer
		if role == Client {
			c, beside, bring = p.flows[0].c, p.flows[1].c, p.toClient
		}
		left := int(c.in.granted() - c.in.cost)
		if err := bring(dataFrame(1, 2, 40_000, false), dataFrame(1, 3, left-40_000-2*FrameCost, false)); err != nil || c.Context().Err() != nil {
			t.Fatalf("within the credit: %v, %v", err, context.Cause(c.Context()))
		}
		if err := bring(dataFrame(1, 4, 0, false)); err != nil {
			t.Fatal(err)
		}
		wantBreach(t, c, beside, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	}
}

// [FLOW-9].
func TestSPEC_PiecesAreSmallWhileTheWindowIs(t *testing.T) {
	for window, most := range map[uint64]int{0: SmallPiece, LargeWindow - 1: SmallPiece, LargeWindow: LargePiece, 1 << 20: LargePiece} {
		p := newPair(t, Config{})
		p.opened = func(f *flow) { f.tell() }
		p.dial()
		f := p.open(window, false)
		p.settled()
		if f.s.MaxPiece() != most || f.s.Offer(piece(most+1)) != 0 || f.s.Offer(piece(most)) != 1 {
			t.Errorf("with a window of %d pieces may have %d", window, f.s.MaxPiece())
		}
	}
	p := newPair(t, Config{})
	p.opened = func(f *flow) { f.tell() }
	p.dial()
	p.open(1<<20, false)
	p.open(0, false)
	p.settled()
	if err := p.toClient(dataFrame(1, 2, LargePiece, false), dataFrame(1, 3, LargePiece+1, false)); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[0].c, p.flows[1].c, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
}

// [FLOW-10].
func TestSPEC_SeventeenBareFramesCloseTheChannel(t *testing.T) {
	p := connected(t, Config{}, 2)
	for n := range uint64(MaxBare) {
		if err := p.toServer(clientFrame(1, n+2, &sluicev1.Resize{})); err != nil || p.flows[0].s.Context().Err() != nil {
			t.Fatalf("resize %d: %v", n, err)
		}
	}
	if err := p.toServer(clientFrame(1, MaxBare+2, &sluicev1.Resize{})); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[0].s, p.flows[1].s, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
}

// [FLOW-10] [FLOW-11].
func TestSPEC_WhatWaitsForItsNumberIsReplaced(t *testing.T) {
	p := connected(t, Config{}, 1)
	come(p.flows[0].c)
	p.settled()
	c := p.flows[0].s
	say := func(k sluicev1.ChannelState_Kind, n uint32) { c.State(&sluicev1.ChannelState{Kind: k, Attempt: n}) }
	for n := range uint32(MaxBare) {
		say(sluicev1.ChannelState_KIND_CONNECTED, n)
	}
	say(sluicev1.ChannelState_KIND_RECONNECTING, 100)
	say(sluicev1.ChannelState_KIND_CONNECTED, 101)
	say(sluicev1.ChannelState_KIND_RECONNECTING, 102)
	if c.Credit() > 0 || c.Offer(piece(1)) != 0 {
		t.Error("data overtakes what waits for its number")
	}
	var got []uint32
	p.settled()
	for _, ev := range come(p.flows[0].c) {
		got = append(got, ev.Message.(*sluicev1.ChannelState).GetAttempt())
	}
	if len(got) != MaxBare {
		t.Fatalf("%d came at once", len(got))
	}
	p.settled()
	for _, ev := range come(p.flows[0].c) {
		got = append(got, ev.Message.(*sluicev1.ChannelState).GetAttempt())
	}
	if !slices.Equal(got[MaxBare:], []uint32{101, 102}) {
		t.Errorf("then came %v", got[MaxBare:])
	}
	p.settled()
	if c.Offer(piece(1)) != 1 {
		t.Error("no data is taken after it")
	}
}

// [FLOW-10] [FLOW-12].
func TestSPEC_CloseDoesNotWait(t *testing.T) {
	p := connected(t, Config{}, 1)
	c := p.flows[0].c
	fill(c, 1000)
	for n := range uint32(MaxBare + 1) {
		c.Resize(n, n)
	}
	c.Close("now")
	said := p.says(p.client)
	if last := said[len(said)-1]; last.kind != kindClose || find(said, kindResize) == nil {
		t.Errorf("the client says %v", kindsOf(said))
	}
	if n := len(slices.DeleteFunc(kindsOf(said), func(k kind) bool { return k != kindResize })); n != MaxBare {
		t.Errorf("%d Resize were sent", n)
	}
}

// [FLOW-10] Closed is beside the count; a good end follows what waits, an abrupt one does not wait.
func TestSPEC_ClosedIsBesideTheCount(t *testing.T) {
	for _, waits := range []int{0, 1} {
		for _, aborted := range []bool{true, false} {
			p := connected(t, Config{}, 1)
			come(p.flows[0].c)
			p.settled()
			c := p.flows[0].s
			for range MaxBare + waits {
				c.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_GAP})
			}
			c.Finish(nil, nil, aborted)
			said := find(p.says(p.server), kindClosed) != nil
			if want := aborted || waits == 0; said != want {
				t.Errorf("with %d waiting, aborted %v: Closed is sent %v", waits, aborted, said)
			}
		}
	}
}

// [FLOW-13].
func TestSPEC_WhatIsNumberedIsSent(t *testing.T) {
	p := connected(t, Config{}, 3)
	for i, f := range p.flows {
		taken := fill(f.s, 5000*(i+1))
		f.s.Finish(nil, nil, false)
		for _, fr := range p.says(p.server) {
			if fr.channel == f.id && fr.kind == kindData {
				taken--
			}
		}
		if taken != 0 || f.s.out.ready() {
			t.Errorf("channel %d: %d numbered frames wait", f.id, taken)
		}
	}
}

// [FLOW-14] A message may be larger than its window: its pieces are consumed as they are put together, but not before what is before them.
func TestSPEC_AMessageMayBeLargerThanItsWindow(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	come(f.c)
	f.s.Offer(piece(10))
	var pieces []data.Piece
	for i := range 64 {
		pieces = append(pieces, data.Piece{Bytes: noise[i<<14 : (i+1)<<14], More: i < 63})
	}
	send := func() {
		for range 200 {
			pieces = pieces[f.s.Offer(pieces):]
			p.settled()
		}
	}
	send()
	if len(pieces) != 64-3 {
		t.Fatalf("%d pieces were taken while an event before them is not used", 64-len(pieces))
	}
	ev, _, _ := f.c.next()
	send()
	if len(pieces) != 64-3 {
		t.Fatal("an event that was given and is not used counts as consumed")
	}
	f.c.Used(&ev)
	send()
	if got := come(f.c); len(pieces) != 0 || len(got) != 1 || !bytes.Equal(got[0].Data, noise) {
		t.Errorf("%d pieces are left, %d events came", len(pieces), len(got))
	}
}

// [FLOW-14] Used of a later event is Used of all before it, whatever they are.
func TestSPEC_UsedIsCumulative(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	come(f.c)
	for range 3 {
		for range MaxBare / 2 {
			f.s.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_GAP})
			f.s.Offer(piece(10))
		}
		f.s.Offer([]data.Piece{{Bytes: noise[:100], More: true}})
		p.settled()
		var last Event
		n := 0
		for ev, ok, _ := f.c.next(); ok; ev, ok, _ = f.c.next() {
			last = ev
			n++
		}
		f.c.Used(&last)
		f.c.Used(&last)
		p.settled()
		if n != MaxBare || f.c.in.taken != f.c.in.seq || f.s.Held() != 0 || f.c.Context().Err() != nil {
			t.Fatalf("%d events, consumed %d of %d, %d bytes held, %v", n, f.c.in.taken, f.c.in.seq, f.s.Held(), context.Cause(f.c.Context()))
		}
	}
}

// [FLOW-15].
func TestSPEC_AcksLeaveAtHalfAWindowOrEightFrames(t *testing.T) {
	for n, now := range map[int]bool{1: false, 7: false, 8: true} {
		p := connected(t, Config{}, 1)
		f := p.flows[0]
		come(f.c)
		p.settled()
		for range n {
			f.s.Offer(piece(1))
		}
		p.serverSends(9)
		p.clientReceives(9)
		come(f.c)
		if said := p.says(p.client); (find(said, kindAck) != nil) != now {
			t.Errorf("after %d frames the client says %v", n, kindsOf(said))
		}
	}
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	come(f.c)
	p.settled()
	f.s.Offer([]data.Piece{{Bytes: noise[:SmallPiece]}, {Bytes: noise[:SmallPiece]}})
	p.serverSends(9)
	p.clientReceives(9)
	come(f.c)
	if a := find(p.says(p.client), kindAck); a == nil || a.ackSeq != 3 || a.window != MinWindow {
		t.Errorf("after half a window: %+v", a)
	}
}

// [FLOW-16] (D1) A hundred bulk channels put a quantum each, and what is under way, before one small event: 1.6 MiB.
func TestSPEC_BulkChannelsTakeTurns(t *testing.T) {
	const bulk = 100
	for _, window := range []uint64{MinWindow, 1 << 20} {
		t.Run(fmt.Sprint(window), func(t *testing.T) {
			p := newPair(t, Config{SessionBytes: 1 << 30})
			p.opened = func(f *flow) { f.tell() }
			p.dial()
			for range bulk + 1 {
				p.open(window, true)
			}
			p.settled()
			small := p.flows[bulk].s
			refill := func() {
				for _, f := range p.flows[:bulk] {
					fill(f.s, f.s.MaxPiece())
				}
			}
			worst := 0
			for round := range 12 {
				refill()
				for range 7 * round { // at any moment of the others' turns
					p.serverSends(1)
					p.clientReceives(1)
					p.clientSends(1)
					p.serverReceives(1)
				}
				refill()
				small.Offer(piece(100))
				worst = max(worst, bytesBefore(p, small.id))
			}
			if limit := bulk*16<<10 + 2*maxSegment; worst > limit {
				t.Errorf("%d bytes before a small event, more than %d", worst, limit)
			}
		})
	}
}

// bytesBefore sends until a frame of Data of the channel leaves, and returns how much left before it.
func bytesBefore(p *pair, id uint32) (n int) {
	for {
		p.serverSends(1)
		b := p.link.toClient[len(p.link.toClient)-1]
		p.clientReceives(9)
		p.clientSends(1)
		p.serverReceives(9)
		for f := (frame{}); len(b) > 0; {
			rest, err := nextFrame(b, Server, &f)
			if err != nil {
				p.t.Fatalf("a batch of ours: %v", err)
			}
			if f.channel == id && f.kind == kindData {
				return n
			}
			n += len(b) - len(rest)
			b = rest
		}
	}
}

// [FLOW-16] Acknowledgements and the session's frames go before any data.
func TestSPEC_SessionFramesAndAcksGoFirst(t *testing.T) {
	p := connected(t, Config{}, 2)
	fill(p.flows[0].s, 1000)
	p.flows[1].c.Offer(piece(10))
	p.clientSends(1)
	p.serverReceives(1)
	come(p.flows[1].s)
	p.server.Drain(&sluicev1.Drain{})
	if got := kindsOf(p.says(p.server)); got[0] != kindDrain || got[1] != kindAck || got[2] != kindData {
		t.Errorf("sent %v", got[:3])
	}
}

// (D1) One of a thousand channels that is never read delays no other and holds its window.
func TestT_D1_AChannelThatIsNeverReadDelaysNobody(t *testing.T) {
	p := newPair(t, Config{SessionBytes: 64 << 20})
	p.opened = func(f *flow) { f.tell() }
	p.dial()
	for i := range 1000 {
		p.open(0, i > 0)
	}
	p.settled()
	stalled := p.flows[0].s
	for range 20 {
		fill(stalled, 1000)
		for _, f := range p.flows[1:] {
			if f.s.Offer(piece(2000)) != 1 {
				t.Fatalf("channel %d has no credit", f.id)
			}
		}
		p.settled()
	}
	p.settled()
	for _, f := range p.flows[1:] {
		if in, _ := f.c.Bytes(); in != 20*2000 {
			t.Fatalf("channel %d received %d bytes", f.id, in)
		}
	}
	if held := stalled.Held(); held > MinWindow || held < MinWindow/2 || p.server.Held() != held {
		t.Errorf("the stalled channel holds %d bytes, all %d", held, p.server.Held())
	}
}

// [LIM-1] (D3, I3) A thousand stalled channels hold what the budgets say, and one frame each.
func TestSPEC_BudgetsBoundWhatStalledChannelsHold(t *testing.T) {
	const channels, session, process = 1000, 2 << 20, 1 << 20
	for _, cfg := range []Config{
		{SessionBytes: session}, {SessionBytes: 1 << 30, Budget: NewBudget(process, nil)}, {SessionBytes: session, Budget: NewBudget(1<<30, nil)},
	} {
		p := newPair(t, cfg)
		p.opened = func(f *flow) { f.tell() }
		p.dial()
		for range channels {
			p.open(1<<20, false)
		}
		p.settled()
		limit := session
		if cfg.Budget != nil && cfg.SessionBytes > session {
			limit = process
		}
		for _, f := range p.flows {
			if fill(f.s, 1000) == 0 {
				t.Fatalf("channel %d may not hold one frame", f.id)
			}
			if err := f.s.Context().Err(); err != nil {
				t.Fatal(err)
			}
		}
		if held := p.server.Held(); held > limit+channels*1100 || held < limit/2 {
			t.Errorf("%d bytes are held with a budget of %d", held, limit)
		}
		for _, f := range p.flows {
			f.s.Finish(status.New(codes.Canceled, 0, "over"), nil, true)
		}
		p.settled()
		if p.server.Held() != 0 {
			t.Errorf("%d bytes are held after the end", p.server.Held())
		}
	}
}
