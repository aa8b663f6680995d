package bridge

import (
	"bytes"
	"context"
	"testing"

	"github.com/moby/spdystream/spdy"

	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// hostile hands a forward's reader what a hostile node sends, cut into messages and fragments of some length, and returns what the client gets of
// it and how it ends.
func hostile(t testing.TB, subprotocol string, sent []byte, message, part int) (delivered []byte, closed bool, end error) {
	t.Helper()
	ch := newTestChannel(t, "cursor")
	ch.bytes = func(p data.Piece) { delivered = append(delivered, p.Bytes...) }
	f := newForward(context.Background(), websocket.NewConn(deafConn{}, nil), subprotocol, 80, ch, WithDefaults(Options{}))
	f.reply = f.endAfter(replyTimeout, errOver)
	defer func() {
		f.conn.Close(websocket.CodeNormal)
		f.pings.stop()
		_ = f.outcome(nil) // which stops the timers
	}()
	for len(sent) > 0 {
		m := bytes.Clone(sent[:min(message, len(sent))])
		sent = sent[len(m):]
		for len(m) > 0 {
			frag := websocket.Fragment{Bytes: m[:min(part, len(m)):min(part, len(m))]}
			m = m[len(frag.Bytes):]
			frag.Last = len(m) == 0
			if end = f.fragment(&frag); end == nil {
				end = f.offer()
			}
			if n := len(f.text); n > maxErrorText {
				t.Fatalf("%d bytes of an error are kept", n)
			}
			over, verdict := f.verdict()
			if end == nil && over && verdict == nil {
				return delivered, ch.closed, nil
			}
			if end == nil && over {
				end = verdict
			}
			if end != nil {
				_ = f.offer()
				return delivered, ch.closed, end
			}
		}
	}
	return delivered, ch.closed, nil
}

// FuzzT_E9_HostileTunnel: whatever a node sends, a forward does not panic, delivers no more than was sent, and delivers the same however it is
// cut. What spdystream reads of it without an error is what is delivered.
func FuzzT_E9_HostileTunnel(f *testing.F) {
	var b bytes.Buffer
	w, err := spdy.NewFramer(&b, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, x := range append(accepts(), says("hello"), &spdy.PingFrame{Id: 2}, says("again"), ends(errorStream), ends(dataStream)) {
		if err := w.WriteFrame(x); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes(), uint8(9), uint8(5), true)
	f.Add(append(b.Bytes()[:len(b.Bytes())-16], "\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x00\x03\x00\x00\x00\x05"...), uint8(200), uint8(200), true)
	f.Add([]byte("\x00P\x00\x01P\x00\x00hello"), uint8(3), uint8(2), false)
	f.Fuzz(func(t *testing.T, sent []byte, message, part uint8, tunnelled bool) {
		protocol, whole := channelProtocol, int(message)+1
		if tunnelled {
			protocol, whole = spdyProtocol, len(sent)+1
		}
		want, wantClosed, wantEnd := hostile(t, protocol, sent, whole, len(sent)+1)
		got, closed, end := hostile(t, protocol, sent, int(message)+1, int(part)+1)
		if len(want) > len(sent) || len(got) > len(sent) {
			t.Fatalf("%d bytes are delivered of %d", len(want), len(sent))
		}
		if status.Code(end) != status.Code(wantEnd) || closed != wantClosed && end == nil || !bytes.Equal(got, want) {
			t.Fatalf("cut, it delivers %q, closed %v, and ends with %v; whole %q, %v, %v", got, closed, end, want, wantClosed, wantEnd)
		}
	})
}
