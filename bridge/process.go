package bridge

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/util/remotecommand"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

const (
	// lingerTime is how long an upstream that has told the status may take to end.
	lingerTime = 5 * time.Second
	// hangUpTime is how long an upstream may take to accept the hang-up; its close frame has another second.
	hangUpTime = time.Second
	// confirmTime is how long a kubelet may take to prove that it is there.
	confirmTime = 10 * time.Second
)

// process is one channel's exec or attach: one upstream, which is never opened again. It is read on run's goroutine and written on another.
// While the client takes nothing, being slow or detached, the upstream is not read, and so the process waits in its write, for as long as the
// channel lives.
type process struct {
	// Immutable after newProcess, from policy on after startExec or startAttach.
	ctx    context.Context // the channel's
	up     Upstream
	ch     Channel
	opts   *Options
	policy sluicev1.DetachPolicy
	text   bool // send what is UTF-8 as text
	path   string
	log    string // the path of the container's log
	query  url.Values
	exits  bool // success tells an exit code
	joins  bool // the process was there before
	streams

	// Immutable after open.
	conn       *websocket.Conn
	halfCloses bool // the subprotocol can end a stream

	// Owned by run's goroutine.
	demux  demux
	linger time.Duration // what is left of lingerTime
}

func newProcess(ctx context.Context, up Upstream, open *sluicev1.Open, ch Channel, opts *Options) *process {
	return &process{ctx: ctx, up: up, ch: ch, opts: opts, policy: open.GetOnDetachExpiry(), text: open.GetText(), linger: lingerTime}
}

// run is the whole life of a process's channel. When it returns nothing of it runs any more.
func (p *process) run() (o Outcome) {
	defer func() {
		e := panicked(recover())
		if e == nil {
			return
		}
		if p.conn != nil {
			p.conn.Close(websocket.CodeGoingAway)
		}
		o = Outcome{Err: e}
	}()
	if err := p.open(); err != nil {
		if p.ctx.Err() != nil {
			err = p.ctx.Err()
		}
		return Outcome{Err: err}
	}
	ctx, end := context.WithCancelCause(p.ctx)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(closed)
		p.leave()
	})
	var input sync.WaitGroup
	input.Go(func() {
		if err := p.write(ctx); err != nil {
			end(err)
		}
	})
	defer func() {
		end(nil)
		<-closed
		input.Wait()
	}()
	return p.conclude(ctx, p.pump(ctx))
}

// open dials the upstream and tells what it can do.
func (p *process) open() error {
	conn, subprotocol, err := p.dial()
	if err != nil {
		return err
	}
	if subprotocol != remotecommand.StreamProtocolV5Name && subprotocol != remotecommand.StreamProtocolV4Name {
		conn.Close(websocket.CodeProtocol)
		return brokenProcess("the API server chose no subprotocol, and without one it does not tell how a process ends")
	}
	p.conn, p.halfCloses = conn, subprotocol == remotecommand.StreamProtocolV5Name
	p.demux.streams = p.streams
	conn.Configure(websocket.Options{FragmentCost: pieceCost})
	conn.Keepalive(p.opts.PingEvery, p.opts.PingTimeout)
	p.ch.Opened(&sluicev1.Opened{
		Subprotocol: subprotocol, Capabilities: &sluicev1.Capabilities{HalfClose: p.halfCloses, Resize: p.tty},
	})
	return nil
}

// dial opens the upstream. A server that refuses an offer as such, which is a refusal without a Status, has started nothing: it is asked again with
// the other offer.
func (p *process) dial() (*websocket.Conn, string, error) {
	first, second := p.offers()
	conn, subprotocol, err := p.up.Dial(p.ctx, p.path, p.query, first...)
	if err == nil {
		return conn, subprotocol, nil
	}
	refusal := status.From(err)
	if refusal.Kubernetes != nil || refusal.HTTPCode != http.StatusForbidden && refusal.HTTPCode != http.StatusBadRequest {
		return nil, "", refusal
	}
	return p.up.Dial(p.ctx, p.path, p.query, second...)
}

