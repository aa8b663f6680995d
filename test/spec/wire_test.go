package spec

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// The tests of the rules that bind a session speak the protocol by hand to one end of the mux, in the order of the specification, and look
// at nothing but what comes back and what the end's caller sees.

// The constants of the protocol, as the specification says them.
const (
	maxBatch    = 256 << 10
	firstWindow = 65536
	pingAfter   = 8 * time.Second
	giveUpAfter = 20 * time.Second
	ackWithin   = 100 * time.Millisecond
)

// wire is a link in memory, the hand-written end of which is the test.
type wire struct {
	toUs, toThem chan []byte
	over         chan struct{}
	once         sync.Once
	held         atomic.Pointer[chan struct{}] // closed when Send may go on
}

var errCut = errors.New("the link was cut")

func newWire() *wire {
	return &wire{toUs: make(chan []byte, 1024), toThem: make(chan []byte, 1024), over: make(chan struct{})}
}

// Recv implements mux.Link.
func (w *wire) Recv() ([]byte, error) {
	select {
	case b, ok := <-w.toThem:
		if !ok {
			return nil, io.EOF
		}
		return b, nil
	case <-w.over:
		return nil, errCut
	}
}

// Send implements mux.Link.
func (w *wire) Send(b mux.Batch) error {
	defer b.Free()
	out := make([]byte, 0, b.Len())
	for _, p := range b {
		out = append(out, p.Bytes()...)
	}
	if held := w.held.Load(); held != nil {
		<-*held
	}
	select {
	case w.toUs <- out:
		return nil
	case <-w.over:
		return errCut
	}
}

func (w *wire) cut() { w.once.Do(func() { close(w.over) }) }

// clientFrame and serverFrame wrap a frame's body.
func clientFrame(channel uint32, seq uint64, body proto.Message) *sluicev1.ClientFrame {
	f := &sluicev1.ClientFrame{Channel: channel, Seq: seq}
	wrap(f.ProtoReflect(), body)
	return f
}

func serverFrame(channel uint32, seq uint64, body proto.Message) *sluicev1.ServerFrame {
	f := &sluicev1.ServerFrame{Channel: channel, Seq: seq}
	wrap(f.ProtoReflect(), body)
	return f
}

// unknown stands for a frame of a later version.
type unknown struct{ proto.Message }

func wrap(f protoreflect.Message, body proto.Message) {
	if _, ok := body.(unknown); ok {
		f.SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), nil))
		return
	}
	fields := f.Descriptor().Oneofs().ByName("frame").Fields()
	for i := range fields.Len() {
		if d := fields.Get(i); d.Message() == body.ProtoReflect().Descriptor() {
			f.Set(d, protoreflect.ValueOfMessage(body.ProtoReflect()))
			return
		}
	}
	panic("no such frame in this direction: " + body.ProtoReflect().Descriptor().FullName())
}

// body is what a frame holds; nil for one that is not known.
func body(f proto.Message) proto.Message {
	m := f.ProtoReflect()
	d := m.WhichOneof(m.Descriptor().Oneofs().ByName("frame"))
	if d == nil {
		return nil
	}
	return m.Get(d).Message().Interface()
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// server is a server's end and the test's hand on the other.
type server struct {
	t   *testing.T
	cfg mux.Config
	ses *mux.Session
	*wire
	done chan error // what ServeServer returned

	replayed []*sluicev1.ServerFrame // what followed the last Welcome at once

	mu       sync.Mutex
	accepted []*mux.Channel
	opens    []*sluicev1.Open
}

// Accept implements mux.Acceptor.
func (s *server) Accept(c *mux.Channel, o *sluicev1.Open) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted, s.opens = append(s.accepted, c), append(s.opens, o)
}

var secret = []byte("0123456789abcdef0123456789abcdef")

// plainServer begins a plain session, and fullServer a full one, past its Welcome.
func plainServer(t *testing.T, cfg mux.Config) *server {
	s := &server{t: t, cfg: cfg}
	s.ses = mux.NewServer(cfg, true, s)
	s.link()
	return s
}

