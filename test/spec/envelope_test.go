package spec

import (
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/mux"
)

// bubble runs a test with a clock of its own.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestSPEC_BatchBoundariesMeanNothing(t *testing.T) {
	frames := []*sluicev1.ClientFrame{
		clientFrame(1, 1, &sluicev1.Open{}), clientFrame(1, 2, dataFrame("a")), clientFrame(2, 1, &sluicev1.Open{}),
		clientFrame(1, 3, dataFrame("b")), clientFrame(2, 2, dataFrame("c")), clientFrame(1, 4, pieceFrame("d")), clientFrame(1, 5, dataFrame("e")),
	}
	for size := 1; size <= len(frames); size++ {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			for i := 0; i < len(frames); i += size {
				s.send(frames[i:min(i+size, len(frames))]...)
			}
			if got := text(t, s.accepted[0]) + "|" + text(t, s.accepted[1]); got != "abde|c" {
				t.Errorf("in batches of %d frames the channels received %q", size, got)
			}
		})
	}
}

// padded is a batch of n bytes with an Open and what nobody knows.
func padded(t *testing.T, n int) []byte {
	b := encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(1, 1, &sluicev1.Open{})}})
	const head = 5 // a tag of two bytes, a length of three
	b = protowire.AppendTag(b, 99, protowire.BytesType)
	b = protowire.AppendBytes(b, make([]byte, n-len(b)-head+2))
	if len(b) != n {
		t.Fatalf("made a batch of %d bytes, not %d", len(b), n)
	}
	return b
}

func TestSPEC_LongBatchEndsTheLink(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.sendRaw(padded(t, maxBatch))
		if err := s.ended(); err != nil || len(s.accepted) != 1 {
			t.Fatalf("a batch of 256 KiB: %v, %d channels", err, len(s.accepted))
		}
		s.sendRaw(padded(t, maxBatch+1))
		if err := s.ended(); err == nil || err.Code != codes.ResourceExhausted || err.Limit != "limits.batch_bytes" {
			t.Errorf("a longer one: %v", err)
		}
	})
}

func TestSPEC_BrokenBatchEndsTheLink(t *testing.T) {
	badText := encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(1, 2, dataFrame("xyz"))}})
	copy(badText[len(badText)-3:], "x\xffz")
	badCursor := encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(2, 1, &sluicev1.Open{Cursor: "xyz"})}})
	copy(badCursor[len(badCursor)-3:], "x\xffz")
	for name, b := range map[string][]byte{
		"a tag": {0xff}, "a length": {1<<3 | 2, 200}, "a frame": {1<<3 | 2, 2, 0xff, 0xff}, "text": badText, "a string": badCursor,
	} {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			s.sendRaw(append(encode(t, &sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{clientFrame(1, 1, &sluicev1.Open{})}}), b...))
			if err := s.ended(); err == nil || err.Reason != violation {
				t.Errorf("%s that is broken: %v", name, err)
			}
			select {
			case <-s.ses.Done():
				t.Errorf("%s that is broken ended the session", name)
			default:
			}
		})
	}
}

func TestSPEC_WhatIsUnknownIsIgnored(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		open := clientFrame(1, 1, &sluicev1.Open{})
		open.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 77, protowire.VarintType), 5))
		open.GetOpen().ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 78, protowire.VarintType), 5))
		s.send(open, clientFrame(0, 0, unknown{}), clientFrame(1, 0, unknown{}), clientFrame(7, 0, unknown{}), &sluicev1.ClientFrame{},
			&sluicev1.ClientFrame{Channel: 1}, clientFrame(1, 2, dataFrame("after")))
		if s.ended() != nil || len(s.accepted) != 1 || text(t, s.accepted[0]) != "after" {
			t.Errorf("the link: %v, %d channels", s.ended(), len(s.accepted))
		}
	})
}

