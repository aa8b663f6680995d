package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/link"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// Client holds a session with a gateway. It is safe for concurrent use. Close it when done.
type Client struct {
	// Immutable after Dial.
	cfg    Config
	ctx    context.Context // ends with Close, or when nothing can be done any more
	cancel context.CancelCauseFunc
	calls  *grpc.ClientConn // of unary calls; links have their own

	carrying sync.WaitGroup // one goroutine for each session

	closeOnce sync.Once
	closeErr  error // Guarded by closeOnce.

	tokenMu sync.Mutex // one caller of Config.Token at a time
	stateMu sync.Mutex // one caller of Config.OnState at a time

	mu      sync.Mutex    // guards everything below
	current *carrier      // whose session new channels are opened in
	swapped chan struct{} // closed when current changes
}

// carrier carries one session. Its goroutine is started by start, ends with the session or the client, and is waited for by Close.
type carrier struct {
	c   *Client
	ses *mux.Session
	old *carrier // whose channels move here with the first Welcome; nil once they have

	welcomed bool   // Owned by the link's reader, then by run: there is one link at a time.
	token    string // Owned by run: the one of the last link.
	moving   bool   // Guarded by Client.mu: another session is on its way.
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
	c.start(c.current)
	return c, nil
}

// maxMessage bounds what is received at once: a batch, or the answer of a unary call.
const maxMessage = 4 << 20

func (c *Client) newConn() (*grpc.ClientConn, error) {
	config := c.cfg.TLS
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	conn, err := grpc.NewClient("passthrough:///"+c.cfg.Address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)), grpc.WithUserAgent(c.cfg.Name))
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", c.cfg.Address, err)
	}
	return conn, nil
}

// Close ends the session with all its channels and waits until nothing of the client runs any more. It may be called more than once.
func (c *Client) Close() error {
	c.cancel(errClosed)
	c.carrying.Wait()
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

func (c *Client) newCarrier(old *carrier) *carrier {
	k := &carrier{c: c, old: old}
	k.ses = mux.NewClient(mux.Config{}, k)
	return k
}

func (c *Client) start(k *carrier) { c.carrying.Go(k.run) }

// session is the one to open channels in.
func (c *Client) session() *mux.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current.ses
}

// swap makes k the carrier of new channels and returns the one before.
func (c *Client) swap(k *carrier) *carrier {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.current
	c.current = k
	close(c.swapped)
	c.swapped = make(chan struct{})
	return before
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

// run makes links until the session has ended.
func (k *carrier) run() {
	defer k.ses.Wait()
	c := k.c
	for attempt := 1; ; attempt++ {
		c.tell(State{Phase: Connecting, Session: k.ses.ID(), Attempt: attempt})
		k.welcomed = false
		err := k.carry()
		if k.welcomed {
			attempt = 0
		}
		switch {
		case c.ctx.Err() != nil:
			k.ses.End(errClosed)
			c.tell(State{Phase: Closed, Session: k.ses.ID(), Err: c.Err()})
			return
		case k.ended() || k.terminal(err):
			k.finish(err)
			return
		}
		k.pause(attempt, err)
	}
}

// ended reports whether the session has, by Goodbye or because its channels moved on.
func (k *carrier) ended() bool {
	select {
	case <-k.ses.Done():
		return true
	default:
		return false
	}
}

// carry makes one link and carries the session over it until it ends.
func (k *carrier) carry() error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(k.c.ctx)) // outlives the client by the time that Goodbye takes
	defer cancel()
	token, err := k.c.token(k.c.ctx)
	if err != nil {
		return err
	}
	k.token = token
	conn, err := k.c.newConn()
	if err != nil {
		return err
	}
	defer conn.Close()
	dialling := context.AfterFunc(k.c.ctx, cancel)
	stream, err := sluicev1.NewGatewayServiceClient(conn).Connect(authorized(ctx, token), grpc.ForceCodecV2(link.NewCodec()))
	if err != nil {
		return fmt.Errorf("connect: %w", status.From(err))
	}
	dialling()
	stop := context.AfterFunc(k.c.ctx, func() { k.ses.End(errClosed) }) // so that the gateway is told
	defer stop()
	err = k.ses.ServeClient(ctx, link.NewStream(stream), k.c.cfg.hello())
	if k.ended() {
		k.leave(stream)
	}
	if err != nil {
		return fmt.Errorf("session: %w", err)
	}
	return nil
}

