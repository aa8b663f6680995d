package spec

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/mux"
)

// frameKinds are the frames of an envelope that the table of frames has on channels, and those that it has on channel 0, made empty.
func frameKinds(t *testing.T, text string, envelope proto.Message) (ofChannels, ofSession map[string]proto.Message) {
	t.Helper()
	ofChannels, ofSession = map[string]proto.Message{}, map[string]proto.Message{}
	fields := envelope.ProtoReflect().Descriptor().Oneofs().ByName("frame").Fields()
	for i := range fields.Len() {
		name := string(fields.Get(i).Message().Name())
		_, rest, ok := strings.Cut(text, "\n| "+name+" | ")
		cells := strings.SplitN(rest, " | ", 3)
		if !ok || len(cells) < 3 {
			t.Fatalf("the table of frames has no %s", name)
		}
		empty := envelope.ProtoReflect().NewField(fields.Get(i)).Message().Interface()
		switch cells[1] {
		case "id":
			ofChannels[name] = empty
		case "0":
			ofSession[name] = empty
		default:
			t.Fatalf("%s is on channel %q", name, cells[1])
		}
	}
	return ofChannels, ofSession
}

// T-C15: the state machine is total. Every frame that there is has a defined result in every state of a channel, and
// TestSPEC_TheServerDoesWhatTheStateTableSays and its like for the client try every pair.
func TestT_C15_EveryFrameHasItsResultInEveryState(t *testing.T) {
	root, _ := tree(t)
	text := read(t, root, "proto/SPEC.md")
	_, defined, _ := strings.Cut(text, "\n| state | at the server |")
	states := []string{}
	for row := range strings.Lines(defined) {
		name, _, ok := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
		if !strings.HasPrefix(row, "|") && len(states) > 0 {
			break
		}
		if ok && !strings.HasPrefix(name, "---") && !strings.Contains(name, "at the client") {
			states = append(states, name)
		}
	}
	slices.Sort(states)
	if len(states) != 7 {
		t.Fatalf("the states are %v", states)
	}
	for line, envelope := range map[string]proto.Message{
		"Server, receiving from a client:": &sluicev1.ClientFrame{}, "Client, receiving from a server:": &sluicev1.ServerFrame{},
	} {
		ofChannels, _ := frameKinds(t, text, envelope)
		frames := append(slices.Sorted(maps.Keys(ofChannels)), "unknown")
		table := stateTable(t, text, line)
		if got := slices.Sorted(maps.Keys(table)); !slices.Equal(got, states) {
			t.Errorf("%s the table has the states %v, want %v", line, got, states)
		}
		for state, row := range table {
			if got, want := slices.Sorted(maps.Keys(row)), slices.Sorted(slices.Values(frames)); !slices.Equal(got, want) {
				t.Errorf("%s in the state %s the table has the frames %v, want %v", line, state, got, want)
			}
			for frame, want := range row {
				if impossible := state == "opening" && strings.HasPrefix(line, "Server"); (want == "-") != impossible {
					t.Errorf("%s %s in the state %s: %q", line, frame, state, want)
				}
			}
		}
	}
}

// T-C15: a frame of the session on a channel, and one of a channel on the session, end the link, whichever it is, at either end.
func TestT_C15_NoFrameIsTakenWhereItDoesNotBelong(t *testing.T) {
	root, _ := tree(t)
	text := read(t, root, "proto/SPEC.md")
	ofChannels, ofSession := frameKinds(t, text, &sluicev1.ClientFrame{})
	misplaced := func(all map[string]proto.Message, channel uint32, try func(t *testing.T, channel uint32, body proto.Message)) {
		for name, body := range all {
			t.Run(name, func(t *testing.T) { bubble(t, func(t *testing.T) { try(t, channel, body) }) })
		}
	}
	toServer := func(t *testing.T, channel uint32, body proto.Message) {
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.open(1, &sluicev1.Open{})
		s.send(clientFrame(channel, 0, body))
		if err := s.ended(); err == nil || err.Reason != violation {
			t.Errorf("the server: %v", err)
		}
	}
	misplaced(ofChannels, 0, toServer)
	misplaced(ofSession, 1, toServer)
	ofChannels, ofSession = frameKinds(t, text, &sluicev1.ServerFrame{})
	toClient := func(t *testing.T, channel uint32, body proto.Message) {
		c := fullClient(t, mux.Config{})
		defer c.end()
		c.open(&sluicev1.Open{})
		c.send(serverFrame(channel, 0, body))
		if err := c.ended(); err == nil || err.Reason != violation {
			t.Errorf("the client: %v", err)
		}
	}
	misplaced(ofChannels, 0, toClient)
	misplaced(ofSession, 1, toClient)
}

// outcome is what became of channel 1, which broke a rule, beside channel 2, which did not.
func (s *server) outcome() string {
	frames := s.got()
	switch closed := closedOf(frames, 1); {
	case s.ended() != nil:
		return "link"
	case closedOf(frames, 2) != nil:
		return "another channel"
	case closed.GetStatus().GetReason() == violation && closed.GetAborted():
		return "channel"
	case closed != nil:
		return closed.String()
	}
	return "nothing"
}

