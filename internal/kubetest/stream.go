package kubetest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// streamer is what serves a subresource of pods that is no document; nil if
// there is none of this name.
func streamer(subresource string) func(*Server, *call, *Kind) error {
	switch subresource {
	case "log":
		return (*Server).serveLog
	case "exec":
		return (*Server).serveExec
	case "attach":
		return (*Server).serveAttach
	case "portforward":
		return (*Server).servePortForward
	}
	return nil
}

// stream is one log, exec, attach or port-forward whose client is told that it
// runs: the messages to it, and the faults between them.
type stream struct {
	// Immutable after open.
	server *Server
	plan   *plan
	ctx    context.Context // ends with the client, the server or the stream
	cancel context.CancelCauseFunc
	wire   wire

	mu     sync.Mutex // held while a message is sent, and while a fault acts after it
	sent   int        // messages; Guarded by mu.
	bytes  int        // in them; Guarded by mu.
	struck bool       // a fault has ended it in its way; Guarded by mu.

	release func() bool // Immutable.
}

// lastWords is how long a stream may take to say how it ended when the server
// is closed.
const lastWords = 2 * endGrace

// newStream makes a stream for a request; open lets it begin.
func (s *Server) newStream(c *call) *stream {
	ctx, cancel := context.WithCancelCause(c.r.Context())
	st := &stream{server: s, plan: &c.plan, ctx: ctx, cancel: cancel}
	st.release = context.AfterFunc(s.ctx, func() { time.AfterFunc(lastWords, func() { cancel(errEnded) }) })
	return st
}

// open tells the client, by connect, that the stream runs. Without a wire and
// an error the client was refused and knows it. finish ends it.
func (st *stream) open(connect connector) (opened bool, err error) {
	w, err := connect(st.enter)
	if err != nil || w == nil {
		st.leave()
		st.cancel(errGone)
		st.release()
		return false, err
	}
	st.wire = w
	context.AfterFunc(st.ctx, func() { w.expire(time.Now().Add(endGrace)) })
	return true, nil
}

// connector tells a client that what it asked for runs, right after it has
// called running: who hears it may count it, or break it off, at once.
type connector func(running func()) (wire, error)

// enter counts the stream, and lets it be broken off.
func (st *stream) enter() {
	st.server.mu.Lock()
	st.server.open[st] = struct{}{}
	st.server.mu.Unlock()
	st.server.counters.open(1)
}

// leave takes back what enter did, if it did.
func (st *stream) leave() {
	st.server.mu.Lock()
	_, entered := st.server.open[st]
	delete(st.server.open, st)
	st.server.mu.Unlock()
	if entered {
		st.server.counters.open(-1)
	}
}

// upgradeTo connects by a WebSocket.
func (st *stream) upgradeTo(c *call, h handshake) connector {
	return func(running func()) (wire, error) {
		ws, err := upgrade(c, h, running, func() { st.cancel(errGone) })
		if ws == nil {
			return nil, err
		}
		return ws, nil
	}
}

// finish ends the stream in the way that fits why.
func (st *stream) finish() {
	st.mu.Lock()
	struck := st.struck
	st.mu.Unlock()
	switch {
	case struck:
	case errors.Is(context.Cause(st.ctx), errReset):
		defer st.wire.reset() // last, for it may panic
	default:
		st.wire.end(closeNormal)
	}
	st.cancel(errEnded)
	st.release()
	st.wire.close()
	st.leave()
}

// send sends one message and then lets the fault act whose turn it is.
func (st *stream) send(message []byte) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.struck {
		return errStruck
	}
	if err := st.strike(); err != nil {
		return err
	}
	if st.plan.cutBytes > 0 && st.bytes+len(message) >= st.plan.cutBytes {
		return st.cutWithin(message)
	}
	if err := st.put(message); err != nil {
		return err
	}
	st.sent++
	st.bytes += len(message)
	return st.strike()
}

// put sends one message. Called with mu held.
func (st *stream) put(message []byte) error {
	if err := st.wire.send(message); err != nil {
		return err
	}
	return st.wire.flush()
}

// strike lets the faults act whose turn it is. Called with mu held.
func (st *stream) strike() error {
	due := func(s step) bool { return s.after == st.sent }
	steps := st.plan.steps
	st.plan.steps = slices.DeleteFunc(slices.Clone(steps), due)
	for _, s := range steps {
		if due(s) {
			if err := s.do(st.put); err != nil {
				return err
			}
		}
	}
	if st.plan.act == nil || st.sent != st.plan.after {
		return nil
	}
	st.struck = true
	st.plan.act(st.ctx, st.wire)
	st.cancel(errStruck)
	return errStruck
}

// cutWithin sends the part of a message that the fault lets through, and hangs
// up. Called with mu held.
func (st *stream) cutWithin(message []byte) error {
	st.struck = true
	part := message[:st.plan.cutBytes-st.bytes]
	if ws, ok := st.wire.(*webSocket); ok {
		if ws.raw(append(frameHeader(ws.opcode|finBit, uint64(len(message)+1)), part...)) == nil {
			_ = ws.flush() // Hanging up is what follows in any case.
		}
		ws.conn.Close()
	} else if st.wire.raw(part) == nil {
		_ = st.wire.flush() // As above.
	}
	st.cancel(errStruck)
	return errStruck
}

// strikeAtOnce lets the faults act that come before the first message.
func (st *stream) strikeAtOnce() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.strike()
}

// ResetStreams breaks every log, exec, attach and port-forward off with a TCP
// reset, as a crash does.
func (s *Server) ResetStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.open {
		st.cancel(errReset)
	}
}

// protocol chooses the first subprotocol on offer that is accepted and not
// refused by a fault; none is on offer where "" is. False where none fits.
func (p *plan) protocol(r *http.Request, accepted func(string) bool) (chosen string, ok bool) {
	offered := subprotocols(r)
	if len(offered) == 0 {
		offered = []string{""}
	}
	for _, o := range offered {
		if accepted(o) && !slices.Contains(p.refused, o) {
			return o, true
		}
	}
	return "", false
}

// hangUp refuses a handshake whose subprotocols do not fit, as the API
// server's library does.
func hangUp(c *call) error {
	conn, _, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return err
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("HTTP/1.1 403 Forbidden\r\n\r\n")) // If it fails, the client is gone already.
	return nil
}

// podFor is the pod of a request, and the container that it means, if the
// request is about one.
func (s *Server) podFor(c *call, k *Kind) (*revision, error) {
	return s.store.get(k, c.attributes.key(k))
}

// containerOf is the container that a request names, or the only one.
func containerOf(pod *revision, named string) (string, error) {
	names := containerNames(pod.object)
	switch {
	case named == "" && len(names) == 1:
		return names[0], nil
	case named == "" && len(names) == 0:
		return "", badRequest("a container name must be specified for pod %s", pod.name)
	case named == "":
		return "", badRequest("a container name must be specified for pod %s, choose one of: [%s]", pod.name, strings.Join(names, " "))
	case !slices.Contains(names, named):
		return "", invalidContainer(named, pod.name)
	}
	return named, nil
}

func invalidContainer(name, pod string) *Status {
	return badRequest("container %s is not valid for pod %s", name, pod)
}

func containerNames(o Object) (names []string) {
	list, _ := o.at([]string{"spec", "containers"}).([]any)
	for _, v := range list {
		if m, ok := v.(map[string]any); ok {
			names = append(names, Object(m).String("name"))
		}
	}
	return names
}

func isConflict(err error) bool {
	var status *Status
	return errors.As(err, &status) && status.Reason == "Conflict"
}
