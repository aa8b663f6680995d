package bridge

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

const (
	v5 = "v5.channel.k8s.io"
	v4 = "v4.channel.k8s.io"

	success    = `{"metadata":{},"status":"Success"}`
	exitedWith = `{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status %d",` +
		`"reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"%d"}]}}`
)

// exit is the status of a process that has exited with a code, as an API server words it.
func exit(code int) string {
	if code == 0 {
		return success
	}
	return fmt.Sprintf(exitedWith, code, code)
}

// processServer serves execs and attaches by a script, so that they can do what no API server does.
type processServer struct {
	// script has one process's upstream; its connection ends with it.
	script func(*processPeer)
	// choose picks a subprotocol, or refuses with a code and a body. By default the first one offered is picked.
	choose func(offered []string) (subprotocol string, refusal int, body string)

	// kubelet is the code that the API server answers with who asks for the container's log; 0 is 200.
	kubelet int

	mu       sync.Mutex
	requests []*url.URL // Guarded by mu.
	offers   [][]string // Guarded by mu. One for each request.
	serving  sync.WaitGroup
}

func (s *processServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.serving.Add(1)
	defer s.serving.Done()
	if strings.HasSuffix(r.URL.Path, "/log") {
		w.WriteHeader(cmp.Or(s.kubelet, http.StatusOK))
		return
	}
	offered := strings.Split(r.Header.Get("Sec-WebSocket-Protocol"), ", ")
	s.mu.Lock()
	s.requests, s.offers = append(s.requests, r.URL), append(s.offers, offered)
	s.mu.Unlock()
	chosen, refusal, body := offered[0], 0, ""
	if s.choose != nil {
		chosen, refusal, body = s.choose(offered)
	}
	if refusal != 0 {
		w.WriteHeader(refusal)
		_, _ = io.WriteString(w, body)
		return
	}
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer nc.Close()
	accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	answer := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(accept[:]) + "\r\n"
	if chosen != "" {
		answer += "Sec-WebSocket-Protocol: " + chosen + "\r\n"
	}
	if _, err := io.WriteString(nc, answer+"\r\n"); err != nil {
		return
	}
	s.script(&processPeer{nc: nc, r: rw.Reader})
}

func (s *processServer) asked() ([]*url.URL, [][]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests), slices.Clone(s.offers)
}

// processTransports are the ways that a process's upstream is reached in tests. Only the pipe can be in a bubble of time.
var processTransports = []string{"tcp", "tls", "pipe"}

// reach serves and returns the upstream.
func (s *processServer) reach(t testing.TB, transport string) *testUpstream {
	if transport == "pipe" {
		return s.reachByPipe(t)
	}
	server := httptest.NewUnstartedServer(s)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // clients that leave early are what some tests are about
	scheme := "http"
	if transport == "tls" {
		scheme = "https"
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(func() {
		server.Close()
		s.serving.Wait()
	})
	return newTestUpstream(t, scheme, func(ctx context.Context) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
		if err != nil || transport == "tcp" {
			return nc, err
		}
		roots := x509.NewCertPool()
		roots.AddCert(server.Certificate())
		return websocket.Secure(ctx, nc, &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: []string{"http/1.1"}})
	})
}

func (s *processServer) reachByPipe(t testing.TB) *testUpstream {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: s}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
		s.serving.Wait()
	})
	return newTestUpstream(t, "http", l.dial)
}

// processPeer is an API server's end of a process's upstream. What fails to be written or read is the test's to notice at the other end.
type processPeer struct {
	nc net.Conn
	r  *bufio.Reader
}

// wsMessage is a message of the server in one frame.
func wsMessage(stream byte, payload string) []byte {
	return wsFrame(0x82, append([]byte{stream}, payload...))
}

// wsFrame is a frame of the server; first is its first byte.
func wsFrame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// wsClose is a close frame of the server.
func wsClose(code uint16) []byte { return wsFrame(0x88, binary.BigEndian.AppendUint16(nil, code)) }

func (p *processPeer) write(b ...[]byte) error {
	_, err := p.nc.Write(bytes.Join(b, nil))
	return err
}

// say writes a message of a stream.
func (p *processPeer) say(stream byte, payload string) error {
	return p.write(wsMessage(stream, payload))
}

// finish tells the status, closes the WebSocket as API servers do, and waits for the answer.
func (p *processPeer) finish(status string) {
	if p.write(wsMessage(3, status), wsClose(1000)) == nil {
		p.drain()
	}
}

// drain reads until the client is gone.
func (p *processPeer) drain() {
	for {
		if _, _, err := p.next(); err != nil {
			return
		}
	}
}

