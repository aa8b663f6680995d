package mux

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// What every frame does in every state, once more: a cell that changes in table.go must change here and in proto/SPEC.md, on purpose.
const (
	atServer = `
| state | Open | Data | Resize | CloseSend | Close | Ack | unknown |
| idle | act | close channel | close channel | close channel | close channel | ignore | close channel |
| gone | close channel | ignore | ignore | ignore | ignore | ignore | ignore |
| open | close channel | act | act | act | act | act | close channel |
| half-closed | close channel | close channel | act | close channel | act | act | close channel |
| stopping | discard | discard | discard | discard | discard | act | discard |
| closed | ignore | ignore | ignore | ignore | ignore | act | ignore |
`
	atClient = `
| state | Opened | Data | ChannelState | CloseSend | Closed | Ack | unknown |
| idle | end link | end link | end link | end link | end link | end link | end link |
| gone | ignore | ignore | ignore | ignore | ignore | ignore | ignore |
| opening | act | close channel | act | close channel | act | act | close channel |
| open | close channel | act | act | act | act | act | close channel |
| half-closed | close channel | close channel | act | close channel | act | act | close channel |
| stopping | discard | discard | discard | discard | act | act | discard |
| closed | ignore | ignore | ignore | ignore | ignore | ignore | ignore |
`
)

// cell is one pair of the table.
type cell struct{ state, frame string }

// parseTable reads a markdown table of states and frames. A "-" is no cell.
func parseTable(t *testing.T, text string) map[cell]string {
	t.Helper()
	out := map[cell]string{}
	var head []string
	for line := range strings.Lines(text) {
		row := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range row {
			row[i] = strings.Trim(strings.TrimSpace(row[i]), "`*")
		}
		switch {
		case len(row) < 2 || strings.HasPrefix(row[0], "---"):
		case head == nil:
			head = row
		case len(row) != len(head):
			t.Fatalf("a row of %d cells under a head of %d: %s", len(row), len(head), line)
		default:
			for i, word := range row[1:] {
				if word != "-" {
					out[cell{row[0], head[i+1]}] = word
				}
			}
		}
	}
	return out
}

var words = map[action]string{endLink: "end link", breach: "close channel", act: "act", discard: "discard", ignore: "ignore"}

// codeTable is the table as the code has it.
func codeTable(role Role) map[cell]string {
	frames := []kind{kindData, kindCloseSend, kindAck, kindUnknown, kindOpen, kindResize, kindClose}
	if role == Client {
		frames = []kind{kindData, kindCloseSend, kindAck, kindUnknown, kindOpened, kindChannelState, kindClosed}
	}
	out := map[cell]string{}
	for _, k := range frames {
		out[cell{"idle", k.String()}] = words[absent[role][idle][k]]
		out[cell{"gone", k.String()}] = words[absent[role][gone][k]]
		for s := range states {
			if role == Client || s != opening {
				out[cell{s.String(), k.String()}] = words[actionFor(role, s, k)]
			}
		}
	}
	return out
}

func compareTables(t *testing.T, got, want map[cell]string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d cells instead of %d", len(got), len(want))
	}
	for c, w := range want {
		if got[c] != w {
			t.Errorf("%s in state %s: %q instead of %q", c.frame, c.state, got[c], w)
		}
	}
}

func TestStateTableIsAsWritten(t *testing.T) {
	compareTables(t, codeTable(Server), parseTable(t, atServer))
	compareTables(t, codeTable(Client), parseTable(t, atClient))
}

