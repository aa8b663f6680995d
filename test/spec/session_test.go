package spec

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

func TestSPEC_TheFirstFrameDecides(t *testing.T) {
	for name, tc := range map[string]struct {
		batches [][]byte
		full    bool
	}{
		"Hello":                   {[][]byte{encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(0, 0, &sluicev1.Hello{Protocol: 1})}})}, true},
		"Hello after empty ones":  {[][]byte{nil, nil, encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(0, 0, &sluicev1.Hello{Protocol: 1})}})}, true},
		"Open":                    {[][]byte{encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(1, 0, &sluicev1.Open{})}})}, false},
		"Ping":                    {[][]byte{encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(0, 0, &sluicev1.Ping{})}})}, false},
		"a frame of tomorrow":     {[][]byte{encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(0, 0, unknown{})}})}, false},
		"Hello behind something":  {[][]byte{encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(0, 0, &sluicev1.Ping{}), clientFrame(0, 0, &sluicev1.Hello{Protocol: 1})}})}, false},
		"the end of the requests": {nil, false},
	} {
		bubble(t, func(t *testing.T) {
			w := newWire()
			for _, b := range tc.batches {
				w.toThem <- b
			}
			close(w.toThem)
			g, err := mux.Greet(t.Context(), w)
			if err != nil || (g.Hello() != nil) != tc.full {
				t.Errorf("%s: a full session is %v, want %v; %v", name, g.Hello() != nil, tc.full, err)
			}
		})
	}
}

func TestSPEC_HelloIsWellFormed(t *testing.T) {
	for name, hello := range map[string]*sluicev1.ClientFrame{
		"another protocol": clientFrame(0, 0, &sluicev1.Hello{Protocol: 2}), "no protocol": clientFrame(0, 0, &sluicev1.Hello{}),
		"on a channel": clientFrame(1, 0, &sluicev1.Hello{Protocol: 1}),
	} {
		bubble(t, func(t *testing.T) {
			s := newFullServer(t, mux.Config{})
			defer s.end()
			s.send(hello)
			if err := s.ended(); err == nil || err.Code != codes.InvalidArgument || len(s.got()) != 0 {
				t.Errorf("%s: the link: %v", name, err)
			}
		})
	}
}

func TestSPEC_OneGreetingALink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.send(clientFrame(0, 0, &sluicev1.Hello{Protocol: 1}))
		if err := s.ended(); err == nil || err.Reason != violation {
			t.Errorf("a second Hello: the link: %v", err)
		}
	})
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		c.send(serverFrame(0, 0, &sluicev1.Welcome{Session: "session", Link: 2}))
		if err := c.ended(); err == nil || err.Reason != violation {
			t.Errorf("a second Welcome: the link: %v", err)
		}
	})
}

func TestSPEC_NothingComesBeforeWelcome(t *testing.T) {
	for name, f := range map[string]*sluicev1.ServerFrame{
		"Ping": serverFrame(0, 0, &sluicev1.Ping{}), "Drain": serverFrame(0, 0, &sluicev1.Drain{}), "Data": serverFrame(1, 1, dataFrame("x")),
	} {
		bubble(t, func(t *testing.T) {
			c := newClient(t, mux.Config{})
			defer c.end()
			c.send(f)
			if err := c.ended(); err == nil || err.Reason != violation {
				t.Errorf("%s before Welcome: the link: %v", name, err)
			}
		})
	}
	bubble(t, func(t *testing.T) { // of the client's making
		c := newClient(t, mux.Config{})
		defer c.end()
		c.open(&sluicev1.Open{})
		if got := c.got(); len(got) != 1 || got[0].GetHello() == nil {
			t.Errorf("before Welcome the client sent %v", got)
		}
		c.send(serverFrame(0, 0, &sluicev1.Welcome{Session: "session", Secret: secret, Link: 1}))
		if got := c.got(); len(got) != 1 || got[0].GetOpen() == nil {
			t.Errorf("after Welcome the client sent %v", got)
		}
	})
}

func TestSPEC_PlainFramesNeedNoNumbers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := plainServer(t, mux.Config{})
		defer s.end()
		s.send(clientFrame(1, 0, &sluicev1.Open{}), clientFrame(1, 0, dataFrame("a")), clientFrame(1, 0, dataFrame("b")))
		s.send(clientFrame(2, 1, &sluicev1.Open{}), clientFrame(2, 2, dataFrame("c")), clientFrame(2, 2, dataFrame("c")), clientFrame(2, 0, dataFrame("d")))
		if got := text(t, s.accepted[0]) + "|" + text(t, s.accepted[1]); got != "ab|cd" {
			t.Errorf("the channels received %q", got)
		}
		s.send(clientFrame(2, 9, dataFrame("e")))
		if got := s.got(); !refusedFor(closedOf(got, 2).GetStatus(), dataLoss, "") || s.ended() != nil || closedOf(got, 1) != nil {
			t.Errorf("a gap was answered with %v, the link: %v", got, s.ended())
		}
	})
}

