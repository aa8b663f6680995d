// Package upstream is an API server that has nothing but watches of pods and shells in them, and makes their events and bytes itself.
//
// A watch's label selector says what it brings: size=2048,rate=50 is fifty events of 2 KiB a second, rate=-1 as many as are taken, rate=0
// nothing after the list. The list is one object. Events are made of buffers that are rendered once, so that the upstream costs little
// beside what it measures. A watch from a version goes on with the event after it.
package upstream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sluice-gateway/sluice/bench/event"
)

// FlatOut is the rate of a watch whose events come as fast as they are taken.
const FlatOut = -1

// Selector is the label selector of a watch that brings such events.
func Selector(size, rate int) string { return fmt.Sprintf("size=%d,rate=%d", size, rate) }

// Server serves watches until the context given to New has ended. It is safe for concurrent use.
type Server struct {
	ctx      context.Context
	stop     chan struct{} // closed by Stop
	stopOnce sync.Once

	mu      sync.Mutex
	sent    map[string]uint64 // Guarded by mu. The last event of each namespace's watch.
	writing map[string]int    // Guarded by mu. Watches that may still send.
	quiet   chan struct{}     // Guarded by mu. Closed and replaced when one of them ends.
}

// New makes a server. Its watches end with ctx.
func New(ctx context.Context) *Server {
	return &Server{
		ctx: ctx, stop: make(chan struct{}), sent: map[string]uint64{}, writing: map[string]int{}, quiet: make(chan struct{}),
	}
}

// Stop has no further event sent, waits until those that were begun have been taken, except by the namespaces of ignored, or until ctx ends,
// and returns the last event of each namespace that has come to rest.
func (s *Server) Stop(ctx context.Context, ignored []string) map[string]uint64 {
	s.stopOnce.Do(func() { close(s.stop) })
	for {
		s.mu.Lock()
		rest, busy, changed := s.rest(ignored)
		s.mu.Unlock()
		if busy == 0 {
			return rest
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return rest
		}
	}
}

// rest is what has come to rest, how many namespaces that count have not, and what is closed when that changes. mu is held.
func (s *Server) rest(ignored []string) (rest map[string]uint64, busy int, changed <-chan struct{}) {
	rest = map[string]uint64{}
	for ns, seq := range s.sent {
		if s.writing[ns] == 0 {
			rest[ns] = seq
		}
	}
	for ns, n := range s.writing {
		if n > 0 {
			busy++
		}
		for _, i := range ignored {
			if i == ns && n > 0 {
				busy--
			}
		}
	}
	return rest, busy, s.quiet
}

func (s *Server) begin(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing[namespace]++
}

func (s *Server) end(namespace string, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing[namespace]--
	s.sent[namespace] = max(seq, s.sent[namespace])
	close(s.quiet)
	s.quiet = make(chan struct{})
}

var upgrader = websocket.Upgrader{
	ReadBufferSize: 256, WriteBufferSize: 256, CheckOrigin: func(*http.Request) bool { return true },
}

// ServeHTTP implements http.Handler. It asks for what an API server asks for: an Origin, and over TLS a bearer token.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.TLS != nil && !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer "):
		http.Error(w, "no bearer token", http.StatusUnauthorized)
		return
	case r.Header.Get("Origin") == "":
		http.Error(w, "no origin", http.StatusForbidden)
		return
	}
	if isShell(r) {
		s.serveShell(w, r)
		return
	}
	b, err := newBrook(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	stop := context.AfterFunc(s.ctx, func() { _ = ws.Close() })
	defer stop()
	defer ws.Close()
	s.pour(b, ws)
}

// pour sends a watch's events until it is stopped or the watch ends, and returns when the watch has ended.
func (s *Server) pour(b *brook, ws *websocket.Conn) {
	b.ws, b.gone = ws, make(chan struct{})
	s.begin(b.namespace)
	if b.rate == 0 {
		b.list()
		s.end(b.namespace, b.seq)
		b.listen()
		return
	}
	var reading sync.WaitGroup
	reading.Go(b.listen)
	if b.list() {
		b.run(s.stop)
	}
	s.end(b.namespace, b.seq)
	reading.Wait()
}

