package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// testUpstream is an API server that is reached by dial, plainly.
type testUpstream struct {
	scheme string
	dial   func(context.Context) (net.Conn, error)
	http   *http.Transport

	mu    sync.Mutex
	times []time.Time // of the attempts to watch
}

func newTestUpstream(t testing.TB, scheme string, dial func(context.Context) (net.Conn, error)) *testUpstream {
	whole := func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	u := &testUpstream{scheme: scheme, dial: dial}
	u.http = &http.Transport{DialContext: whole, DialTLSContext: whole, DisableKeepAlives: true}
	return u
}

func (u *testUpstream) Cluster() string { return "test" }

func (u *testUpstream) Identity() string { return "uid-of-the-cluster" }

func (u *testUpstream) Sharing() string { return "principal" }

func (u *testUpstream) attempts() []time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]time.Time(nil), u.times...)
}

func (u *testUpstream) request(ctx context.Context, path string, q url.Values) *http.Request {
	address := url.URL{Scheme: u.scheme, Host: "cluster.test", Path: path, RawQuery: q.Encode()}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Origin", "https://cluster.test")
	return r
}

func (u *testUpstream) Dial(ctx context.Context, path string, q url.Values, subprotocols ...string) (*websocket.Conn, string, error) {
	u.mu.Lock()
	u.times = append(u.times, time.Now())
	u.mu.Unlock()
	nc, err := u.dial(ctx)
	if err != nil {
		return nil, "", unreachable(err)
	}
	conn, err := websocket.Handshake(ctx, nc, u.request(ctx, path, q), subprotocols...)
	var answer *websocket.HandshakeError
	switch {
	case errors.As(err, &answer):
		return nil, "", answered(answer.StatusCode, answer.Header, answer.Body)
	case err != nil:
		return nil, "", unreachable(err)
	}
	subprotocol := conn.Subprotocol()
	return conn, subprotocol, nil
}

func (u *testUpstream) Get(ctx context.Context, path string, q url.Values) (*http.Response, error) {
	res, err := u.http.RoundTrip(u.request(ctx, path, q))
	if err != nil {
		return nil, unreachable(err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return nil, answered(res.StatusCode, res.Header, body)
}

func unreachable(err error) error {
	return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE, "no connection").Wrap(err)
}

func answered(code int, h http.Header, body []byte) error {
	return cluster.Refusal("test", code, h, body)
}

// testCluster is a Kubernetes-shaped API server with its upstream.
type testCluster struct {
	*kubetest.Server
	up *testUpstream
}

func newServer(t testing.TB, o kubetest.Options) *kubetest.Server {
	s, err := kubetest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// overTLS is a cluster that is reached over real sockets.
func overTLS(t testing.TB, o kubetest.Options) *testCluster {
	s := newServer(t, o)
	if err := s.Listen(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	config := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{"http/1.1"}}
	return &testCluster{s, newTestUpstream(t, "https", func(ctx context.Context) (net.Conn, error) {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
		if err != nil {
			return nil, err
		}
		return websocket.Secure(ctx, nc, config)
	})}
}

// inMemory is a cluster that is reached over pipes, for the time of a synctest bubble.
func inMemory(t testing.TB, o kubetest.Options) *testCluster {
	s := newServer(t, o)
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: s}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		_ = server.Close()
		<-served
		<-time.After(time.Second) // of the bubble: for what is still being written
	})
	return &testCluster{s, newTestUpstream(t, "http", l.dial)}
}

// slow is the server's end of a pipe: what it writes takes a moment, as everywhere, so that an answer is later than its question.
type slow struct{ net.Conn }

func (s slow) Write(p []byte) (int, error) {
	<-time.After(time.Microsecond)
	return s.Conn.Write(p)
}

// pipes is a listener in memory.
type pipes struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- slow{there}:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

// put writes an object of the target of most tests and returns its version.
func (c *testCluster) put(t testing.TB, name, content string) (version string) {
	o, err := c.Apply(kubetest.Object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": "default"},
		"data": map[string]any{"content": content},
	})
	if err != nil {
		t.Fatal(err)
	}
	return o.String("metadata", "resourceVersion")
}

// remove deletes an object and returns the version of that.
func (c *testCluster) remove(t testing.TB, name string) (version string) {
	if err := c.Delete("", "configmaps", "default", name); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(c.Version())
}

// fill writes n objects.
func (c *testCluster) fill(t testing.TB, n int) {
	for i := range n {
		c.put(t, fmt.Sprintf("filled-%04d", i), strings.Repeat("x", 100))
	}
}

// sent are the frames of a raw WebSocket server, for what no API server says.
func sent(messages ...string) func(net.Conn) {
	return func(nc net.Conn) {
		for _, m := range messages {
			b := []byte{0x81, 127, 0, 0, 0, 0, byte(len(m) >> 24), byte(len(m) >> 16), byte(len(m) >> 8), byte(len(m))}
			if _, err := nc.Write(append(b, m...)); err != nil {
				return
			}
		}
	}
}
