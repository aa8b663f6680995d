package mux

import (
	"bytes"
	"math"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
)

// generated decodes one frame with the generated code alone.
func generated(b []byte, from Role) (frame, error) {
	var f frame
	err := parseMessage(b, from, &f)
	return f, err
}

func sameFrame(a, b *frame) bool {
	return a.channel == b.channel && a.seq == b.seq && a.kind == b.kind && bytes.Equal(a.payload, b.payload) &&
		bytes.Equal(a.cursor, b.cursor) && a.stream == b.stream && a.text == b.text && a.more == b.more &&
		a.ackSeq == b.ackSeq && a.window == b.window && (a.body == nil) == (b.body == nil) && (a.body == nil || proto.Equal(a.body, b.body))
}

// wireFrames are frames of every kind and shape, and things that only look like them.
var wireFrames = map[string][]byte{
	"nothing":             {},
	"data":                appendFrame(1, 2, &data.Piece{Bytes: []byte("abc")}),
	"data, empty":         appendFrame(1, 2, &data.Piece{}),
	"data, everything":    appendFrame(math.MaxUint32, math.MaxUint64, &data.Piece{Bytes: []byte("é"), Stream: 3, Text: true, More: true, Cursor: "c"}),
	"data, no payload":    {tagChannel, 1, tagSeq, 1, tagData, 0},
	"data, odd bool":      {tagChannel, 1, tagSeq, 1, tagData, 4, tagMore, 7, tagBinary, 0},
	"data, far stream":    {tagChannel, 1, tagSeq, 1, tagData, 7, tagStream, 0xff, 0xff, 0xff, 0xff, 0x7f, tagStream},
	"data, bad text":      {tagChannel, 1, tagSeq, 1, tagData, 3, tagText, 1, 0xff},
	"data, bad cursor":    {tagChannel, 1, tagSeq, 1, tagData, 3, tagCursor, 1, 0xff},
	"data, cut short":     {tagChannel, 1, tagSeq, 1, tagData, 9, tagBinary, 9, 1},
	"data, twice":         {tagChannel, 1, tagData, 3, tagBinary, 1, 'a', tagData, 3, tagBinary, 1, 'b'},
	"data, both payloads": {tagData, 6, tagBinary, 1, 'a', tagText, 1, 'b'},
	"data, long tag":      {tagChannel, 1, tagData | 0x80, 0, 2, tagBinary, 0},
	"data, other order":   {tagData, 3, tagBinary, 1, 'a', tagChannel, 1, tagSeq, 5},
	"channel, wide":       {tagChannel, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, tagAck, 0},
	"channel, endless":    append(bytes.Repeat([]byte{0xff}, 11), tagAck, 0),
	"ack":                 ackFrame(7, 8, 9),
	"ack, of nothing":     ackFrame(7, 0, 0),
	"ack, the most":       ackFrame(math.MaxUint32, math.MaxUint64, math.MaxUint64),
	"ack, and more":       {tagChannel, 1, tagAck, 4, tagAckSeq, 1, 0x18, 1},
	"unknown":             {tagChannel, 1, tagSeq, 3, 0x7a, 0},
	"garbage":             {0xff, 0xff, 0xff},
	"end of a group":      {0x0c},
}

func appendFrame(channel uint32, seq uint64, p *data.Piece) []byte {
	_, n := protowire.ConsumeVarint(appendData(nil, channel, seq, p)[1:])
	return appendData(nil, channel, seq, p)[1+n:]
}

func ackFrame(channel uint32, seq, window uint64) []byte {
	return appendAck(nil, channel, seq, window)[2:]
}

// TestFastAndGeneratedDecodeAlike proves that a frame means what the generated code says, also where the fast path decodes it.
func TestFastAndGeneratedDecodeAlike(t *testing.T) {
	for name, b := range wireFrames {
		for _, from := range []Role{Client, Server} {
			t.Run(name, func(t *testing.T) { alike(t, b, from) })
		}
	}
}

func alike(t *testing.T, b []byte, from Role) {
	t.Helper()
	var f frame
	err := parseFrame(b, from, &f)
	want, wantErr := generated(b, from)
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("%x from %v: %v, the generated code says %v", b, from, err, wantErr)
	}
	if err == nil && !sameFrame(&f, &want) {
		t.Fatalf("%x from %v:\n%+v, the generated code says\n%+v", b, from, f, want)
	}
}

