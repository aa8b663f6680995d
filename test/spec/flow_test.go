package spec

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/mux"
)

func TestSPEC_TheWorkedExample(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{Window: 65536})
		credit := func(want int) {
			t.Helper()
			if got := c.Credit(); got != want {
				t.Errorf("the credit is %d, want %d", got, want)
			}
		}
		c.Opened(&sluicev1.Opened{})
		credit(65472)
		for _, left := range []int{49024, 32576, 16128} {
			offer(c, 16384)
			credit(left)
		}
		if offer(c, 16065) != 0 {
			t.Error("one byte beyond the credit was taken")
		}
		offer(c, 16064)
		credit(0)
		c.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
		credit(-64)
		if got := s.got(); got[len(got)-1].GetChannelState() == nil {
			t.Errorf("the last frame is %v", got[len(got)-1])
		}
		s.send(clientFrame(1, 0, &sluicev1.Ack{Seq: 3, Window: 65536}))
		credit(32896)
		if offer(c, 16384, 16384, 0) != 2 {
			t.Error("two pieces do not fit")
		}
		credit(0)
	})
}

func TestSPEC_DataMayComeBeforeOpened(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.send(clientFrame(1, 1, &sluicev1.Open{}), clientFrame(1, 2, dataFrame("early")))
		if got := text(t, s.accepted[0]); got != "early" {
			t.Errorf("received %q", got)
		}
	})
}

func TestSPEC_AnOlderAckTakesNothingBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		offer(c, 100, 100, 100)
		s.got()
		s.send(clientFrame(1, 0, &sluicev1.Ack{Seq: 4, Window: 65536}))
		s.send(clientFrame(1, 0, &sluicev1.Ack{Seq: 2, Window: 65536}))
		if got := c.Credit(); got != 65536 || closedOf(s.got(), 1) != nil {
			t.Errorf("the credit is %d", got)
		}
	})
}

func TestSPEC_WindowsOfOpenAndAck(t *testing.T) {
	for _, tc := range []struct{ open, ack, credit uint64 }{
		{0, 0, 65536},
		{1000, 0, 65536},
		{65536, 0, 65536},
		{100_000, 0, 100_000},
		{1 << 40, 0, 1 << 20},
		{0, 100_000, 100_000},
		{0, 1 << 40, 1 << 20},
		{1 << 40, 1 << 40, 1 << 20},
		{1 << 20, 1<<64 - 1, 1 << 20},
	} {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			c := s.open(1, &sluicev1.Open{Window: tc.open})
			if tc.ack != 0 {
				s.send(clientFrame(1, 0, &sluicev1.Ack{Window: tc.ack}))
			}
			if got := c.Credit(); got != int(tc.credit) || closedOf(s.got(), 1) != nil {
				t.Errorf("Open with %d and Ack with %d give %d, want %d", tc.open, tc.ack, got, tc.credit)
			}
		})
	}
}

func TestSPEC_OpenedGivesTheClientItsWindow(t *testing.T) {
	for _, tc := range []struct{ opened, credit uint64 }{{0, 65536}, {1000, 65536}, {100_000, 100_000}} {
		bubble(t, func(t *testing.T) {
			c := fullClient(t, mux.Config{})
			defer c.end()
			ch := c.open(&sluicev1.Open{})
			c.send(serverFrame(1, 1, &sluicev1.Opened{Window: tc.opened}), serverFrame(1, 0, &sluicev1.Ack{Seq: 1, Window: max(tc.opened, 65536)}))
			if got := ch.Credit(); got != int(tc.credit) {
				t.Errorf("Opened with %d gives %d, want %d", tc.opened, got, tc.credit)
			}
		})
	}
}

func TestSPEC_AWindowNeverShrinks(t *testing.T) {
	for name, ack := range map[string]*sluicev1.Ack{"smaller": {Seq: 1, Window: 65535}, "absent": {Seq: 1}} {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			s.open(1, &sluicev1.Open{}).Opened(&sluicev1.Opened{})
			s.got()
			s.send(clientFrame(1, 0, ack))
			if closed := closedOf(s.got(), 1); !refusedFor(closed.GetStatus(), violation, "") || s.ended() != nil {
				t.Errorf("a window that is %s: %v, the link: %v", name, closed, s.ended())
			}
		})
	}
}

