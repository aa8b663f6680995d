package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// PortForwardRequest says which port of which pod to connect to.
type PortForwardRequest struct {
	// Cluster is the cluster's name; it may be empty when the gateway has one.
	Cluster string
	// Target names the pod and the port.
	Target *sluicev1.PortForwardTarget
	// OnDetachExpiry says nothing of a TCP connection: it ends with the session.
	OnDetachExpiry sluicev1.DetachPolicy
}

// Addr is an end of a [Forward].
type Addr string

// Network implements net.Addr.
func (Addr) Network() string { return "sluice" }

// String implements net.Addr. It is "NAMESPACE/POD:PORT" of the pod's end, and "SESSION/CHANNEL" of the client's.
func (a Addr) String() string { return string(a) }

// Forward is one TCP connection into a pod, as a net.Conn: what passes is acknowledged end to end and survives lost links. Its methods may be
// called concurrently. After the pod's FIN Read returns io.EOF, after its reset an *[Error] with REASON_RESET, and after the loss of the
// session one with REASON_UPSTREAM_LOST; each as the cause of a *net.OpError, but for io.EOF.
type Forward struct {
	// Immutable after Client.PortForward.
	ch            *pinned
	opened        *sluicev1.Opened
	local, remote Addr
	reads, writes *deadline

	readMu sync.Mutex // one event at a time
	ev     mux.Event  // whose Data is being read. Guarded by readMu.
	rest   []byte     // of ev. Guarded by readMu.
	end    error      // what Read returns from now on. Guarded by readMu.
	over   bool       // the gateway has closed the channel. Guarded by readMu.

	writeMu sync.Mutex // one Write at a time
	out     *sender    // Guarded by writeMu.

	mu     sync.Mutex
	closed bool // Guarded by mu.
	shut   bool // CloseWrite was called. Guarded by mu.
}

var (
	_ net.Conn      = (*Forward)(nil)
	_ io.ReaderFrom = (*Forward)(nil)
	_ io.WriterTo   = (*Forward)(nil)
)

// PortForward makes one TCP connection to a port of a pod. It returns when the gateway has one to the pod, or why there is none. A port where
// nobody listens may only be told by the first Read. ctx bounds the making alone. Close the Forward when done.
func (c *Client) PortForward(ctx context.Context, req PortForwardRequest) (*Forward, error) {
	t := req.Target
	ch, opened, err := c.pin(ctx, &sluicev1.Open{
		Cluster: req.Cluster, Target: &sluicev1.Target{Target: &sluicev1.Target_PortForward{PortForward: t}}, OnDetachExpiry: req.OnDetachExpiry,
	}, "the connection was lost", nil)
	if err != nil {
		return nil, err
	}
	return &Forward{
		ch: ch, opened: opened, reads: newDeadline(), writes: newDeadline(), out: newSender(ch.Channel, sluicev1.Stream_STREAM_UNSPECIFIED),
		local:  Addr(fmt.Sprintf("%s/%d", ch.k.ses.ID(), ch.ID())),
		remote: Addr(net.JoinHostPort(t.GetNamespace()+"/"+t.GetPod(), fmt.Sprint(t.GetPort()))),
	}, nil
}

// Opened is what the gateway has said of the connection: without half_close in its capabilities CloseWrite does not reach the pod.
func (f *Forward) Opened() *sluicev1.Opened { return f.opened }

// LocalAddr implements net.Conn.
func (f *Forward) LocalAddr() net.Addr { return f.local }

// RemoteAddr implements net.Conn.
func (f *Forward) RemoteAddr() net.Addr { return f.remote }

// SetDeadline implements net.Conn.
func (f *Forward) SetDeadline(t time.Time) error { return f.setDeadline(t, f.reads, f.writes) }

// SetReadDeadline implements net.Conn.
func (f *Forward) SetReadDeadline(t time.Time) error { return f.setDeadline(t, f.reads) }

// SetWriteDeadline implements net.Conn.
func (f *Forward) SetWriteDeadline(t time.Time) error { return f.setDeadline(t, f.writes) }

