package conformance

import (
	"bytes"
	"crypto/tls"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// TestTooManyStreamsAreRefused is h2spec's case http2/5.1.2/1 with calls that stay open, made by a peer that does not care for the limit it was
// told.
func TestTooManyStreamsAreRefused(t *testing.T) {
	const limit = 3
	r := rig.New(t, rig.Options{Limits: server.Limits{Streams: limit}})
	p := newPeer(t, r)
	if got := p.limit(); got != limit {
		t.Fatalf("the gateway allows %d streams, want %d", got, limit)
	}
	for id := uint32(1); id <= 2*limit-1; id += 2 {
		p.watch(id)
		p.wantAnswer(id)
	}
	p.watch(7)
	if got := p.wantReset(7); got != http2.ErrCodeRefusedStream {
		t.Errorf("the call beyond the limit was reset with %v, want %v", got, http2.ErrCodeRefusedStream)
	}
	if err := p.framer.WriteRSTStream(1, http2.ErrCodeCancel); err != nil {
		t.Fatal(err)
	}
	p.watch(9)
	p.wantAnswer(9)
}

// peer is a client that writes its frames by hand.
type peer struct {
	t      *testing.T
	framer *http2.Framer
	header bytes.Buffer
	encode *hpack.Encoder
}

func newPeer(t *testing.T, r *rig.Rig) *peer {
	t.Helper()
	config := r.ClientTLS()
	config.NextProtos = []string{http2.NextProtoTLS}
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(t.Context(), "tcp", r.Server.GRPCAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil { // it only ever ends a test that has failed
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, framer: http2.NewFramer(conn, conn)}
	p.encode = hpack.NewEncoder(&p.header)
	if err := p.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return p
}

// limit is how many streams the gateway says it allows.
func (p *peer) limit() uint32 {
	p.t.Helper()
	settings, ok := p.read().(*http2.SettingsFrame)
	if !ok {
		p.t.Fatal("the first frame is not SETTINGS")
	}
	limit, _ := settings.Value(http2.SettingMaxConcurrentStreams)
	if err := p.framer.WriteSettingsAck(); err != nil {
		p.t.Fatal(err)
	}
	return limit
}

// watch begins a call of health's Watch, which never ends by itself.
func (p *peer) watch(id uint32) {
	p.t.Helper()
	p.header.Reset()
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
		{Name: ":path", Value: healthv1.Health_Watch_FullMethodName},
		{Name: ":authority", Value: "gateway"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	} {
		if err := p.encode.WriteField(f); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.header.Bytes(), EndHeaders: true}); err != nil {
		p.t.Fatal(err)
	}
	if err := p.framer.WriteData(id, true, make([]byte, 5)); err != nil { // a message of no bytes
		p.t.Fatal(err)
	}
}

// wantAnswer waits for a message of the call.
func (p *peer) wantAnswer(id uint32) {
	p.t.Helper()
	for {
		switch f := p.read().(type) {
		case *http2.DataFrame:
			if f.StreamID == id && len(f.Data()) > 0 {
				return
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			p.t.Fatalf("got %v, want an answer of call %d", f, id)
		}
	}
}

// wantReset waits for the end of a call, and returns its code.
func (p *peer) wantReset(id uint32) http2.ErrCode {
	p.t.Helper()
	for {
		switch f := p.read().(type) {
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return f.ErrCode
			}
		case *http2.HeadersFrame:
			if f.StreamID == id {
				p.t.Fatalf("call %d was taken", id)
			}
		}
	}
}

// read reads a frame, and answers a ping.
func (p *peer) read() http2.Frame {
	p.t.Helper()
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			p.t.Fatal(err)
		}
		ping, ok := f.(*http2.PingFrame)
		if !ok {
			return f
		}
		if !ping.IsAck() {
			if err := p.framer.WritePing(true, ping.Data); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}
