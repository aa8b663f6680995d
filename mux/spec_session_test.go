package mux

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// These tests are of proto/SPEC.md's rules about sessions and resumes; the id of the rule stands behind each.

// batches is a link that brings batches and then its end.
type batches struct{ in [][]byte }

func (l *batches) Recv() ([]byte, error) {
	if len(l.in) == 0 {
		return nil, io.EOF
	}
	b := l.in[0]
	l.in = l.in[1:]
	return b, nil
}

func (*batches) Send(b Batch) error { b.Free(); return nil }

// [SES-1] [SES-2] [VER-1].
func TestSPEC_TheFirstFrameDecidesWhatASessionIs(t *testing.T) {
	hello := clientFrame(0, 0, &sluicev1.Hello{Protocol: 1, Client: "c"})
	for name, c := range map[string]struct {
		in   [][]byte
		full bool
		bad  bool
	}{
		"hello":               {[][]byte{hello}, true, false},
		"hello after nothing": {[][]byte{{}, {}, hello}, true, false},
		"open":                {[][]byte{clientFrame(1, 1, &sluicev1.Open{})}, false, false},
		"nothing":             {nil, false, false},
		"another protocol":    {[][]byte{clientFrame(0, 0, &sluicev1.Hello{Protocol: 2})}, false, true},
		"hello on a channel":  {[][]byte{clientFrame(1, 0, &sluicev1.Hello{Protocol: 1})}, false, true},
		"garbage":             {[][]byte{{0xff}}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := Greet(t.Context(), &batches{c.in})
			if (err != nil) != c.bad || err == nil && (g.Hello() != nil) != c.full {
				t.Errorf("got %v, %v", g.Hello(), err)
			}
			if c.bad && status.Code(err) != codes.InvalidArgument {
				t.Errorf("refused with %v", err)
			}
		})
	}
}

