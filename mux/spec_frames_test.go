package mux

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// These tests are of proto/SPEC.md's rules about envelopes, numbers, channels and messages; the id of the rule stands behind each.

// come are the events that a channel gives now, all used.
func come(c *Channel) (all []Event) {
	for ev, ok, _ := c.next(); ok; ev, ok, _ = c.next() {
		c.Used(&ev)
		all = append(all, ev)
	}
	return all
}

func wantReason(t *testing.T, err error, r sluicev1.Reason) {
	t.Helper()
	if !isReason(err, r) {
		t.Errorf("got %v instead of %v", err, r)
	}
}

// wantBreach checks that a channel was closed for a rule that its peer broke, and the one beside it was not.
func wantBreach(t *testing.T, c, beside *Channel, r sluicev1.Reason) {
	t.Helper()
	wantReason(t, context.Cause(c.Context()), r)
	if beside.Context().Err() != nil {
		t.Errorf("the channel beside it has ended too: %v", context.Cause(beside.Context()))
	}
}

// [ENV-1].
func TestSPEC_BatchingMeansNothing(t *testing.T) {
	state := serverFrame(1, 4, &sluicev1.ChannelState{Attempt: 7})
	frames := [][]byte{dataFrame(1, 2, 10, true), dataFrame(2, 2, 3, false), dataFrame(1, 3, 5, false), state, dataFrame(1, 5, 6, false)}
	for name, batches := range map[string][][]byte{"in one": {bytes.Join(frames, nil)}, "in its own each": frames} {
		p := connected(t, Config{}, 2)
		come(p.flows[0].c)
		for _, b := range batches {
			if err := p.toClient(b); err != nil {
				t.Fatal(err)
			}
		}
		got := come(p.flows[0].c)
		if len(got) != 3 || len(got[0].Data) != 15 || got[1].Kind != EventState || len(got[2].Data) != 6 {
			t.Errorf("%s: came %+v", name, got)
		}
	}
}

// [ENV-2].
func TestSPEC_ALongBatchEndsTheLink(t *testing.T) {
	p := connected(t, Config{}, 1)
	long := append([]byte{2<<3 | 2}, protowire.AppendVarint(nil, MaxBatch)...)
	long = append(long, make([]byte, MaxBatch)...)
	for _, err := range []error{p.toServer(long), p.toClient(long), greet(&oneBatch{b: long}).err} {
		if e := status.From(err); e == nil || e.Limit != "limits.batch_bytes" || e.Code != codes.ResourceExhausted {
			t.Errorf("got %v", err)
		}
	}
	if err := p.toServer(long[:3], long[len(long)-MaxBatch+3:]); err == nil {
		t.Error("a broken batch is taken")
	}
	if p.flows[0].c.Context().Err() != nil || p.flows[0].s.Context().Err() != nil {
		t.Error("a channel ended with the link")
	}
}