func TestSPEC_PlainSessionsHaveNoAcksAndNoHeartbeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := plainServer(t, mux.Config{})
		defer s.end()
		s.send(clientFrame(1, 0, &sluicev1.Open{}), clientFrame(1, 0, dataFrame("a")), clientFrame(1, 0, &sluicev1.Ack{Seq: 99, Window: 1}))
		c := s.accepted[0]
		text(t, c)
		c.Opened(&sluicev1.Opened{})
		offer(c, 10)
		pass(time.Hour)
		var seqs []uint64
		for _, f := range s.got() {
			if f.GetChannel() == 0 || f.GetAck() != nil {
				t.Errorf("came %v", f)
			}
			seqs = append(seqs, f.GetSeq())
		}
		if len(seqs) != 2 || seqs[0] != 1 || seqs[1] != 2 || s.ended() != nil {
			t.Errorf("came the numbers %v, the link: %v", seqs, s.ended())
		}
	})
}

func TestSPEC_PlainLinkThatStallsHoldsOneWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := plainServer(t, mux.Config{})
		defer s.end()
		s.send(clientFrame(1, 0, &sluicev1.Open{}))
		c := s.accepted[0]
		c.Opened(&sluicev1.Opened{})
		s.got()
		release := s.hold()
		offer(c, 100) // which the link takes and does not pass on
		synctest.Wait()
		n := 1
		for offer(c, 10_000) == 1 {
			n++
		}
		if n > 8 {
			t.Errorf("took %d messages", n)
		}
		release()
		data := 0
		for _, f := range s.got() {
			if f.GetData() != nil {
				data++
			}
		}
		if data != n || c.Credit() != 65536 {
			t.Errorf("%d of %d messages came, the credit is %d", data, n, c.Credit())
		}
	})
}

func TestSPEC_PlainInputIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := plainServer(t, mux.Config{})
		defer s.end()
		s.send(clientFrame(1, 0, &sluicev1.Open{}), clientFrame(2, 0, &sluicev1.Open{}))
		for range 5 {
			s.send(clientFrame(1, 0, binaryFrame(16<<10)))
		}
		for range 65536/64 + 1 {
			s.send(clientFrame(2, 0, &sluicev1.Resize{}))
		}
		got := s.got()
		if !refusedFor(closedOf(got, 1).GetStatus(), limitMet, "limits.plain_bytes") || !refusedFor(closedOf(got, 2).GetStatus(), limitMet, "limits.plain_bytes") {
			t.Errorf("answered %v", got)
		}
	})
}

func TestSPEC_PlainSessionOutlivesItsInput(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := plainServer(t, mux.Config{})
		defer s.end()
		s.send(clientFrame(1, 0, &sluicev1.Open{}))
		close(s.toThem)
		pass(time.Hour)
		c := s.accepted[0]
		if s.ended() != nil || c.Context().Err() != nil {
			t.Fatalf("the end of the input ended the link: %v", s.ended())
		}
		c.Opened(&sluicev1.Opened{})
		offer(c, 5)
		c.Finish(nil, nil, false)
		got := s.got()
		if len(got) != 3 || got[2].GetClosed() == nil || s.ended() == nil || s.ended().Code != codes.OK {
			t.Errorf("came %v, the link: %v", got, s.ended())
		}
	})
}

func TestSPEC_TheSecretComesUntilItWasHeard(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		for link := uint64(2); link < 5; link++ { // Welcomes that get lost
			w := s.resume(1)
			if !bytes.Equal(w.GetSecret(), secret) || w.GetLink() != link || !w.GetResumed() || w.GetSession() != "session" {
				t.Fatalf("Welcome is %v", w)
			}
		}
		s.send(clientFrame(0, 0, &sluicev1.Pong{}))
		for link := uint64(5); link < 7; link++ {
			if w := s.resume(4); w.GetSecret() != nil || w.GetLink() != link {
				t.Fatalf("Welcome is %v", w)
			}
		}
	})
}