// [SES-3].
func TestSPEC_ASecondHelloOrWelcomeEndsTheLink(t *testing.T) {
	p := connected(t, Config{}, 1)
	wantReason(t, p.toServer(clientFrame(0, 0, &sluicev1.Hello{Protocol: 1})), sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	wantReason(t, p.toClient(serverFrame(0, 0, &sluicev1.Welcome{})), sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
}

// [SES-4] [SES-8].
func TestSPEC_WelcomeComesFirst(t *testing.T) {
	p := connected(t, Config{}, 1)
	for link := uint64(2); link < 5; link++ {
		p.flows[0].s.Offer(piece(10))
		p.server.SetAuth(&sluicev1.AuthState{})
		p.cut(true, true)
		p.dial()
		said := p.says(p.server)
		if said[0].kind != kindWelcome || said[0].body.(*sluicev1.Welcome).GetLink() != link {
			t.Fatalf("link %d begins with %v: %v", link, said[0].kind, said[0].body)
		}
	}
}

// [SES-5].
func TestSPEC_AClientIsSilentBetweenHelloAndWelcome(t *testing.T) {
	p := connected(t, Config{}, 1)
	p.cut(true, true)
	p.flows[0].c.Offer(piece(10))
	p.flows[0].s.Offer(piece(10))
	p.dial()
	p.open(0, false)
	p.client.sendAcks()
	if said := p.says(p.client); len(said) != 0 {
		t.Fatalf("before Welcome the client says %v", kindsOf(said))
	}
	p.settled()
	if len(come(p.flows[0].s)) != 1 || p.flows[1].s == nil {
		t.Error("after Welcome it does not say what it has to")
	}
}

// [SES-6].
func TestSPEC_NothingComesBeforeWelcome(t *testing.T) {
	for _, b := range [][]byte{dataFrame(1, 3, 1, false), appendAck(nil, 1, 1, MinWindow), serverFrame(0, 0, &sluicev1.Ping{}), serverFrame(0, 0, &sluicev1.Drain{})} {
		p := connected(t, Config{}, 1)
		p.cut(true, true)
		p.dial()
		wantReason(t, p.toClient(b), sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	}
	p := connected(t, Config{}, 1)
	p.cut(true, true)
	p.dial()
	if _, ok := errors.AsType[*farewell](p.toClient(serverFrame(0, 0, &sluicev1.Goodbye{}))); !ok {
		t.Error("Goodbye is refused before Welcome")
	}
}

// [SES-7].
func TestSPEC_TheSecretIsSaidUntilAFrameFollowsAWelcome(t *testing.T) {
	p := newPair(t, Config{})
	hello := &sluicev1.Hello{Protocol: 1}
	for range 2 {
		if _, err := p.server.attachServer(hello); err != nil {
			t.Fatal(err)
		}
		if w := find(p.says(p.server), kindWelcome).body.(*sluicev1.Welcome); string(w.GetSecret()) != "secret" {
			t.Errorf("Welcome of link %d has no secret", w.GetLink())
		}
	}
	if err := p.server.receive(p.server.gen, clientFrame(0, 0, &sluicev1.Pong{})); err != nil {
		t.Fatal(err)
	}
	if _, err := p.server.attachServer(&sluicev1.Hello{Protocol: 1, Resume: &sluicev1.Resume{LastLink: 2}}); err != nil {
		t.Fatal(err)
	}
	if w := find(p.says(p.server), kindWelcome).body.(*sluicev1.Welcome); len(w.GetSecret()) != 0 {
		t.Error("the secret is said again")
	}
	for secret, want := range map[string]bool{"secret": true, "secres": false, "": false, "secret2": false} {
		if p.server.Proves(&sluicev1.Resume{Secret: []byte(secret)}) != want {
			t.Errorf("%q proves %v", secret, !want)
		}
	}
	if NewServer(Config{}, true, acceptAll{}).Proves(&sluicev1.Resume{}) {
		t.Error("no secret proves a session that has none")
	}
}

// [SES-10].
func TestSPEC_GoodbyeEndsEverything(t *testing.T) {
	for _, role := range []Role{Client, Server} {
		p := connected(t, Config{}, 2)
		from, to := p.client, p.server
		if role == Server {
			from, to = p.server, p.client
		}
		p.flows[0].s.Offer(piece(10))
		p.flows[0].c.Offer(piece(10))
		from.End(status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "over"))
		said := p.says(from)
		if len(said) != 1 || said[0].kind != kindGoodbye {
			t.Fatalf("role %v says %v", role, kindsOf(said))
		}
		bye, ok := errors.AsType[*farewell](to.receive(to.gen, newMessageSegment(role, 0, 0, said[0].body).b))
		if !ok || bye.err.Reason != sluicev1.Reason_REASON_DRAINING {
			t.Fatalf("the other end: %v", bye)
		}
		to.End(bye.err)
		if _, err := to.attachServer(nil); err == nil {
			t.Error("a session that has ended takes a link")
		}
		for _, f := range p.flows {
			wantReason(t, context.Cause(f.c.Context()), sluicev1.Reason_REASON_DRAINING)
			wantReason(t, context.Cause(f.s.Context()), sluicev1.Reason_REASON_DRAINING)
		}
		if _, err := p.client.Open(&sluicev1.Open{}, nil); err == nil {
			t.Error("a channel is opened after the end")
		}
		if p.client.Held()+p.server.Held() != 0 {
			t.Error("something is still held")
		}
	}
}

// plainServer is a plain session with what is brought to it.
func plainServer(t *testing.T, frames ...[]byte) (*Session, *catch) {
	t.Helper()
	a := &catch{}
	s := NewServer(Config{}, true, a)
	if _, err := s.attachServer(nil); err != nil {
		t.Fatal(err)
	}
	for _, b := range frames {
		if err := s.receive(s.gen, b); err != nil {
			t.Fatal(err)
		}
	}
	return s, a
}

// catch accepts channels and keeps them.
type catch struct{ chans []*Channel }

func (a *catch) Accept(c *Channel, _ *sluicev1.Open) { a.chans = append(a.chans, c) }

// [PLN-1].
func TestSPEC_PlainFramesNeedNoNumbers(t *testing.T) {
	_, a := plainServer(t, clientFrame(1, 0, &sluicev1.Open{}), dataFrame(1, 0, 5, false), dataFrame(1, 3, 6, false), dataFrame(1, 3, 7, false), dataFrame(1, 0, 8, false))
	if got := come(a.chans[0]); len(got) != 3 || len(got[0].Data) != 5 || len(got[1].Data) != 6 || len(got[2].Data) != 8 {
		t.Errorf("came %+v", got)
	}
	_, a = plainServer(t, clientFrame(1, 1, &sluicev1.Open{}), clientFrame(2, 1, &sluicev1.Open{}), dataFrame(1, 3, 5, false))
	wantBreach(t, a.chans[0], a.chans[1], sluicev1.Reason_REASON_DATA_LOSS)
}

// [PLN-2].
func TestSPEC_PlainServersNumberAndDoNotAcknowledge(t *testing.T) {
	s, a := plainServer(t, clientFrame(1, 0, &sluicev1.Open{}), dataFrame(1, 0, 40_000, false), appendAck(nil, 1, 99, 1))
	c := a.chans[0]
	come(c)
	c.Opened(&sluicev1.Opened{})
	c.Offer(piece(10))
	s.sendAcks()
	for i, f := range (&pair{t: t, segs: map[*Segment]bool{}}).says(s) {
		if f.kind == kindAck || f.seq != uint64(i+1) {
			t.Errorf("frame %d is %v with the number %d", i, f.kind, f.seq)
		}
	}
	if c.Context().Err() != nil {
		t.Error("an Ack closed the channel")
	}
}

// [PLN-3] (D3).
func TestSPEC_APlainSessionHoldsAWindowAndDropsNothing(t *testing.T) {
	s, a := plainServer(t, clientFrame(1, 0, &sluicev1.Open{}))
	c := a.chans[0]
	p := &pair{t: t, segs: map[*Segment]bool{}}
	sent, got := 0, 0
	for range 5 {
		n := fill(c, 1000)
		sent += n
		if n == 0 || c.Held() > MinWindow || c.Held() < MinWindow*3/4 {
			t.Fatalf("%d pieces taken, %d bytes held", n, c.Held())
		}
		for range 3 * MaxBare {
			c.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RECONNECTING})
		}
		if len(c.out.segs) > n+MaxBare {
			t.Fatalf("%d segments are held for a link that does not read", len(c.out.segs))
		}
		for _, f := range p.says(s) {
			if f.kind == kindData {
				got++
			}
		}
		if s.Held() != 0 {
			t.Fatalf("%d bytes are held of what the link has taken", s.Held())
		}
	}
	if got != sent {
		t.Errorf("%d of %d pieces left", got, sent)
	}
	c.Finish(nil, nil, false)
	if said := p.says(s); find(said, kindClosed) == nil || len(s.chans) != 0 {
		t.Errorf("the end says %v and leaves %d channels", kindsOf(said), len(s.chans))
	}
}