// offers are the subprotocols to ask for. API servers before 1.30 pass the offer on to the kubelet, which takes the first that it knows.
//
// Only v5 can end an input, and only a program that reads no terminal needs that: everything else is asked for by v4, for v5 does not tell the
// truth (confirm). An API server translates it to SPDY, and where its connection to the kubelet breaks it takes the end of all streams for theirs and tells
// Success (k8s.io/apiserver/pkg/util/proxy, StreamTranslatorHandler). A WebSocket of v4 it passes on as it is, and there a connection that breaks is
// one that breaks.
//
// Who attaches without an input needs v5 too. A kubelet that is asked by v4 hands the runtime an input that has ended (k8s.io/cri-streaming,
// createWebSocketStreams), and if the container has one, that ends the attachment.
func (p *process) offers() (first, second []string) {
	const v5, v4 = remotecommand.StreamProtocolV5Name, remotecommand.StreamProtocolV4Name
	if p.stdin && !p.tty || p.joins && !p.stdin {
		return []string{v5, v4}, []string{v4}
	}
	return []string{v4}, []string{v5}
}

// confirm makes sure of a success that was told by v5, as far as one can (see offers): the kubelet is asked for one byte of the container's log. One
// that does not answer was lost, and so perhaps was the rest of the output. What the API server answers by itself proves nothing, and is
// believed: a pod that is gone by now, a caller who may not read logs.
func (p *process) confirm(o Outcome) Outcome {
	if !p.halfCloses || o.Err != nil || o.Exit.GetCode() != 0 {
		return o
	}
	ctx, cancel := context.WithTimeout(p.ctx, confirmTime)
	defer cancel()
	q := url.Values{"tailLines": {"1"}, "limitBytes": {"1"}}
	if container := p.query.Get("container"); container != "" {
		q.Set("container", container)
	}
	res, err := p.up.Get(ctx, p.log, q)
	if err == nil {
		_ = res.Body.Close() // what it says is of no interest
		return o
	}
	switch e := status.From(err); {
	case p.ctx.Err() != nil:
		return Outcome{Err: p.ctx.Err()}
	case e.HTTPCode/100 == 4:
		return o
	default:
		return Outcome{Err: status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST,
			"the API server tells success, and the node of the process does not answer; the exit status is unknown").Wrap(e)}
	}
}

// leave ends the upstream because the channel has ended. Kubernetes has no way to send a process a signal: one whose session stayed detached for
// too long is told by its input, unless it is to be left alone. What an upstream's end means to the process is the API server's to say: it ends
// an input that is no terminal. Started when run's context ends; run waits for it.
func (p *process) leave() {
	expired := status.Reason(context.Cause(p.ctx)) == sluicev1.Reason_REASON_DETACH_EXPIRED
	if expired && p.stdin && p.policy != sluicev1.DetachPolicy_DETACH_POLICY_LEAVE {
		stop := p.closeAfter(hangUpTime)
		p.hangUp()
		stop()
	}
	p.conn.Close(websocket.CodeGoingAway)
}

// closeAfter closes the upstream after d. stop prevents that; when it returns nothing of it runs any more.
func (p *process) closeAfter(d time.Duration) (stop func()) {
	closed := make(chan struct{})
	t := time.AfterFunc(d, func() {
		defer close(closed)
		p.conn.Close(websocket.CodeNormal)
	})
	return func() {
		if !t.Stop() {
			<-closed
		}
	}
}

// pump moves what the process says to the client, always within credit, until the upstream or the channel ends. It returns why, never nil.
func (p *process) pump(ctx context.Context) error {
	for {
		part := p.ch.MaxPiece()
		if err := p.ch.AwaitCredit(ctx, part+pieceCost); err != nil {
			return err
		}
		credit := p.ch.Credit()
		if credit < part+pieceCost {
			continue // a budget was cut since
		}
		batch, err := p.read(min(credit, websocket.MaxRead+pieceCost), part)
		if err != nil {
			return &endError{err}
		}
		err = p.deliver(ctx, batch, part)
		batch.Release()
		if err != nil {
			return err
		}
	}
}

// read reads the upstream. One that has told the status has lingerTime to end, in which waiting for the client does not count.
func (p *process) read(limit, part int) (*websocket.Batch, error) {
	if !p.demux.ended() {
		return p.conn.Read(limit, part)
	}
	begin := time.Now()
	stop := p.closeAfter(p.linger)
	batch, err := p.conn.Read(limit, part)
	stop()
	p.linger -= time.Since(begin)
	return batch, err
}