func (f *Forward) setDeadline(t time.Time, of ...*deadline) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.opError("set", net.ErrClosed)
	}
	for _, d := range of {
		d.set(t)
	}
	return nil
}

// Read implements net.Conn.
func (f *Forward) Read(b []byte) (int, error) {
	f.readMu.Lock()
	defer f.readMu.Unlock()
	by := f.reads.wait()
	if err := by.Err(); err != nil {
		return 0, f.fault("read", err)
	}
	if len(b) == 0 {
		return 0, nil
	}
	for len(f.rest) == 0 {
		if err := f.receive(by); err != nil {
			return 0, f.fault("read", err)
		}
	}
	n := copy(b, f.rest)
	if f.rest = f.rest[n:]; len(f.rest) == 0 {
		f.ch.Used(&f.ev)
		f.ev.Free()
		f.ev = mux.Event{}
	}
	return n, nil
}

// WriteTo implements io.WriterTo. It writes what arrives as it arrives, without a copy, until the pod's FIN.
func (f *Forward) WriteTo(w io.Writer) (n int64, err error) {
	for {
		b, ev, err := f.take()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, f.fault("read", err)
		}
		k, err := writeAll(w, b)
		n += int64(k)
		if err != nil {
			return n, &copyError{err}
		}
		f.ch.Used(&ev)
		ev.Free()
	}
}

// copyError is an error of what a Forward is copied to or from.
type copyError struct{ err error }

func (e *copyError) Error() string { return e.err.Error() }
func (e *copyError) Unwrap() error { return e.err }

// take gives what has arrived away. Used must be called with its event.
func (f *Forward) take() ([]byte, mux.Event, error) {
	f.readMu.Lock()
	defer f.readMu.Unlock()
	for len(f.rest) == 0 {
		if err := f.receive(f.reads.wait()); err != nil {
			return nil, mux.Event{}, err
		}
	}
	b, ev := f.rest, f.ev
	f.rest, f.ev = nil, mux.Event{}
	return b, ev, nil
}

// receive takes the next event. readMu is held.
func (f *Forward) receive(by until) error {
	if f.end != nil {
		return f.end
	}
	ev, err := f.ch.Next(by)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrDeadlineExceeded) && by.Err() != nil:
		return err
	default:
		f.end = f.lost(err)
		return f.end
	}
	if ev.Kind == mux.EventData && len(ev.Data) > 0 {
		f.ev, f.rest = ev, ev.Data
		return nil
	}
	f.ch.Used(&ev)
	switch m := ev.Message.(type) {
	case *sluicev1.CloseSend:
		f.end = io.EOF
	case *sluicev1.Closed:
		f.over, f.end = true, io.EOF
		if e := status.FromProto(m.GetStatus()); e != nil {
			f.end = e.WithResumable(false)
		}
		f.ch.release()
	}
	return f.end
}

// awaitEnd waits for the end of both directions after the pod's FIN: nil for a good one.
func (f *Forward) awaitEnd() error {
	f.readMu.Lock()
	defer f.readMu.Unlock()
	for !f.over {
		f.end = nil
		if err := f.receive(f.reads.wait()); err != nil && !errors.Is(err, io.EOF) {
			return f.fault("read", err)
		}
	}
	return nil
}

// lost is the error of a connection that has ended without a word about it.
func (f *Forward) lost(err error) error {
	f.ch.release()
	if f.ch.k.c.closed() {
		return errClosed
	}
	return f.ch.gone(err)
}

// Write implements net.Conn. What it has taken is sure to be delivered for as long as the session lives.
func (f *Forward) Write(b []byte) (int, error) {
	f.writeMu.Lock()
	defer f.writeMu.Unlock()
	by, err := f.writable()
	if err != nil {
		return 0, f.fault("write", err)
	}
	n, err := f.out.send(by, b)
	if err != nil {
		return n, f.fault("write", err)
	}
	return n, nil
}

// writable is the deadline of a write, unless there can be none.
func (f *Forward) writable() (until, error) {
	f.mu.Lock()
	shut := f.shut
	f.mu.Unlock()
	by := f.writes.wait()
	switch {
	case by.Err() != nil:
		return by, by.Err()
	case shut:
		return by, io.ErrClosedPipe
	}
	return by, nil
}