// [PLN-4].
func TestSPEC_APlainClientMayHave64KiBUnwritten(t *testing.T) {
	open := [][]byte{clientFrame(1, 0, &sluicev1.Open{}), clientFrame(2, 0, &sluicev1.Open{})}
	s, a := plainServer(t, open...)
	bring := func(b []byte) {
		t.Helper()
		if err := s.receive(s.gen, b); err != nil {
			t.Fatal(err)
		}
	}
	bring(dataFrame(1, 0, 40_000, false))
	bring(dataFrame(1, 0, MinWindow-40_000-2*FrameCost, false))
	come(a.chans[0])
	bring(dataFrame(1, 0, 60_000, false))
	if a.chans[0].Context().Err() != nil {
		t.Fatal("64 KiB close the channel")
	}
	bring(dataFrame(1, 0, 6_000, false))
	wantBreach(t, a.chans[0], a.chans[1], sluicev1.Reason_REASON_LIMIT)
	if e := status.From(context.Cause(a.chans[0].Context())); e.Limit != "limits.plain_bytes" || e.Code != codes.ResourceExhausted {
		t.Errorf("closed with %v", e)
	}
	for range MinWindow/FrameCost + 1 {
		bring(clientFrame(2, 0, &sluicev1.Resize{}))
	}
	if e := status.From(context.Cause(a.chans[1].Context())); e == nil || e.Limit != "limits.plain_bytes" {
		t.Errorf("resizes without end: %v", e)
	}
}

// resumed is the Welcome that answers a Hello with these positions, at a server with n open channels that has sent 3 frames on the first and
// received 3 on it.
func resumed(t *testing.T, n int, change func(*sluicev1.Hello)) (*pair, *sluicev1.Welcome, error) {
	t.Helper()
	p := connected(t, Config{}, n)
	for range 2 {
		p.flows[0].s.Offer(piece(10))
		p.flows[0].c.Offer(piece(10))
	}
	p.settled()
	p.cut(true, true)
	if _, err := p.client.attachClient(&sluicev1.Hello{}); err != nil {
		t.Fatal(err)
	}
	h := p.client.hello
	change(h)
	_, err := p.server.attachServer(h)
	return p, p.server.welcome, err
}