func TestSPEC_FramesStayOnTheirChannels(t *testing.T) {
	for name, f := range map[string]*sluicev1.ClientFrame{
		"Ping on a channel": clientFrame(1, 0, &sluicev1.Ping{}), "Goodbye on a channel": clientFrame(1, 0, &sluicev1.Goodbye{}),
		"Data on channel 0": clientFrame(0, 1, dataFrame("x")), "Ack on channel 0": clientFrame(0, 0, &sluicev1.Ack{Seq: 1, Window: 65536}),
		"Open on channel 0": clientFrame(0, 1, &sluicev1.Open{}),
	} {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			s.open(1, &sluicev1.Open{})
			s.send(f)
			if err := s.ended(); err == nil || err.Reason != violation {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestSPEC_AnyValidEncodingIsTaken(t *testing.T) {
	// Data{text before cursor before more}, in a frame with its fields backwards and the channel said twice.
	var d []byte
	d = protowire.AppendString(protowire.AppendTag(d, 5, protowire.BytesType), "backwards")
	d = protowire.AppendVarint(protowire.AppendTag(d, 2, protowire.VarintType), 0)
	var f []byte
	f = protowire.AppendBytes(protowire.AppendTag(f, 3, protowire.BytesType), d)
	f = protowire.AppendVarint(protowire.AppendTag(f, 2, protowire.VarintType), 2)
	f = protowire.AppendVarint(protowire.AppendTag(f, 1, protowire.VarintType), 9)
	f = protowire.AppendVarint(protowire.AppendTag(f, 1, protowire.VarintType), 1)
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		s.sendRaw(nil) // an empty batch
		s.sendRaw(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), f))
		if got := text(t, c); got != "backwards" || s.ended() != nil {
			t.Errorf("received %q, the link: %v", got, s.ended())
		}
	})
}

func TestSPEC_NumbersRiseByOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		for id := uint32(1); id <= 2; id++ {
			c := s.open(id, &sluicev1.Open{})
			c.Opened(&sluicev1.Opened{})
			offer(c, 10, 0, 20)
			c.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
			offer(c, 30)
			c.Finish(nil, nil, false)
		}
		pass(pingAfter)
		last := map[uint32]uint64{}
		for _, f := range s.got() {
			switch body(f).(type) {
			case *sluicev1.Ack, *sluicev1.Ping:
				if f.GetSeq() != 0 {
					t.Errorf("%v has a number", f)
				}
			default:
				last[f.GetChannel()]++
				if f.GetSeq() != last[f.GetChannel()] {
					t.Errorf("%v has not number %d", f, last[f.GetChannel()])
				}
			}
		}
		if last[1] != 7 || last[2] != 7 {
			t.Errorf("the last numbers are %v, want 7", last)
		}
	})
}

func TestSPEC_DuplicatesAreDropped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		c := s.open(1, &sluicev1.Open{})
		s.send(clientFrame(1, 2, dataFrame("a")), clientFrame(1, 2, dataFrame("a")), clientFrame(1, 1, &sluicev1.Open{}), clientFrame(1, 3, dataFrame("b")),
			clientFrame(1, 2, &sluicev1.Close{}), clientFrame(1, 4, &sluicev1.CloseSend{}), clientFrame(1, 3, dataFrame("b")))
		if got := text(t, c); got != "ab" || s.ended() != nil || closedOf(s.got(), 1) != nil || c.Context().Err() != nil {
			t.Errorf("received %q, the link: %v", got, s.ended())
		}
		if in, _ := c.Bytes(); in != 2 {
			t.Errorf("counted %d bytes, want 2", in)
		}
	})
}

