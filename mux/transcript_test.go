package mux

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// line is one batch of a transcript; testdata/transcripts/README.md says what the fields mean.
type line struct {
	Step   string          `json:"step"`
	Link   int             `json:"link,omitempty"`
	From   string          `json:"from"`
	Lost   bool            `json:"lost,omitempty"`
	Batch  json.RawMessage `json:"batch"`
	Binary []byte          `json:"binary"`
}

// decoded is a line's batch, from its binary and from its JSON.
func (l *line) decoded() (fromBinary, fromJSON proto.Message, err error) {
	fromBinary, fromJSON = &sluicev1.ConnectRequest{}, &sluicev1.ConnectRequest{}
	if l.From == "server" {
		fromBinary, fromJSON = &sluicev1.ConnectResponse{}, &sluicev1.ConnectResponse{}
	}
	if err := proto.Unmarshal(l.Binary, fromBinary); err != nil {
		return nil, nil, err
	}
	return fromBinary, fromJSON, protojson.Unmarshal(l.Batch, fromJSON)
}

// newLine is the line of a batch.
func newLine(t *testing.T, step string, link int, from Role, lost bool, binary []byte) line {
	t.Helper()
	l := line{Step: step, Link: link, From: map[Role]string{Client: "client", Server: "server"}[from], Lost: lost, Binary: binary, Batch: []byte("{}")}
	m, _, err := l.decoded()
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer // protojson varies its spaces on purpose
	if err := json.Compact(&compact, text); err != nil {
		t.Fatal(err)
	}
	l.Batch = compact.Bytes()
	return l
}

// transcribed is two sessions and what passes between them.
type transcribed struct {
	t              *testing.T
	client, server *Session
	accepted       *catch
	link           int
	step           string
	lines          []line
}

// dial makes the next link; the server hears Hello, unless it is lost with the link.
func (r *transcribed) dial(step string) {
	r.t.Helper()
	r.step = step
	r.link++
	if _, err := r.client.attachClient(&sluicev1.Hello{Client: "example/1.0"}); err != nil {
		r.t.Fatal(err)
	}
	b := r.carry(Client, r.client, false)
	g := greet(&oneBatch{b: b})
	if g.err != nil {
		r.t.Fatal(g.err)
	}
	if _, err := r.server.attachServer(g.hello); err != nil {
		r.t.Fatal(err)
	}
}

// carry writes down the next batch of a session and returns it.
func (r *transcribed) carry(from Role, s *Session, lost bool) []byte {
	r.t.Helper()
	b := s.collect(s.gen)
	if len(b) == 0 {
		return nil
	}
	flat := (&pair{t: r.t, segs: map[*Segment]bool{}}).flat(b)
	r.lines = append(r.lines, newLine(r.t, r.step, r.link, from, lost, flat))
	return flat
}

// exchange carries what there is, first from the client.
func (r *transcribed) exchange(step string) {
	r.t.Helper()
	r.step = step
	for busy := true; busy; {
		busy = false
		for _, role := range []Role{Client, Server} {
			from, to := r.client, r.server
			if role == Server {
				from, to = to, from
			}
			for b := r.carry(role, from, false); b != nil; b = r.carry(role, from, false) {
				if err := to.receive(to.gen, b); err != nil {
					r.t.Fatalf("%s: %v", step, err)
				}
				busy = true
			}
		}
	}
}

// lose sends what the server has; the link ends before it arrives.
func (r *transcribed) lose(step string) {
	r.step = step
	for r.carry(Server, r.server, true) != nil {
		continue
	}
	r.client.detach(r.client.gen)
	r.server.detach(r.server.gen)
}

