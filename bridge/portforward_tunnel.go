package bridge

import (
	"encoding/binary"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/spdy"
)

// tunnel is how the two streams of a forward travel in the messages of a WebSocket: data both ways, and an error from the node. What is
// appended is sent as messages of their own; nothing is sent where a tunnel has no words for it.
type tunnel interface {
	// open appends what opens the streams.
	open(b []byte) []byte
	// data appends bytes for the pod, at most 64 KiB.
	data(b, p []byte) []byte
	// fin appends the end of what goes to the pod.
	fin(b []byte) []byte
	// reset appends the end of everything.
	reset(b []byte) []byte
	// ping appends a question, or the answer to one.
	ping(b []byte, id uint32) []byte
	// next reads the next signal off b, which is what is left of a fragment and not empty, and returns how much of it that is.
	next(b []byte) (s signal, n int, err error)
	// fragment says that a fragment was read; last, that with it a message ends.
	fragment(last bool)
	// halfCloses says that either direction can end alone.
	halfCloses() bool
}

// signal is what the node says in a tunnel.
type signal struct {
	kind   signalKind
	stands bool   // the streams stand; said once, before all else that is of them
	fin    bool   // the stream has ended with it
	bytes  []byte // of signalData and signalText
	id     uint32 // of signalPing
}

type signalKind uint8

const (
	signalNone signalKind = iota
	signalData
	signalText  // of the error stream
	signalReset // of the data stream
	signalPing
)

// tunnelOf is the tunnel of a subprotocol to a port.
func tunnelOf(subprotocol string, port uint32) tunnel {
	if subprotocol == spdyProtocol {
		return &spdyTunnel{port: port}
	}
	return &channelTunnel{port: uint16(port), begins: true}
}

// spdyTunnel carries SPDY/3.1, whose frames do not heed where messages end. The streams are those of kubectl
// (k8s.io/client-go/tools/portforward): a kubelet knows which belong together by a request's number, of which there is one here.
type spdyTunnel struct {
	port uint32

	// Owned by the reader.
	decoder            spdy.Decoder
	accepted, answered bool // the data stream, the error stream
	said               bool // that they stand
}

// The streams of a forward: a client's have odd numbers.
const (
	errorStream = 1
	dataStream  = 3
)

func (t *spdyTunnel) open(b []byte) []byte {
	port := strconv.FormatUint(uint64(t.port), 10)
	headers := func(kind string) []spdy.Header {
		return []spdy.Header{{Name: "streamtype", Value: kind}, {Name: "port", Value: port}, {Name: "requestid", Value: "0"}}
	}
	b = spdy.AppendSynStream(b, errorStream, true, true, headers("error")...)
	return spdy.AppendSynStream(b, dataStream, false, false, headers("data")...)
}

func (*spdyTunnel) data(b, p []byte) []byte { return spdy.AppendData(b, dataStream, false, p) }

func (*spdyTunnel) fin(b []byte) []byte { return spdy.AppendData(b, dataStream, true, nil) }

func (*spdyTunnel) reset(b []byte) []byte {
	return spdy.AppendRstStream(b, dataStream, spdy.StatusCancel)
}

func (*spdyTunnel) ping(b []byte, id uint32) []byte { return spdy.AppendPing(b, id) }

func (*spdyTunnel) fragment(bool) {}

func (*spdyTunnel) halfCloses() bool { return true }

func (t *spdyTunnel) next(b []byte) (signal, int, error) {
	e, n, err := t.decoder.Next(b)
	if err != nil {
		return signal{}, n, lostTunnel(err)
	}
	switch e.Kind {
	case spdy.None, spdy.GoAway: // which forbids further streams; there will be none
		return signal{}, n, nil
	case spdy.Ping:
		return signal{kind: signalPing, id: e.Code}, n, nil
	}
	s, err := t.meaning(e)
	s.stands = t.accepted && !t.said && (t.answered || s.kind == signalData)
	t.said = t.said || s.stands
	return s, n, err
}

// meaning is what an event of a stream means. The streams stand when both were accepted: who leaves before leaves goroutines behind in
// spdystream. A node need not keep to that order, and has data for us as soon as its stream is accepted.
func (t *spdyTunnel) meaning(e spdy.Event) (signal, error) {
	t.answered = t.answered || e.Stream == errorStream && e.Kind == spdy.Reply
	switch {
	case e.Stream == errorStream && e.Kind == spdy.Reset:
		return signal{kind: signalText, fin: true}, nil
	case e.Stream == errorStream:
		return signal{kind: signalText, fin: e.Fin, bytes: e.Bytes}, nil
	case e.Stream != dataStream:
		return signal{}, brokenTunnel("stream %d was never opened", e.Stream)
	case e.Kind == spdy.Reset:
		return signal{kind: signalReset}, nil
	case e.Kind == spdy.Reply && !e.Fin:
		t.accepted = true
		return signal{}, nil
	case e.Kind == spdy.Reply:
		t.accepted = true
	case !t.accepted:
		return signal{}, brokenTunnel("data on a stream that was not accepted")
	}
	return signal{kind: signalData, fin: e.Fin, bytes: e.Bytes}, nil
}

// channelTunnel carries two channels, which the first byte of each message names. Either begins with the port, in two bytes, the lesser first
// (k8s.io/cri-streaming/pkg/streaming/portforward). The end of a direction cannot be said; the WebSocket ends with both.
type channelTunnel struct {
	port uint16

	// Owned by the reader.
	begins  bool // the next byte is a message's first
	channel byte
	ports   [2][]byte // what has come of each channel's port
}

// The channels of a forward to one port.
const (
	dataChannel  = 0
	errorChannel = 1
)

func (*channelTunnel) open(b []byte) []byte { return b }

func (*channelTunnel) data(b, p []byte) []byte { return append(append(b, dataChannel), p...) }

func (*channelTunnel) fin(b []byte) []byte { return b }

func (*channelTunnel) reset(b []byte) []byte { return b }

func (*channelTunnel) ping(b []byte, _ uint32) []byte { return b }

func (t *channelTunnel) fragment(last bool) { t.begins = last }

func (*channelTunnel) halfCloses() bool { return false }

func (t *channelTunnel) next(b []byte) (signal, int, error) {
	if t.begins {
		t.begins = false
		if t.channel = b[0]; t.channel > errorChannel {
			return signal{}, 1, brokenTunnel("channel %d was never opened", t.channel)
		}
		return signal{}, 1, nil
	}
	if port := &t.ports[t.channel]; len(*port) < 2 {
		return t.begin(port, b[0])
	}
	if t.channel == dataChannel {
		return signal{kind: signalData, bytes: b}, len(b), nil
	}
	return signal{kind: signalText, bytes: b}, len(b), nil
}

// begin reads a byte of the port that a channel begins with.
func (t *channelTunnel) begin(port *[]byte, c byte) (s signal, n int, err error) {
	*port = append(*port, c)
	if len(*port) < 2 {
		return signal{}, 1, nil
	}
	if got := binary.LittleEndian.Uint16(*port); got != t.port {
		return signal{}, 1, brokenTunnel("channel %d leads to port %d", t.channel, got)
	}
	s.stands = t.channel == dataChannel
	return s, 1, nil
}
