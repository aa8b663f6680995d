package bridge

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/spdy"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// The subprotocols of a port-forward: SPDY in a WebSocket (KEP-4006, Kubernetes 1.30), and what kubelets have spoken before, which cannot
// say the end of one direction.
const (
	spdyProtocol    = "SPDY/3.1+portforward.k8s.io"
	channelProtocol = "v4.channel.k8s.io"
)

const (
	// replyTimeout is how long the node may take to accept the streams of a forward, as client-go allows it.
	replyTimeout = 30 * time.Second
	// goneGrace is how long a forward goes on when its pod is gone: what was on its way arrives within it.
	goneGrace = time.Second
	// lastWords is how long the node's verdict on a forward is waited for, once both directions have ended, and what has arrived already
	// may take to be read, once nothing can be written any more.
	lastWords = 5 * time.Second
	// resetTime is how long the tunnel may take what resets its streams before it is closed without.
	resetTime = 250 * time.Millisecond
)

// validatePortForward checks the target of a port-forward.
func validatePortForward(t *sluicev1.PortForwardTarget) error {
	if err := validatePod("port_forward", t.GetNamespace(), t.GetPod(), ""); err != nil {
		return err
	}
	if t.GetPort() < 1 || t.GetPort() > 1<<16-1 {
		return invalidField("port_forward.port", "a port is 1 to 65535")
	}
	return nil
}

// forward is one TCP connection to a port of a pod. It has a WebSocket of its own, so that what becomes of it is nothing to any other.
//
// The reader, on run's goroutine, takes what the tunnel brings, within credit: not reading is the back pressure. The writer sends what the
// client brings. Whatever ends the forward from outside the reader ends ctx, and that closes the tunnel under both.
type forward struct {
	// Immutable after newForward.
	channel     context.Context // the channel's
	ctx         context.Context // the forward's, which ends with the channel's or by end
	end         context.CancelCauseFunc
	ch          Channel
	opts        *Options
	conn        *websocket.Conn
	subprotocol string
	tunnel      tunnel
	stands      chan struct{} // closed when the data stream stands

	// Owned by the reader.
	delivery
	reply    *time.Timer // ends a forward whose streams are not accepted
	opened   bool
	received bool   // the pod has ended its direction
	fin      held   // which the client was not told yet
	reset    bool   // the data stream was reset
	judged   bool   // the error stream has ended
	text     []byte // what the error stream has said
	failed   bool   // it has said something, and all that came before it is delivered

	gone    atomic.Pointer[status.Error] // why the pod is no more; nil while it is there
	pings   pings
	running sync.WaitGroup // the writer

	mu     sync.Mutex
	timers []*time.Timer // Guarded by mu: what will end the forward
	quiet  uint8         // Guarded by mu: directions that have ended
	sent   bool          // Guarded by mu: the client's is one of them
	cut    bool          // Guarded by mu: what the client has sent could not be written
	parted bool          // Guarded by mu: the node has ended the connection well, and before the client
}

// Ends of a forward. All but the last are none of an error.
var (
	errSettled = errors.New("both directions have ended")
	errOver    = errors.New("the forward is over")
	errParted  = errors.New("the node has ended the connection before the client")
	errUnheard = status.New(codes.Aborted, sluicev1.Reason_REASON_RESET, "the connection had ended in the pod when this was sent")
)

// startPortForward is Start for a port-forward. It returns when the forward has ended.
func startPortForward(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options, done func(Outcome)) {
	t := open.GetTarget().GetPortForward()
	conn, subprotocol, err := dialForward(ctx, up, t)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		done(Outcome{Err: err})
		return
	}
	f := newForward(ctx, conn, subprotocol, t.GetPort(), ch, opts)
	pods := opts.Pods
	if pods == nil {
		pods = NewPods()
	}
	leave := pods.join(up, opts, t.GetNamespace(), t.GetPod(), f.podGone)
	err = f.run()
	leave()
	if opts.Pods == nil {
		pods.Close()
	}
	done(Outcome{Err: f.outcome(err)})
}

// dialForward opens the WebSocket of a forward. Both subprotocols are offered at once: an API server that tunnels takes the first, and one
// that does not passes the offer on to the kubelet, which takes the second. What is in between and knows only one is asked again.
func dialForward(ctx context.Context, up Upstream, t *sluicev1.PortForwardTarget) (*websocket.Conn, string, error) {
	path := podPath(t.GetNamespace(), t.GetPod(), "portforward")
	query := url.Values{"ports": {strconv.FormatUint(uint64(t.GetPort()), 10)}} // which the tunnel says for itself
	conn, subprotocol, err := up.Dial(ctx, path, query, spdyProtocol, channelProtocol)
	if err != nil && knowsNoTunnel(err) {
		conn, subprotocol, err = up.Dial(ctx, path, query, channelProtocol)
	}
	if err != nil {
		return nil, "", err
	}
	if subprotocol != spdyProtocol && subprotocol != channelProtocol {
		conn.Close(websocket.CodeProtocol)
		return nil, "", status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL,
			"cluster %q speaks none of the subprotocols of a port-forward", up.Cluster())
	}
	return conn, subprotocol, nil
}

// knowsNoTunnel reports whether a refusal may be meant for the subprotocols that were offered: a Kubernetes Status says what else it is.
func knowsNoTunnel(err error) bool {
	e := status.From(err)
	if e.Kubernetes != nil {
		return false
	}
	switch e.HTTPCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusUpgradeRequired, http.StatusNotImplemented:
		return true
	}
	return false
}