func (r *transcribed) open(o *sluicev1.Open) *Channel {
	r.t.Helper()
	c, err := r.client.Open(o, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// workedExample is the specification's: two watches and a shell, of which one watch is stalled; the link is cut within a long event, two
// Welcomes are lost; the shell exits with 7, the replica drains, the client says goodbye.
func workedExample(t *testing.T) []line {
	r := &transcribed{t: t, accepted: &catch{}, client: NewClient(Config{}, nil)}
	r.server = NewServer(Config{}, false, r.accepted)
	r.server.Identify("0f1e2d3c4b5a6978", bytes.Repeat([]byte{0xa5}, 32))
	watch := func(resource string) *sluicev1.Open {
		return &sluicev1.Open{Cluster: "prod", Text: true, Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{
			Watch: &sluicev1.WatchTarget{Version: "v1", Resource: resource, Namespace: "default"},
		}}}
	}
	shell := &sluicev1.Open{Cluster: "prod", Target: &sluicev1.Target{Target: &sluicev1.Target_Exec{
		Exec: &sluicev1.ExecTarget{Namespace: "default", Pod: "web-0", Command: []string{"sh"}, Stdin: true, Stdout: true},
	}}}
	r.server.SetAuth(&sluicev1.AuthState{Version: 1, State: sluicev1.AuthState_STATE_ACCEPTED, ExpiresAt: timestamppb.New(time.Unix(1_800_000_000, 0))})
	r.dial("a new session")
	r.exchange("a new session")

	pods, secrets, sh := r.open(watch("pods")), r.open(watch("configmaps")), r.open(shell)
	sh.Offer([]data.Piece{{Bytes: []byte("ls\n"), Stream: sluicev1.Stream_STREAM_STDIN}}) // before Opened
	r.exchange("two watches and a shell, its input before Opened")
	spods, ssecrets, ssh := r.accepted.chans[0], r.accepted.chans[1], r.accepted.chans[2]
	for _, c := range r.accepted.chans {
		c.Opened(&sluicev1.Opened{Capabilities: &sluicev1.Capabilities{Resumable: c != ssh, HalfClose: c == ssh}})
	}
	spods.Offer([]data.Piece{{Bytes: []byte(`{"type":"ADDED","object":{"metadata":{"name":"web-0"}}}`), Text: true}})
	spods.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RESYNC_END, Cursor: "cursor-100"})
	come(ssh)
	ssh.Offer([]data.Piece{{Bytes: []byte("bin etc\n"), Stream: sluicev1.Stream_STREAM_STDOUT}})
	sh.Resize(80, 24)
	r.exchange("the initial list, the shell's output, a resize")
	come(pods)
	come(sh)
	come(ssh)
	r.client.sendAcks()
	r.server.sendAcks()
	r.exchange("acknowledgements")

	for ssecrets.Offer([]data.Piece{{Bytes: bytes.Repeat([]byte("s"), 16_000), Text: true, Cursor: "cursor-101"}}) == 1 {
		continue
	}
	r.exchange("the second watch is stalled: its window is full")

	event := []byte(`{"type":"MODIFIED","object":{"metadata":{"name":"web-0"},"data":"` + string(bytes.Repeat([]byte("x"), 200_000)) + `"}}`)
	var pieces []data.Piece
	for len(event) > 0 {
		n := min(len(event), SmallPiece)
		pieces = append(pieces, data.Piece{Bytes: event[:n], Text: true, More: n < len(event)})
		event = event[n:]
	}
	pieces[len(pieces)-1].Cursor = "cursor-102"
	step := func() { pieces = pieces[spods.Offer(pieces):] }
	step()
	r.exchange("an event of 200 KB, over a window of 64 KiB")
	step()
	r.lose("the link is cut within the event")
	r.dial("resume")
	r.lose("a Welcome is lost")
	r.dial("resume")
	r.lose("and another")
	sh.Offer([]data.Piece{{Bytes: []byte("exit 7\n"), Stream: sluicev1.Stream_STREAM_STDIN}})
	r.dial("resume")
	r.exchange("the session goes on where it was")
	for len(pieces) > 0 {
		step()
		r.client.sendAcks()
		r.exchange("the rest of the event")
	}

	come(pods)
	come(ssh)
	ssh.Finish(status.New(codes.Unknown, sluicev1.Reason_REASON_UNSPECIFIED, "exit code 7"), &sluicev1.Exit{Code: 7}, false)
	r.exchange("the shell exits with 7")
	r.server.Drain(&sluicev1.Drain{Deadline: timestamppb.New(time.Unix(1_799_999_000, 0)), ReconnectAfter: durationpb.New(3 * time.Second)})
	r.exchange("the replica drains")
	pods.Close("moving")
	r.exchange("the client closes its watch")
	spods.Finish(status.New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "closed by the client"), nil, true)
	r.exchange("the watch is closed")
	come(secrets)
	r.client.End(nil)
	r.step = "goodbye"
	r.carry(Client, r.client, false)
	r.server.End(nil)
	return r.lines
}