// TestSPEC_StateTableIsTheCodes proves that proto/SPEC.md and the code have the same table. [CH-11].
func TestSPEC_StateTableIsTheCodes(t *testing.T) {
	spec, err := os.ReadFile("../proto/SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(spec), "### State table")
	section, _, _ = strings.Cut(section, "\n### ")
	for role, head := range map[Role]string{Server: "| state | Open |", Client: "| state | Opened |"} {
		_, table, ok := strings.Cut(section, head)
		if !ok {
			t.Fatalf("no table %q in the section", head)
		}
		table, _, _ = strings.Cut(head+table, "\n\n")
		compareTables(t, codeTable(role), parseTable(t, table))
	}
}

// brought is a pair whose channel 3 is in a state at one role. Channel 1 is gone, channel 2 is open and must stay so.
func brought(t *testing.T, role Role, state string) (p *pair, id uint32) {
	t.Helper()
	p = connected(t, Config{}, 2)
	p.finish(p.flows[0], nil, false)
	p.settled()
	switch state {
	case "idle":
		return p, 3
	case "gone":
		return p, 1
	case "opening":
		p.opened = nil
	}
	f := p.open(0, false)
	p.settled()
	switch state {
	case "half-closed":
		if role == Server {
			f.c.CloseSend()
		} else {
			f.s.CloseSend()
		}
		p.settled()
	case "stopping":
		f.c.Close("enough")
		if role == Server {
			p.settled()
		}
	case "closed":
		f.s.Finish(nil, nil, false)
		if role == Client {
			p.serverSends(9)
			p.clientReceives(9)
		}
	}
	return p, 3
}

// bring lets a session receive one frame for a channel, numbered as the next.
func (p *pair) bring(role Role, id uint32, frame string) error {
	s := p.server
	if role == Client {
		s = p.client
	}
	seq, acked := uint64(1), uint64(0)
	if c := s.chans[id]; c != nil {
		seq, acked = c.in.seq+1, c.out.acked
	}
	var b []byte
	switch frame {
	case "Data":
		b = dataFrame(id, seq, 5, false)
	case "Ack":
		b = appendAck(nil, id, acked, MinWindow)
	case "unknown":
		b = unknownFrame(id, seq)
	default:
		b = newMessageSegment(role.peer(), id, seq, bodies[frame]).b
	}
	if role == Client {
		return p.toClient(b)
	}
	p.live[id] = &flow{id: id} // an Open of a channel that the client does not know
	return p.toServer(b)
}

var bodies = map[string]proto.Message{
	"Open": &sluicev1.Open{Cluster: "cluster-3"}, "Resize": &sluicev1.Resize{}, "CloseSend": &sluicev1.CloseSend{}, "Close": &sluicev1.Close{},
	"Opened": &sluicev1.Opened{}, "ChannelState": &sluicev1.ChannelState{}, "Closed": &sluicev1.Closed{},
}

// TestSPEC_EveryFrameInEveryStateDoesWhatTheTableSays brings each frame in each state and looks at what becomes of the channel, of the link
// and of the channel beside it. [CH-11] [CH-10] (C15).
func TestSPEC_EveryFrameInEveryStateDoesWhatTheTableSays(t *testing.T) {
	for role, table := range map[Role]string{Server: atServer, Client: atClient} {
		for c, word := range parseTable(t, table) {
			t.Run(strings.Join([]string{map[Role]string{Client: "client", Server: "server"}[role], c.state, c.frame}, " "), func(t *testing.T) {
				p, id := brought(t, role, c.state)
				look(t, p, role, id, c.frame, word)
			})
		}
	}
}

func look(t *testing.T, p *pair, role Role, id uint32, frame, word string) {
	s := p.server
	if role == Client {
		s = p.client
	}
	was := before(s, id)
	err := p.bring(role, id, frame)
	if (err != nil) != (word == "end link") {
		t.Fatalf("the link: %v", err)
	}
	now := before(s, id)
	c := s.chans[id]
	switch word {
	case "close channel":
		if c == nil || !isReason(context.Cause(c.Context()), sluicev1.Reason_REASON_PROTOCOL_VIOLATION) {
			t.Fatalf("the channel is not closed: %+v", now)
		}
		said := p.says(s)
		if k := map[Role]kind{Server: kindClosed, Client: kindClose}[role]; !slices.Contains(kindsOf(said), k) {
			t.Errorf("the peer is told by %v instead of %v", kindsOf(said), k)
		}
		if role == Server && !find(said, kindClosed).body.(*sluicev1.Closed).GetAborted() {
			t.Error("Closed is not aborted")
		}
	case "ignore", "end link":
		if now != was {
			t.Errorf("something happened: %+v became %+v", was, now)
		}
	case "discard":
		if now.received != was.received+1 || now.consumed != now.received || now.inbox != was.inbox || now.state != was.state {
			t.Errorf("not discarded: %+v became %+v", was, now)
		}
	case "act":
		if c == nil || isReason(context.Cause(c.Context()), sluicev1.Reason_REASON_PROTOCOL_VIOLATION) || frame != "Ack" && now.received != was.received+1 {
			t.Errorf("not acted on: %+v became %+v", was, now)
		}
	}
	if b := p.flows[1]; b.c.Context().Err() != nil || b.s.Context().Err() != nil {
		t.Error("the channel beside it noticed")
	}
}

// position is what a frame may change.
type position struct {
	exists             bool
	state              state
	received, consumed uint64
	inbox              int
}

func before(s *Session, id uint32) position {
	c := s.chans[id]
	if c == nil {
		return position{}
	}
	return position{true, c.state, c.in.seq, c.in.taken, len(c.in.inbox)}
}