func TestSPEC_GapEndsTheLinkAndASecondTheChannel(t *testing.T) {
	t.Run("server", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			c := s.open(1, &sluicev1.Open{})
			s.send(clientFrame(1, 3, dataFrame("x")))
			if err := s.ended(); err == nil || err.Code != codes.DataLoss || c.Context().Err() != nil {
				t.Fatalf("after a gap the link: %v", err)
			}
			w := s.resume(1, &sluicev1.ChannelPosition{Channel: 1, Window: firstWindow})
			if p := w.GetChannels(); len(p) != 1 || p[0].GetVerdict() != sluicev1.Verdict_VERDICT_CONTINUE || p[0].GetReceived() != 1 {
				t.Fatalf("positions are %v", p)
			}
			s.send(clientFrame(1, 2, dataFrame("in order")), clientFrame(1, 4, dataFrame("x")))
			if err := s.ended(); err == nil || err.Code != codes.DataLoss || c.Context().Err() != nil {
				t.Fatalf("after a gap that follows progress the link: %v", err)
			}
			s.resume(2, &sluicev1.ChannelPosition{Channel: 1, Window: firstWindow})
			s.send(clientFrame(1, 4, dataFrame("x")))
			if closed := closedOf(s.got(), 1); !refusedFor(closed.GetStatus(), dataLoss, "") || s.ended() != nil {
				t.Errorf("after a second gap: %v, the link: %v", closed, s.ended())
			}
		})
	})
	t.Run("client", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			c := fullClient(t, mux.Config{})
			defer c.end()
			ch := c.open(&sluicev1.Open{})
			c.send(serverFrame(1, 2, &sluicev1.Opened{}))
			if err := c.ended(); err == nil || err.Code != codes.DataLoss || ch.Context().Err() != nil {
				t.Fatalf("after a gap the link: %v", err)
			}
			c.relink()
			c.send(serverFrame(0, 0, &sluicev1.Welcome{Session: "session", Link: 2, Resumed: true, Channels: []*sluicev1.ChannelPosition{{
				Channel: 1, Verdict: sluicev1.Verdict_VERDICT_CONTINUE, Received: 1, Consumed: 1, Window: firstWindow,
			}}}))
			c.send(serverFrame(1, 2, &sluicev1.Opened{}))
			if said := closeOf(c.got(), 1); said.GetReason() != "DATA_LOSS" || c.ended() != nil || ch.Context().Err() == nil {
				t.Errorf("after a second gap: %v, the link: %v", said, c.ended())
			}
		})
	})
}

func TestSPEC_SequencedFrameWithoutNumberClosesTheChannel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.open(1, &sluicev1.Open{})
		s.send(clientFrame(1, 0, dataFrame("x")))
		if closed := closedOf(s.got(), 1); !refusedFor(closed.GetStatus(), violation, "") || s.ended() != nil {
			t.Errorf("answered %v, the link: %v", closed, s.ended())
		}
	})
}

func TestSPEC_ANumberWhereNoneBelongsIsNotLookedAt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.send(&sluicev1.ClientFrame{Seq: 9, Frame: &sluicev1.ClientFrame_Ping{Ping: &sluicev1.Ping{Nonce: 5}}})
		var nonces []uint64
		for _, f := range s.got() {
			nonces = append(nonces, f.GetPong().GetNonce())
		}
		if len(nonces) != 1 || nonces[0] != 5 || s.ended() != nil {
			t.Errorf("a Ping with a number was answered %v, the link: %v", nonces, s.ended())
		}
	})
}

// resume says Hello on a new link and returns the Welcome.
func (s *server) resume(lastLink uint64, channels ...*sluicev1.ChannelPosition) *sluicev1.Welcome {
	s.t.Helper()
	s.cut()
	synctest.Wait()
	s.link()
	s.send(clientFrame(0, 0, resuming(lastLink, channels...)))
	got := s.got()
	if len(got) == 0 || got[0].GetWelcome() == nil {
		s.t.Fatalf("Hello was answered with %v, the link: %v", got, s.ended())
	}
	s.replayed = got[1:]
	return got[0].GetWelcome()
}

func resuming(lastLink uint64, channels ...*sluicev1.ChannelPosition) *sluicev1.Hello {
	return &sluicev1.Hello{
		Protocol: 1, Resume: &sluicev1.Resume{Session: "session", Secret: secret, LastLink: lastLink}, Channels: channels,
	}
}

// words is the text of frames with Data, one word each.
func words[F interface{ GetData() *sluicev1.Data }](frames []F) string {
	var out []string
	for _, f := range frames {
		if d := f.GetData(); d != nil {
			out = append(out, d.GetText()+string(d.GetBinary()))
		}
	}
	return strings.Join(out, " ")
}

var _ proto.Message = unknown{}
