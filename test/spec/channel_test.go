package spec

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

func TestSPEC_AnIdIsUsedOnce(t *testing.T) {
	for name, f := range map[string]*sluicev1.ClientFrame{
		"below the highest": clientFrame(3, 1, &sluicev1.Open{}), "with another number": clientFrame(9, 2, &sluicev1.Open{}),
		"Data": clientFrame(9, 1, dataFrame("x")), "Close": clientFrame(9, 1, &sluicev1.Close{}),
	} {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			c := s.open(5, &sluicev1.Open{})
			s.send(f)
			if closed := closedOf(s.got(), f.GetChannel()); !refusedFor(closed.GetStatus(), violation, "") || !closed.GetAborted() || s.ended() != nil {
				t.Errorf("%s: answered %v, the link: %v", name, closed, s.ended())
			}
			if c.Context().Err() != nil || len(s.accepted) != 1 {
				t.Errorf("%s: channel 5: %v, %d channels", name, c.Context().Err(), len(s.accepted))
			}
		})
	}
}

func TestSPEC_ChannelsOfASessionAreLimited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{Channels: 4})
		defer s.end()
		for id := uint32(1); id <= 4; id++ {
			s.open(id, &sluicev1.Open{})
		}
		s.got()
		s.send(clientFrame(5, 1, &sluicev1.Open{}))
		if closed := closedOf(s.got(), 5); closed.GetStatus().GetCode() != uint32(codes.ResourceExhausted) ||
			!refusedFor(closed.GetStatus(), limitMet, "limits.session_channels") {
			t.Errorf("one more was answered with %v", closed)
		}
		s.accepted[0].Finish(nil, nil, false)
		s.open(6, &sluicev1.Open{}) // there is room again, though no Closed is acknowledged
		for id := uint32(7); id <= 16; id++ {
			s.send(clientFrame(id, 1, &sluicev1.Open{}))
		}
		if s.ended() != nil {
			t.Fatalf("with %d channels not forgotten the link: %v", 16, s.ended())
		}
		s.send(clientFrame(17, 1, &sluicev1.Open{}))
		if err := s.ended(); err == nil || err.Limit != "limits.session_channels" {
			t.Errorf("with four times as many the link: %v", err)
		}
	})
}

func TestSPEC_HalfCloseLeavesTheOtherHalfOpen(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		s.send(clientFrame(1, 2, dataFrame("last")), clientFrame(1, 3, &sluicev1.CloseSend{}))
		if got := text(t, c); got != "last" || offer(c, 5) != 1 {
			t.Errorf("received %q, or nothing may be sent", got)
		}
		offer(c, 6)
		c.CloseSend()
		if offer(c, 7) != 0 {
			t.Error("Data is taken after CloseSend")
		}
		s.send(clientFrame(1, 4, &sluicev1.Resize{Width: 3}))
		if ev := events(t, c); len(ev) != 1 || ev[0].Kind != mux.EventResize {
			t.Errorf("after both half-closes came %v", ev)
		}
		var after []*sluicev1.ServerFrame
		for _, f := range s.got() {
			if f.GetCloseSend() != nil {
				after = []*sluicev1.ServerFrame{}
			} else if after != nil && f.GetData() != nil {
				after = append(after, f)
			}
		}
		if after == nil || len(after) != 0 {
			t.Errorf("after CloseSend came %v", after)
		}
	})
}

func TestSPEC_CloseIsAnsweredAfterAllData(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		offer(c, 10, 20)
		s.send(clientFrame(1, 2, &sluicev1.Close{Reason: "enough"}))
		end := status.From(c.Context().Err())
		if cause := c.Context().Err(); cause == nil || end == nil || offer(c, 30) != 0 {
			t.Errorf("after Close the channel: %v, or Data is taken", cause)
		}
		c.Finish(status.New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "closed by the client"), nil, true)
		got := s.got()
		closed := got[len(got)-1].GetClosed()
		if closed.GetStatus().GetReason() != sluicev1.Reason_REASON_CLOSED_BY_PEER || closed.GetBytesOut() != 30 || len(words(got)) != 10+1+20 {
			t.Errorf("came %v", got)
		}
	})
}

func TestSPEC_ClosedIsTheLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		offer(c, 10)
		c.Finish(nil, nil, true)
		offer(c, 20)
		c.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
		c.Finish(nil, nil, false)
		s.send(clientFrame(1, 2, dataFrame("x")), clientFrame(1, 3, &sluicev1.Close{}))
		pass(time.Second)
		got := s.got()
		closed := 0
		for _, f := range got {
			if closed > 0 && f.GetSeq() != 0 {
				t.Errorf("after Closed came %v", f)
			}
			if f.GetClosed() != nil {
				closed++
				if f.GetClosed().GetStatus().GetCode() == 0 {
					t.Error("an aborted channel reports success")
				}
			}
		}
		if closed != 1 || len(words(got)) != 10 {
			t.Errorf("came %v", got)
		}
	})
}