func newForward(ctx context.Context, conn *websocket.Conn, subprotocol string, port uint32, ch Channel, opts *Options) *forward {
	f := &forward{channel: ctx, ch: ch, opts: opts, conn: conn, subprotocol: subprotocol, stands: make(chan struct{})}
	f.tunnel = tunnelOf(subprotocol, port)
	f.ctx, f.end = context.WithCancelCause(ctx)
	f.pings.every, f.pings.passed = opts.PingEvery, conn.Passed
	f.pings.write = func(id uint32) (int64, error) { return conn.WriteProbe(websocket.Binary, f.tunnel.ping(nil, id)) }
	conn.Configure(websocket.Options{FragmentCost: pieceCost})
	return f
}

// run moves bytes both ways until the forward has ended, and returns why the reader has. Nothing of it runs afterwards.
func (f *forward) run() error {
	closed := make(chan struct{})
	context.AfterFunc(f.ctx, func() {
		defer close(closed)
		f.hangUp()
	})
	f.conn.Keepalive(f.opts.PingEvery, f.opts.PingTimeout)
	f.reply = f.endAfter(replyTimeout, status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the node does not accept the streams"))
	f.running.Go(f.sendAll)
	err := f.read()
	parted := err == nil && f.part()
	f.fin.tell() // unless it was dropped, nothing has denied it
	if err == nil || f.reset || f.judged {
		f.conn.Close(websocket.CodeNormal) // there is nothing to reset
	}
	if parted {
		f.pings.stop()
		<-f.ctx.Done() // the writer ends it, the channel, or the pod's end
		err = errParted
	}
	f.end(errOver)
	<-closed
	f.running.Wait()
	f.pings.stop()
	return err
}

// hangUp closes the tunnel, after it has told the node that the connection was reset, if the tunnel takes that at once.
func (f *forward) hangUp() {
	closed := make(chan struct{})
	late := time.AfterFunc(resetTime, func() {
		defer close(closed)
		f.conn.Close(websocket.CodeNormal)
	})
	_ = f.write(f.tunnel.reset(nil)) // a courtesy: the end of the tunnel says it as well
	if late.Stop() {
		f.conn.Close(websocket.CodeNormal)
		return
	}
	<-closed
}

// endAfter ends the forward later, unless it has ended by then or the timer is stopped.
func (f *forward) endAfter(d time.Duration, cause error) *time.Timer {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := time.AfterFunc(d, func() { f.end(cause) })
	f.timers = append(f.timers, t)
	return t
}

// directionEnded notes the end of a direction. After both, the node's verdict is waited for a while: usually it is there already.
func (f *forward) directionEnded(clients bool) {
	f.mu.Lock()
	f.quiet++
	f.sent = f.sent || clients
	both, parted := f.quiet == 2, f.parted
	f.mu.Unlock()
	switch {
	case parted && clients:
		f.end(errSettled)
	case both:
		f.endAfter(lastWords, errSettled)
	}
}

// part reports whether the client has not ended its direction, although the node has ended the connection well: containerd does that a second after
// the pod's FIN. To the client the connection is one whose peer hears nothing any more. It may still end its direction, and then nothing is
// lost; what it sends would be, and resets the forward.
func (f *forward) part() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parted = !f.sent
	if f.parted && f.cut {
		f.end(errUnheard)
	}
	return f.parted
}

// unwritable ends a forward to which nothing can be written any more. The reader usually finds out why by itself, and before that reads what the
// pod has said.
func (f *forward) unwritable(err error) {
	f.mu.Lock()
	f.cut = true
	parted := f.parted
	f.mu.Unlock()
	if parted {
		f.end(errUnheard)
		return
	}
	f.endAfter(lastWords, lostTunnel(err))
}

// podGone is told when the pod is no more, by whoever watches it: with why, or with the error that ends the watching. It does not block.
func (f *forward) podGone(err error) {
	e, ok := errors.AsType[*status.Error](err)
	if !ok {
		f.end(err)
		return
	}
	if f.gone.CompareAndSwap(nil, e) {
		f.endAfter(goneGrace, e)
	}
}

// outcome is what the forward has ended with, when its reader has ended with err and nobody will end it any more.
func (f *forward) outcome(err error) error {
	for _, t := range f.timers {
		t.Stop()
	}
	if err == nil {
		return nil
	}
	if cause := context.Cause(f.ctx); !errors.Is(cause, errOver) { // it was ended under the reader
		switch {
		case f.channel.Err() != nil:
			return f.channel.Err()
		case errors.Is(cause, errSettled) && len(f.text) == 0:
			return nil
		case errors.Is(cause, errSettled):
			cause = f.wasReset()
		}
		err = cause
	}
	if e := f.gone.Load(); e != nil {
		if _, ok := errors.AsType[*status.Error](err); ok {
			return e // all else that went wrong follows from that
		}
	}
	return err
}

// lostTunnel is the end of a forward whose tunnel has failed.
func lostTunnel(err error) error {
	reason := sluicev1.Reason_REASON_UPSTREAM_LOST
	_, framing := errors.AsType[*websocket.ProtocolError](err)
	_, streams := errors.AsType[*spdy.Error](err)
	if framing || streams {
		reason = sluicev1.Reason_REASON_UPSTREAM_PROTOCOL
	}
	return status.New(codes.Unavailable, reason, "the tunnel to the pod ended").Wrap(err)
}

// brokenTunnel is the end of a forward whose tunnel brings what none does.
func brokenTunnel(format string, args ...any) error {
	e := status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, format, args...)
	e.Message = "the tunnel to the pod is broken: " + e.Message
	return e
}