// [RES-3].
func TestSPEC_AnOlderCopyIsSuperseded(t *testing.T) {
	p := connected(t, Config{}, 1) // link 1
	for range 3 {                  // Welcomes that are lost
		p.cut(true, false)
		p.dial()
	}
	if p.client.link != 1 || p.server.link != 4 {
		t.Fatalf("the client knows link %d, the server is at %d", p.client.link, p.server.link)
	}
	p.settled()
	if p.client.link != 4 || p.flows[0].c.Context().Err() != nil {
		t.Fatal("lost Welcomes did harm")
	}
	p.flows[0].c.Offer(piece(1))
	p.settled()
	gen := p.server.gen
	for last := range uint64(4) {
		_, err := p.server.attachServer(&sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: last}})
		wantReason(t, err, sluicev1.Reason_REASON_SUPERSEDED)
	}
	_, err := p.server.attachServer(&sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: 5}})
	wantReason(t, err, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	if p.server.gen != gen {
		t.Error("a refused Hello took the link's place")
	}
}

// [RES-4] (I5).
func TestSPEC_FramesOfAnOlderLinkAreDiscarded(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	come(f.c)
	f.c.Offer(piece(5))
	f.s.Offer(piece(6))
	p.clientSends(1)
	p.serverSends(1)
	p.cut(false, false)
	p.dial()
	p.late()
	if len(come(f.s)) != 0 || len(come(f.c)) != 0 {
		t.Error("a frame of the older link was taken")
	}
	p.settled()
	if len(come(f.s)) != 1 || len(come(f.c)) != 1 {
		t.Error("it did not come again on the newer")
	}
}