func TestSPEC_ClosedIsKeptUntilItIsAcknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Finish(nil, nil, false)
		s.resume(1, &sluicev1.ChannelPosition{Channel: 1, Window: firstWindow})
		if closedOf(s.replayed, 1) == nil {
			t.Errorf("a Closed that was not received is not sent again: %v", s.replayed)
		}
		s.resume(2)
		w := s.resume(3, &sluicev1.ChannelPosition{Channel: 1, Received: 1, Consumed: 1, Window: firstWindow})
		if p := w.GetChannels(); len(p) != 1 || p[0].GetVerdict() != sluicev1.Verdict_VERDICT_LOST {
			t.Errorf("a channel that was forgotten is %v", p)
		}
	})
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		ch := c.open(&sluicev1.Open{})
		c.send(serverFrame(1, 1, &sluicev1.Closed{}))
		events(t, ch)
		pass(time.Second)
		if a := lastAck(c.got(), 1); a.GetSeq() != 1 {
			t.Errorf("Closed was acknowledged with %v", a)
		}
	})
}

func TestSPEC_AChannelsEndTouchesNoOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		var all []*mux.Channel
		for id := uint32(1); id <= 3; id++ {
			c := s.open(id, &sluicev1.Open{})
			c.Opened(&sluicev1.Opened{})
			all = append(all, c)
		}
		s.got()
		s.send(clientFrame(1, 2, &sluicev1.Close{}), clientFrame(2, 2, &sluicev1.Open{}), clientFrame(3, 2, dataFrame("x")))
		all[0].Finish(nil, nil, true)
		offer(all[2], 7)
		if got := s.got(); text(t, all[2]) != "x" || all[2].Context().Err() != nil || s.ended() != nil || len(words(got)) != 7 {
			t.Errorf("channel 3: %v, the link: %v, came %v", all[2].Context().Err(), s.ended(), got)
		}
	})
}

func TestSPEC_PiecesAreOneMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		ch := c.open(&sluicev1.Open{})
		last := dataFrame("c")
		last.Cursor, last.Stream = "here", sluicev1.Stream_STREAM_STDOUT
		c.send(serverFrame(1, 1, &sluicev1.Opened{}), serverFrame(1, 2, pieceFrame("a")), serverFrame(1, 3, pieceFrame("")), serverFrame(1, 4, pieceFrame("b")))
		if ev := events(t, ch); len(ev) != 1 || ev[0].Kind != mux.EventOpened {
			t.Fatalf("before the last piece came %v", ev)
		}
		c.send(serverFrame(1, 5, last), serverFrame(1, 6, dataFrame("d")))
		ev := events(t, ch)
		if len(ev) != 2 || string(ev[0].Data) != "abc" || !ev[0].Text || ev[0].Cursor != "here" || ev[0].Stream != sluicev1.Stream_STREAM_STDOUT ||
			string(ev[1].Data) != "d" || ev[1].Cursor != "" {
			t.Errorf("came %v", ev)
		}
	})
}

func TestSPEC_AStateInsideAMessageDropsIt(t *testing.T) {
	for name, tc := range map[string]struct {
		between *sluicev1.ServerFrame
		more    bool
	}{
		"ChannelState": {serverFrame(1, 3, &sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RECONNECTING}), true},
		"CloseSend":    {serverFrame(1, 3, &sluicev1.CloseSend{}), false},
		"Closed":       {serverFrame(1, 3, &sluicev1.Closed{BytesOut: 4}), false},
	} {
		bubble(t, func(t *testing.T) {
			c := fullClient(t, mux.Config{})
			defer c.end()
			ch := c.open(&sluicev1.Open{})
			c.send(serverFrame(1, 1, &sluicev1.Opened{}), serverFrame(1, 2, pieceFrame("half")), tc.between)
			if tc.more {
				c.send(serverFrame(1, 4, dataFrame("whole")))
			}
			ev := events(t, ch)
			got := payload(ev)
			if want := map[bool]string{true: "whole", false: ""}[tc.more]; got != want || closeOf(c.got(), 1) != nil {
				t.Errorf("%s: received %q, want %q", name, got, want)
			}
			if name == "Closed" && status.From(lastMessage(ev)) != nil {
				t.Errorf("the channel ended with %v", ev)
			}
		})
	}
}

// lastMessage is the error of a Closed that is the last event.
func lastMessage(ev []mux.Event) error {
	if len(ev) == 0 {
		return nil
	}
	closed, _ := ev[len(ev)-1].Message.(*sluicev1.Closed)
	if e := status.FromProto(closed.GetStatus()); e != nil {
		return e
	}
	return nil
}