func TestSPEC_DataBeyondTheCreditClosesTheChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.open(1, &sluicev1.Open{})
		s.open(2, &sluicev1.Open{})
		const rest = 65536 - 64 - 3*(16384+64) - 64 // after Open, three pieces, and the last one's own 64
		for seq := range uint64(3) {
			s.send(clientFrame(1, 2+seq, binaryFrame(16384)), clientFrame(2, 2+seq, binaryFrame(16384)))
		}
		s.send(clientFrame(1, 5, binaryFrame(rest)), clientFrame(2, 5, binaryFrame(rest+1)))
		got := s.got()
		if closedOf(got, 1) != nil || !refusedFor(closedOf(got, 2).GetStatus(), violation, "") || s.ended() != nil {
			t.Errorf("at the credit: %v; one byte beyond: %v; the link: %v", closedOf(got, 1), closedOf(got, 2), s.ended())
		}
	})
}

func TestSPEC_AnAckOfWhatWasNotSentClosesTheChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.open(1, &sluicev1.Open{}).Opened(&sluicev1.Opened{})
		s.got()
		s.send(clientFrame(1, 0, &sluicev1.Ack{Seq: 2, Window: 65536}))
		if closed := closedOf(s.got(), 1); !refusedFor(closed.GetStatus(), violation, "") || s.ended() != nil {
			t.Errorf("answered %v, the link: %v", closed, s.ended())
		}
	})
}

func TestSPEC_PiecesHaveABound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{Window: 256<<10 - 1})
		if offer(c, 16385) != 0 || offer(c, 16384) != 1 {
			t.Error("a window below 256 KiB takes other pieces than up to 16 KiB")
		}
		c = s.open(2, &sluicev1.Open{Window: 256 << 10})
		if offer(c, 65537) != 0 || offer(c, 65536) != 1 {
			t.Error("a window of 256 KiB takes other pieces than up to 64 KiB")
		}
	})
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		c.open(&sluicev1.Open{Window: 256 << 10})
		c.send(serverFrame(1, 1, &sluicev1.Opened{}), serverFrame(1, 2, binaryFrame(65536)))
		if said := closeOf(c.got(), 1); said != nil {
			t.Errorf("64 KiB: %v", said)
		}
		c.send(serverFrame(1, 3, binaryFrame(65537)))
		if said := closeOf(c.got(), 1); said.GetReason() != "PROTOCOL_VIOLATION" || c.ended() != nil {
			t.Errorf("one byte more: %v, the link: %v", said, c.ended())
		}
	})
}

func states(frames []*sluicev1.ServerFrame) (n int) {
	for _, f := range frames {
		if f.GetChannelState() != nil {
			n++
		}
	}
	return n
}

func TestSPEC_SixteenBareFramesMayBeUnacknowledged(t *testing.T) {
	bubble(t, func(t *testing.T) { // those that are sent
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		for i := range uint32(40) {
			c.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RECONNECTING, Attempt: i + 1})
		}
		c.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
		if n := states(s.got()); n != 15 {
			t.Errorf("sent %d beside Opened, want 15", n)
		}
		if offer(c, 1) != 0 {
			t.Error("Data overtook what waits for its number")
		}
		s.send(clientFrame(1, 0, &sluicev1.Ack{Seq: 16, Window: 65536}))
		var attempts []uint32
		for _, f := range s.got() {
			if st := f.GetChannelState(); st != nil {
				attempts = append(attempts, st.GetAttempt())
			}
		}
		if len(attempts) != 2 || attempts[0] != 40 || attempts[1] != 0 {
			t.Errorf("after the Ack came the attempts %v, want the newest of its kind, then CONNECTED", attempts)
		}
		if offer(c, 1) != 1 {
			t.Error("Data is not taken again")
		}
	})
	bubble(t, func(t *testing.T) { // those that are received
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.open(1, &sluicev1.Open{})
		for seq := range uint64(16) {
			s.send(clientFrame(1, 2+seq, &sluicev1.Resize{}))
		}
		if closed := closedOf(s.got(), 1); closed != nil {
			t.Errorf("16 were answered with %v", closed)
		}
		s.send(clientFrame(1, 18, &sluicev1.Resize{}))
		if closed := closedOf(s.got(), 1); !refusedFor(closed.GetStatus(), violation, "") || s.ended() != nil {
			t.Errorf("17 were answered with %v, the link: %v", closed, s.ended())
		}
	})
}

func TestSPEC_CloseDoesNotWait(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		ch := c.open(&sluicev1.Open{})
		for i := range uint32(40) {
			ch.Resize(i, i)
		}
		c.got()
		ch.Close("enough")
		if said := closeOf(c.got(), 1); said.GetReason() != "enough" {
			t.Error("Close waits behind frames that are not acknowledged")
		}
	})
}

