package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/link"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// Client holds a session with a gateway, and for as long as a gateway takes to go away a second one. It is safe for concurrent use. Close it
// when done.
type Client struct {
	// Immutable after Dial.
	cfg    Config
	ctx    context.Context // ends with Close, or when nothing can be done any more
	cancel context.CancelCauseFunc
	calls  *grpc.ClientConn // of unary calls; links have their own

	running sync.WaitGroup // one goroutine for each session, and those of spawn

	closeOnce sync.Once
	closeErr  error // Guarded by closeOnce.

	tokenMu sync.Mutex // one caller of Config.Token at a time
	stateMu sync.Mutex // one caller of Config.OnState at a time

	mu      sync.Mutex    // guards everything below
	current *carrier      // whose session new channels are opened in
	swapped chan struct{} // closed when current changes
	closing bool          // nothing is started any more
}

var errClosed = status.New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "the client is closed")

// Dial makes a client. It does not wait: the client connects by itself, and says through Config.OnState how it goes.
func Dial(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c := &Client{cfg: cfg, swapped: make(chan struct{})}
	calls, err := c.newConn()
	if err != nil {
		return nil, err
	}
	c.calls = calls
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.current = c.newCarrier(nil)
	c.spawn(c.current.run)
	return c, nil
}

// maxMessage bounds what is received at once: a batch, or the answer of a unary call.
const maxMessage = 4 << 20

// The windows of HTTP/2. What a session receives is bounded by its channels' own windows, and its link is read without a pause: these are
// only to be so large that they never hold up, and of a fixed size, since grpc-go's estimate of the right one costs a ping with every read.
const (
	streamWindow = 4 << 20
	connWindow   = 8 << 20
)

// readBuffer is how much is read of a connection at once, in bytes.
const readBuffer = 64 << 10

func (c *Client) newConn() (*grpc.ClientConn, error) {
	config := c.cfg.TLS
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	conn, err := grpc.NewClient("passthrough:///"+c.cfg.Address,
		grpc.WithTransportCredentials(link.Credentials(credentials.NewTLS(config), readBuffer)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)), grpc.WithUserAgent(c.cfg.Name),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithWriteBufferSize(link.WriteBuffer))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", c.cfg.Address, err)
	}
	return conn, nil
}

// Close ends all sessions with all their channels and waits until nothing of the client runs any more. It may be called more than once.
func (c *Client) Close() error {
	c.cancel(errClosed)
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.running.Wait()
	c.closeOnce.Do(func() { c.closeErr = c.calls.Close() })
	if c.closeErr != nil {
		return fmt.Errorf("close: %w", c.closeErr)
	}
	return nil
}

// Done is closed when the client is at its end: closed, or refused in a way that another attempt does not change. Err says why.
func (c *Client) Done() <-chan struct{} { return c.ctx.Done() }

// Err is why the client is at its end; nil while it is not.
func (c *Client) Err() error { return context.Cause(c.ctx) }

// closed reports whether the client was closed, rather than refused.
func (c *Client) closed() bool { return errors.Is(c.Err(), errClosed) }

// open opens a channel in the current session, whose carrier k is. It fails when that has just ended, and if tooLong. A pinned channel stays in its session when another takes over, and keeps that session alive until
// it is given to unpin.
func (c *Client) open(o *sluicev1.Open, sink mux.Sink, pinned bool) (k *carrier, ch *mux.Channel, err error) {
	c.mu.Lock() // no other session takes over before the channel is known
	defer c.mu.Unlock()
	k = c.current
	ch, err = k.ses.Open(o, sink)
	if err == nil && pinned {
		k.pinned[ch] = struct{}{}
	}
	return k, ch, err
}

// tooLong reports whether err is of an Open that no frame has room for, in whatever session.
func tooLong(err error) bool {
	e := status.From(err)
	return !e.FromPeer && e.Reason == sluicev1.Reason_REASON_INVALID_TARGET
}

// session is the one to open channels in.
func (c *Client) session() *mux.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.ses
}

func (c *Client) isCurrent(k *carrier) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current == k
}

// swap makes k the carrier of new channels and returns the one before.
func (c *Client) swap(k *carrier) *carrier {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.swapLocked(k)
}

// swapLocked is swap. mu is held.
func (c *Client) swapLocked(k *carrier) *carrier {
	before := c.current
	c.current = k
	close(c.swapped)
	c.swapped = make(chan struct{})
	return before
}

// replace makes next the carrier of new channels in the place of k, unless another has taken it.
func (c *Client) replace(k, next *carrier) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != k {
		return false
	}
	c.swapLocked(next)
	return true
}

// spawn runs f on a goroutine that Close waits for; false when the client is closed.
func (c *Client) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.running.Go(f)
	return true
}

// changed is closed when another carrier takes over.
func (c *Client) changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.swapped
}

func (c *Client) tell(s State) {
	if c.cfg.OnState == nil {
		return
	}
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	c.cfg.OnState(s)
}

func (c *Client) token(ctx context.Context) (string, error) {
	c.tokenMu.Lock()
	defer c.tokenMu.Unlock()
	token, err := c.cfg.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("get a token: %w", err)
	}
	return token, nil
}

func authorized(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// awaitSession waits until channels can be opened again, after one ended with its session.
func (c *Client) awaitSession(ctx context.Context) error {
	ses := c.session()
	select {
	case <-ses.Done():
	default:
		return nil
	}
	// The session's carrier is about to put another in its place, or to give up.
	for {
		changed := c.changed()
		if c.session() != ses {
			return nil
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return c.Err()
		case <-ctx.Done():
			if err := c.Err(); err != nil {
				return err
			}
			return ctx.Err()
		}
	}
}
