package kubetest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/kubetest/shell"
)

// RunPods runs the pods that the demo and the tests of every kind of stream
// know, in the namespace default:
//
//   - shell: its main program answers each line of its input with "> " before
//     it; an input, no terminal
//   - term: the same with a terminal
//   - talker: its container main writes a numbered line every 50 ms, its
//     container quiet writes nothing
//   - done: wrote 100 lines and has exited with 0; it is not restarted
//   - web: HTTP at port 80
func RunPods(s *Server) error {
	for _, p := range FixturePods() {
		if err := s.RunPod(p); err != nil {
			return fmt.Errorf("run pod %s: %w", p.Name, err)
		}
	}
	return s.AwaitPod(s.ctx, "default", "done", "Succeeded")
}

// FixturePods are the pods of [RunPods], to run one or some of them.
func FixturePods() []Pod {
	return []Pod{
		{Name: "shell", Containers: []Container{{Stdin: true, Run: Script(`while read -r line; do echo "> $line"; done`)}}},
		{Name: "term", Containers: []Container{{Stdin: true, TTY: true, Run: Script(`while read -r line; do echo "> $line"; done`)}}},
		{Name: "talker", Containers: []Container{{Run: talk}, {Name: "quiet"}}},
		{Name: "done", Restart: "Never", Containers: []Container{{Run: Script(`for i in $(seq 100); do echo "line $i"; done`)}}},
		{Name: "web", Ports: map[uint16]func(net.Conn){80: ServeHTTP(http.HandlerFunc(greetHTTP))}, Containers: []Container{{}}},
	}
}

// talkInterval is the time between two lines of a talker.
const talkInterval = 50 * time.Millisecond

// talk writes a numbered line every now and then.
func talk(ctx context.Context, p *shell.Process) int {
	ticker := time.NewTicker(talkInterval)
	defer ticker.Stop()
	for i := 1; ; i++ {
		if _, err := fmt.Fprintf(p.Stdout, "line %d\n", i); err != nil {
			return 1
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return 0
		}
	}
}

func greetHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "%s %q from a pod\n", r.Method, r.URL.Path) //nolint:gosec // it is no HTML
}

// ServeHTTP is what a [Pod] listens with for HTTP.
func ServeHTTP(h http.Handler) func(net.Conn) {
	return func(conn net.Conn) {
		l := &oneConn{conn: conn, closed: make(chan struct{})}
		server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ConnState: l.state}
		_ = server.Serve(l) // It returns when the conn is closed, with an error that says so.
	}
}

// oneConn is a listener that accepts one conn, and nothing any more when that
// is closed.
type oneConn struct {
	conn   net.Conn
	once   sync.Once
	ending sync.Once
	closed chan struct{}
}

func (l *oneConn) Accept() (conn net.Conn, err error) {
	l.once.Do(func() { conn = l.conn })
	if conn != nil {
		return conn, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) state(_ net.Conn, s http.ConnState) {
	if s == http.StateClosed || s == http.StateHijacked {
		l.ending.Do(func() { close(l.closed) })
	}
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }
