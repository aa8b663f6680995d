package spdy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/moby/spdystream"
	peer "github.com/moby/spdystream/spdy"
	"pgregory.net/rapid"
)

// framer reads what we write as every kubelet does, and writes what we read.
func framer(t testing.TB, w io.Writer, r io.Reader) *peer.Framer {
	t.Helper()
	f, err := peer.NewFramer(w, r)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWhatIsWrittenIsWhatSpdystreamReads(t *testing.T) {
	var b []byte
	b = AppendSynStream(b, 1, true, true, Header{"streamtype", "error"}, Header{"port", "80"}, Header{"requestid", "0"})
	b = AppendSynStream(b, 3, false, false, Header{"streamtype", "data"}, Header{"port", "80"}, Header{"requestid", "0"})
	b = AppendSynStream(b, 5, false, false)
	b = AppendData(b, 3, false, []byte("hello"))
	b = AppendData(b, 3, true, nil)
	b = AppendRstStream(b, 3, StatusCancel)
	b = AppendPing(b, 7)
	f := framer(t, nil, bytes.NewReader(b))
	for _, want := range []func(peer.Frame) bool{
		func(f peer.Frame) bool { return opens(f, 1, peer.ControlFlagFin, "error") },
		func(f peer.Frame) bool { return opens(f, 3, 0, "data") },
		func(f peer.Frame) bool {
			s, ok := f.(*peer.SynStreamFrame)
			return ok && s.StreamId == 5 && len(s.Headers) == 0
		},
		func(f peer.Frame) bool {
			d, ok := f.(*peer.DataFrame)
			return ok && d.StreamId == 3 && d.Flags == 0 && string(d.Data) == "hello"
		},
		func(f peer.Frame) bool {
			d, ok := f.(*peer.DataFrame)
			return ok && d.StreamId == 3 && d.Flags == peer.DataFlagFin && len(d.Data) == 0
		},
		func(f peer.Frame) bool {
			r, ok := f.(*peer.RstStreamFrame)
			return ok && r.StreamId == 3 && r.Status == peer.Cancel
		},
		func(f peer.Frame) bool { p, ok := f.(*peer.PingFrame); return ok && p.Id == 7 },
	} {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if !want(frame) {
			t.Fatalf("spdystream reads %#v", frame)
		}
	}
	if _, err := f.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("what follows is %v", err)
	}
}

func opens(f peer.Frame, stream peer.StreamId, flags peer.ControlFlags, kind string) bool {
	s, ok := f.(*peer.SynStreamFrame)
	return ok && s.StreamId == stream && s.CFHeader.Flags == flags && s.Headers.Get("Streamtype") == kind &&
		s.Headers.Get("Port") == "80" && s.Headers.Get("Requestid") == "0" && len(s.Headers) == 3
}

func TestHeadersOfAnyLengthArriveWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b []byte
		var want []string
		for i := range rapid.IntRange(1, 10).Draw(t, "streams") {
			want = append(want, strings.Repeat("v", rapid.IntRange(0, 5000).Draw(t, "length")))
			b = AppendSynStream(b, uint32(2*i+1), false, i == 0, Header{"name", want[i]})
		}
		f, err := peer.NewFramer(nil, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		for i := range want {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if got := frame.(*peer.SynStreamFrame).Headers.Get("Name"); got != want[i] {
				t.Fatalf("stream %d has a header of %d bytes, want %d", i, len(got), len(want[i]))
			}
		}
	})
}

// flat is the events of a stream, with data joined per run, so that how it was cut makes no difference.
func flat(t interface{ Fatal(...any) }, stream []byte, cut func(n int) int) (events []Event, err error) {
	var d Decoder
	for len(stream) > 0 {
		chunk := stream[:cut(len(stream))]
		stream = stream[len(chunk):]
		for len(chunk) > 0 {
			e, n, err := d.Next(chunk)
			if n == 0 && err == nil {
				t.Fatal("a call that reads nothing")
			}
			chunk = chunk[n:]
			if err != nil {
				return events, err
			}
			if e.Kind == None && len(chunk) > 0 {
				t.Fatal("nothing is told and there is more to read")
			}
			if last := len(events) - 1; e.Kind == Data && last >= 0 && events[last].Kind == Data && events[last].Stream == e.Stream && !events[last].Fin {
				events[last].Bytes = append(events[last].Bytes, e.Bytes...)
				events[last].Fin = e.Fin
				continue
			}
			if e.Kind != None {
				e.Bytes = bytes.Clone(e.Bytes)
				events = append(events, e)
			}
		}
	}
	return events, nil
}

func whole(n int) int { return n }