// [RES-5] [RES-7].
func TestSPEC_EachNamedChannelHasAVerdict(t *testing.T) {
	_, w, err := resumed(t, 3, func(h *sluicev1.Hello) {
		for _, id := range []uint32{3, 99} {
			h.Channels = append(h.Channels, &sluicev1.ChannelPosition{Channel: id, Window: MinWindow})
		}
	})
	if err != nil || !w.GetResumed() || len(w.GetChannels()) != 4 {
		t.Fatalf("%v, %v", w, err)
	}
	for i, id := range []uint32{1, 2, 3, 99} {
		if c := w.GetChannels()[i]; c.GetChannel() != id || c.GetVerdict() != sluicev1.Verdict_VERDICT_CONTINUE {
			t.Errorf("position %d: %v", i, c)
		}
	}
	if c := w.GetChannels()[0]; c.GetReceived() != 3 || c.GetConsumed() != 1 || c.GetWindow() != MinWindow {
		t.Errorf("channel 1: %v", c)
	}
	if c := w.GetChannels()[3]; c.GetReceived() != 0 || c.GetWindow() != MinWindow {
		t.Errorf("a channel whose Open is on the way: %v", c)
	}
	p := connected(t, Config{}, 2)
	p.finish(p.flows[0], nil, false)
	p.settled() // gone
	_, err = p.server.attachServer(&sluicev1.Hello{
		Resume: &sluicev1.Resume{LastLink: 1}, Channels: []*sluicev1.ChannelPosition{{Channel: 1, Window: MinWindow}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := p.server.welcome.GetChannels()[0]
	if c.GetVerdict() != sluicev1.Verdict_VERDICT_LOST || c.GetStatus().GetReason() != sluicev1.Reason_REASON_CHANNEL_NOT_FOUND || c.GetStatus().GetCode() != uint32(codes.NotFound) {
		t.Errorf("a channel that is gone: %v", c)
	}
}

// [RES-6].
func TestSPEC_AChannelThatIsNotNamedIsForgotten(t *testing.T) {
	p, w, err := resumed(t, 2, func(h *sluicev1.Hello) { h.Channels = h.Channels[:1] })
	if err != nil || len(w.GetChannels()) != 1 {
		t.Fatalf("%v, %v", w, err)
	}
	wantReason(t, context.Cause(p.flows[1].s.Context()), sluicev1.Reason_REASON_CLOSED_BY_PEER)
	if p.flows[0].s.Context().Err() != nil || len(p.server.chans) != 1 || p.server.Channels() != 1 {
		t.Errorf("%d channels are left", len(p.server.chans))
	}
}

// [RES-8] (I4) Positions that contradict what was sent are rejected, never clamped.
func TestSPEC_PositionsThatContradictAreLost(t *testing.T) {
	for name, change := range map[string]func(*sluicev1.ChannelPosition){
		"received more than was sent": func(p *sluicev1.ChannelPosition) { p.Received = 4 },
		"consumed more than was sent": func(p *sluicev1.ChannelPosition) { p.Consumed = 4 },
		"received less than consumed": func(p *sluicev1.ChannelPosition) { p.Received, p.Consumed = 1, 2 },
		"a smaller window":            func(p *sluicev1.ChannelPosition) { p.Window = MinWindow - 1 },
		"the end of all numbers":      func(p *sluicev1.ChannelPosition) { p.Received = ^uint64(0) },
	} {
		t.Run(name, func(t *testing.T) {
			p, w, err := resumed(t, 2, func(h *sluicev1.Hello) { change(h.Channels[0]) })
			if err != nil {
				t.Fatal(err)
			}
			bad, good := w.GetChannels()[0], w.GetChannels()[1]
			if bad.GetVerdict() != sluicev1.Verdict_VERDICT_LOST || bad.GetStatus().GetReason() != sluicev1.Reason_REASON_PROTOCOL_VIOLATION {
				t.Errorf("at the server: %v", bad)
			}
			if good.GetVerdict() != sluicev1.Verdict_VERDICT_CONTINUE {
				t.Errorf("the channel beside it: %v", good)
			}
			wantBreach(t, p.flows[0].s, p.flows[1].s, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
			// And the same of a Welcome at the client.
			q, w, err := resumed(t, 2, func(*sluicev1.Hello) {})
			if err != nil {
				t.Fatal(err)
			}
			change(w.GetChannels()[0])
			if err := q.client.receive(q.client.gen, serverFrame(0, 0, w)); err != nil {
				t.Fatal(err)
			}
			wantBreach(t, q.flows[0].c, q.flows[1].c, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
		})
	}
}

// [RES-9] A position inside a batch, even inside what was encoded together, is met exactly.
func TestSPEC_WhatIsAboveReceivedComesAgain(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	var pieces []data.Piece
	for i := range 20 {
		pieces = append(pieces, data.Piece{Bytes: noise[i : i+1]})
	}
	f.s.Offer(pieces) // one segment: 2 to 21
	p.says(p.server)
	for received := uint64(1); received <= 21; received++ {
		hello := &sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: p.server.link}, Channels: []*sluicev1.ChannelPosition{{Channel: 1, Received: received, Window: MinWindow}}}
		if _, err := p.server.attachServer(hello); err != nil {
			t.Fatal(err)
		}
		next := received + 1
		for _, fr := range p.says(p.server) {
			if fr.kind.sequenced() {
				if fr.seq != next {
					t.Fatalf("after %d came %d instead of %d", received, fr.seq, next)
				}
				next++
			}
		}
		if next != 22 {
			t.Fatalf("after %d the last was %d", received, next-1)
		}
	}
}

// [RES-10].
func TestSPEC_WhatWelcomeDoesNotNameIsLost(t *testing.T) {
	p, w, err := resumed(t, 2, func(*sluicev1.Hello) {})
	if err != nil {
		t.Fatal(err)
	}
	w.Channels = w.GetChannels()[1:]
	if err := p.client.receive(p.client.gen, serverFrame(0, 0, w)); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[0].c, p.flows[1].c, sluicev1.Reason_REASON_CHANNEL_NOT_FOUND)
}

// [RES-1] [RES-11] The channels of a session that the server does not know are lost, those that were not opened yet are opened in the new one.
func TestSPEC_AnUnknownSessionBeginsAnew(t *testing.T) {
	p := connected(t, Config{}, 2)
	p.cut(true, true)
	late := p.open(0, false)
	p.forget = true
	p.dial()
	p.settled()
	for _, f := range p.flows[:2] {
		e := status.From(context.Cause(f.c.Context()))
		if e.Reason != sluicev1.Reason_REASON_SESSION_NOT_FOUND || !e.Resumable {
			t.Errorf("channel %d: %v", f.id, e)
		}
	}
	if late.s == nil || late.c.Context().Err() != nil || p.client.ID() != p.server.ID() {
		t.Error("a channel that was not opened yet is lost too")
	}
	if p.client.Channels() != 1 || p.client.Held() > 100 {
		t.Errorf("%d channels and %d bytes are left", p.client.Channels(), p.client.Held())
	}
}

// [RES-12] [DRN-2] [AUT-5].
func TestSPEC_LevelsAreSaidAgain(t *testing.T) {
	p := connected(t, Config{}, 1)
	p.server.SetAuth(&sluicev1.AuthState{Version: 1})
	p.server.SetAuth(&sluicev1.AuthState{Cluster: "a", Version: 7})
	p.server.SetAuth(&sluicev1.AuthState{Version: 2})
	p.server.Drain(&sluicev1.Drain{ReconnectAfter: durationpb.New(5)})
	if said := kindsOf(p.says(p.server)); len(said) != 3 { // lost
		t.Fatalf("said %v", said)
	}
	for range 3 {
		p.cut(true, true)
		p.dial()
		p.settled()
		w := p.server.auth
		if p.drain.GetReconnectAfter().GetNanos() != 5 || len(w) != 2 || p.auth.GetVersion() != 2 {
			t.Fatalf("the client knows %v and %v", p.drain, p.auth)
		}
		p.drain, p.auth = nil, nil
	}
}

// [HRT-2].
func TestSPEC_PingIsAnsweredWithItsNonce(t *testing.T) {
	p := connected(t, Config{}, 1)
	if err := p.toClient(serverFrame(0, 0, &sluicev1.Ping{Nonce: 4}), serverFrame(0, 0, &sluicev1.Ping{Nonce: 5})); err != nil {
		t.Fatal(err)
	}
	s, _ := plainServer(t, clientFrame(1, 0, &sluicev1.Open{}), clientFrame(0, 0, &sluicev1.Ping{Nonce: 5}))
	for _, said := range [][]frame{p.says(p.client), p.says(s)} {
		if f := find(said, kindPong); f == nil || f.body.(*sluicev1.Pong).GetNonce() != 5 {
			t.Errorf("answered with %v", kindsOf(said))
		}
	}
}

// [AUT-7].
func TestSPEC_AuthenticateIsAnsweredAndChangesNothing(t *testing.T) {
	p := connected(t, Config{}, 1)
	p.server.SetAuth(&sluicev1.AuthState{Version: 3, State: sluicev1.AuthState_STATE_ACCEPTED})
	for n := range uint64(3) {
		if err := p.toServer(clientFrame(0, 0, &sluicev1.Authenticate{Credential: "c", Cluster: "a", Number: n})); err != nil {
			t.Fatal(err)
		}
	}
	said := p.says(p.server)
	if len(said) != 2 {
		t.Fatalf("said %v", kindsOf(said))
	}
	a := said[1].body.(*sluicev1.AuthState)
	if a.GetState() != sluicev1.AuthState_STATE_REJECTED || a.GetNumber() != 2 || a.GetCluster() != "a" || a.GetStatus().GetCode() != uint32(codes.Unimplemented) {
		t.Errorf("answered with %v", a)
	}
	p.cut(true, true)
	p.dial()
	p.settled()
	if p.auth.GetVersion() != 3 {
		t.Errorf("after it the credential is %v", p.auth)
	}
}

// [RES-3] A resume that names more channels than an answer has room for is refused; one that names as many as there can be is answered.
func TestResumeIsBounded(t *testing.T) {
	for n, refused := range map[int]bool{MaxChannels: false, MaxChannels + 1: true} {
		s := NewServer(Config{}, false, acceptAll{})
		s.Identify("s", []byte("secret"))
		if _, err := s.attachServer(&sluicev1.Hello{}); err != nil {
			t.Fatal(err)
		}
		hello := &sluicev1.Hello{Resume: &sluicev1.Resume{Session: "s", Secret: []byte("secret"), LastLink: 1}}
		s.highest = uint32(2 * MaxChannels) // all of them are gone: the longest answer
		for id := range n {
			hello.Channels = append(hello.Channels, &sluicev1.ChannelPosition{Channel: uint32(id + 1)})
		}
		gen, err := s.attachServer(hello)
		if (err != nil) != refused {
			t.Fatalf("%d channels: %v", n, err)
		}
		if err == nil {
			if size := s.collect(gen).Len(); size > MaxBatch {
				t.Errorf("the answer to %d channels has %d bytes", n, size)
			}
		}
	}
}
