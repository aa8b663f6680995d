package bridge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
	"github.com/moby/spdystream/spdy"
	"k8s.io/cri-streaming/pkg/streaming/portforward"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
)

// forwardNode is an API server with one node, as far as a port-forward needs them: the tunnel is ours, as the API server makes it, and what is at
// its end is the code of every kubelet and container runtime.
type forwardNode struct {
	api     *httptest.Server
	kubelet *httptest.Server
	old     bool         // an API server before 1.30, which passes WebSockets on to the kubelet
	clumsy  bool         // something in between that refuses what it does not know
	rest    http.Handler // everything else
	dials   atomic.Int32
	refused atomic.Int32
	tunnels sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn // of the API server to its clients
}

func newForwardNode(t testing.TB) *forwardNode {
	n := &forwardNode{rest: http.NotFoundHandler()}
	n.kubelet = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "ports=", "port=") // as the API server does
		o, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, n, "pod", "uid", o, time.Hour, 30*time.Second, portforward.SupportedProtocols)
	}))
	n.api = httptest.NewServer(n)
	t.Cleanup(func() {
		n.sever()
		n.api.CloseClientConnections()
		n.api.Close()
		n.kubelet.CloseClientConnections()
		n.kubelet.Close()
		n.tunnels.Wait()
	})
	return n
}

// upstream reaches the API server.
func (n *forwardNode) upstream(t testing.TB) *testUpstream {
	return newTestUpstream(t, "http", func(ctx context.Context) (net.Conn, error) {
		n.dials.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", n.api.Listener.Addr().String())
	})
}

// sever cuts all tunnels.
func (n *forwardNode) sever() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
}

func (n *forwardNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/portforward") {
		n.rest.ServeHTTP(w, r)
		return
	}
	protocols := gorilla.Subprotocols(r)
	switch {
	case n.clumsy && slices.Contains(protocols, spdyProtocol):
		n.refused.Add(1)
		w.WriteHeader(http.StatusForbidden)
	case n.old || n.clumsy:
		n.kubelet.Config.Handler.ServeHTTP(w, r)
	case slices.Contains(protocols, spdyProtocol):
		n.tunnels.Add(1)
		defer n.tunnels.Done()
		n.tunnel(w, r)
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

// tunnel asks the kubelet for SPDY and passes its bytes through a WebSocket (k8s.io/apiserver/pkg/util/proxy).
func (n *forwardNode) tunnel(w http.ResponseWriter, r *http.Request) {
	kubelet, err := net.Dial("tcp", n.kubelet.Listener.Addr().String())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer kubelet.Close()
	fmt.Fprintf(kubelet, "POST %s HTTP/1.1\r\nHost: kubelet\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"+
		"X-Stream-Protocol-Version: portforward.k8s.io\r\nContent-Length: 0\r\n\r\n", r.URL.RequestURI())
	br := bufio.NewReader(kubelet)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		http.Error(w, "no SPDY", http.StatusBadGateway)
		return
	}
	u := gorilla.Upgrader{Subprotocols: []string{spdyProtocol}, CheckOrigin: func(*http.Request) bool { return true }}
	ws, err := u.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer ws.Close()
	n.mu.Lock()
	n.conns = append(n.conns, ws.NetConn())
	n.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer kubelet.Close()
		for {
			_, m, err := ws.NextReader()
			if err != nil {
				return
			}
			if _, err := io.Copy(kubelet, m); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		m, err := br.Read(buf)
		if err != nil || ws.WriteMessage(gorilla.BinaryMessage, buf[:m]) != nil {
			break
		}
	}
	_ = ws.WriteControl(gorilla.CloseMessage, gorilla.FormatCloseMessage(gorilla.CloseNormalClosure, ""), time.Now().Add(time.Second))
	_ = ws.Close()
	<-done
}