func TestSPEC_LongMessageClosesItsChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{MessageBytes: 64 << 10})
		defer s.end()
		s.open(1, &sluicev1.Open{})
		other := s.open(2, &sluicev1.Open{})
		for seq := range uint64(4) {
			pass(time.Second) // for the Acks
			d := binaryFrame(16 << 10)
			d.More = true
			s.send(clientFrame(1, 2+seq, d))
		}
		if closed := closedOf(s.got(), 1); closed != nil {
			t.Fatalf("at the limit: %v", closed)
		}
		pass(time.Second)
		s.send(clientFrame(1, 6, binaryFrame(1)))
		closed := closedOf(s.got(), 1)
		if closed.GetStatus().GetCode() != uint32(codes.ResourceExhausted) || !refusedFor(closed.GetStatus(), limitMet, "limits.message_bytes") {
			t.Errorf("answered %v", closed)
		}
		if s.ended() != nil || other.Context().Err() != nil {
			t.Errorf("the link: %v, another channel: %v", s.ended(), other.Context().Err())
		}
	})
}

func TestSPEC_ByteCountsAreCompared(t *testing.T) {
	for name, tc := range map[string]struct {
		in, out uint64
		loss    bool
	}{
		"equal": {3, 5, false}, "lower in": {1, 5, false}, "higher in": {4, 5, true}, "lower out": {3, 4, true}, "higher out": {3, 6, true},
	} {
		bubble(t, func(t *testing.T) {
			c := fullClient(t, mux.Config{})
			defer c.end()
			ch := c.open(&sluicev1.Open{})
			c.send(serverFrame(1, 1, &sluicev1.Opened{}), serverFrame(1, 2, dataFrame("two")), serverFrame(1, 2, dataFrame("two")), serverFrame(1, 3, dataFrame("on")))
			offer(ch, 3)
			c.send(serverFrame(1, 4, &sluicev1.Closed{BytesIn: tc.in, BytesOut: tc.out}))
			err := status.From(lastMessage(events(t, ch)))
			if tc.loss != (err != nil && err.Code == codes.DataLoss && err.Reason == dataLoss) {
				t.Errorf("%s: the channel ended with %v", name, err)
			}
		})
	}
}

func TestSPEC_TheServerCountsWhatItNumbered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		offer(c, 100, 0, 23)
		s.send(clientFrame(1, 2, dataFrame("abc")))
		s.got()
		s.resume(1, &sluicev1.ChannelPosition{Channel: 1, Received: 1, Consumed: 1, Window: firstWindow})
		s.send(clientFrame(1, 2, dataFrame("abc")), clientFrame(1, 3, &sluicev1.Close{}), clientFrame(1, 4, dataFrame("de")))
		c.Finish(nil, nil, false)
		received := 0
		got := slices.Concat(s.replayed, s.got())
		for _, f := range got {
			received += len(f.GetData().GetBinary())
		}
		if closed := closedOf(got, 1); closed.GetBytesOut() != 123 || received != 123 || closed.GetBytesIn() != 5 {
			t.Errorf("received %d bytes; Closed is %v", received, closed)
		}
	})
}

func TestSPEC_ALongStatusFitsInABatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		e := status.New(codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "%s", strings.Repeat("\u00e4", 1<<20))
		e.HTTPCode, e.Kubernetes = 404, &sluicev1.KubernetesStatus{Reason: "NotFound", Message: strings.Repeat("y", 1<<20), Code: 404}
		c.Finish(e, nil, true)
		st := closedOf(s.got(), 1).GetStatus() // got wants each batch to be short enough
		if st.GetCode() != uint32(codes.NotFound) || st.GetHttpCode() != 404 || st.GetKubernetes().GetReason() != "NotFound" || len(st.GetMessage()) < 4000 {
			t.Errorf("came a status with code %d, %d bytes of message", st.GetCode(), len(st.GetMessage()))
		}
	})
}

func TestSPEC_BudgetsRefuseNothing(t *testing.T) {
	const channels, budget = 40, 256 << 10
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{SessionBytes: budget})
		defer s.end()
		sent := 0
		for id := uint32(1); id <= channels; id++ {
			c := s.open(id, &sluicev1.Open{})
			n := 0
			for offer(c, 16000) == 1 {
				n++
			}
			if n == 0 {
				t.Errorf("channel %d may hold nothing at all", id)
			}
			sent += n
		}
		if held := s.ses.Held(); held > budget+channels*17_000 || sent == 4*channels {
			t.Errorf("%d bytes are held, of %d messages", held, sent)
		}
		got := s.got()
		for _, f := range got {
			if f.GetData() == nil && f.GetAck() == nil {
				t.Errorf("came %v", f)
			}
		}
		if n := len(strings.Fields(words(got))); n != sent || s.ended() != nil {
			t.Errorf("%d of %d messages came, the link: %v", n, sent, s.ended())
		}
	})
}