// next reads a frame of the client, which sends each message in one.
func (p *processPeer) next() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return 0, nil, err
	}
	if head[0]&0xf0 != 0x80 || head[1]&0x80 == 0 {
		return 0, nil, fmt.Errorf("a frame that begins with %x", head)
	}
	length := uint64(head[1] & 0x7f)
	if extended := map[uint64]int{126: 2, 127: 8}[length]; extended > 0 {
		var b [8]byte
		if _, err := io.ReadFull(p.r, b[8-extended:]); err != nil {
			return 0, nil, err
		}
		length = binary.BigEndian.Uint64(b[:])
	}
	var mask [4]byte
	if _, err := io.ReadFull(p.r, mask[:]); err != nil {
		return 0, nil, err
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(p.r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i&3]
	}
	return head[0] & 0x0f, payload, nil
}

// nextMessage is the client's next message, after any number of pings, which are answered.
func (p *processPeer) nextMessage() (b []byte, err error) {
	for {
		opcode, b, err := p.next()
		switch {
		case err != nil:
			return nil, err
		case opcode == 9:
			if err := p.write(wsFrame(0x8a, b)); err != nil {
				return nil, err
			}
		case opcode == 8:
			return nil, io.EOF
		case opcode == 2:
			return b, nil
		default:
			return nil, fmt.Errorf("opcode %d", opcode)
		}
	}
}

// reset has the connection end by a reset.
func (p *processPeer) reset() {
	nc := p.nc
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	_ = nc.(*net.TCPConn).SetLinger(0)
	_ = nc.Close()
}

// finishSending has the connection end after what was written.
func (p *processPeer) finishSending() {
	nc := p.nc
	if t, ok := nc.(*tls.Conn); ok {
		_ = t.CloseWrite()
		nc = t.NetConn()
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	} else {
		_ = nc.Close()
	}
}

// execution is a process's channel in the background, and what its client has received.
type execution struct {
	*testChannel
	out  map[sluicev1.Stream]*bytes.Buffer // Guarded by the channel's mu.
	stop context.CancelCauseFunc
	over chan Outcome
}

func shellTarget() *sluicev1.ExecTarget {
	return &sluicev1.ExecTarget{
		Namespace: "default", Pod: "shell", Container: "main", Command: []string{"sh", "-c", "true"}, Stdin: true, Stdout: true, Stderr: true,
	}
}

func execOf(t *sluicev1.ExecTarget) *sluicev1.Open {
	return &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Exec{Exec: t}}}
}

func attachOf(t *sluicev1.AttachTarget) *sluicev1.Open {
	return &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Attach{Attach: t}}}
}

// execute runs a process's channel until the test ends, at the latest.
func execute(t testing.TB, up Upstream, open *sluicev1.Open, opts Options) *execution {
	ch := newTestChannel(t, "")
	return executeOn(t, ch, up, open, opts)
}

func executeOn(t testing.TB, ch *testChannel, up Upstream, open *sluicev1.Open, opts Options) *execution {
	ctx, stop := context.WithCancelCause(context.Background())
	e := &execution{testChannel: ch, stop: stop, over: make(chan Outcome, 1), out: map[sluicev1.Stream]*bytes.Buffer{}}
	for _, s := range []sluicev1.Stream{sluicev1.Stream_STREAM_STDOUT, sluicev1.Stream_STREAM_STDERR} {
		e.out[s] = new(bytes.Buffer)
	}
	ch.bytes = func(p data.Piece) {
		switch b := e.out[p.Stream]; {
		case b == nil:
			t.Errorf("a piece of stream %v", p.Stream)
		case len(p.Bytes) == 0, p.More, p.Text, p.Cursor != "":
			t.Errorf("a piece that is no part of a byte stream: %+v", p)
		default:
			b.Write(p.Bytes)
		}
	}
	go func() { e.over <- Run(ctx, up, open, ch, WithDefaults(opts)) }()
	t.Cleanup(func() {
		stop(nil)
		e.outcome()
	})
	return e
}

// outcome waits for the end.
func (e *execution) outcome() Outcome {
	o := <-e.over
	e.over <- o
	return o
}

// stdout and stderr are what has come so far.
func (e *execution) stdout() string { return e.received(sluicev1.Stream_STREAM_STDOUT) }
func (e *execution) stderr() string { return e.received(sluicev1.Stream_STREAM_STDERR) }

func (e *execution) received(s sluicev1.Stream) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.out[s].String()
}

// awaitOpened waits for Opened.
func (e *execution) awaitOpened(t testing.TB) {
	t.Helper()
	must(t, e.await(within(t), func() bool { return e.opened != nil }))
}

// awaitUsed waits until so many inputs are acknowledged.
func (e *execution) awaitUsed(t testing.TB, n int) {
	t.Helper()
	must(t, e.await(within(t), func() bool { return e.uses >= n }))
}

// input has the client send bytes.
func (e *execution) input(s string) { e.send(data.Input{Kind: data.InputData, Bytes: []byte(s)}) }

// promptly is outcome, which fails the test unless it comes within d.
func (e *execution) promptly(t testing.TB, d time.Duration) Outcome {
	t.Helper()
	select {
	case o := <-e.over:
		e.over <- o
		return o
	case <-time.After(d):
		t.Fatal("the channel does not end")
		panic("unreachable")
	}
}
