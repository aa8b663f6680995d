package spec

import (
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/mux"
)

// stateTable reads the table of SPEC.md that follows a line.
func stateTable(t *testing.T, text, line string) map[string]map[string]string {
	t.Helper()
	_, rest, ok := strings.Cut(text, "\n"+line+"\n\n")
	if !ok {
		t.Fatalf("no line %q", line)
	}
	table := map[string]map[string]string{}
	var columns []string
	for row := range strings.Lines(rest) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case len(cells) < 2:
			return table
		case columns == nil:
			columns = cells
		case !strings.HasPrefix(cells[0], "---"):
			table[cells[0]] = map[string]string{}
			for i, c := range cells[1:] {
				table[cells[0]][columns[i+1]] = c
			}
		}
	}
	return table
}

// bodies are frames that do something visible, by their names in the table.
var bodies = map[string]proto.Message{
	"Open": &sluicev1.Open{}, "Data": dataFrame("x"), "Resize": &sluicev1.Resize{Width: 1}, "CloseSend": &sluicev1.CloseSend{},
	"Close": &sluicev1.Close{}, "Opened": &sluicev1.Opened{}, "ChannelState": &sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED},
	"Closed": &sluicev1.Closed{}, "unknown": unknown{},
}

var word = regexp.MustCompile(`^(act|ignore|discard|close channel|end link|-)$`)

func TestSPEC_TheServerDoesWhatTheStateTableSays(t *testing.T) {
	root, _ := tree(t)
	table := stateTable(t, read(t, root, "proto/SPEC.md"), "Server, receiving from a client:")
	if len(table) != 7 {
		t.Fatalf("the table has %d rows", len(table))
	}
	for state, row := range table {
		for name, want := range row {
			if !word.MatchString(want) {
				t.Errorf("%s, %s: %q is no word of the table", state, name, want)
			}
			if want == "-" {
				continue
			}
			t.Run(state+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { serverCell(t, state, name, want) })
			})
		}
	}
}

func serverCell(t *testing.T, state, name, want string) {
	s := fullServer(t, mux.Config{})
	defer s.end()
	id, seq, c := serverIn(s, state)
	pass(time.Second)
	s.got()
	held := 0
	if c != nil {
		held = c.Held()
	}
	if name == "Ack" {
		s.send(clientFrame(id, 0, &sluicev1.Ack{Seq: 1, Window: firstWindow}))
	} else {
		s.send(clientFrame(id, seq, bodies[name]))
	}
	pass(time.Second)
	frames := s.got()
	closed, ack := closedOf(frames, id), lastAck(frames, id)
	acted := false
	switch {
	case name == "Ack":
		acted = c != nil && c.Held() < held
	case name == "Open":
		acted = len(s.accepted) == 1 && state == "idle"
	case name == "Close":
		acted = c != nil && c.Context().Err() != nil && state != "closed" && state != "stopping"
	case c != nil:
		acted = len(events(t, c)) == 1
	}
	got := "ignore"
	switch {
	case s.ended() != nil:
		got = "end link"
	case closed != nil && closed.GetAborted() && refusedFor(closed.GetStatus(), violation, ""):
		got = "close channel"
	case acted:
		got = "act"
	case ack.GetSeq() == seq:
		got = "discard"
	}
	if got != want {
		t.Errorf("%s, want %s; it answered %v", got, want, frames)
	}
}

// serverIn brings a channel at a server into a state. seq is the number of the client's next frame.
func serverIn(s *server, state string) (id uint32, seq uint64, c *mux.Channel) {
	if state == "idle" {
		return 1, 1, nil
	}
	c = s.open(1, &sluicev1.Open{})
	c.Opened(&sluicev1.Opened{})
	switch state {
	case "gone":
		c.Finish(nil, nil, false)
		s.got()
		s.send(clientFrame(1, 0, &sluicev1.Ack{Seq: 2, Window: firstWindow}))
		return 1, 2, nil
	case "half-closed":
		s.send(clientFrame(1, 2, &sluicev1.CloseSend{}))
		events(s.t, c)
		return 1, 3, c
	case "stopping":
		s.send(clientFrame(1, 2, &sluicev1.Close{}))
		return 1, 3, c
	case "closed":
		c.Finish(nil, nil, false)
	}
	return 1, 2, c
}

func TestSPEC_TheClientDoesWhatTheStateTableSays(t *testing.T) {
	root, _ := tree(t)
	table := stateTable(t, read(t, root, "proto/SPEC.md"), "Client, receiving from a server:")
	if len(table) != 7 {
		t.Fatalf("the table has %d rows", len(table))
	}
	for state, row := range table {
		for name, want := range row {
			if !word.MatchString(want) {
				t.Errorf("%s, %s: %q is no word of the table", state, name, want)
			}
			t.Run(state+" "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { clientCell(t, state, name, want) })
			})
		}
	}
}

func clientCell(t *testing.T, state, name, want string) {
	c := fullClient(t, mux.Config{})
	defer c.end()
	id, seq, before, ch := clientIn(c, state)
	pass(time.Second)
	c.got()
	held := 0
	if ch != nil {
		held = ch.Held()
	}
	frame := serverFrame(id, seq, &sluicev1.Ack{Seq: 1, Window: firstWindow})
	if name == "Ack" {
		frame.Seq = 0
	} else {
		frame = serverFrame(id, seq, bodies[name])
	}
	c.send(append(before, frame)...)
	pass(time.Second)
	frames := c.got()
	said, ack := closeOf(frames, id), lastAck(frames, id)
	acted := false
	switch {
	case ch == nil:
	case name == "Ack":
		acted = state != "closed" && ch.Held() < held
	case name == "Closed" && state == "stopping":
		acted = ch.Context().Err() != nil
	case state != "closed":
		acted = len(events(t, ch)) == 1
	default:
		acted = len(events(t, ch)) > 1 // one is the Closed before
	}
	got := "ignore"
	switch {
	case c.ended() != nil:
		got = "end link"
	case said.GetReason() == "PROTOCOL_VIOLATION":
		got = "close channel"
	case acted:
		got = "act"
	case ack.GetSeq() == seq:
		got = "discard"
	}
	if got != want {
		t.Errorf("%s, want %s; it answered %v", got, want, frames)
	}
}

// clientIn brings a channel at a client into a state. seq is the number of the server's next frame; before is to be sent in one batch with it,
// for a state that lasts no longer.
func clientIn(c *client, state string) (id uint32, seq uint64, before []*sluicev1.ServerFrame, ch *mux.Channel) {
	if state == "idle" {
		return 1, 1, nil, nil
	}
	ch = c.open(&sluicev1.Open{})
	c.got()
	closed := serverFrame(1, 1, &sluicev1.Closed{})
	switch state {
	case "gone":
		c.send(closed)
		events(c.t, ch)
		pass(time.Second)
		return 1, 2, nil, nil
	case "open":
		c.send(serverFrame(1, 1, &sluicev1.Opened{}))
	case "half-closed":
		c.send(serverFrame(1, 1, &sluicev1.Opened{}), serverFrame(1, 2, &sluicev1.CloseSend{}))
		events(c.t, ch)
		return 1, 3, nil, ch
	case "stopping":
		ch.Close("enough")
		return 1, 1, nil, ch
	case "closed":
		return 1, 2, []*sluicev1.ServerFrame{closed}, ch
	default: // opening
		return 1, 1, nil, ch
	}
	events(c.t, ch)
	return 1, 2, nil, ch
}
