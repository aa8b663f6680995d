package bridge

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// pieceCost is what a piece takes of a channel's credit beside its payload.
const pieceCost = 64

// Channel is what a bridge needs of a channel; *mux.Channel implements it. A bridge calls it from one goroutine at a time.
type Channel interface {
	// Credit is how many bytes Offer would take now: the sum of payload and 64 bytes a piece. It may be zero or negative.
	Credit() int
	// AwaitCredit returns once Credit is at least n (n at most MaxPiece+64), or when ctx ends, or with the channel's end.
	AwaitCredit(ctx context.Context, n int) error
	// NotifyCredit is AwaitCredit for those who cannot wait: unless Credit is at least n now, f is called once when more has come, or with
	// the channel's end, and told is true. f does not block and may be called at any time from any goroutine.
	NotifyCredit(n int, f func()) (told bool, err error)
	// MaxPiece is the largest payload a piece may have now: 16 KiB, or 64 KiB for large windows. It never shrinks.
	MaxPiece() int
	// Offer takes the leading pieces for which there is credit, copying them, and returns how many. Never blocks.
	Offer(pieces []data.Piece) int
	// Opened, State and CloseSend are sequenced with the pieces. Never block. Nothing is offered after CloseSend.
	Opened(*sluicev1.Opened)
	State(*sluicev1.ChannelState)
	CloseSend()
	// Next waits for what the client sends next. It fails with ctx's error, or with the channel's end. Next and Used are called from one
	// goroutine at a time, which need not be the one that calls the rest.
	Next(ctx context.Context) (data.Input, error)
	// Used says that what the last Next has returned is consumed: the upstream's write has returned.
	Used()
}

// Upstream is one cluster's API server with one principal's credential; *cluster.Upstream implements it. All of it may be called
// concurrently. A failure is a *status.Error: with HTTPCode when the API server answered, and then with its Status if it sent one.
type Upstream interface {
	// Cluster is the cluster's name.
	Cluster() string
	// Identity names the cluster itself, not its address: cursors belong to it.
	Identity() string
	// Sharing names whose view of the cluster this is: of two upstreams of the same Cluster and Sharing, one may answer for the other.
	Sharing() string
	// Dial opens a WebSocket and returns it with the subprotocol that the API server chose. Path is canonical.
	Dial(ctx context.Context, path string, query url.Values, subprotocols ...string) (*websocket.Conn, string, error)
	// Get returns an answer of 2xx, whose body the caller closes; ctx bounds the reading of the body too.
	Get(ctx context.Context, path string, query url.Values) (*http.Response, error)
}

// Outcome is how a bridge has ended.
type Outcome struct {
	// Err is ctx's error when ctx has ended, the error of AwaitCredit when the channel has, a *PanicError, or the *status.Error to close the
	// channel with; nil when the upstream has ended well.
	Err error
	// Whole says that Err is the upstream's own last word, after which it has ended: nothing of it is unread. Without an Err it means nothing.
	Whole bool
	// Exit is how the process ended; nil when the upstream has not told.
	Exit *sluicev1.Exit
}

// Start opens the target of open at the upstream and moves what comes either way, until it cannot go on. It returns when that ends, or before:
// when an upstream was left to the readiness loop of the options. done is called exactly once, possibly before Start returns, and then nothing
// of it runs any more. When ctx ends, its cause tells a process what becomes of it ([sluicev1.DetachPolicy]).
func Start(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options, done func(Outcome)) {
	if err := Validate(open.GetTarget()); err != nil {
		done(Outcome{Err: err})
		return
	}
	switch open.GetTarget().GetTarget().(type) {
	case *sluicev1.Target_Watch:
		startWatch(ctx, up, open, ch, opts, done)
	case *sluicev1.Target_Logs:
		startLogs(ctx, up, open, ch, opts, done)
	case *sluicev1.Target_Exec:
		startExec(ctx, up, open, ch, opts, done)
	case *sluicev1.Target_Attach:
		startAttach(ctx, up, open, ch, opts, done)
	case *sluicev1.Target_PortForward:
		startPortForward(ctx, up, open, ch, opts, done)
	}
}

// Run is Start that returns when all is over, with what done would be called with.
func Run(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options) Outcome {
	over := make(chan Outcome, 1)
	Start(ctx, up, open, ch, opts, func(o Outcome) { over <- o })
	return <-over
}

// PanicError is a panic in a bridge: a bug, that ends one channel.
type PanicError struct {
	Value any
	Stack []byte
}

// Error implements error.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// panicked makes an error of what recover has returned, if that is a panic.
func panicked(r any) error {
	if r == nil {
		return nil
	}
	return &PanicError{Value: r, Stack: debug.Stack()}
}