func TestSPEC_GoodbyeEndsEverything(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		a, b := s.open(1, &sluicev1.Open{}), s.open(2, &sluicev1.Open{})
		s.send(clientFrame(0, 0, &sluicev1.Goodbye{}))
		if a.Context().Err() == nil || b.Context().Err() == nil || s.ended() == nil {
			t.Errorf("the link: %v, the channels: %v, %v", s.ended(), a.Context().Err(), b.Context().Err())
		}
		<-s.ses.Done()
	})
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		ch := c.open(&sluicev1.Open{})
		c.send(serverFrame(0, 0, &sluicev1.Goodbye{Status: status.New(codes.Unauthenticated, sluicev1.Reason_REASON_EXPIRED, "over").Proto()}))
		<-c.ses.Done()
		if c.ses.Err() == nil || c.ses.Err().Reason != sluicev1.Reason_REASON_EXPIRED || ch.Context().Err() == nil {
			t.Errorf("the session: %v", c.ses.Err())
		}
	})
	bubble(t, func(t *testing.T) { // said by the server
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.open(1, &sluicev1.Open{})
		s.ses.End(status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "over"))
		got := s.got()
		if len(got) == 0 || got[len(got)-1].GetGoodbye().GetStatus().GetReason() != sluicev1.Reason_REASON_DRAINING || s.ended() == nil {
			t.Errorf("came %v, the link: %v", got, s.ended())
		}
	})
}

func TestSPEC_ALostLinkLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		offer(c, 10, 20, 30)
		first := s.got()
		c.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
		offer(c, 40)
		c.Finish(nil, nil, false)
		first = append(first, s.got()...)
		s.resume(1, &sluicev1.ChannelPosition{Channel: 1, Received: 3, Consumed: 2, Window: firstWindow})
		var want []*sluicev1.ServerFrame
		for _, f := range first {
			if f.GetChannel() == 1 && f.GetSeq() > 3 {
				want = append(want, f)
			}
		}
		if len(want) != 4 || len(s.replayed) != len(want) {
			t.Fatalf("%d frames were sent again, want %d", len(s.replayed), len(want))
		}
		for i, f := range s.replayed {
			if !proto.Equal(f, want[i]) {
				t.Errorf("sent again %v, which was %v", f, want[i])
			}
		}
	})
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		ch := c.open(&sluicev1.Open{})
		c.send(serverFrame(1, 1, &sluicev1.Opened{}))
		offer(ch, 1, 2, 3)
		sent := c.got()
		h := c.relink()
		if p := h.GetChannels(); len(p) != 1 || p[0].GetChannel() != 1 || p[0].GetReceived() != 1 || p[0].GetWindow() != firstWindow ||
			h.GetResume().GetSession() != "session" || !bytes.Equal(h.GetResume().GetSecret(), secret) || h.GetResume().GetLastLink() != 1 {
			t.Fatalf("Hello is %v", h)
		}
		c.send(serverFrame(0, 0, &sluicev1.Welcome{Session: "session", Link: 2, Resumed: true, Channels: []*sluicev1.ChannelPosition{{
			Channel: 1, Verdict: sluicev1.Verdict_VERDICT_CONTINUE, Received: 2, Consumed: 1, Window: firstWindow,
		}}}))
		got := c.got()
		if len(got) < 2 || !proto.Equal(got[len(got)-1], sent[len(sent)-1]) || got[len(got)-2].GetSeq() != 3 {
			t.Errorf("sent again %v, of %v", got, sent)
		}
	})
}

func TestSPEC_AnOlderLinkIsSuperseded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.open(1, &sluicev1.Open{})
		old, oldDone := s.wire, s.done
		s.link() // beside the older one
		s.send(clientFrame(0, 0, resuming(1, &sluicev1.ChannelPosition{Channel: 1, Window: firstWindow})))
		s.got()
		if err := status.From(<-oldDone); err.Code != codes.Aborted || err.Reason != sluicev1.Reason_REASON_SUPERSEDED {
			t.Errorf("the older link: %v", err)
		}
		select {
		case old.toThem <- encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(1, 2, dataFrame("old"))}}):
		default:
		}
		s.send(clientFrame(1, 2, dataFrame("new")))
		if got := text(t, s.accepted[0]); got != "new" {
			t.Errorf("received %q", got)
		}
		s.cut()
		synctest.Wait()
		s.link()
		s.send(clientFrame(0, 0, resuming(1)))
		if err := s.ended(); err == nil || err.Code != codes.Aborted || err.Reason != sluicev1.Reason_REASON_SUPERSEDED || len(s.got()) != 0 {
			t.Errorf("a copy that knows link 1 only: %v", err)
		}
		if s.accepted[0].Context().Err() != nil {
			t.Error("a copy that was refused has ended a channel")
		}
		s.link()
		s.send(clientFrame(0, 0, resuming(9)))
		if err := s.ended(); err == nil || err.Reason != violation {
			t.Errorf("one that knows links that never were: %v", err)
		}
	})
}

