package threats

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// upgrade accepts a WebSocket with a subprotocol, if that is not empty, and writes what follows. To any other request nothing is there.
func upgrade(nc net.Conn, req *http.Request, subprotocol string, frames ...[]byte) {
	if req.Header.Get("Upgrade") == "" {
		refuse(http.StatusNotFound, "NotFound", "")(nc, req)
		return
	}
	header := ""
	if subprotocol != "" {
		header = "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+header+
		"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n"+string(bytes.Join(frames, nil))) // who has hung up is told nothing
}

// message is a WebSocket message in one frame.
func message(opcode byte, payload string) []byte {
	head := []byte{0x80 | opcode, byte(len(payload))}
	switch {
	case len(payload) > 0xffff:
		head = binary.BigEndian.AppendUint64([]byte{0x80 | opcode, 127}, uint64(len(payload)))
	case len(payload) > 125:
		head = binary.BigEndian.AppendUint16([]byte{0x80 | opcode, 126}, uint16(len(payload)))
	}
	return append(head, payload...)
}

// Opcodes of messages, and the close frame of a good end.
const (
	textMessage   = 1
	binaryMessage = 2
)

var goodClose = message(8, "\x03\xe8")

// kindOfPath is the subresource that a request asks for.
func kindOfPath(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// fate is what a channel of a kind is told first of its upstream's end, in a session of its own.
func fate(t *testing.T, r *rig.Rig, target *sluicev1.Target) (told *status.Error, closed *sluicev1.Closed) {
	t.Helper()
	s := newSession(t, r, "alice")
	defer s.end()
	return s.fate(target)
}

func (s *session) fate(target *sluicev1.Target) (told *status.Error, closed *sluicev1.Closed) {
	s.t.Helper()
	f := s.first(s.open(&sluicev1.Open{Cluster: evil, Target: target}))
	if closed = f.GetClosed(); closed != nil {
		return status.FromProto(closed.GetStatus()), closed
	}
	return status.FromProto(f.GetChannelState().GetStatus()), nil
}

// T-E9: an upgrade to something that nobody asked for is no upgrade.
func TestT_E9_OnlyWhatWasOfferedIsSpoken(t *testing.T) {
	for _, subprotocol := range []string{"", "v9.channel.k8s.io", "channel.k8s.io", "v5.channel.k8s.io, v4.channel.k8s.io", "chat"} {
		r, _ := facing(t, func(nc net.Conn, req *http.Request) {
			upgrade(nc, req, subprotocol, message(binaryMessage, "\x01output"), message(binaryMessage, "\x03"+`{"status":"Success"}`), goodClose)
			_, _ = io.Copy(io.Discard, nc)
		})
		for kind, target := range kinds() {
			if kind == "log" && subprotocol == "" {
				continue // a log is binary where nothing is said
			}
			if e, closed := fate(t, r, target); e == nil || e.Reason != sluicev1.Reason_REASON_UPSTREAM_PROTOCOL || closed.GetExit() != nil {
				t.Errorf("%s in %q: %v, %v", kind, subprotocol, e, closed)
			}
		}
		r.Stop()
	}
}

// T-E9: a process's end is told by its status alone, and a status that means nothing is no end.
func TestT_E9_NoLieAboutAProcessIsASuccess(t *testing.T) {
	said := func(s string) []byte { return message(binaryMessage, "\x03"+s) }
	exit := func(code string) []byte {
		return said(`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"` + code + `"}]}}`)
	}
	for name, frames := range map[string][][]byte{
		"nothing":              {goodClose},
		"output, and an end":   {message(binaryMessage, "\x01output"), goodClose},
		"an empty status":      {said(""), goodClose},
		"half a status":        {said(`{"status":"Suc`), goodClose},
		"no object":            {said(`"Success"`), goodClose},
		"a status of nothing":  {said(`{}`), goodClose},
		"a status in between":  {said(`{"status":"Perhaps"}`), goodClose},
		"success as a text":    {message(binaryMessage, "\x01"+`{"status":"Success"}`), goodClose},
		"an exit that is none": {exit("x"), goodClose}, "an exit beyond 32 bits": {exit("4294967296"), goodClose},
		"an exit of 10^400": {exit("1" + strings.Repeat("0", 400)), goodClose}, "an exit of nothing": {exit(""), goodClose},
		"a channel that is none": {message(binaryMessage, "\x09x"), said(`{"status":"Success"}`), goodClose},
		"input of the server's":  {message(binaryMessage, "\xffx"), said(`{"status":"Success"}`), goodClose},
		"a megabyte of status":   {said(`{"status":"Success","message":"` + strings.Repeat("x", 1<<20) + `"}`), goodClose},
		"deep status":            {said(strings.Repeat(`{"details":`, 20_000)), goodClose},
		"broken frames":          {message(binaryMessage, "\x01output"), {0xc2, 1, 1}},
		"a length of 2^63":       {frameOf(0x82, 1<<63, 1)},
		"masked":                 {{0x82, 0x82, 1, 2, 3, 4, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			r, h := facing(t, func(nc net.Conn, req *http.Request) {
				upgrade(nc, req, spoken["exec"], frames...)
				_, _ = io.Copy(io.Discard, nc)
			})
			before := used(t)
			for _, kind := range []string{"exec", "attach"} {
				e, closed := fate(t, r, kinds()[kind])
				if e == nil || closed.GetExit() != nil || !closed.GetAborted() || e.Resumable {
					t.Errorf("%s: %v", kind, closed)
				}
			}
			if !await(within(t), func() bool { return h.live() == 0 }) {
				t.Errorf("%d connections live on", h.live())
			}
			before.grew(4 << 20)
		})
	}
}

// T-E9: an API server that says more than anybody takes holds what its channel's window holds, and no more; the channel ends with its caller.
func TestT_E9_EndlessUpstreamsAreHeldBack(t *testing.T) {
	again := map[string][]byte{
		"log": message(binaryMessage, strings.Repeat("x", 8<<10)), "exec": message(binaryMessage, "\x01"+strings.Repeat("x", 8<<10)),
		"attach": message(binaryMessage, "\x02"+strings.Repeat("x", 8<<10)),
	}
	var taken atomic.Int64
	r, h := facing(t, func(nc net.Conn, req *http.Request) {
		kind := kindOfPath(req.URL.Path)
		upgrade(nc, req, spoken[kind])
		for again[kind] != nil {
			n, err := nc.Write(again[kind])
			taken.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	for _, kind := range slices.Sorted(maps.Keys(again)) {
		taken.Store(0)
		before := used(t)
		s := newSession(t, r, "alice")
		s.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1}}})
		s.send(&sluicev1.ClientFrame{Channel: 1, Seq: 1, Frame: &sluicev1.ClientFrame_Open{Open: &sluicev1.Open{Cluster: evil, Target: kinds()[kind]}}})
		got := 0
		for got < 32<<10 { // half of the first window, which is never renewed
			f, err := s.recv()
			if err != nil || f.GetClosed() != nil {
				t.Fatalf("%s: %v, %v", kind, f, err)
			}
			got += len(f.GetData().GetBinary())
		}
		before.grew(4 << 20)
		s.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Goodbye{Goodbye: &sluicev1.Goodbye{}}})
		if !await(within(t), func() bool { return h.live() == 0 }) {
			t.Errorf("%s: %d connections live on", kind, h.live())
		}
		if n := taken.Load(); n > 32<<20 { // what the sockets' buffers hold
			t.Errorf("%s: the gateway took %d bytes for a channel of 64 KiB", kind, n)
		}
	}
}