// output collects what a read has brought in as few pieces as it fits into: to a process its messages mean nothing, and each piece is a frame.
type output struct {
	pieces []data.Piece
	rests  [][]byte // of the pieces
	last   int      // length of the last piece
}

// outputs are pooled, so that a process that says nothing keeps none.
var outputs = sync.Pool{New: func() any { return new(output) }}

// add adds a piece no longer than most bytes, which none of the others may exceed either.
func (o *output) add(p data.Piece, most int) {
	n := len(p.Bytes)
	if len(o.pieces) > 0 {
		last := &o.pieces[len(o.pieces)-1]
		if last.Stream == p.Stream && last.Text == p.Text && o.last+n <= most {
			o.rests = append(o.rests, p.Bytes)
			last.Rest = o.rests[len(o.rests)-len(last.Rest)-1:]
			o.last += n
			return
		}
	}
	o.pieces, o.last = append(o.pieces, p), n
}

// reset forgets what was collected.
func (o *output) reset() {
	clear(o.pieces)
	clear(o.rests)
	o.pieces, o.rests = o.pieces[:0], o.rests[:0]
}

// deliver hands over what a read has brought, in pieces of at most part bytes. What came before something that breaks the protocol is delivered.
func (p *process) deliver(ctx context.Context, batch *websocket.Batch, part int) (err error) {
	out := outputs.Get().(*output)
	defer func() {
		out.reset()
		outputs.Put(out)
	}()
	for i := 0; i < len(batch.Fragments) && err == nil; i++ {
		var piece data.Piece
		if piece, err = p.demux.add(batch.Fragments[i]); len(piece.Bytes) > 0 {
			piece.Text = p.text && utf8.Valid(piece.Bytes)
			out.add(piece, part)
		}
	}
	if failed := p.offer(ctx, out.pieces); failed != nil {
		err = failed
	}
	return err
}

// offer hands over pieces. They were read within credit, so that all find it at once unless a budget was cut since.
func (p *process) offer(ctx context.Context, pieces []data.Piece) error {
	for len(pieces) > 0 {
		if n := p.ch.Offer(pieces); n > 0 {
			pieces = pieces[n:]
			continue
		}
		if err := p.ch.AwaitCredit(ctx, pieces[0].Len()+pieceCost); err != nil {
			return err
		}
	}
	return nil
}

// conclude says how the process has ended, given why its upstream is read no further. Only the process's own status tells that, and only if the
// upstream was read to its end: TCP keeps the order, and the API server tells the status when all output is told.
func (p *process) conclude(ctx context.Context, err error) Outcome {
	end, over := errors.AsType[*endError](err)
	switch {
	case over && end.proper() && len(p.demux.status) > 0:
		return p.confirm(outcome(p.up.Cluster(), p.demux.status, p.exits))
	case p.ctx.Err() != nil:
		return Outcome{Err: p.ctx.Err()}
	case ctx.Err() != nil: // the input was what ended it
		return Outcome{Err: context.Cause(ctx)}
	case over && errors.Is(err, net.ErrClosed) && p.demux.ended(): // by closeAfter
		o := p.confirm(outcome(p.up.Cluster(), p.demux.status, p.exits))
		o.Whole = false
		return o
	case over:
		return Outcome{Err: end.lost()}
	}
	return Outcome{Err: err}
}

// endError is the error that an upstream's reading has ended with.
type endError struct{ cause error }

// Error implements error.
func (e *endError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *endError) Unwrap() error { return e.cause }

// proper reports whether the peer has ended the upstream by a close frame, whatever its code, and has ended its messages before.
func (e *endError) proper() bool {
	closed, ok := errors.AsType[*websocket.CloseError](e.cause)
	return ok && !closed.Cut
}

// lost is the status for a process whose end nobody told.
func (e *endError) lost() *status.Error {
	if _, broken := errors.AsType[*websocket.ProtocolError](e.cause); broken {
		return brokenProcess("the upstream broke the protocol of WebSockets; the exit status is unknown").Wrap(e.cause)
	}
	return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST,
		"the upstream ended and did not tell how the process has; the exit status is unknown").Wrap(e.cause)
}