// everyFrame is one batch for each kind of frame, and some that are encoded as we never do.
func everyFrame(t *testing.T) (lines []line) {
	add := func(step string, from Role, b []byte) { lines = append(lines, newLine(t, step, 0, from, false, b)) }
	st := status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "lost").Proto()
	for _, m := range []proto.Message{
		&sluicev1.Hello{Protocol: 1, Client: "example/1.0", Resume: &sluicev1.Resume{Session: "s", Secret: []byte{1}, LastLink: 2}, Channels: []*sluicev1.ChannelPosition{{Channel: 1, Received: 5, Consumed: 4, Window: MinWindow}}},
		&sluicev1.Authenticate{Credential: "token", Number: 1}, &sluicev1.Ping{Nonce: 1}, &sluicev1.Pong{Nonce: 1 << 60}, &sluicev1.Goodbye{},
	} {
		add(string(m.ProtoReflect().Descriptor().Name()), Client, clientFrame(0, 0, m))
	}
	for _, m := range []proto.Message{
		&sluicev1.Open{Cluster: "c", Window: MinWindow, Cursor: "cursor"}, &sluicev1.Resize{Width: 80, Height: 24}, &sluicev1.CloseSend{}, &sluicev1.Close{Reason: "enough"},
	} {
		add(string(m.ProtoReflect().Descriptor().Name()), Client, clientFrame(1, 1, m))
	}
	for _, m := range []proto.Message{
		&sluicev1.Welcome{Session: "s", Link: 3, Resumed: true, Channels: []*sluicev1.ChannelPosition{{Channel: 1, Verdict: sluicev1.Verdict_VERDICT_LOST, Status: st}}},
		&sluicev1.AuthState{State: sluicev1.AuthState_STATE_REJECTED, Status: st}, &sluicev1.Ping{}, &sluicev1.Pong{}, &sluicev1.Goodbye{Status: st}, &sluicev1.Drain{},
	} {
		add(string(m.ProtoReflect().Descriptor().Name()), Server, serverFrame(0, 0, m))
	}
	for _, m := range []proto.Message{
		&sluicev1.Opened{Window: MinWindow}, &sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RECONNECTING, Attempt: 2, Status: st, NextTry: durationpb.New(time.Second)},
		&sluicev1.CloseSend{}, &sluicev1.Closed{Status: st, Exit: &sluicev1.Exit{Code: -1}, Aborted: true, BytesIn: 1, BytesOut: 1 << 40},
	} {
		add(string(m.ProtoReflect().Descriptor().Name()), Server, serverFrame(1, 7, m))
	}
	for _, from := range []Role{Client, Server} {
		add("Ack", from, appendAck(nil, 1, 300, MinWindow))
		add("Data", from, appendData(nil, 1, 300, &data.Piece{Bytes: []byte{0, 0xff}, Stream: sluicev1.Stream_STREAM_STDERR}))
		add("Data, text with a cursor", from, appendData(nil, 1, 301, &data.Piece{Bytes: []byte("é"), Text: true, Cursor: "cursor"}))
		add("Data, a piece", from, appendData(nil, 1, 302, &data.Piece{Bytes: []byte("begin"), More: true}))
		add("Data, empty", from, appendData(nil, 1, 303, &data.Piece{}))
		add("a frame of a later version, which is ignored", from, unknownFrame(1, 0))
		add("fields in another order", from, []byte{tagFrames, 9, tagData, 3, tagBinary, 1, 'a', tagSeq, 2, tagChannel, 1})
		add("an empty batch", from, []byte{})
	}
	return lines
}

// TestTranscripts keeps testdata/transcripts: what is there decodes alike from binary and from JSON, and is what the code sends today.
func TestTranscripts(t *testing.T) {
	for name, made := range map[string][]line{"worked-example.jsonl": workedExample(t), "frames.jsonl": everyFrame(t)} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "transcripts", name)
			if *update {
				writeLines(t, path, made)
			}
			kept := readLines(t, path)
			if len(kept) != len(made) {
				t.Fatalf("%d batches are kept, %d are sent; -update writes them anew", len(kept), len(made))
			}
			for i := range kept {
				compareLines(t, i+1, &kept[i], &made[i])
			}
		})
	}
}

func compareLines(t *testing.T, n int, kept, made *line) {
	t.Helper()
	fromBinary, fromJSON, err := kept.decoded()
	if err != nil {
		t.Fatalf("line %d: %v", n, err)
	}
	sent, _, err := made.decoded()
	switch {
	case err != nil:
		t.Fatalf("line %d: %v", n, err)
	case !proto.Equal(fromJSON, known(fromBinary)):
		t.Errorf("line %d (%s): the binary and the JSON differ", n, kept.Step)
	case !proto.Equal(fromBinary, sent) || kept.Step != made.Step || kept.Lost != made.Lost || kept.Link != made.Link || kept.From != made.From:
		t.Errorf("line %d (%s): another batch is sent now (%s)", n, kept.Step, made.Step)
	}
}

// known is a batch without what its JSON cannot have.
func known(m proto.Message) proto.Message {
	m = proto.Clone(m)
	switch m := m.(type) {
	case *sluicev1.ConnectRequest:
		for _, f := range m.GetFrames() {
			f.ProtoReflect().SetUnknown(nil)
		}
	case *sluicev1.ConnectResponse:
		for _, f := range m.GetFrames() {
			f.ProtoReflect().SetUnknown(nil)
		}
	}
	return m
}

func writeLines(t *testing.T, path string, lines []line) {
	t.Helper()
	var out bytes.Buffer
	for i := range lines {
		b, err := json.Marshal(&lines[i])
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(b, '\n'))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func readLines(t *testing.T, path string) (lines []line) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 2<<20)
	for s.Scan() {
		var l line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return lines
}