// PortForward is a container runtime that carries half-closes both ways, which not every runtime does.
func (n *forwardNode) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	pod := nc.(*net.TCPConn)
	defer pod.Close()
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(pod, stream)
		_ = pod.CloseWrite()
		sent <- err
	}()
	buf := make([]byte, 32<<10)
	for {
		m, err := pod.Read(buf)
		if m > 0 {
			if _, err := stream.Write(buf[:m]); err != nil {
				_ = pod.SetDeadline(time.Unix(1, 0))
				return errors.Join(err, <-sent)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if _, v4 := stream.(interface{ Reset() error }); !v4 {
		return nil // a stream of v4 ends with its WebSocket
	}
	_ = stream.Close()
	return <-sent
}

// pod listens on a port and serves each connection.
func podServing(t testing.TB, serve func(*net.TCPConn)) (port uint32) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer nc.Close()
				serve(nc.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// echo is a pod that says what it hears and then ends.
func echoing(nc *net.TCPConn) { _, _ = io.Copy(nc, nc) }

// forwarding is a port-forward with its client: what has come, and a connection's methods.
type forwarding struct {
	*testChannel
	port uint32
	stop context.CancelCauseFunc
	over chan Outcome

	received bytes.Buffer // Guarded by the channel's mu.
}

func openForward(port uint32) *sluicev1.Open {
	return &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_PortForward{
		PortForward: &sluicev1.PortForwardTarget{Namespace: "default", Pod: "web", Port: port},
	}}}
}

// newForwarding is a client that takes all that comes.
func newForwarding(t testing.TB, port uint32) *forwarding {
	f := &forwarding{testChannel: newTestChannel(t, "cursor"), port: port, over: make(chan Outcome, 1)} // a cursor means something to watches alone
	f.bytes = func(p data.Piece) {
		if f.closed {
			t.Error("a piece after CloseSend")
		}
		f.received.Write(p.Bytes)
	}
	return f
}

// forwardTo runs a port-forward until the test ends, at the latest.
func forwardTo(t testing.TB, up Upstream, port uint32, opts Options) *forwarding {
	f := newForwarding(t, port)
	f.run(up, f.testChannel, opts)
	t.Cleanup(func() {
		f.stop(nil)
		<-f.over
	})
	return f
}

func (f *forwarding) run(up Upstream, ch Channel, opts Options) {
	ctx, stop := context.WithCancelCause(context.Background())
	f.stop = stop
	go func() {
		o := Run(ctx, up, openForward(f.port), ch, WithDefaults(opts))
		f.mu.Lock()
		if f.ended == nil {
			f.ended = errOver // for who awaits something
		}
		f.change()
		f.mu.Unlock()
		f.over <- o
	}()
}

// outcome waits for the forward's end.
func (f *forwarding) outcome() Outcome {
	o := <-f.over
	f.over <- o
	return o
}

// text is what has come so far.
func (f *forwarding) text() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.received.String()
}

// Write implements io.Writer for the client.
func (f *forwarding) Write(p []byte) (int, error) {
	for b := range slices.Chunk(p, 16<<10) {
		f.send(data.Input{Bytes: bytes.Clone(b)})
	}
	return len(p), nil
}

// CloseWrite ends the client's direction.
func (f *forwarding) CloseWrite() { f.send(data.Input{Kind: data.InputCloseSend}) }

// awaitClosed waits for the end of the pod's direction.
func (f *forwarding) awaitClosed(t testing.TB) {
	t.Helper()
	if err := f.await(within(t), func() bool { return f.closed }); err != nil {
		t.Fatalf("CloseSend does not come: %v, after %d bytes", err, f.received.Len())
	}
}

func (f *forwarding) awaitBytes(t testing.TB, n int) {
	t.Helper()
	if err := f.await(within(t), func() bool { return f.received.Len() >= n }); err != nil {
		t.Fatalf("%d bytes do not come: %v, after %q", n, err, f.text())
	}
}

func (f *forwarding) awaitOpened(t testing.TB) *sluicev1.Opened {
	t.Helper()
	if err := f.await(within(t), func() bool { return f.opened != nil }); err != nil {
		t.Fatalf("Opened does not come: %v", err)
	}
	return f.opened
}

// scriptedTunnel is a node that says what a test wants it to, in spdystream's frames.
type scriptedTunnel struct {
	ws    *gorilla.Conn
	port  string
	cut   func(n int) int // how much of what is to be said the next message takes
	heard chan spdy.Frame // what the client has said; closed with the WebSocket
}

