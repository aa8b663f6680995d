package bridge

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
	"github.com/moby/spdystream/spdy"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// deafConn takes what is written and says nothing.
type deafConn struct{ net.Conn }

func (deafConn) Write(p []byte) (int, error)      { return len(p), nil }
func (deafConn) SetReadDeadline(time.Time) error  { return nil }
func (deafConn) SetWriteDeadline(time.Time) error { return nil }
func (deafConn) Close() error                     { return nil }

// sinkChannel takes everything at once and is its client: sends so many inputs, and then the end.
type sinkChannel struct {
	podChannel // whose client takes all
	sends      int
	input      []byte
}

func (*sinkChannel) Credit() int                  { return 1 << 20 }
func (*sinkChannel) MaxPiece() int                { return 64 << 10 }
func (*sinkChannel) Offer(p []data.Piece) int     { return len(p) }
func (*sinkChannel) State(*sluicev1.ChannelState) {}

func (c *sinkChannel) Next(ctx context.Context) (data.Input, error) {
	if c.sends == 0 {
		c.sends--
		return data.Input{Kind: data.InputCloseSend}, nil
	}
	if c.sends < 0 {
		<-ctx.Done()
		return data.Input{}, ctx.Err()
	}
	c.sends--
	return data.Input{Bytes: c.input}, nil
}

// bulkFrame is what a kubelet writes at once.
const bulkFrame = 32 << 10

// BenchmarkForwardBulk moves data from a pod to a client, through SPDY and the bridge.
func BenchmarkForwardBulk(b *testing.B) {
	var frame bytes.Buffer
	f, _ := spdy.NewFramer(&frame, nil)
	_ = f.WriteFrame(says(string(make([]byte, bulkFrame))))
	up := scripted(b, func(s *scriptedTunnel) {
		_ = s.say(accepts()...)
		for range b.N {
			_ = s.ws.WriteMessage(gorilla.BinaryMessage, frame.Bytes())
		}
		_ = s.say(ends(errorStream), ends(dataStream))
		s.drain()
	})
	b.SetBytes(bulkFrame)
	b.ReportAllocs()
	o := Run(context.Background(), up, openForward(80), &sinkChannel{sends: -1}, WithDefaults(Options{Pods: refusedPods(b)}))
	if o.Err != nil {
		b.Fatal(o.Err)
	}
}

// BenchmarkForwardBulkRaw is the WebSocket beneath, alone.
func BenchmarkForwardBulkRaw(b *testing.B) {
	up := scripted(b, func(s *scriptedTunnel) {
		frame := make([]byte, bulkFrame+8)
		for range b.N {
			_ = s.ws.WriteMessage(gorilla.BinaryMessage, frame)
		}
		_ = s.ws.WriteMessage(gorilla.BinaryMessage, nil)
		s.drain()
	})
	b.SetBytes(bulkFrame)
	b.ReportAllocs()
	conn, _, err := up.Dial(context.Background(), podPath("default", "web", "portforward"), nil, spdyProtocol)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close(websocket.CodeNormal)
	if err := conn.WriteMessage(websocket.Binary, (&spdyTunnel{port: 80}).open(nil)); err != nil {
		b.Fatal(err)
	}
	for whole := false; !whole; {
		batch, err := conn.Read(websocket.MaxRead, 64<<10)
		if err != nil {
			b.Fatal(err)
		}
		for _, f := range batch.Fragments {
			whole = whole || len(f.Bytes) == 0 && f.Last
		}
		batch.Release()
	}
}

// BenchmarkForwardSend moves data from a client to a pod.
func BenchmarkForwardSend(b *testing.B) {
	up := scripted(b, func(s *scriptedTunnel) {
		_ = s.say(accepts()...)
		for x := range s.heard {
			if d, ok := x.(*spdy.DataFrame); ok && d.Flags != 0 {
				break
			}
		}
		_ = s.say(ends(errorStream), ends(dataStream))
		s.drain()
	})
	b.SetBytes(bulkFrame)
	b.ReportAllocs()
	ch := &sinkChannel{sends: b.N, input: make([]byte, bulkFrame)}
	o := Run(context.Background(), up, openForward(80), ch, WithDefaults(Options{Pods: refusedPods(b)}))
	if o.Err != nil {
		b.Fatal(o.Err)
	}
}