// [ENV-3].
func TestSPEC_AMalformedBatchEndsTheLink(t *testing.T) {
	p := connected(t, Config{}, 1)
	badText := []byte{tagFrames, 9, tagChannel, 1, tagSeq, 2, tagData, 3, tagText, 1, 0xff}
	for _, bad := range [][]byte{{0xff}, {tagFrames, 5, 1}, badText, {tagFrames, 2, 0x0c, 0}} {
		wantReason(t, p.toServer(bad), sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
		wantReason(t, p.toClient(bad), sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	}
	if p.flows[0].s.Context().Err() != nil {
		t.Error("a channel ended with the link")
	}
}

// [ENV-4].
func TestSPEC_WhatIsOfALaterVersionIsIgnored(t *testing.T) {
	p := connected(t, Config{}, 1)
	before := before(p.server, 1)
	field := []byte{9<<3 | 2, 1, 'x', 10 << 3, 5} // of the batch
	frames := [][]byte{unknownFrame(1, 0), unknownFrame(0, 0), unknownFrame(77, 0), {tagFrames, 0}, field}
	for _, err := range []error{p.toServer(frames...), p.toClient(frames...)} {
		if err != nil {
			t.Errorf("not ignored: %v", err)
		}
	}
	if position := (position{true, open, before.received, before.consumed, 0}); before != position {
		t.Errorf("something happened: %+v", before)
	}
	m, err := proto.Marshal(&sluicev1.ClientFrame{Channel: 1, Seq: 2, Frame: &sluicev1.ClientFrame_Data{
		Data: &sluicev1.Data{Payload: &sluicev1.Data_Binary{Binary: []byte("abc")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	m = append(m, 15<<3, 1) // a field of the frame
	if err := p.toServer(append([]byte{tagFrames, byte(len(m))}, m...)); err != nil {
		t.Fatal(err)
	}
	if got := come(p.flows[0].s); len(got) != 1 || string(got[0].Data) != "abc" {
		t.Errorf("a frame with an unknown field gives %+v", got)
	}
}

// [ENV-5].
func TestSPEC_ChannelZeroIsTheSession(t *testing.T) {
	for _, b := range [][]byte{
		clientFrame(1, 0, &sluicev1.Ping{}), clientFrame(1, 0, &sluicev1.Goodbye{}), dataFrame(0, 1, 1, false), appendAck(nil, 0, 1, MinWindow),
		clientFrame(0, 1, &sluicev1.Open{}), clientFrame(1, 0, &sluicev1.Hello{}),
	} {
		wantReason(t, connected(t, Config{}, 1).toServer(b), sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	}
	for _, b := range [][]byte{serverFrame(1, 0, &sluicev1.Drain{}), dataFrame(0, 1, 1, false), serverFrame(0, 1, &sluicev1.Closed{})} {
		wantReason(t, connected(t, Config{}, 1).toClient(b), sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	}
}

// [ENV-6].
func TestSPEC_AnyEncodingIsTaken(t *testing.T) {
	p := connected(t, Config{}, 1)
	odd := []byte{tagFrames, 13, tagData, 7, tagBinary, 1, 'a', tagBinary, 2, 'b', 'c', tagSeq, 2, tagChannel, 1}
	if err := p.toServer(odd); err != nil {
		t.Fatal(err)
	}
	if err := p.toServer(); err != nil {
		t.Fatalf("an empty batch: %v", err)
	}
	if got := come(p.flows[0].s); len(got) != 1 || string(got[0].Data) != "bc" {
		t.Errorf("got %+v", got)
	}
}

// [NUM-1] [NUM-2] [NUM-3].
func TestSPEC_NumbersRiseByOneAndSurviveLinks(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	f.s.Offer([]data.Piece{{Bytes: []byte("a")}, {Bytes: []byte("b")}})
	f.s.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
	first := p.says(p.server)
	p.cut(true, true)
	p.dial()
	p.serverSends(1) // Welcome, and what follows
	var again []frame
	for b := p.link.toClient[0]; len(b) > 0; {
		var fr frame
		b, _ = nextFrame(b, Server, &fr)
		if fr.kind.sequenced() {
			again = append(again, fr)
		} else if fr.seq != 0 {
			t.Errorf("%v has the number %d", fr.kind, fr.seq)
		}
	}
	if len(first) != 3 || len(again) != 3 {
		t.Fatalf("sent %v, then %v", kindsOf(first), kindsOf(again))
	}
	for i := range first {
		if first[i].seq != uint64(i+2) || !sameFrame(&first[i], &again[i]) {
			t.Errorf("frame %+v came again as %+v", first[i], again[i])
		}
	}
	f.s.Offer([]data.Piece{{Bytes: []byte("c")}})
	if d := find(p.says(p.server), kindData); d == nil || d.seq != 5 {
		t.Errorf("after the resume: %+v", d)
	}
}

// [NUM-4].
func TestSPEC_DuplicatesAreDropped(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	two, three := dataFrame(1, 2, 5, false), dataFrame(1, 3, 6, false)
	for _, b := range [][]byte{two, two, clientFrame(1, 1, &sluicev1.Open{}), three, two, three, clientFrame(1, 2, &sluicev1.Close{})} {
		if err := p.toServer(b); err != nil {
			t.Fatal(err)
		}
	}
	if got := come(f.s); len(got) != 2 || len(got[0].Data) != 5 || len(got[1].Data) != 6 || f.s.Context().Err() != nil {
		t.Errorf("%d events came, the channel: %v", len(got), f.s.Context().Err())
	}
	if in, _ := f.s.Bytes(); in != 11 {
		t.Errorf("%d bytes are counted", in)
	}
}

// [NUM-5].
func TestSPEC_AGapEndsTheLinkASecondTheChannel(t *testing.T) {
	for _, role := range []Role{Server, Client} {
		p := connected(t, Config{}, 2)
		at, bring := p.flows[0].s, p.toServer
		beside := p.flows[1].s
		if role == Client {
			at, bring, beside = p.flows[0].c, p.toClient, p.flows[1].c
		}
		gap := dataFrame(1, at.in.seq+2, 1, false)
		wantReason(t, bring(gap), sluicev1.Reason_REASON_DATA_LOSS)
		if at.Context().Err() != nil {
			t.Fatalf("%v: the first gap ends the channel", role)
		}
		p.cut(true, true)
		p.dial()
		p.settled()
		for _, c := range []*Channel{p.flows[0].c, p.flows[0].s} { // progress
			c.Offer([]data.Piece{{Bytes: []byte("a")}})
		}
		p.settled()
		gap = dataFrame(1, at.in.seq+2, 1, false)
		wantReason(t, bring(gap), sluicev1.Reason_REASON_DATA_LOSS)
		p.cut(true, true)
		p.dial()
		p.settled()
		if err := bring(gap); err != nil {
			t.Fatalf("%v: the second gap ends the link: %v", role, err)
		}
		wantBreach(t, at, beside, sluicev1.Reason_REASON_DATA_LOSS)
	}
}

// [NUM-6].
func TestSPEC_ASequencedFrameWithoutNumberClosesItsChannel(t *testing.T) {
	p := connected(t, Config{}, 3)
	if err := p.toServer(dataFrame(1, 0, 1, false)); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[0].s, p.flows[2].s, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	if err := p.toClient(serverFrame(2, 0, &sluicev1.ChannelState{})); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[1].c, p.flows[2].c, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
}

// [CH-1] [RES-11] Opens that were lost with a link, and one that is as long as a message, still come in the order of their ids.
func TestSPEC_OpensComeInTheOrderOfTheirIds(t *testing.T) {
	p := newPair(t, Config{})
	p.dial()
	p.settled()
	for range 20 {
		p.open(0, false)
	}
	long := &sluicev1.Open{Cluster: "cluster-21", Cursor: string(bytes.Repeat([]byte("c"), 60<<10))}
	p.live[21] = &flow{id: 21}
	if _, err := p.client.Open(long, nil); err != nil {
		t.Fatal(err)
	}
	p.flows = append(p.flows, p.live[21])
	p.clientSends(1)
	p.cut(true, true) // all of them in flight
	p.open(0, false)
	p.dial()
	p.settled()
	for _, f := range p.flows {
		if f.s == nil || f.s.Context().Err() != nil {
			t.Fatalf("channel %d was not opened, or refused", f.id)
		}
	}
}

// [CH-2].
func TestSPEC_AnIdIsNeverUsedAgain(t *testing.T) {
	p := connected(t, Config{}, 2)
	p.finish(p.flows[0], nil, false)
	p.settled()
	for id, b := range map[uint32][]byte{
		1: clientFrame(1, 1, &sluicev1.Open{}), 9: clientFrame(9, 2, &sluicev1.Open{}), 12: dataFrame(12, 1, 1, false),
	} {
		if err := p.toServer(b); err != nil {
			t.Fatal(err)
		}
		c := find(p.says(p.server), kindClosed)
		if c == nil || c.channel != id || !isReason(status.FromProto(c.body.(*sluicev1.Closed).GetStatus()), sluicev1.Reason_REASON_PROTOCOL_VIOLATION) {
			t.Errorf("channel %d is answered by %+v", id, c)
		}
	}
	if p.flows[1].s.Context().Err() != nil {
		t.Error("a channel beside it ended")
	}
	if n := p.server.Channels(); n != 1 {
		t.Errorf("%d channels count as open", n)
	}
}

// [CH-3] [CH-4].
func TestSPEC_OneChannelTooManyIsRefused(t *testing.T) {
	p := connected(t, Config{Channels: 2}, 2)
	f := p.open(0, false)
	p.settled()
	e := status.From(context.Cause(f.c.Context()))
	if e.Limit != "limits.session_channels" || e.Code != codes.ResourceExhausted || !e.FromPeer {
		t.Errorf("refused with %v", e)
	}
	p.finish(p.flows[0], nil, false) // its end is not acknowledged, and counts no longer
	g := p.open(0, false)
	p.settled()
	if g.s == nil || g.c.Context().Err() != nil {
		t.Error("no channel after one has ended")
	}
	if n := p.server.Channels(); n != 2 {
		t.Errorf("%d channels count as open", n)
	}
	p.cut(true, true)
	p.dial()
	p.settled()
	p.open(0, false)
	if p.server.Channels() != 2 {
		t.Errorf("after a resume %d channels count as open", p.server.Channels())
	}
}

// [CH-4] A client that acknowledges nothing does not fill the table.
func TestSPEC_EndsThatNobodyAcknowledgesEndTheLink(t *testing.T) {
	p := connected(t, Config{Channels: 2}, 0)
	p.server.acceptor = acceptAll{}
	for id := uint32(1); id < 9; id++ {
		if err := p.toServer(clientFrame(id, 1, &sluicev1.Open{})); err != nil {
			t.Fatal(err)
		}
	}
	if e := status.From(p.toServer(clientFrame(9, 1, &sluicev1.Open{}))); e == nil || e.Limit != "limits.session_channels" {
		t.Errorf("the ninth of four times two: %v", e)
	}
}

// [CH-6].
func TestSPEC_CloseSendFollowsAllData(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	for _, c := range []*Channel{f.s, f.c} {
		c.Offer([]data.Piece{{Bytes: []byte("last")}})
		c.CloseSend()
		c.CloseSend()
		if n := c.Offer([]data.Piece{{Bytes: []byte("late")}}); n != 0 {
			t.Error("data is taken after CloseSend")
		}
		if err := c.AwaitCredit(t.Context(), 1); err == nil {
			t.Error("there is credit after CloseSend")
		}
	}
	p.settled()
	for _, c := range []*Channel{f.s, f.c} {
		got := come(c)
		if c == f.c {
			got = got[1:] // Opened
		}
		if len(got) != 2 || string(got[0].Data) != "last" || got[1].Kind != EventCloseSend || c.Context().Err() != nil {
			t.Errorf("came: %+v, %v", got, c.Context().Err())
		}
	}
	f.s.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED}) // the channel goes on
	p.settled()
	if got := come(f.c); len(got) != 1 {
		t.Errorf("after CloseSend came %+v", got)
	}
}

// [CH-7].
func TestSPEC_CloseIsAnsweredByClosed(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	come(f.c)
	f.s.Offer([]data.Piece{{Bytes: []byte("numbered")}})
	f.close()
	p.clientSends(9)
	p.serverReceives(9)
	wantReason(t, context.Cause(f.s.Context()), sluicev1.Reason_REASON_CLOSED_BY_PEER)
	if f.s.Credit() > 0 || f.s.Offer([]data.Piece{{Bytes: []byte("late")}}) != 0 {
		t.Error("the server takes more from its upstream")
	}
	f.s.Finish(status.From(context.Cause(f.s.Context())), nil, true)
	p.settled()
	e := status.From(context.Cause(f.c.Context()))
	if e.Code != codes.Canceled || e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("ended with %v", e)
	}
	if got := come(f.c); len(got) != 0 {
		t.Errorf("a closed channel gives %+v", got)
	}
	if in, _ := f.c.Bytes(); in != 8 {
		t.Errorf("%d bytes are counted", in)
	}
}

// [CH-8].
func TestSPEC_NothingFollowsClosed(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	f.s.Offer([]data.Piece{{Bytes: []byte("all")}})
	f.s.Finish(nil, &sluicev1.Exit{Code: 7}, false)
	f.s.State(&sluicev1.ChannelState{})
	f.s.CloseSend()
	f.s.Finish(nil, nil, true)
	if n := f.s.Offer([]data.Piece{{Bytes: []byte("late")}}); n != 0 {
		t.Error("data is taken after Closed")
	}
	p.settled()
	got := come(f.c)[1:]
	if len(got) != 2 || string(got[0].Data) != "all" || got[1].Message.(*sluicev1.Closed).GetExit().GetCode() != 7 {
		t.Errorf("came %+v", got)
	}
}

// [CH-8].
func TestSPEC_AnAbortedChannelNeverReportsSuccess(t *testing.T) {
	p := connected(t, Config{}, 1)
	p.flows[0].s.Finish(nil, nil, true)
	p.settled()
	got := come(p.flows[0].c)
	if c := got[len(got)-1].Message.(*sluicev1.Closed); !c.GetAborted() || c.GetStatus().GetCode() == 0 {
		t.Errorf("Closed says %v", c)
	}
}

// [CH-9].
func TestSPEC_ClosedIsKeptUntilItIsAcknowledged(t *testing.T) {
	p := connected(t, Config{}, 1)
	p.finish(p.flows[0], nil, false)
	p.serverSends(9)
	p.clientReceives(9)
	if p.flows[0].s.Held() == 0 || len(p.server.chans) != 1 {
		t.Error("the server has forgotten the channel already")
	}
	p.clientSends(9) // without any timer
	p.serverReceives(9)
	if p.server.Held() != 0 || len(p.server.chans) != 0 || len(p.client.chans) != 0 {
		t.Errorf("left: %d bytes, %d and %d channels", p.server.Held(), len(p.server.chans), len(p.client.chans))
	}
}

// [CNT-1] [CNT-2].
func TestSPEC_CountsThatDifferAreDataLoss(t *testing.T) {
	for name, m := range map[string]*sluicev1.Closed{"out": {BytesOut: 4}, "out, lower": {BytesOut: 2}, "in": {BytesOut: 3, BytesIn: 6}} {
		p := connected(t, Config{}, 1)
		c := p.flows[0].c
		c.Offer([]data.Piece{{Bytes: []byte("12345")}})
		if err := p.toClient(dataFrame(1, 2, 3, false), serverFrame(1, 3, m)); err != nil {
			t.Fatal(err)
		}
		got := come(c)
		wantReason(t, context.Cause(c.Context()), sluicev1.Reason_REASON_DATA_LOSS)
		if s := got[len(got)-1].Message.(*sluicev1.Closed).GetStatus(); s.GetReason() != sluicev1.Reason_REASON_DATA_LOSS {
			t.Errorf("%s: Closed says %v", name, s)
		}
	}
	p := connected(t, Config{}, 1)
	p.flows[0].c.Offer([]data.Piece{{Bytes: []byte("12345")}})
	if err := p.toClient(serverFrame(1, 2, &sluicev1.Closed{BytesIn: 2})); err != nil { // the channel ended first
		t.Fatal(err)
	}
	if err := context.Cause(p.flows[0].c.Context()); !errors.Is(err, errFinished) {
		t.Errorf("fewer bytes in: %v", err)
	}
}

// [DAT-1].
func TestSPEC_PiecesAreDeliveredAsOneMessage(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	come(f.c)
	if err := p.toClient(dataFrame(1, 2, 100, true), dataFrame(1, 3, 0, true), dataFrame(1, 4, 50, false), dataFrame(1, 5, 0, true), dataFrame(1, 6, 0, false)); err != nil {
		t.Fatal(err)
	}
	got := come(f.c)
	if len(got) != 2 || !bytes.Equal(got[0].Data, slices.Concat(noise[:100], noise[:50])) || got[0].Seq != 4 || len(got[1].Data) != 0 {
		t.Errorf("came %d events, the first of %d bytes", len(got), len(got[0].Data))
	}
}

// [DAT-2].
func TestSPEC_AStateBetweenPiecesEndsTheMessage(t *testing.T) {
	p := connected(t, Config{}, 1)
	f := p.flows[0]
	come(f.c)
	state := serverFrame(1, 3, &sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RECONNECTING})
	if err := p.toClient(dataFrame(1, 2, 100, true), state, dataFrame(1, 4, 7, false)); err != nil {
		t.Fatal(err)
	}
	if got := come(f.c); len(got) != 2 || got[0].Kind != EventState || len(got[1].Data) != 7 {
		t.Errorf("came %+v", got)
	}
}

// [DAT-3].
func TestSPEC_ALongMessageClosesItsChannel(t *testing.T) {
	p := connected(t, Config{MessageBytes: 1000}, 2)
	c := p.flows[0].c
	if err := p.toClient(dataFrame(1, 2, 2000, false), dataFrame(1, 3, 600, true), dataFrame(1, 4, 400, false), dataFrame(1, 5, 1000, true)); err != nil {
		t.Fatal(err)
	}
	if got := come(c); len(got) != 3 || c.Context().Err() != nil {
		t.Fatalf("%d events came, %v", len(got), context.Cause(c.Context()))
	}
	if err := p.toClient(dataFrame(1, 6, 1, false)); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, c, p.flows[1].c, sluicev1.Reason_REASON_LIMIT)
	if e := status.From(context.Cause(c.Context())); e.Limit != "limits.message_bytes" || e.Code != codes.ResourceExhausted {
		t.Errorf("closed with %v", e)
	}
}

// TestAnOpenThatFitsNoFrameIsRefused proves that no caller makes a frame that ends every link of its session.
func TestAnOpenThatFitsNoFrameIsRefused(t *testing.T) {
	p := connected(t, Config{}, 0)
	_, err := p.client.Open(&sluicev1.Open{Cursor: string(make([]byte, LargePiece))}, nil)
	wantReason(t, err, sluicev1.Reason_REASON_INVALID_TARGET)
	if len(p.client.chans) != 0 {
		t.Error("a channel is left")
	}
}