// ReadFrom implements io.ReaderFrom. It reads r only when there is credit, until its end.
func (f *Forward) ReadFrom(r io.Reader) (n int64, err error) {
	f.writeMu.Lock()
	defer f.writeMu.Unlock()
	b, _ := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	for {
		by, err := f.writable()
		if err != nil {
			return n, f.fault("write", err)
		}
		most, err := credited(by, f.ch.Channel)
		if err != nil {
			return n, f.fault("write", err)
		}
		k, readErr := r.Read((*b)[:most])
		sent, err := f.out.send(by, (*b)[:k])
		n += int64(sent)
		switch {
		case err != nil:
			return n, f.fault("write", err)
		case errors.Is(readErr, io.EOF):
			return n, nil
		case readErr != nil:
			return n, &copyError{readErr}
		}
	}
}

// CloseWrite sends a FIN: no more is written, and what the pod sends still arrives.
func (f *Forward) CloseWrite() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return f.opError("close", net.ErrClosed)
	}
	f.shut = true
	f.ch.CloseSend()
	return nil
}

// Reset ends the connection at once, as a TCP RST: what is not delivered is dropped at both ends. It is no error to reset what has ended.
func (f *Forward) Reset() {
	if f.close() {
		f.ch.Close("reset by the client")
	}
	f.ch.release()
}

// Close closes the connection as closing a TCP socket does: what was written is still delivered, with a FIN after it, and who has not read all
// that has arrived resets. It does not wait. A pod that sends more, or has not closed its end a minute later, is reset.
func (f *Forward) Close() error {
	if !f.close() {
		return f.opError("close", net.ErrClosed)
	}
	f.readMu.Lock() // for a moment: the deadline has passed
	unread, end := len(f.rest) > 0, f.end
	f.readMu.Unlock()
	switch {
	case unread:
		f.ch.Close("closed with bytes unread")
	case f.ch.Context().Err() == nil:
		f.ch.CloseSend()
		if f.ch.k.c.spawn(func() { f.linger(errors.Is(end, io.EOF)) }) {
			return nil
		}
	}
	f.ch.release()
	return nil
}

// close makes Read and Write fail from now on; false when they did already.
func (f *Forward) close() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.closed, f.shut = true, true
	past := time.Unix(1, 0)
	f.reads.set(past)
	f.writes.set(past)
	return true
}

// lingerFor is how long a closed connection waits for the pod's FIN, as Linux does (tcp_fin_timeout).
const lingerFor = time.Minute

// linger waits for the end of a connection that its user has closed. Started by Close; ends with the channel, or after lingerFor.
func (f *Forward) linger(finished bool) {
	defer f.ch.release()
	ctx, cancel := context.WithTimeout(context.Background(), lingerFor)
	defer cancel()
	for {
		ev, err := f.ch.Next(ctx)
		switch {
		case ctx.Err() != nil:
			f.ch.Close("the pod has not closed its end")
			return
		case err != nil, ev.Kind == mux.EventClosed:
			return
		case ev.Kind == mux.EventData && len(ev.Data) > 0 && !finished:
			f.ch.Close("closed with bytes unread")
			return
		}
		f.ch.Used(&ev)
	}
}

// fault is an error as Read and Write return it.
func (f *Forward) fault(op string, err error) error {
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	switch {
	case closed:
		err = net.ErrClosed
	case errors.Is(err, io.EOF):
		return io.EOF
	case op == "write" && f.ch.Context().Err() != nil:
		err = f.broken()
	}
	return f.opError(op, err)
}

// broken is why nothing can be written to a channel that has ended.
func (f *Forward) broken() error {
	e := status.From(context.Cause(f.ch.Context()))
	if e.Code == codes.Canceled && f.ch.k.c.Err() == nil { // both ends have finished
		return io.ErrClosedPipe
	}
	return f.lost(e)
}

func (f *Forward) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: f.local.Network(), Source: f.local, Addr: f.remote, Err: err}
}