func TestHowAStreamIsCutMakesNoDifference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stream := answers(t)
		want, err := flat(t, stream, whole)
		if err != nil {
			t.Fatal(err)
		}
		got, err := flat(t, stream, func(n int) int { return rapid.IntRange(1, min(n, 24)).Draw(t, "cut") })
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%d events, in one piece %d", len(got), len(want))
		}
		for i := range want {
			if g, w := got[i], want[i]; g.Kind != w.Kind || g.Fin != w.Fin || g.Stream != w.Stream || g.Code != w.Code || !bytes.Equal(g.Bytes, w.Bytes) {
				t.Fatalf("event %d is %+v, in one piece %+v", i, g, w)
			}
		}
	})
}

// answers are frames of a peer, written by spdystream.
func answers(t *rapid.T) []byte {
	var b bytes.Buffer
	f, err := peer.NewFramer(&b, nil)
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{"Any": {strings.Repeat("x", 100)}}
	for range rapid.IntRange(1, 12).Draw(t, "frames") {
		stream := peer.StreamId(rapid.IntRange(1, 4).Draw(t, "stream"))
		fin := rapid.IntRange(0, 1).Draw(t, "fin")
		switch rapid.IntRange(0, 7).Draw(t, "kind") {
		case 0:
			err = f.WriteFrame(&peer.SynReplyFrame{StreamId: stream, Headers: header, CFHeader: peer.ControlFrameHeader{Flags: peer.ControlFlags(fin)}})
		case 1:
			err = f.WriteFrame(&peer.HeadersFrame{StreamId: stream, Headers: header, CFHeader: peer.ControlFrameHeader{Flags: peer.ControlFlags(fin)}})
		case 2:
			err = f.WriteFrame(&peer.RstStreamFrame{StreamId: stream, Status: peer.Cancel})
		case 3:
			err = f.WriteFrame(&peer.PingFrame{Id: uint32(stream)})
		case 4:
			err = f.WriteFrame(&peer.SettingsFrame{FlagIdValues: []peer.SettingsFlagIdValue{{Id: 1, Value: 2}}})
		case 5:
			err = f.WriteFrame(&peer.WindowUpdateFrame{StreamId: stream, DeltaWindowSize: 1})
		case 6:
			b.Write([]byte{0x80, 3, 0, 77, 0, 0, 0, 5, 'w', 'h', 'a', 't', '?'})
		default:
			data := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "data")
			err = f.WriteFrame(&peer.DataFrame{StreamId: stream, Flags: peer.DataFlags(fin), Data: data})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestEventsAreWhatThePeerSaid(t *testing.T) {
	var b bytes.Buffer
	f := framer(t, &b, nil)
	for _, frame := range []peer.Frame{
		&peer.SynReplyFrame{StreamId: 1, Headers: http.Header{"A": {"b"}}},
		&peer.SynReplyFrame{StreamId: 3, CFHeader: peer.ControlFrameHeader{Flags: peer.ControlFlagFin}},
		&peer.SettingsFrame{},
		&peer.DataFrame{StreamId: 3, Data: []byte("one")},
		&peer.DataFrame{StreamId: 3},
		&peer.HeadersFrame{StreamId: 3},
		&peer.DataFrame{StreamId: 1, Flags: peer.DataFlagFin},
		&peer.PingFrame{Id: 2},
		&peer.RstStreamFrame{StreamId: 3, Status: peer.RefusedStream},
		&peer.GoAwayFrame{LastGoodStreamId: 3, Status: peer.GoAwayInternalError},
	} {
		if err := f.WriteFrame(frame); err != nil {
			t.Fatal(err)
		}
	}
	got, err := flat(t, b.Bytes(), whole)
	if err != nil {
		t.Fatal(err)
	}
	want := []Event{
		{Kind: Reply, Stream: 1},
		{Kind: Reply, Stream: 3, Fin: true},
		{Kind: Data, Stream: 3, Bytes: []byte("one")},
		{Kind: Headers, Stream: 3},
		{Kind: Data, Stream: 1, Fin: true},
		{Kind: Ping, Code: 2},
		{Kind: Reset, Stream: 3, Code: uint32(StatusRefused)},
		{Kind: GoAway, Stream: 3, Code: 2},
	}
	if len(got) != len(want) {
		t.Fatalf("%d events: %+v", len(got), got)
	}
	for i := range want {
		if g, w := got[i], want[i]; g.Kind != w.Kind || g.Fin != w.Fin || g.Stream != w.Stream || g.Code != w.Code || !bytes.Equal(g.Bytes, w.Bytes) {
			t.Errorf("event %d is %+v, want %+v", i, g, w)
		}
	}
}

func TestABrokenFrameIsFinal(t *testing.T) {
	for name, b := range map[string]string{
		"data on stream 0":           "\x00\x00\x00\x00\x00\x00\x00\x01x",
		"another version":            "\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01",
		"a stream of the peer's":     "\x80\x03\x00\x01\x00\x00\x00\x0a0123456789",
		"a reset that is too long":   "\x80\x03\x00\x03\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x01x",
		"a reset that is too short":  "\x80\x03\x00\x03\x00\x00\x00\x04\x00\x00\x00\x01",
		"a reset of stream 0":        "\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01",
		"a ping without a number":    "\x80\x03\x00\x06\x00\x00\x00\x00",
		"a reply without a stream":   "\x80\x03\x00\x02\x00\x00\x00\x03abc",
		"a reply to stream 0":        "\x80\x03\x00\x02\x00\x00\x00\x04\x00\x00\x00\x00",
		"a control frame of 64 KiB+": "\x80\x03\x00\x63\x00\x01\x00\x01",
	} {
		t.Run(name, func(t *testing.T) {
			var d Decoder
			_, _, err := d.Next([]byte(b))
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("it is read as %v", err)
			}
			if _, n, again := d.Next([]byte("\x00\x00\x00\x01\x00\x00\x00\x01x")); !errors.Is(again, err) || n != 0 {
				t.Errorf("after it %d bytes are read: %v", n, again)
			}
		})
	}
}

// FuzzDecoder is T-E9 for this package: whatever a peer sends, nothing panics, every byte is accounted for, what comes out is part of what
// came in, and how it was cut makes no difference.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x80\x03\x00\x02\x00\x00\x00\x08\x00\x00\x00\x03abcd\x00\x00\x00\x03\x01\x00\x00\x02hi"), uint8(3))
	f.Add([]byte("\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00\x05"), uint8(1))
	f.Add([]byte("\x80\x03\x00\x63\x00\x00\x00\x02xx\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x02"), uint8(7))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		want, wantErr := flat(t, stream, whole)
		got, err := flat(t, stream, func(n int) int { return min(n, int(step)%32+1) })
		if (err == nil) != (wantErr == nil) || len(got) != len(want) {
			t.Fatalf("cut, it gives %d events and %v; whole %d and %v", len(got), err, len(want), wantErr)
		}
		data := 0
		for i := range want {
			if got[i].Kind != want[i].Kind || got[i].Stream != want[i].Stream || !bytes.Equal(got[i].Bytes, want[i].Bytes) {
				t.Fatalf("event %d is %+v, whole %+v", i, got[i], want[i])
			}
			data += len(want[i].Bytes)
		}
		if data > len(stream) {
			t.Fatalf("%d bytes of data in a stream of %d", data, len(stream))
		}
	})
}