// FuzzT_E9_UpstreamsOfEveryKind has an API server say anything at all after it has accepted. Whatever it says, the channel is told an end that is
// no success, unless the bytes are one; nothing panics, and the next channel is served.
func FuzzT_E9_UpstreamsOfEveryKind(f *testing.F) {
	for _, kind := range []byte{0, 1, 2, 3} {
		for _, frames := range [][]byte{
			nil,
			{0},
			goodClose, message(binaryMessage, ""), message(binaryMessage, "\x00"), message(binaryMessage, "\x01out"), message(textMessage, "text"),
			message(binaryMessage, "\x80\x03\x00\x02\x00\x00\x00\x06\x00\x00\x00\x01\x00\x00"), // SYN_REPLY
			message(binaryMessage, "\x00\x00\x00\x01\x01\x00\x00\x00"),                         // a FIN of the stream 1
			message(binaryMessage, "\x00\x00\x00\x03\x00\x00\x00\x04data"),
			message(binaryMessage, "\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00\x05"), // RST_STREAM
			message(binaryMessage, "\x80\x03\x00\x04\x00\xff\xff\xff\xff\xff\xff\xff"),                 // SETTINGS without an end
			message(binaryMessage, "\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x02"),                 // PING
			message(binaryMessage, "\x80\x03\x00\x07\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00"), // GOAWAY
			message(binaryMessage, "2026-11-23T10:00:00.000000001Z line\n2026"), frameOf(0x82, 1<<62),
		} {
			f.Add(kind, frames)
		}
	}
	names := slices.Sorted(maps.Keys(kinds()))
	var said atomic.Pointer[[]byte]
	h := newHostile(f, func(nc net.Conn, req *http.Request) {
		upgrade(nc, req, spoken[kindOfPath(req.URL.Path)], *said.Load())
	})
	r := rig.New(f, rig.Options{Clusters: []cluster.Config{h.config}})
	gateway, token := sluicev1.NewGatewayServiceClient(r.Conn()), r.Token("alice")
	f.Fuzz(func(t *testing.T, kind byte, frames []byte) {
		said.Store(&frames)
		name := names[int(kind)%len(names)]
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+token))
		defer cancel()
		stream, err := gateway.Connect(ctx)
		if err != nil {
			t.Fatal(err)
		}
		e, closed := (&session{t: t, stream: stream, end: cancel, next: 1}).fate(kinds()[name])
		if e == nil && !bytes.Contains(frames, []byte("Success")) && !bytes.Contains(frames, []byte("ExitCode")) && name != "portforward" {
			t.Errorf("%s is a success after %q: %v", name, frames, closed)
		}
		if strings.Contains(r.Log.String(), "panicked") {
			t.Fatalf("%s panicked over %q", name, frames)
		}
	})
}