func TestSPEC_NothingIsTakenBeyondTheCredit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		c.Opened(&sluicev1.Opened{})
		taken := 0
		for offer(c, 1000) == 1 {
			taken++
		}
		if want := (65536 - 64) / 1064; taken != want {
			t.Errorf("took %d messages of 1,000 bytes, want %d", taken, want)
		}
		if held := s.ses.Held(); held > 65536+taken*20 {
			t.Errorf("holds %d bytes", held)
		}
		other := s.open(2, &sluicev1.Open{})
		if offer(other, 1000) != 1 {
			t.Error("a stalled channel stalls another")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := c.AwaitCredit(ctx, 1064); !errors.Is(err, context.Canceled) {
			t.Errorf("there is credit again: %v", err)
		}
	})
}

func TestSPEC_AnAckSaysConsumed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		for seq := range uint64(4) {
			s.send(clientFrame(1, 2+seq, binaryFrame(16000)))
		}
		pass(time.Second)
		if a := lastAck(s.got(), 1); a.GetSeq() != 1 {
			t.Fatalf("with nothing taken came %v", a)
		}
		first, err := c.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if a := lastAck(s.got(), 1); a != nil {
			t.Errorf("with nothing used came %v", a)
		}
		c.Used(&first)
		pass(time.Second)
		if a := lastAck(s.got(), 1); a.GetSeq() != 2 || a.GetWindow() != 65536 {
			t.Errorf("with one used came %v", a)
		}
	})
}

func TestSPEC_PiecesAreConsumedWhenTheyArePutTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		whole := strings.Repeat("x", 1<<20)
		seq, room := uint64(1), 65536-64
		for i := 0; i < len(whole); i += 16 << 10 { // many windows long
			if room < 16<<10+64 {
				pass(ackWithin)
				a := lastAck(s.got(), 1)
				if a.GetSeq() != seq {
					t.Fatalf("after %d came %v: the message stands still", seq, a)
				}
				room = 65536
			}
			seq++
			room -= 16<<10 + 64
			d := pieceFrame(whole[i : i+16<<10])
			d.More = i+16<<10 < len(whole)
			s.send(clientFrame(1, seq, d))
		}
		if got := text(t, c); got != whole {
			t.Errorf("received %d bytes", len(got))
		}
	})
}

func TestSPEC_AcksAreBatchedAndNotLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		pass(time.Second)
		s.got()
		s.send(clientFrame(1, 2, dataFrame("x")))
		text(t, c)
		pass(ackWithin / 2)
		if a := lastAck(s.got(), 1); a != nil {
			t.Errorf("one small message was acknowledged at once: %v", a)
		}
		pass(ackWithin)
		if a := lastAck(s.got(), 1); a.GetSeq() != 2 {
			t.Errorf("in time came %v", a)
		}
		acks := 0
		for seq := range uint64(64) {
			s.send(clientFrame(1, 3+seq, dataFrame("x")))
			text(t, c)
			for _, f := range s.got() {
				if f.GetAck() != nil {
					acks++
				}
			}
		}
		if acks != 8 {
			t.Errorf("64 small messages were acknowledged %d times, want every eighth", acks)
		}
		s.send(clientFrame(1, 67, binaryFrame(16<<10)), clientFrame(1, 68, binaryFrame(16<<10)))
		text(t, c)
		if a := lastAck(s.got(), 1); a.GetSeq() != 68 {
			t.Errorf("after half of the window came %v", a)
		}
	})
}

func TestSPEC_NoChannelWaitsForAnothersBacklog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{SessionBytes: 64 << 20})
		defer s.end()
		held := s.hold()
		var bulk []*mux.Channel
		for id := range uint32(20) {
			c := s.open(1+id, &sluicev1.Open{Window: 1 << 20})
			c.Opened(&sluicev1.Opened{})
			bulk = append(bulk, c)
		}
		for _, c := range bulk {
			for offer(c, 16<<10) == 1 {
			}
		}
		small := s.open(21, &sluicev1.Open{})
		small.Opened(&sluicev1.Opened{})
		offer(small, 10)
		s.send(clientFrame(0, 0, &sluicev1.Ping{}))
		held()
		before := 0
		for _, f := range s.got() {
			if f.GetChannel() == 21 && f.GetData() != nil {
				break
			}
			before += proto.Size(f)
		}
		// What had left already, and a turn of each of the others.
		if most := 128<<10 + 20*(16<<10); before > most {
			t.Errorf("%d bytes came before one small message, want %d at most", before, most)
		}
	})
}

// hold lets the link take nothing more until the returned function is called.
func (s *server) hold() (release func()) {
	held := make(chan struct{})
	s.held.Store(&held)
	return func() {
		s.held.Store(nil)
		close(held)
	}
}