func TestHandsOverDataWhereItLies(t *testing.T) {
	b := AppendData(nil, 3, false, []byte("where"))
	var d Decoder
	e, _, err := d.Next(b)
	if err != nil {
		t.Fatal(err)
	}
	if &e.Bytes[0] != &b[headerBytes] {
		t.Error("data was copied")
	}
	if n := testing.AllocsPerRun(100, func() { _, _, _ = d.Next(b) }); n != 0 {
		t.Errorf("a frame costs %v allocations", n)
	}
}

// TestSpdystreamTalksWithUs has the server that is below every kubelet accept, echo, half-close and reset.
func TestSpdystreamTalksWithUs(t *testing.T) {
	ours, theirs := net.Pipe()
	server, err := spdystream.NewConnection(theirs, true)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve(spdystream.MirrorStreamHandler)
	}()
	defer func() {
		_ = ours.Close()
		<-served
	}()
	_ = ours.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make(chan error, 1)
	go func() {
		b := AppendSynStream(nil, 1, false, true, Header{"a", "b"})
		b = AppendPing(b, 1)
		_, err := ours.Write(b)
		sent <- err
	}()
	var d Decoder
	seen := map[Kind]Event{}
	buf := make([]byte, 512)
	until := func(kind Kind) {
		for seen[kind].Kind == None {
			n, err := ours.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			for b := buf[:n]; len(b) > 0; {
				e, n, err := d.Next(b)
				if err != nil {
					t.Fatal(err)
				}
				e.Bytes = bytes.Clone(e.Bytes)
				seen[e.Kind] = e
				b = b[n:]
			}
		}
	}
	until(Reply)
	until(Ping)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := ours.Write(AppendData(nil, 1, false, []byte("echo")))
		sent <- err
	}()
	until(Data)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if e := seen[Data]; string(e.Bytes) != "echo" || e.Stream != 1 || e.Fin {
		t.Errorf("the echo is %+v", e)
	}
	delete(seen, Data)
	go func() {
		_, err := ours.Write(AppendData(nil, 1, true, nil))
		sent <- err
	}()
	until(Data)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if e := seen[Data]; len(e.Bytes) != 0 || !e.Fin {
		t.Errorf("the end is %+v", e)
	}
}