// brook is one watch.
type brook struct {
	// Immutable after newBrook.
	namespace  string
	size, rate int
	fresh      bool // it begins with a list

	// Immutable after pour.
	ws   *websocket.Conn
	gone chan struct{} // closed when the peer has ended the watch

	seq uint64 // Owned by pour. The last event that was sent.
}

// newBrook reads a request for a watch.
func newBrook(r *http.Request) (*brook, error) {
	q := r.URL.Query()
	parts := strings.Split(r.URL.Path, "/") // /api/v1/namespaces/NAMESPACE/pods
	if len(parts) != 6 || parts[5] != "pods" || q.Get("watch") != "true" {
		return nil, fmt.Errorf("%s is no watch of a namespace's pods", r.URL)
	}
	b := &brook{namespace: parts[4], fresh: q.Get("sendInitialEvents") == "true"}
	for term := range strings.SplitSeq(q.Get("labelSelector"), ",") {
		key, value, _ := strings.Cut(term, "=")
		n, err := strconv.Atoi(value)
		if err != nil {
			return nil, fmt.Errorf("label selector %q: %w", term, err)
		}
		switch key {
		case "size":
			b.size = n
		case "rate":
			b.rate = n
		}
	}
	if b.size < event.MinSize {
		return nil, fmt.Errorf("events of %d bytes are too small", b.size)
	}
	if b.fresh {
		return b, nil
	}
	var err error
	b.seq, err = event.Seq(q.Get("resourceVersion"))
	return b, err
}

// listen reads until the peer ends the watch; gorilla answers its pings.
func (b *brook) listen() {
	defer close(b.gone)
	for {
		if _, _, err := b.ws.NextReader(); err != nil {
			return
		}
	}
}

// list sends what the watch begins with: one object, and the bookmark after it.
func (b *brook) list() bool {
	if !b.fresh {
		return true
	}
	f, err := event.NewFrames("ADDED", b.namespace, b.size, 1)
	if err != nil {
		return false
	}
	b.seq = 1
	_, err = b.ws.NetConn().Write(append(f.Stamp(1, b.seq, event.Now()), event.Bookmark(b.seq)...))
	return err == nil
}

// burst is what a watch that is flat out writes at once, in bytes.
const burst = 64 << 10

func (b *brook) run(stop <-chan struct{}) {
	batch := 1
	if b.rate == FlatOut {
		batch = max(1, burst/b.size)
	}
	f, err := event.NewFrames("MODIFIED", b.namespace, b.size, batch)
	if err != nil {
		return
	}
	if b.rate == FlatOut {
		b.flatOut(f, stop)
		return
	}
	b.paced(f, stop)
}

// flatOut writes whenever something is taken.
func (b *brook) flatOut(f *event.Frames, stop <-chan struct{}) {
	if tcp, ok := b.ws.NetConn().(interface{ SetWriteBuffer(int) error }); ok {
		_ = tcp.SetWriteBuffer(2 * burst) // a wish: thousands that nobody reads should not fill the kernel's memory
	}
	for {
		select {
		case <-stop:
			return
		case <-b.gone:
			return
		default:
		}
		if !b.send(f, event.Now()) {
			return
		}
	}
}

// paced writes one event after the other, each when it is due, and those that it is late with at once. What is late because the one before
// it was not taken in time keeps the time it was due, so that a pause counts in every event that it held up ("coordinated omission"); how
// late this process itself wakes up is nobody's latency.
func (b *brook) paced(f *event.Frames, stop <-chan struct{}) {
	gap := int64(time.Second) / int64(b.rate)
	due := event.Now() + rand.Int64N(gap)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for taken := int64(0); ; due += gap {
		if wait := due - event.Now(); wait > 0 {
			timer.Reset(time.Duration(wait))
			select {
			case <-timer.C:
			case <-b.gone:
				return
			case <-stop:
				return
			}
		}
		at := due
		if taken <= due {
			at = event.Now()
		}
		if !b.send(f, at) {
			return
		}
		taken = event.Now()
		select {
		case <-stop:
			return
		default:
		}
	}
}

// send writes the frames' events. What was not written to its end does not count as sent.
func (b *brook) send(f *event.Frames, due int64) bool {
	if _, err := b.ws.NetConn().Write(f.Stamp(f.Len(), b.seq+1, due)); err != nil {
		return false
	}
	b.seq += uint64(f.Len())
	return true
}