// Write implements io.Writer for the framer: in messages that do not heed frames.
func (s *scriptedTunnel) Write(p []byte) (n int, err error) {
	for n < len(p) {
		m := len(p) - n
		if s.cut != nil {
			m = s.cut(m)
		}
		if err := s.ws.WriteMessage(gorilla.BinaryMessage, p[n:n+m]); err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

// say writes frames in one go.
func (s *scriptedTunnel) say(frames ...spdy.Frame) error {
	var b bytes.Buffer
	f, err := spdy.NewFramer(&b, nil)
	if err != nil {
		return err
	}
	for _, x := range frames {
		if err := f.WriteFrame(x); err != nil {
			return err
		}
	}
	_, err = s.Write(b.Bytes())
	return err
}

// messageReader reads the bytes of a WebSocket's messages.
type messageReader struct {
	ws  *gorilla.Conn
	cur io.Reader
}

func (m *messageReader) Read(p []byte) (int, error) {
	for {
		if m.cur == nil {
			_, r, err := m.ws.NextReader()
			if err != nil {
				return 0, io.EOF
			}
			m.cur = r
		}
		if n, err := m.cur.Read(p); n > 0 || err == nil {
			return n, nil
		}
		m.cur = nil
	}
}

// scripted is an API server all of whose tunnels are scripted. The script begins when both streams were asked for.
func scripted(t testing.TB, script func(*scriptedTunnel)) *testUpstream {
	return scriptedBeside(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }), script)
}

// scriptedBeside is one that serves everything else by rest.
func scriptedBeside(t testing.TB, rest http.Handler, script func(*scriptedTunnel)) *testUpstream {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveScripted(t, l, rest, script)
	return newTestUpstream(t, "http", func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	})
}

// scriptedInMemory is one that is reached over pipes, for the time of a bubble.
func scriptedInMemory(t testing.TB, script func(*scriptedTunnel)) *testUpstream {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	serveScripted(t, l, http.NotFoundHandler(), script)
	return newTestUpstream(t, "http", l.dial)
}

func serveScripted(t testing.TB, l net.Listener, rest http.Handler, script func(*scriptedTunnel)) {
	var running sync.WaitGroup
	api := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		if !strings.HasSuffix(r.URL.Path, "/portforward") {
			rest.ServeHTTP(w, r)
			return
		}
		u := gorilla.Upgrader{Subprotocols: []string{spdyProtocol}, CheckOrigin: func(*http.Request) bool { return true }}
		ws, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()
		s := &scriptedTunnel{ws: ws, port: r.URL.Query().Get("ports"), heard: make(chan spdy.Frame, 1024)}
		running.Go(s.listen)
		for range 2 {
			if x, ok := <-s.heard; ok {
				if _, ok := x.(*spdy.SynStreamFrame); !ok {
					t.Errorf("the client begins with %#v", x)
				}
			}
		}
		script(s)
		_ = ws.Close()
		s.drain()
	})}
	running.Go(func() { _ = api.Serve(l) })
	t.Cleanup(func() {
		_ = api.Close()
		running.Wait()
	})
}

// listen hears the client until it ends the tunnel.
func (s *scriptedTunnel) listen() {
	defer close(s.heard)
	f, err := spdy.NewFramer(io.Discard, &messageReader{ws: s.ws})
	if err != nil {
		return
	}
	for {
		x, err := f.ReadFrame()
		if err != nil {
			return
		}
		s.heard <- x
	}
}

// drain hears the client out until it ends the tunnel.
func (s *scriptedTunnel) drain() {
	for range s.heard {
	}
}

// The frames that a node says.
func accepts() []spdy.Frame {
	return []spdy.Frame{&spdy.SynReplyFrame{StreamId: errorStream}, &spdy.SynReplyFrame{StreamId: dataStream}}
}

func says(text string) spdy.Frame { return &spdy.DataFrame{StreamId: dataStream, Data: []byte(text)} }

func complains(text string) spdy.Frame {
	return &spdy.DataFrame{StreamId: errorStream, Data: []byte(text)}
}

func ends(stream spdy.StreamId) spdy.Frame {
	return &spdy.DataFrame{StreamId: stream, Flags: spdy.DataFlagFin}
}

func resets(stream spdy.StreamId) spdy.Frame {
	return &spdy.RstStreamFrame{StreamId: stream, Status: spdy.Cancel}
}
