package kubetest

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
)

// Faults are what goes wrong on purpose. The zero value is a server in good
// health. Safe for concurrent use; a fault strikes requests that begin later.
type Faults struct {
	mu    sync.Mutex
	rules []*rule
}

// Match selects requests. It is called with locks held and must not block.
type Match func(Attributes, *http.Request) bool

// Action is something that goes wrong; the functions of this package make them.
type Action func(*plan)

// Fault is an action with the requests it strikes.
type Fault struct {
	// Match selects the requests; nil selects all.
	Match Match
	// Skip is how many of the selected requests are left alone first.
	Skip int
	// Times is how many are struck then; 0 for all of them.
	Times int
	// Action is what happens to them.
	Action Action
}

type rule struct {
	Fault
	seen   int
	struck int
}

// Add lets f happen until the returned function is called. Where several
// faults match a request, all of them act, the later ones on top.
func (fs *Faults) Add(f Fault) (remove func()) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	added := &rule{Fault: f}
	fs.rules = append(fs.rules, added)
	return func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		fs.rules = slices.DeleteFunc(fs.rules, func(r *rule) bool { return r == added })
	}
}

// Clear takes all faults back.
func (fs *Faults) Clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.rules = nil
}

// Struck is how many requests were struck by the faults there are.
func (fs *Faults) Struck() (n int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, r := range fs.rules {
		n += r.struck
	}
	return n
}

// HoldList keeps the answers to lists until release is called.
func (fs *Faults) HoldList() (release func()) {
	gate := make(chan struct{})
	remove := fs.Add(Fault{Match: Lists, Action: Hold(gate)})
	return sync.OnceFunc(func() {
		remove()
		close(gate)
	})
}

// plan decides what goes wrong with one request.
func (fs *Faults) plan(a Attributes, r *http.Request) (p plan) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, rule := range fs.rules {
		if rule.strikes(a, r) {
			rule.Action(&p)
		}
	}
	return p
}

func (r *rule) strikes(a Attributes, request *http.Request) bool {
	if r.Match != nil && !r.Match(a, request) {
		return false
	}
	r.seen++
	if r.seen <= r.Skip || r.Times > 0 && r.struck >= r.Times {
		return false
	}
	r.struck++
	return true
}

// Lists matches lists.
func Lists(a Attributes, _ *http.Request) bool { return a.Verb == "list" }

// Watches matches watches, by WebSocket or not.
func Watches(a Attributes, _ *http.Request) bool { return a.Verb == "watch" }

// WebSockets matches the requests that want an upgrade.
func WebSockets(_ Attributes, r *http.Request) bool { return wantsWebSocket(r) }

// Logs matches logs, by WebSocket or not.
func Logs(a Attributes, _ *http.Request) bool { return a.Subresource == "log" }

// Execs matches execs.
func Execs(a Attributes, _ *http.Request) bool { return a.Subresource == "exec" }

// Attaches matches attaches.
func Attaches(a Attributes, _ *http.Request) bool { return a.Subresource == "attach" }

// PortForwards matches port-forwards.
func PortForwards(a Attributes, _ *http.Request) bool { return a.Subresource == "portforward" }

// Path matches requests for exactly this path.
func Path(path string) Match {
	return func(a Attributes, _ *http.Request) bool { return a.Path == path }
}

// All matches what every m matches.
func All(ms ...Match) Match {
	return func(a Attributes, r *http.Request) bool {
		return !slices.ContainsFunc(ms, func(m Match) bool { return !m(a, r) })
	}
}

// plan is what goes wrong with one request. The zero value is nothing.
type plan struct {
	answer   func(*Server, *call) // instead of serving
	gates    []<-chan struct{}    // to pass before serving
	drip     bool                 // a byte at a time
	fragment int                  // bytes per WebSocket frame
	pings    bool                 // a ping before every frame

	after int                         // messages sent before act
	act   func(context.Context, wire) // ends the watch or the stream in its way

	// Of streams only:
	steps       []step   // what happens in between
	cutBytes    int      // of messages, before hanging up; 0 for never
	refused     []string // subprotocols
	noStatus    bool     // of an exec or an attach
	earlyStatus bool     // likewise
}

// step is something that happens to a stream that goes on: do is called after
// so many messages, with what sends another one.
type step struct {
	after int
	do    func(send func([]byte) error) error
}