func fullServer(t *testing.T, cfg mux.Config) *server {
	s := newFullServer(t, cfg)
	s.send(clientFrame(0, 0, &sluicev1.Hello{Protocol: 1}))
	if got := s.got(); len(got) != 1 || got[0].GetWelcome() == nil {
		t.Fatalf("Hello was answered with %v", got)
	}
	return s
}

func newFullServer(t *testing.T, cfg mux.Config) *server {
	s := &server{t: t, cfg: cfg}
	s.ses = mux.NewServer(cfg, false, s)
	s.ses.Identify("session", secret)
	s.link()
	return s
}

// link carries the session over a new link. The test's end: all goroutines are gone.
func (s *server) link() {
	w, done := newWire(), make(chan error, 1)
	s.wire, s.done = w, done
	go func() {
		g, err := mux.Greet(s.t.Context(), w)
		if err == nil {
			err = s.ses.ServeServer(s.t.Context(), w, g)
		}
		w.cut()
		done <- err
	}()
}

// end ends everything, for the end of a test.
func (s *server) end() {
	s.ses.End(nil)
	s.cut()
	s.ses.Wait()
}

// send sends frames in one batch.
func (s *server) send(frames ...*sluicev1.ClientFrame) {
	s.sendRaw(encode(s.t, &sluicev1.ConnectRequest{Frames: frames}))
}

func (s *server) sendRaw(b []byte) {
	s.toThem <- b
	synctest.Wait()
}

// got is what has come since the last call.
func (s *server) got() []*sluicev1.ServerFrame {
	synctest.Wait()
	var frames []*sluicev1.ServerFrame
	for {
		select {
		case b := <-s.toUs:
			if len(b) > maxBatch {
				s.t.Errorf("a batch of %d bytes", len(b))
			}
			var r sluicev1.ConnectResponse
			if err := proto.Unmarshal(b, &r); err != nil {
				s.t.Fatal(err)
			}
			frames = append(frames, r.GetFrames()...)
		default:
			return frames
		}
	}
}

// open opens the next channel and returns the server's side of it.
func (s *server) open(id uint32, o *sluicev1.Open) *mux.Channel {
	s.t.Helper()
	s.mu.Lock()
	n := len(s.accepted)
	s.mu.Unlock()
	s.send(clientFrame(id, 1, o))
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.accepted) != n+1 {
		s.t.Fatalf("channel %d was not accepted", id)
	}
	return s.accepted[n]
}

// ended is what ended the link; nil while it lives.
func (s *server) ended() *status.Error {
	synctest.Wait()
	select {
	case err := <-s.done:
		s.done <- err
		if err == nil {
			return status.New(0, 0, "a good end")
		}
		return status.From(err)
	default:
		return nil
	}
}

// client is a client's end and the test's hand on the other.
type client struct {
	t   *testing.T
	ses *mux.Session
	*wire
	done chan error
}

// newClient begins a session and returns it past its Hello; fullClient also past its Welcome.
func newClient(t *testing.T, cfg mux.Config) *client {
	c := &client{t: t, ses: mux.NewClient(cfg, nil)}
	c.link()
	return c
}

func fullClient(t *testing.T, cfg mux.Config) *client {
	c := newClient(t, cfg)
	if got := c.got(); len(got) != 1 || got[0].GetHello().GetProtocol() != 1 || got[0].GetHello().GetResume() != nil {
		t.Fatalf("the client began with %v", got)
	}
	c.send(serverFrame(0, 0, &sluicev1.Welcome{Session: "session", Secret: secret, Link: 1}))
	return c
}

func (c *client) link() {
	w, done := newWire(), make(chan error, 1)
	c.wire, c.done = w, done
	go func() {
		err := c.ses.ServeClient(c.t.Context(), w, &sluicev1.Hello{})
		w.cut()
		done <- err
	}()
}

// relink cuts the link and begins another; it returns the Hello on it.
func (c *client) relink() *sluicev1.Hello {
	c.t.Helper()
	c.cut()
	synctest.Wait()
	c.link()
	got := c.got()
	if len(got) != 1 || got[0].GetHello() == nil {
		c.t.Fatalf("a link began with %v", got)
	}
	return got[0].GetHello()
}