func TestSPEC_VerdictsOfAResume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		kept, over, forgotten, wrong := s.open(1, &sluicev1.Open{}), s.open(2, &sluicev1.Open{}), s.open(3, &sluicev1.Open{}), s.open(4, &sluicev1.Open{})
		over.Finish(nil, nil, false)
		s.got()
		s.send(clientFrame(2, 0, &sluicev1.Ack{Seq: 1, Window: firstWindow}))
		w := s.resume(1, &sluicev1.ChannelPosition{Channel: 1, Window: firstWindow}, &sluicev1.ChannelPosition{Channel: 2, Window: firstWindow},
			&sluicev1.ChannelPosition{Channel: 4, Received: 9, Window: firstWindow}, &sluicev1.ChannelPosition{Channel: 7, Window: firstWindow})
		verdicts := map[uint32]*sluicev1.ChannelPosition{}
		for _, p := range w.GetChannels() {
			verdicts[p.GetChannel()] = p
		}
		if len(w.GetChannels()) != 4 || len(verdicts) != 4 {
			t.Fatalf("positions are %v", w.GetChannels())
		}
		for id, want := range map[uint32]sluicev1.Reason{
			1: sluicev1.Reason_REASON_UNSPECIFIED, 2: sluicev1.Reason_REASON_CHANNEL_NOT_FOUND, 4: violation, 7: sluicev1.Reason_REASON_UNSPECIFIED,
		} {
			lost := want != sluicev1.Reason_REASON_UNSPECIFIED
			if p := verdicts[id]; (p.GetVerdict() == sluicev1.Verdict_VERDICT_LOST) != lost || p.GetStatus().GetReason() != want {
				t.Errorf("channel %d: %v", id, p)
			}
		}
		if p := verdicts[1]; p.GetReceived() != 1 || p.GetConsumed() != 1 || p.GetWindow() != firstWindow {
			t.Errorf("channel 1 stands at %v", p)
		}
		if p := verdicts[7]; p.GetReceived() != 0 {
			t.Errorf("channel 7, whose Open never came, stands at %v", p)
		}
		if kept.Context().Err() != nil || forgotten.Context().Err() == nil || wrong.Context().Err() == nil {
			t.Errorf("channel 1: %v, channel 3: %v, channel 4: %v", kept.Context().Err(), forgotten.Context().Err(), wrong.Context().Err())
		}
		s.send(clientFrame(7, 1, &sluicev1.Open{}))
		if len(s.accepted) != 5 {
			t.Error("channel 7 was not accepted when its Open came")
		}
	})
}

func TestSPEC_PositionsAreAcks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		offer(c, 1000, 1000)
		s.got()
		s.resume(1, &sluicev1.ChannelPosition{Channel: 1, Received: 3, Consumed: 3, Window: 100_000})
		if got := c.Credit(); got != 100_000 || c.Held() != 0 || len(s.replayed) != 0 {
			t.Errorf("the credit is %d, held are %d bytes, sent again was %v", got, c.Held(), s.replayed)
		}
	})
}

func TestSPEC_ClientTakesUnnamedChannelsAsLost(t *testing.T) {
	for name, resumed := range map[string]bool{"resumed": true, "a new session": false} {
		bubble(t, func(t *testing.T) {
			c := fullClient(t, mux.Config{})
			defer c.end()
			sent := c.open(&sluicev1.Open{})
			c.cut()
			synctest.Wait()
			unsent := c.open(&sluicev1.Open{Cursor: "kept"})
			c.link()
			c.got()
			c.send(serverFrame(0, 0, &sluicev1.Welcome{Session: "session", Secret: secret, Link: 2, Resumed: resumed}))
			got := c.got()
			if sent.Context().Err() == nil || unsent.Context().Err() != nil {
				t.Errorf("%s: the channels: %v, %v", name, sent.Context().Err(), unsent.Context().Err())
			}
			if len(got) != 1 || got[0].GetOpen().GetCursor() != "kept" || got[0].GetSeq() != 1 {
				t.Errorf("%s: the client sent %v", name, got)
			}
		})
	}
}