// await passes the gates; false if the client or the server ended before.
func (p *plan) await(client, server context.Context) bool {
	for _, gate := range p.gates {
		select {
		case <-gate:
		case <-client.Done():
			return false
		case <-server.Done():
			return false
		}
	}
	return true
}

// writer is w, or one that sends a byte at a time.
func (p *plan) writer(w http.ResponseWriter) http.ResponseWriter {
	if p.drip {
		return dripWriter{w}
	}
	return w
}

// conn is c, or one that sends a byte at a time.
func (p *plan) conn(c net.Conn) net.Conn {
	if p.drip {
		return dripConn{c}
	}
	return c
}

// Hold serves the request once gate is closed.
func Hold(gate <-chan struct{}) Action {
	return func(p *plan) { p.gates = append(p.gates, gate) }
}

// Respond answers with this status, header and body instead of serving: a
// refusal, a redirect, or a 200 where an upgrade was wanted.
func Respond(code int, header http.Header, body string) Action {
	return instead(func(_ *Server, c *call) {
		for name, values := range header {
			c.w.Header()[http.CanonicalHeaderKey(name)] = values
		}
		c.w.WriteHeader(code)
		_, _ = c.w.Write([]byte(body)) // If it fails, the client is gone already.
	})
}

// TooManyRequests answers 429 as the API server does that asks for a retry
// after so many seconds.
func TooManyRequests(seconds int) Action {
	return instead(func(_ *Server, c *call) {
		writeStatus(c.w, c.r, failure(http.StatusTooManyRequests, "TooManyRequests",
			"storage is (re)initializing", &StatusDetails{RetryAfterSeconds: seconds}))
	})
}

// BareSwitch answers an upgrade with a 101 that lacks the headers of one, and hangs up.
func BareSwitch() Action {
	return hijacked(func(conn net.Conn, _, _ context.Context) {
		_, _ = conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n")) // If it fails, the client is gone already.
	})
}

// Garbage answers these bytes in place of an HTTP response, and hangs up.
func Garbage(data []byte) Action {
	return hijacked(func(conn net.Conn, _, _ context.Context) {
		_, _ = conn.Write(data) // If it fails, the client is gone already.
	})
}

// Silence never answers: it ends when the client gives up or the server closes.
func Silence() Action {
	return instead(func(s *Server, c *call) {
		select {
		case <-c.r.Context().Done():
		case <-s.ctx.Done():
		}
	})
}

// ResetRequest hangs up with a TCP reset instead of answering.
func ResetRequest() Action {
	return hijacked(func(conn net.Conn, _, _ context.Context) { resetConn(conn) })
}

func instead(f func(*Server, *call)) Action {
	return func(p *plan) { p.answer = f }
}

func hijacked(f func(conn net.Conn, client, server context.Context)) Action {
	return instead(func(s *Server, c *call) {
		conn, _, err := http.NewResponseController(c.w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler) // HTTP/2 has no other way to hang up.
		}
		defer conn.Close()
		f(conn, c.r.Context(), s.ctx)
	})
}

// Drip answers a byte at a time: the handshake and frames of a WebSocket, the
// body of another response.
func Drip() Action { return func(p *plan) { p.drip = true } }

// Fragment splits the messages of a WebSocket into frames of so many bytes.
func Fragment(size int) Action { return func(p *plan) { p.fragment = size } }

// Pings puts a ping before every frame of a WebSocket, also between the
// fragments of a message.
func Pings() Action { return func(p *plan) { p.pings = true } }

// afterMessages plans f for when n messages of a watch or a stream were sent.
// Of a stream the empty ones count too by which its client learns that it runs,
// as do both of each port of v4.channel.k8s.io; in a tunnel every SPDY frame is
// one.
func afterMessages(n int, f func(context.Context, wire)) Action {
	return func(p *plan) { p.after, p.act = n, f }
}

// EndAfter ends a watch or a stream after n messages, with close 1000. 0 ends it
// right after the handshake. Of a log this is a truncation that looks like its
// end, of an exec an end without a status.
func EndAfter(n int) Action { return CloseAfter(n, closeNormal) }

// CloseAfter ends a watch or a stream after n messages with another close code.
func CloseAfter(n, code int) Action {
	return afterMessages(n, func(_ context.Context, w wire) { w.end(code) })
}

// CutAfter hangs up in the middle of the message that follows n messages.
func CutAfter(n int) Action {
	return afterMessages(n, func(_ context.Context, w wire) { w.cut() })
}