func (c *client) end() {
	c.ses.End(nil)
	c.cut()
	c.ses.Wait()
}

func (c *client) send(frames ...*sluicev1.ServerFrame) {
	c.toThem <- encode(c.t, &sluicev1.ConnectResponse{Frames: frames})
	synctest.Wait()
}

func (c *client) got() []*sluicev1.ClientFrame {
	synctest.Wait()
	var frames []*sluicev1.ClientFrame
	for {
		select {
		case b := <-c.toUs:
			var r sluicev1.ConnectRequest
			if err := proto.Unmarshal(b, &r); err != nil {
				c.t.Fatal(err)
			}
			frames = append(frames, r.GetFrames()...)
		default:
			return frames
		}
	}
}

func (c *client) open(o *sluicev1.Open) *mux.Channel {
	c.t.Helper()
	ch, err := c.ses.Open(o, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	synctest.Wait() // it has left
	return ch
}

func (c *client) ended() *status.Error {
	synctest.Wait()
	select {
	case err := <-c.done:
		c.done <- err
		if err == nil {
			return status.New(0, 0, "a good end")
		}
		return status.From(err)
	default:
		return nil
	}
}

// events are what a channel's caller has been given and has not taken.
func events(t *testing.T, c *mux.Channel) []mux.Event {
	t.Helper()
	synctest.Wait()
	var out []mux.Event
	for {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ev, err := c.Next(ctx)
		if err != nil {
			return out
		}
		out = append(out, ev)
		c.Used(&ev)
	}
}

// text is the payload of a channel's events so far, in order.
func text(t *testing.T, c *mux.Channel) string {
	t.Helper()
	return payload(events(t, c))
}

func payload(all []mux.Event) string {
	var out strings.Builder
	for _, ev := range all {
		out.Write(ev.Data)
	}
	return out.String()
}

// dataFrame is a whole message.
func dataFrame(s string) *sluicev1.Data { return &sluicev1.Data{Payload: &sluicev1.Data_Text{Text: s}} }

// pieceFrame is the beginning of a message.
func pieceFrame(s string) *sluicev1.Data {
	return &sluicev1.Data{More: true, Payload: &sluicev1.Data_Text{Text: s}}
}

func binaryFrame(n int) *sluicev1.Data {
	return &sluicev1.Data{Payload: &sluicev1.Data_Binary{Binary: make([]byte, n)}}
}

// offer hands payloads of the given sizes to a channel and returns how many it took.
func offer(c *mux.Channel, sizes ...int) int {
	pieces := make([]data.Piece, len(sizes))
	for i, n := range sizes {
		pieces[i].Bytes = make([]byte, n)
	}
	return c.Offer(pieces)
}

// closedOf is the Closed of a channel among frames.
func closedOf(frames []*sluicev1.ServerFrame, channel uint32) *sluicev1.Closed {
	for _, f := range frames {
		if f.GetChannel() == channel && f.GetClosed() != nil {
			return f.GetClosed()
		}
	}
	return nil
}

// closeOf is the Close of a channel among frames.
func closeOf(frames []*sluicev1.ClientFrame, channel uint32) *sluicev1.Close {
	for _, f := range frames {
		if f.GetChannel() == channel && f.GetClose() != nil {
			return f.GetClose()
		}
	}
	return nil
}

// lastAck is the last Ack of a channel among frames.
func lastAck[F interface {
	GetChannel() uint32
	GetAck() *sluicev1.Ack
}](frames []F, channel uint32) *sluicev1.Ack {
	var a *sluicev1.Ack
	for _, f := range frames {
		if f.GetChannel() == channel && f.GetAck() != nil {
			a = f.GetAck()
		}
	}
	return a
}

// pass lets time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// refusedFor reports whether a status says what is wanted.
func refusedFor(s *sluicev1.Status, reason sluicev1.Reason, limit string) bool {
	return s.GetCode() != 0 && s.GetReason() == reason && s.GetLimit() == limit
}

const (
	violation = sluicev1.Reason_REASON_PROTOCOL_VIOLATION
	limitMet  = sluicev1.Reason_REASON_LIMIT
	dataLoss  = sluicev1.Reason_REASON_DATA_LOSS
)
