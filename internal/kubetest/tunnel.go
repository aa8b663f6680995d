package kubetest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"

	"github.com/moby/spdystream/spdy"

	"github.com/sluice-gateway/sluice/internal/kubetest/shell"
)

// tunnel is a port-forward by SPDY/3.1 inside binary messages. Of SPDY it
// heeds what the API server's library does: there is no flow control but that
// of the TCP connection.
type tunnel struct {
	*forward

	input       *shell.Pipe    // the bytes that the client has sent
	connections sync.WaitGroup // those that run

	writing sync.Mutex
	framer  *spdy.Framer // writes under writing, reads by serve alone
	frame   bytes.Buffer // the frame that is being written; Guarded by writing.

	mu      sync.Mutex
	streams map[spdy.StreamId]*tunnelStream // open ones; Guarded by mu.
	pairs   map[string]*tunnelPair          // by request, until they are whole; Guarded by mu.
}

// tunnelPair is the two streams of one connection.
type tunnelPair struct {
	port        uint16
	data, error *tunnelStream
}

// tunnelStream is one stream of a tunnel, which the client has opened.
type tunnelStream struct {
	tunnel *tunnel
	id     spdy.StreamId
	input  *shell.Pipe

	mu   sync.Mutex
	done bool // nothing more is sent; Guarded by mu.
}

// serveTunnel serves the tunnel until the client leaves it: neither the end of
// a connection nor that of the pod ends it.
func (f *forward) serveTunnel(c *call, protocol string) error {
	t := &tunnel{
		forward: f, input: shell.NewPipe(shell.PipeSize),
		streams: map[spdy.StreamId]*tunnelStream{}, pairs: map[string]*tunnelPair{},
	}
	framer, err := spdy.NewFramer(&t.frame, boundInput{f, t.input})
	if err != nil {
		return err
	}
	t.framer = framer
	receive := func(message []byte) bool {
		_, err := t.input.WriteContext(f.ctx, message)
		return err == nil
	}
	if opened, err := f.open(f.upgradeTo(c, handshake{lenient: true, protocol: protocol, binary: true, receive: receive})); !opened {
		return err
	}
	defer f.finish()
	defer t.connections.Wait()
	defer t.closeAll()
	if t.strikeAtOnce() != nil {
		return nil // A fault has struck.
	}
	if err := t.serve(); err != nil {
		f.server.options.Logger.Debug("tunnel ended", "pod", f.pod.path, "err", err)
	}
	return nil
}

// boundInput reads until the stream ends.
type boundInput struct {
	f    *forward
	pipe *shell.Pipe
}

func (r boundInput) Read(b []byte) (int, error) { return r.pipe.ReadContext(r.f.ctx, b) }