// ResetAfter hangs up with a TCP reset after n messages.
func ResetAfter(n int) Action {
	return afterMessages(n, func(_ context.Context, w wire) { w.reset() })
}

// StallAfter sends nothing any more after n messages, and stays.
func StallAfter(n int) Action {
	return afterMessages(n, func(ctx context.Context, _ wire) { <-ctx.Done() })
}

// RawAfter sends these bytes after n messages, outside of any frame, and then
// nothing any more, so that it is the client who has to end it.
func RawAfter(n int, data []byte) Action {
	return afterMessages(n, func(ctx context.Context, w wire) {
		if w.raw(data) == nil && w.flush() == nil {
			<-ctx.Done()
		}
	})
}

// DoAfter calls f after n messages of a stream, which goes on when f returns:
// the next message waits for it. f may call the server, to delete the pod in
// the middle, to restart a container or to rotate a log, unless it waits for
// something that this very stream holds up.
func DoAfter(n int, f func()) Action {
	return inBetween(n, func(func([]byte) error) error {
		f()
		return nil
	})
}

// InsertAfter sends a message of its own after n messages of a stream: text
// that a program never wrote, a channel byte that nobody knows, a frame of
// SPDY's that makes no sense, an empty message.
func InsertAfter(n int, message []byte) Action {
	return inBetween(n, func(send func([]byte) error) error { return send(message) })
}

// GarbageChannel sends a message on a channel that does not exist after n
// messages of an exec, an attach or a port-forward, which goes on.
func GarbageChannel(n int) Action { return InsertAfter(n, []byte{0x7f, '?'}) }

func inBetween(n int, do func(send func([]byte) error) error) Action {
	return func(p *plan) { p.steps = append(p.steps, step{n, do}) }
}

// CutAfterBytes hangs up when n bytes of a stream's messages were sent, in the
// middle of one: their channel bytes count, the framing around them does not.
func CutAfterBytes(n int) Action { return func(p *plan) { p.cutBytes = n } }

// WithoutStatus ends an exec or an attach with close 1000 and no status, after
// all that the program wrote.
func WithoutStatus() Action { return func(p *plan) { p.noStatus = true } }

// EarlyStatus sends the status of an exec before all that the program wrote,
// which must not be more than 64 KiB for each stream.
func EarlyStatus() Action { return func(p *plan) { p.earlyStatus = true } }

// Refuse lets the server not know these subprotocols, as an older one does
// not: "v5.channel.k8s.io" for exec and attach, "SPDY/3.1+portforward.k8s.io"
// for port-forwards. What else is on offer is chosen; nothing else, and the
// handshake is refused with a bare 403.
func Refuse(protocols ...string) Action {
	return func(p *plan) { p.refused = append(p.refused, protocols...) }
}

// HugeFrame announces a frame of 2^63 bytes after n messages.
func HugeFrame(n int) Action {
	return RawAfter(n, frameHeader(opText|finBit, 1<<63))
}

// MaskedFrame sends a masked frame after n messages, which only clients may (RFC 6455, 5.1).
func MaskedFrame(n int) Action {
	return RawAfter(n, []byte{opText | finBit, maskBit | 2, 1, 2, 3, 4, '{' ^ 1, '}' ^ 2})
}

// ReservedBits sends a frame with reserved bits set after n messages (RFC 6455, 5.2).
func ReservedBits(n int) Action {
	return RawAfter(n, []byte{opText | finBit | 0x70, 2, '{', '}'})
}

// InvalidText sends a text message that is not UTF-8 after n messages (RFC 6455, 8.1).
func InvalidText(n int) Action {
	return RawAfter(n, append(frameHeader(opText|finBit, 4), '"', 0xc3, 0x28, '"'))
}

// dripConn writes a byte at a time.
type dripConn struct{ net.Conn }

func (c dripConn) Write(data []byte) (int, error) {
	for i := range data {
		if _, err := c.Conn.Write(data[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(data), nil
}

func (c dripConn) NetConn() net.Conn { return c.Conn }

// dripWriter writes a body a byte at a time.
type dripWriter struct{ http.ResponseWriter }

func (w dripWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w dripWriter) Write(data []byte) (int, error) {
	for i := range data {
		if _, err := w.ResponseWriter.Write(data[i : i+1]); err != nil {
			return i, err
		}
		if err := http.NewResponseController(w.ResponseWriter).Flush(); err != nil {
			return i, err
		}
	}
	return len(data), nil
}