func TestSPEC_OpensRiseAlsoOnAResume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		var positions []*sluicev1.ChannelPosition
		for id := uint32(1); id <= 20; id++ {
			c.open(&sluicev1.Open{Cursor: string(make([]byte, id%3*8000))}) // of very different length
			positions = append([]*sluicev1.ChannelPosition{{Channel: id, Verdict: sluicev1.Verdict_VERDICT_CONTINUE, Window: firstWindow}}, positions...)
		}
		rising := func(when string) {
			t.Helper()
			last := uint32(0)
			for _, f := range c.got() {
				if f.GetOpen() == nil {
					continue
				}
				if f.GetChannel() != last+1 {
					t.Errorf("%s Open %d follows %d", when, f.GetChannel(), last)
				}
				last = f.GetChannel()
			}
			if last != 20 {
				t.Errorf("%s the last Open is %d", when, last)
			}
		}
		rising("at first")
		c.relink()
		c.send(serverFrame(0, 0, &sluicev1.Welcome{Session: "session", Link: 2, Resumed: true, Channels: positions}))
		rising("on a resume")
	})
}

func TestSPEC_LevelsAreRestated(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.ses.SetAuth(&sluicev1.AuthState{State: sluicev1.AuthState_STATE_ACCEPTED, Version: 1})
		s.ses.SetAuth(&sluicev1.AuthState{State: sluicev1.AuthState_STATE_ACCEPTED, Version: 2})
		s.ses.SetAuth(&sluicev1.AuthState{Cluster: "a", State: sluicev1.AuthState_STATE_ACCEPTED, Version: 7})
		s.ses.Drain(&sluicev1.Drain{Deadline: timestamppb.New(time.Unix(5, 0))})
		s.got() // lost
		for link := range uint64(2) {
			w := s.resume(1 + link)
			versions := map[string]uint64{}
			for _, a := range w.GetAuth() {
				versions[a.GetCluster()] = a.GetVersion()
			}
			if len(w.GetAuth()) != 2 || versions[""] != 2 || versions["a"] != 7 || w.GetDraining().GetDeadline().GetSeconds() != 5 {
				t.Errorf("Welcome is %v", w)
			}
		}
	})
}

func TestSPEC_Heartbeat(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		pass(pingAfter - time.Millisecond)
		if got := s.got(); len(got) != 0 {
			t.Errorf("before time came %v", got)
		}
		pass(time.Millisecond)
		if got := s.got(); len(got) != 1 || got[0].GetPing() == nil {
			t.Errorf("in time came %v", got)
		}
		s.send(clientFrame(0, 0, &sluicev1.Pong{}))
		pass(giveUpAfter - time.Millisecond)
		if s.ended() != nil {
			t.Errorf("given up before time: %v", s.ended())
		}
		pass(time.Millisecond)
		if err := s.ended(); err == nil || err.Code != codes.Unavailable || err.Reason != sluicev1.Reason_REASON_HEARTBEAT_TIMEOUT {
			t.Errorf("the link: %v", err)
		}
		select {
		case <-s.ses.Done():
			t.Error("the session ended with its link")
		default:
		}
	})
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		pass(giveUpAfter - time.Millisecond)
		c.send(serverFrame(0, 0, &sluicev1.Ping{Nonce: 7}), serverFrame(0, 0, &sluicev1.Ping{Nonce: 8}))
		// The first may be answered before the second has come; the last always is.
		got := c.got()
		if len(got) == 2 && got[0].GetPong().GetNonce() == 7 {
			got = got[1:]
		}
		if len(got) != 1 || got[0].GetPong().GetNonce() != 8 {
			t.Errorf("Pings were answered with %v", got)
		}
		pass(giveUpAfter)
		if err := c.ended(); err == nil || err.Reason != sluicev1.Reason_REASON_HEARTBEAT_TIMEOUT {
			t.Errorf("the link: %v", err)
		}
	})
}

func TestSPEC_AuthenticateIsRejected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		s.got()
		s.send(clientFrame(0, 0, &sluicev1.Authenticate{Credential: "x", Cluster: "a", Number: 5}))
		got := s.got()
		if a := got[0].GetAuthState(); a.GetState() != sluicev1.AuthState_STATE_REJECTED || a.GetNumber() != 5 || a.GetCluster() != "a" ||
			a.GetStatus().GetCode() != uint32(codes.Unimplemented) || a.GetStatus().GetReason() != sluicev1.Reason_REASON_NOT_IMPLEMENTED {
			t.Errorf("answered %v", got)
		}
		if s.ended() != nil || c.Context().Err() != nil {
			t.Errorf("the link: %v, the channel: %v", s.ended(), c.Context().Err())
		}
	})
}
