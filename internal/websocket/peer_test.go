package websocket

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// patience only bounds failures.
const patience = 30 * time.Second

// gorillaConn is gorilla's client end of a WebSocket whose server has sent the stream.
func gorillaConn(stream string) *gorilla.Conn {
	conn := stub{Reader: strings.NewReader(stream)}
	c, _, err := gorillaClient(conn)
	if err != nil {
		panic(err)
	}
	return c
}

// gorillaClient makes a client without a network: the answer to its handshake is made up from its key.
func gorillaClient(conn stub) (*gorilla.Conn, *http.Response, error) {
	answered := &answering{stub: conn}
	d := gorilla.Dialer{NetDialContext: func(context.Context, string, string) (net.Conn, error) { return answered, nil }}
	return d.Dial("ws://peer/", nil)
}

type answering struct {
	stub
	head io.Reader
}

func (a *answering) Write(p []byte) (int, error) {
	if a.head == nil {
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(p))))
		if err != nil {
			return 0, err
		}
		a.head = strings.NewReader("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
			acceptFor(req.Header.Get("Sec-WebSocket-Key")) + "\r\n\r\n")
	}
	return len(p), nil
}

func (a *answering) Read(p []byte) (int, error) {
	if n, err := a.head.Read(p); err == nil {
		return n, nil
	}
	return a.Reader.Read(p)
}

func (a *answering) SetDeadline(time.Time) error      { return nil }
func (a *answering) SetWriteDeadline(time.Time) error { return nil }

// transports are the kinds of connections that a Conn waits on in different ways.
var transports = []string{"tcp", "tls", "wrapped"}

// wrapped hides what kind of connection it is.
type wrapped struct{ net.Conn }

// start serves one WebSocket by gorilla and returns our end of it, through the named kind of connection. The peer's end is the
// serve function's for as long as it runs.
func start(t testing.TB, transport string, serve func(*gorilla.Conn)) *Conn {
	t.Helper()
	done := make(chan struct{})
	upgrader := gorilla.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		serve(c)
	}))
	if transport == "tls" {
		s.StartTLS()
	} else {
		s.Start()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nc := dial(t, ctx, transport, s)
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/", nil)
	c, err := Handshake(ctx, nc, req, "v5.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close(CodeNormal)
		<-done
		s.Close()
	})
	return c
}

func dial(t testing.TB, ctx context.Context, transport string, s *httptest.Server) net.Conn {
	t.Helper()
	nc, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	switch transport {
	case "wrapped":
		return wrapped{nc}
	case "tls":
		roots := x509.NewCertPool()
		roots.AddCert(s.Certificate())
		nc, err = Secure(ctx, nc, &tls.Config{RootCAs: roots, ServerName: "example.com", MinVersion: tls.VersionTLS12})
		if err != nil {
			t.Fatal(err)
		}
	}
	return nc
}

// pair is a Conn over an in-memory pipe, for tests in a bubble of time, and the server's raw end.
func pair(t testing.TB) (*Conn, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	t.Cleanup(func() { theirs.Close() })
	return NewConn(ours, nil), theirs
}
