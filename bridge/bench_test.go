package bridge

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/ready"
	"github.com/sluice-gateway/sluice/internal/status"
)

// sink is a channel that takes everything and looks at nothing.
type sink struct{ *testChannel }

func (sink) Credit() int { return 1 << 20 }

func (sink) Offer(pieces []data.Piece) int { return len(pieces) }

// BenchmarkWatch is what an event costs between its socket and its channel, by the loop and by a goroutine.
func BenchmarkWatch(b *testing.B) {
	event := []byte(serverFrame(0x81, fmt.Sprintf(`{"type":"MODIFIED","object":{"kind":"Pod","metadata":{"name":"p","resourceVersion":"12345"},"x":%q}}`,
		strings.Repeat("x", 900))))
	for name, loops := range map[string]*ready.Loops{"loop": loopsFor(b), "goroutine": nil} {
		b.Run(name, func(b *testing.B) {
			up := newSocketUpstream(b, repeated(event, b.N))
			cursor := watchCursors(up.Identity(), pods()).at("1")
			b.SetBytes(int64(len(event)))
			b.ReportAllocs()
			runToRefusal(b, up, loops, cursor)
		})
	}
}

// repeated writes n times the same.
func repeated(frame []byte, n int) func(net.Conn) {
	return func(nc net.Conn) {
		const many = 100
		block := bytes.Repeat(frame, many)
		for ; n > 0; n -= many {
			if _, err := nc.Write(block[:min(n, many)*len(frame)]); err != nil {
				return
			}
		}
		_ = nc.(*net.TCPConn).CloseWrite() // the other end may be gone
		_, _ = io.Copy(io.Discard, nc)
	}
}

// runToRefusal runs a watch until its second upstream, which there is not.
func runToRefusal(b *testing.B, up Upstream, loops *ready.Loops, cursor string) {
	ch := sink{newTestChannel(b, cursor)}
	opts := WithDefaults(Options{Loops: loops, Jitter: func() float64 { return 0 }})
	if err := Run(context.Background(), up, openOf(pods(), cursor), ch, opts).Err; status.Code(err) != codes.NotFound {
		b.Error(err)
	}
}

// BenchmarkLogs is what a line of a log costs between its socket and its channel, in messages as an API server cuts them.
func BenchmarkLogs(b *testing.B) {
	line := "2026-11-23T12:00:00.123456789Z " + strings.Repeat("x", 99) + "\n"
	message := []byte(serverFrame(0x82, strings.Repeat(line, 2048/len(line))))
	for name, loops := range map[string]*ready.Loops{"loop": loopsFor(b), "goroutine": nil} {
		b.Run(name, func(b *testing.B) {
			messages := b.N/(2048/len(line)) + 1
			up := newSocketUpstream(b, repeated(message, messages))
			b.SetBytes(100)
			b.ReportAllocs()
			ch := sink{newTestChannel(b, "")}
			opts := WithDefaults(Options{Loops: loops, Jitter: func() float64 { return 0 }})
			if err := Run(context.Background(), up, logOf(nil), ch, opts).Err; status.Code(err) != codes.NotFound {
				b.Error(err)
			}
		})
	}
}