// leave lets the gateway have the Goodbye: cancelling the call at once would overtake it. A gateway that does not answer is left anyway.
func (k *carrier) leave(stream grpc.ClientStream) {
	if stream.CloseSend() != nil { // the call has ended
		return
	}
	gone := make(chan struct{})
	go func() { // ends with the call, which the caller cancels
		defer close(gone)
		k.ses.Wait()
	}()
	t := time.NewTimer(leaveWithin)
	defer t.Stop()
	select {
	case <-gone:
	case <-t.C:
	}
}

// leaveWithin is how long the gateway may take to answer a Goodbye.
const leaveWithin = time.Second

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

// terminal reports whether another attempt can change nothing.
func (k *carrier) terminal(err error) bool {
	e := status.From(err)
	if e == nil {
		return false
	}
	switch e.Code {
	case codes.Unauthenticated:
		return e.Reason != sluicev1.Reason_REASON_EXPIRED || !k.renewed()
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented, codes.FailedPrecondition:
		return true
	case codes.Aborted:
		return e.Reason == sluicev1.Reason_REASON_SUPERSEDED
	}
	return false
}

// renewed reports whether there is another token than the one that was refused.
func (k *carrier) renewed() bool {
	token, err := k.c.token(k.c.ctx)
	return err == nil && token != k.token
}

// finish follows the session's end: another session takes over, or the client is at its end too.
func (k *carrier) finish(err error) {
	if e := k.ses.Err(); e != nil {
		err = e
	}
	c := k.c
	c.mu.Lock()
	moved := c.current != k
	c.mu.Unlock()
	if moved {
		return
	}
	if k.terminal(err) {
		end := status.From(err)
		c.cancel(end)
		k.ses.End(end)
		c.tell(State{Phase: Closed, Session: k.ses.ID(), Err: end})
		return
	}
	next := c.newCarrier(nil)
	c.swap(next)
	k.ses.End(errMoved)
	k.pause(1, err)
	c.start(next)
}

// errMoved ends the channels of a session whose place another has taken.
var errMoved = status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "the session was replaced by another").WithResumable(true)

// pause waits before the next attempt.
func (k *carrier) pause(attempt int, err error) {
	bound := k.c.cfg.MaxBackoff
	if attempt < 20 {
		bound = min(bound, k.c.cfg.MinBackoff<<attempt)
	}
	wait := rand.N(bound + 1) //nolint:gosec // spreads attempts, guards nothing
	if e := status.From(err); e != nil && e.RetryAfter > wait {
		wait = e.RetryAfter
	}
	k.c.tell(State{Phase: Waiting, Session: k.ses.ID(), Attempt: attempt, Err: err, Next: wait})
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
	case <-k.c.ctx.Done():
	}
}

// Welcomed implements mux.Observer.
func (k *carrier) Welcomed(w *sluicev1.Welcome) {
	k.welcomed = true
	k.c.tell(State{Phase: Connected, Session: w.GetSession(), Resumed: w.GetResumed()})
	if old := k.old; old != nil { // what was open there is opened here
		k.old = nil
		before := k.c.swap(k) // old, or what followed it when it ended before we came
		before.ses.End(errMoved)
		old.ses.End(errMoved)
	}
	if d := w.GetDraining(); d != nil {
		k.Draining(d)
	}
}

// AuthState implements mux.Observer: this version renews by a new session.
func (k *carrier) AuthState(*sluicev1.AuthState) {}

// Draining implements mux.Observer: the next session is made before this one breaks.
func (k *carrier) Draining(d *sluicev1.Drain) {
	c := k.c
	c.mu.Lock()
	first := !k.moving && c.current == k
	k.moving = true
	c.mu.Unlock()
	if !first {
		return
	}
	c.tell(State{Phase: Draining, Session: k.ses.ID(), Next: d.GetReconnectAfter().AsDuration()})
	c.carrying.Go(func() { k.move(d.GetReconnectAfter().AsDuration()) })
}

// move starts the session that takes over, unless this one ends by itself before.
func (k *carrier) move(after time.Duration) {
	t := time.NewTimer(after)
	defer t.Stop()
	select {
	case <-t.C:
		k.c.start(k.c.newCarrier(k))
	case <-k.ses.Done():
	case <-k.c.ctx.Done():
	}
}

// awaitSession waits until channels can be opened again, after one ended with its session.
func (c *Client) awaitSession(ctx context.Context, why *status.Error) error {
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
		case <-ctx.Done():
			if err := c.Err(); err != nil {
				return err
			}
			return why
		}
	}
}