// TestFastPathIsTaken proves that what we send ourselves does not need the generated code.
func TestFastPathIsTaken(t *testing.T) {
	for _, name := range []string{"data", "data, empty", "data, everything", "ack", "ack, of nothing", "ack, the most"} {
		if !parseFast(wireFrames[name], &frame{}) {
			t.Errorf("%s is not decoded by the fast path", name)
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, b := range wireFrames {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		alike(t, b, Client)
		alike(t, b, Server)
	})
}

// FuzzBatch feeds whatever comes to a session of either role: it never panics, and never takes memory that its size does not explain.
func FuzzBatch(f *testing.F) {
	for _, b := range wireFrames {
		f.Add(append([]byte{tagFrames, byte(len(b))}, b...), false)
	}
	open := newMessageSegment(Client, 1, 1, &sluicev1.Open{Cluster: "c"})
	f.Add(append(append([]byte(nil), open.b...), appendData(nil, 1, 2, &data.Piece{Bytes: []byte("abc"), More: true})...), true)
	f.Add(newMessageSegment(Server, 1, 1, &sluicev1.Closed{}).b, false)
	f.Add(newMessageSegment(Server, 0, 0, &sluicev1.Welcome{Session: "s", Link: 3}).b, false)
	f.Fuzz(func(t *testing.T, b []byte, plain bool) {
		p := newPair(t, Config{MessageBytes: 1 << 20})
		p.opened = func(f *flow) { f.tell() }
		p.open(0, false)
		p.dial()
		for p.clientSends(9) || p.serverReceives(9) || p.serverSends(9) || p.clientReceives(9) {
			continue
		}
		p.server.acceptor = acceptAll{}
		lone := NewServer(Config{}, plain, acceptAll{})
		gen, err := lone.attachServer(nil)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_ = p.server.receive(p.link.sgen, b)
		_ = p.client.receive(p.link.cgen, b)
		_ = lone.receive(gen, b)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20+500*uint64(len(b)) {
			t.Fatalf("a batch of %d bytes took %d bytes", len(b), took)
		}
		p.client.End(nil)
		p.server.End(nil)
		lone.End(nil)
		if n := p.client.Held() + p.server.Held() + lone.Held(); n != 0 {
			t.Fatalf("%d bytes are held after the end", n)
		}
	})
}

// acceptAll accepts every channel and does nothing with it.
type acceptAll struct{}

func (acceptAll) Accept(*Channel, *sluicev1.Open) {}

// FuzzRoundTrip encodes a piece by hand and decodes it with the generated code and by hand.
func FuzzRoundTrip(f *testing.F) {
	f.Add(uint32(1), uint64(1), []byte("payload"), int32(0), false, false, "")
	f.Add(uint32(math.MaxUint32), uint64(math.MaxUint64), []byte{}, int32(3), true, true, "cursor")
	f.Fuzz(func(t *testing.T, channel uint32, seq uint64, payload []byte, stream int32, text, more bool, cursor string) {
		if text && !utf8.Valid(payload) || !utf8.ValidString(cursor) || stream < 0 {
			t.Skip("no bridge makes such a piece")
		}
		roundTrip(t, channel, seq, &data.Piece{Bytes: payload, Stream: sluicev1.Stream(stream), Text: text, More: more, Cursor: cursor})
	})
}

func roundTrip(t *testing.T, channel uint32, seq uint64, p *data.Piece) {
	t.Helper()
	b := appendData(nil, channel, seq, p)
	if len(b) != dataFrameSize(channel, seq, p, p.Len()) {
		t.Fatalf("%d bytes, %d announced", len(b), dataFrameSize(channel, seq, p, p.Len()))
	}
	var up sluicev1.ConnectRequest
	var down sluicev1.ConnectResponse
	if err := proto.Unmarshal(b, &up); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(b, &down); err != nil {
		t.Fatal(err)
	}
	for _, m := range []interface {
		GetChannel() uint32
		GetSeq() uint64
		GetData() *sluicev1.Data
	}{up.GetFrames()[0], down.GetFrames()[0]} {
		d := m.GetData()
		got := data.Piece{Bytes: d.GetBinary(), Stream: d.GetStream(), More: d.GetMore(), Cursor: d.GetCursor()}
		if _, got.Text = d.GetPayload().(*sluicev1.Data_Text); got.Text {
			got.Bytes = []byte(d.GetText())
		}
		if m.GetChannel() != channel || m.GetSeq() != seq || !bytes.Equal(got.Bytes, p.Bytes) || got.Stream != p.Stream ||
			got.Text != p.Text || got.More != p.More || got.Cursor != p.Cursor {
			t.Fatalf("%d %d %+v came back as %d %d %+v", channel, seq, p, m.GetChannel(), m.GetSeq(), got)
		}
	}
	var f frame
	if rest, err := nextFrame(b, Server, &f); err != nil || len(rest) > 0 || f.seq != seq || !bytes.Equal(f.payload, p.Bytes) {
		t.Fatalf("by hand: %v, %d left, %+v", err, len(rest), f)
	}
	scattered, third := *p, len(p.Bytes)/3
	scattered.Bytes, scattered.Rest = p.Bytes[:third], [][]byte{p.Bytes[third : 2*third], nil, p.Bytes[2*third:]}
	if got := appendData(nil, channel, seq, &scattered); !bytes.Equal(got, b) || scattered.Len() != p.Len() {
		t.Fatalf("a payload that lies in several places is another frame than one that does not:\n%x\n%x", got, b)
	}
}

// TestPiecesOfEverySizeComeBack goes over the edges of the length encodings.
func TestPiecesOfEverySizeComeBack(t *testing.T) {
	for _, n := range []int{0, 1, 100, 111, 112, 127, 128, 16 << 10, 16<<10 - 20, LargePiece} {
		for _, c := range []string{"", "cursor", strings.Repeat("c", 512)} {
			roundTrip(t, 300, 1<<20, &data.Piece{Bytes: noise[:n], Cursor: c})
		}
	}
}

// TestAckComesBack proves that the hand-made Ack is what the generated code reads.
func TestAckComesBack(t *testing.T) {
	for _, v := range []uint64{0, 1, 127, 128, 1 << 40, math.MaxUint64} {
		var m sluicev1.ConnectRequest
		if err := proto.Unmarshal(appendAck(nil, 9, v, v/2), &m); err != nil {
			t.Fatal(err)
		}
		if a := m.GetFrames()[0].GetAck(); m.GetFrames()[0].GetChannel() != 9 || a.GetSeq() != v || a.GetWindow() != v/2 {
			t.Errorf("Ack of %d came back as %v", v, a)
		}
	}
}

// TestInvalidTextDoesNotSpoilABatch proves that an upstream's bad UTF-8 in a status costs a character and not the link, and that the
// message of the caller is left alone.
func TestInvalidTextDoesNotSpoilABatch(t *testing.T) {
	m := &sluicev1.Closed{Status: &sluicev1.Status{
		Message:    "a\xffb",
		Kubernetes: &sluicev1.KubernetesStatus{Details: &sluicev1.KubernetesStatusDetails{Causes: []*sluicev1.KubernetesStatusCause{{Field: "\xfe"}}}},
	}}
	var out sluicev1.ConnectResponse
	if err := proto.Unmarshal(newMessageSegment(Server, 1, 1, m).b, &out); err != nil {
		t.Fatal(err)
	}
	if got := out.GetFrames()[0].GetClosed().GetStatus(); got.GetMessage() != "a\uFFFDb" || got.GetKubernetes().GetDetails().GetCauses()[0].GetField() != "\uFFFD" {
		t.Errorf("came back as %v", got)
	}
	if m.GetStatus().GetMessage() != "a\xffb" {
		t.Error("the caller's message was changed")
	}
}

// TestALongStatusFitsAFrame proves that no upstream's status makes a frame that no batch has room for.
func TestALongStatusFitsAFrame(t *testing.T) {
	long := strings.Repeat("é", MaxBatch)
	st := fitting(&sluicev1.Status{
		Code: 3, Message: long, Kubernetes: &sluicev1.KubernetesStatus{Message: long, Code: 422, Details: &sluicev1.KubernetesStatusDetails{Name: long}},
	})
	if n := proto.Size(st); n > SmallPiece || st.GetCode() != 3 || st.GetKubernetes().GetCode() != 422 {
		t.Errorf("%d bytes: code %d, HTTP %d", n, st.GetCode(), st.GetKubernetes().GetCode())
	}
	if !utf8.ValidString(st.GetMessage()) || len(st.GetMessage()) < longText-4 {
		t.Errorf("the message was cut to %d bytes", len(st.GetMessage()))
	}
	short := &sluicev1.Status{Message: "short"}
	if fitting(short) != short {
		t.Error("a short status was copied")
	}
}