// T-C15: the largest numbers there are. No sum of them wraps into credit, into a number in order, or into a small allocation.
func TestT_C15_TheLargestNumbersDoNotWrap(t *testing.T) {
	const most = math.MaxUint64
	for name, tc := range map[string]struct {
		frame *sluicev1.ClientFrame
		want  string
	}{
		"Ack of the last number":        {clientFrame(1, 0, &sluicev1.Ack{Seq: most, Window: firstWindow}), "channel"},
		"Ack of the last, all windows":  {clientFrame(1, 0, &sluicev1.Ack{Seq: most, Window: most}), "channel"},
		"Ack of the next, all windows":  {clientFrame(1, 0, &sluicev1.Ack{Seq: 2, Window: most}), "channel"},
		"a window of 64 bits":           {clientFrame(1, 0, &sluicev1.Ack{Seq: 1, Window: most}), "nothing"},
		"a window that is -1 in 32":     {clientFrame(1, 0, &sluicev1.Ack{Seq: 1, Window: math.MaxUint32}), "nothing"},
		"a window that is 0 in 32 bits": {clientFrame(1, 0, &sluicev1.Ack{Seq: 1, Window: 1 << 32}), "nothing"},
		"Data with the last number":     {clientFrame(1, most, dataFrame("x")), "link"},
		"Data with 2^63":                {clientFrame(1, 1<<63, dataFrame("x")), "link"},
		"the last channel":              {clientFrame(math.MaxUint32, 1, &sluicev1.Open{Window: most}), "nothing"},
		"Resize to the largest":         {clientFrame(1, 2, &sluicev1.Resize{Width: math.MaxUint32, Height: math.MaxUint32}), "nothing"},
	} {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			c := s.open(1, &sluicev1.Open{})
			s.open(2, &sluicev1.Open{})
			c.Opened(&sluicev1.Opened{})
			s.got()
			s.send(tc.frame)
			if got := s.outcome(); got != tc.want {
				t.Errorf("%s ended: %s, want %s", name, got, tc.want)
			}
			if credit := c.Credit(); credit > 1<<20 {
				t.Errorf("%s: the credit is %d", name, credit)
			}
		})
	}
	for name, p := range map[string]*sluicev1.ChannelPosition{
		"received":              {Channel: 1, Received: most, Consumed: 1, Window: firstWindow},
		"consumed":              {Channel: 1, Received: most, Consumed: most, Window: firstWindow},
		"consumed, all windows": {Channel: 1, Received: 1, Consumed: most, Window: most},
	} {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			s.open(1, &sluicev1.Open{}).Opened(&sluicev1.Opened{})
			w := s.resume(1, p)
			if got := w.GetChannels(); len(got) != 1 || got[0].GetVerdict() != sluicev1.Verdict_VERDICT_LOST || got[0].GetStatus().GetReason() != violation {
				t.Errorf("%s: %v", name, got)
			}
		})
	}
}

// T-C15: storms of frames that hold nothing cost what others cost, so each ends at a bound, for its channel alone.
func TestT_C15_StormsOfEmptyFramesAreBounded(t *testing.T) {
	for name, tc := range map[string]struct {
		body proto.Message
		most int // frames that are taken
	}{
		"Data": {dataFrame(""), (firstWindow - 64) / 64}, "Resize": {&sluicev1.Resize{}, 16},
	} {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			c := s.open(1, &sluicev1.Open{})
			s.open(2, &sluicev1.Open{})
			s.got()
			for seq := range uint64(tc.most) {
				s.send(clientFrame(1, 2+seq, tc.body))
			}
			if got := s.outcome(); got != "nothing" {
				t.Errorf("%d of %s ended: %s", tc.most, name, got)
			}
			s.send(clientFrame(1, uint64(2+tc.most), tc.body))
			if got := s.outcome(); got != "channel" {
				t.Errorf("one %s more ended: %s", name, got)
			}
			if c.Context().Err() == nil {
				t.Errorf("%s: the bridge is not told", name)
			}
		})
	}
	bubble(t, func(t *testing.T) { // what is not numbered costs nothing, and leaves nothing behind
		s := fullServer(t, mux.Config{})
		defer s.end()
		s.open(1, &sluicev1.Open{})
		s.open(2, &sluicev1.Open{})
		s.got()
		for range 10_000 {
			s.send(clientFrame(1, 0, &sluicev1.Ack{Window: firstWindow}), clientFrame(9, 0, &sluicev1.Ack{Seq: 7, Window: 1}), clientFrame(0, 0, unknown{}),
				clientFrame(3, 0, unknown{}))
		}
		pass(time.Second)
		if got := s.outcome(); got != "nothing" {
			t.Errorf("a storm of what is not numbered ended: %s", got)
		}
	})
}

// T-C15: frames in the wrong order. Whatever the order, no channel but the one is touched, and nothing is delivered twice or out of order.
func TestT_C15_ReorderedFramesDeliverNothingTwice(t *testing.T) {
	frames := []*sluicev1.ClientFrame{
		clientFrame(1, 2, dataFrame("a")), clientFrame(1, 3, dataFrame("b")), clientFrame(1, 4, &sluicev1.CloseSend{}), clientFrame(1, 2, dataFrame("a")),
	}
	for _, order := range permutations(len(frames)) {
		bubble(t, func(t *testing.T) {
			s := fullServer(t, mux.Config{})
			defer s.end()
			c := s.open(1, &sluicev1.Open{})
			other := s.open(2, &sluicev1.Open{})
			for _, i := range order {
				if s.ended() != nil {
					break
				}
				s.send(frames[i])
			}
			if got := text(t, c); got != "" && got != "a" && got != "ab" || other.Context().Err() != nil {
				t.Errorf("%v: received %q, the other channel: %v", order, got, other.Context().Err())
			}
		})
	}
}

// permutations are all orders of 0 to n-1.
func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{{}}
	}
	var all [][]int
	for _, p := range permutations(n - 1) {
		for at := range n {
			all = append(all, slices.Insert(slices.Clone(p), at, n-1))
		}
	}
	return all
}
