package e2e

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// floodOf is what a client sends that calls a method with so many bytes of header, in as many frames as it takes (RFC 9113 section 4.3).
func floodOf(t *testing.T, size int) []byte {
	t.Helper()
	var block, out bytes.Buffer
	encode := hpack.NewEncoder(&block)
	for _, f := range []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: "https"},
		{Name: ":path", Value: sluicev1.GatewayService_Connect_FullMethodName},
		{Name: ":authority", Value: "gateway"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
	} {
		if err := encode.WriteField(f); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; block.Len() < size; i++ { // of characters that Huffman's code makes no shorter, and each a field of its own
		if err := encode.WriteField(hpack.HeaderField{Name: "x-" + strings.Repeat("~", 1+i%7), Value: strings.Repeat("~", 4<<10), Sensitive: true}); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	err := framer.WriteSettings()
	rest := block.Bytes()
	for first := true; err == nil && len(rest) > 0; first = false {
		n := min(len(rest), 16<<10)
		piece, last := rest[:n], n == len(rest)
		rest = rest[n:]
		if first {
			err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: piece, EndHeaders: last})
		} else {
			err = framer.WriteContinuation(1, last, piece)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// attempt sends a flood and reads what the gateway says until it ends the stream or the TCP connection, and how.
func attempt(t *testing.T, config *tls.Config, addr string, flood []byte) (how string) {
	t.Helper()
	dialer := tls.Dialer{Config: config}
	nc, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = nc.Write(flood) // fails when the gateway has closed already
	framer := http2.NewFramer(io.Discard, nc)
	framer.SetMaxReadFrameSize(1 << 20)
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				t.Fatalf("the gateway neither answers nor refuses: %v", err)
			}
			return "closed"
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			return "stream reset: " + f.ErrCode.String()
		case *http2.GoAwayFrame:
			return "connection ended: " + f.ErrCode.String()
		case *http2.HeadersFrame:
			return "answered"
		}
	}
}

// TestAMebibyteOfHeaderCostsNothing: it is refused by the transport, nothing of ours runs, and the server keeps and allocates a small part of
// what it was sent.
func TestAMebibyteOfHeaderCostsNothing(t *testing.T) {
	s := newSetup(t)
	config := s.ClientTLS()
	config.NextProtos = []string{"h2"}
	addr := s.Server.GRPCAddr().String()
	flood := floodOf(t, 1<<20)
	if len(flood) < 1<<20 {
		t.Fatalf("a flood of %d bytes", len(flood))
	}
	const attempts = 200
	measure := func(sent []byte) (hows map[string]int, allocated, kept int) {
		attempt(t, config, addr, sent) // so that what is kept once for all is there
		hows, before := map[string]int{}, memory()
		for range attempts {
			hows[attempt(t, config, addr, sent)]++
		}
		after := memory()
		return hows, int(after.TotalAlloc-before.TotalAlloc) / attempts, int(after.HeapAlloc) - int(before.HeapAlloc)
	}
	small, usual, _ := measure(floodOf(t, 1)) // a call without a token: answered
	before := s.Log.String()
	hows, allocated, kept := measure(flood)
	if small["answered"] != attempts || hows["answered"] > 0 {
		t.Errorf("calls with a small header ended %v, with 1 MiB of it %v", small, hows)
	}
	// To hold the header once would take 1 MiB. Of what is allowed most is the sender's own: under the race detector pools forget buffers.
	if allocated > usual+len(flood)/2 {
		t.Errorf("an attempt of %d bytes made the process allocate %d; one of a small header %d", len(flood), allocated, usual)
	}
	if kept > 4<<20 {
		t.Errorf("%d attempts left %d bytes on the heap", attempts, kept)
	}
	if now := s.Log.String(); now != before {
		t.Errorf("our code ran: %s", now[len(before):])
	}
	if _, err := s.alice().Clusters(within(t, 30*time.Second)); err != nil {
		t.Errorf("others are not served meanwhile: %v", err)
	}
	t.Logf("%d attempts: %v, %d bytes allocated for each by both ends, %d for a call with a small header", attempts, hows, allocated, usual)
}

// memory is what the process holds, after what is garbage is gone.
func memory() (m runtime.MemStats) {
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}