// serve reads frames until the client ends.
func (t *tunnel) serve() error {
	for {
		frame, err := t.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch frame := frame.(type) {
		case *spdy.SynStreamFrame:
			err = t.accept(frame)
		case *spdy.DataFrame:
			t.receive(frame)
		case *spdy.RstStreamFrame:
			if s := t.find(frame.StreamId); s != nil {
				s.quiet()
				s.input.CloseRead()
			}
		case *spdy.PingFrame:
			err = t.write(frame)
		case *spdy.GoAwayFrame:
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tunnel) find(id spdy.StreamId) *tunnelStream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.streams[id]
}

// accept takes a stream that the client opens, or resets it.
func (t *tunnel) accept(frame *spdy.SynStreamFrame) error {
	port, err := streamPort(frame.Headers)
	if err != nil {
		return t.write(&spdy.RstStreamFrame{StreamId: frame.StreamId, Status: spdy.Cancel})
	}
	s := &tunnelStream{tunnel: t, id: frame.StreamId, input: shell.NewPipe(shell.PipeSize)}
	t.mu.Lock()
	t.streams[s.id] = s
	t.mu.Unlock()
	if frame.CFHeader.Flags&spdy.ControlFlagFin != 0 {
		s.input.CloseWrite()
	}
	if err := t.write(&spdy.SynReplyFrame{StreamId: s.id, Headers: http.Header{}}); err != nil {
		return err
	}
	if pair := t.pair(s, port, frame.Headers); pair != nil {
		t.connections.Go(func() { t.run(pair) })
	}
	return nil
}

// streamPort reads the headers of a stream as the kubelet checks them.
func streamPort(h http.Header) (uint16, error) {
	port, err := strconv.ParseUint(h.Get("Port"), 10, 16)
	if err != nil || port < 1 {
		return 0, fmt.Errorf("unable to parse %q as a port", h.Get("Port"))
	}
	if kind := h.Get("Streamtype"); kind != "data" && kind != "error" {
		return 0, fmt.Errorf("invalid stream type %q", kind)
	}
	return uint16(port), nil
}

// pair is the pair that a stream makes whole; nil while the other one is missing.
func (t *tunnel) pair(s *tunnelStream, port uint16, h http.Header) *tunnelPair {
	t.mu.Lock()
	defer t.mu.Unlock()
	request := h.Get("Requestid")
	p := t.pairs[request]
	if p == nil {
		p = &tunnelPair{}
		t.pairs[request] = p
	}
	if h.Get("Streamtype") == "data" {
		p.data, p.port = s, port
	} else {
		p.error = s
	}
	if p.data == nil || p.error == nil {
		return nil
	}
	delete(t.pairs, request)
	return p
}

func (t *tunnel) receive(frame *spdy.DataFrame) {
	s := t.find(frame.StreamId)
	if s == nil {
		return
	}
	_, _ = s.input.WriteContext(t.ctx, frame.Data) // What nobody reads any more is dropped.
	if frame.Flags&spdy.DataFlagFin != 0 {
		s.input.CloseWrite()
	}
}

// run forwards one connection, and tells how it ended: by the text on the
// error stream and resets, or by the ends of both streams.
func (t *tunnel) run(p *tunnelPair) {
	err := t.connect(p.port, p.data)
	if err != nil {
		_ = p.error.data([]byte(err.Error())) // If it fails, the client is gone.
		_ = p.data.reset()
		_ = p.error.reset()
	} else {
		_ = p.data.end() // As above.
		_ = p.error.end()
	}
	t.mu.Lock()
	delete(t.streams, p.data.id)
	delete(t.streams, p.error.id)
	t.mu.Unlock()
	p.data.input.CloseRead()
	p.error.input.CloseRead()
}

// closeAll ends what the connections wait for.
func (t *tunnel) closeAll() {
	t.cancel(errGone)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.streams {
		s.input.CloseRead()
	}
}

// write sends one frame as one message.
func (t *tunnel) write(frame spdy.Frame) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.frame.Reset()
	if err := t.framer.WriteFrame(frame); err != nil {
		return err
	}
	return t.send(bytes.Clone(t.frame.Bytes()))
}

var errStreamDone = errors.New("nothing more is sent on the stream")

func (s *tunnelStream) in() *shell.Pipe { return s.input }

func (s *tunnelStream) data(b []byte) error { return s.put(b, 0) }

// end sends the end of the stream, once.
func (s *tunnelStream) end() error {
	err := s.put(nil, spdy.DataFlagFin)
	if errors.Is(err, errStreamDone) {
		return nil
	}
	return err
}

func (s *tunnelStream) put(b []byte, flags spdy.DataFlags) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return errStreamDone
	}
	s.done = flags&spdy.DataFlagFin != 0
	return s.tunnel.write(&spdy.DataFrame{StreamId: s.id, Flags: flags, Data: b})
}

// reset sends a reset, unless the stream has ended.
func (s *tunnelStream) reset() error {
	if !s.quiet() {
		return nil
	}
	return s.tunnel.write(&spdy.RstStreamFrame{StreamId: s.id, Status: spdy.Cancel})
}

// quiet lets nothing more be sent; false if that was so.
func (s *tunnelStream) quiet() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.done
	s.done = true
	return !was
}
