package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// ForwardListener joins each TCP connection that l accepts with one into a pod, until ctx ends or l fails. A FIN is passed on either way and
// the other direction goes on; so is a reset. One that cannot be made, or is lost, is reset and touches no other. onEnd is told how each has
// ended, nil for a good end, by one goroutine at a time; nil for nobody. It must not block.
//
// ForwardListener closes l, resets what is joined when ctx ends, and waits for it. It returns ctx's error, or l's, or why the client has ended,
// after which no connection could be made any more.
func (c *Client) ForwardListener(ctx context.Context, l net.Listener, req PortForwardRequest, onEnd func(remote net.Addr, err error)) error {
	ctx, cancel := context.WithCancel(ctx)
	var tell sync.Mutex
	var joined sync.WaitGroup
	defer joined.Wait()
	defer cancel()
	stop := context.AfterFunc(c.ctx, func() { _ = l.Close() }) // Accept says so
	defer stop()
	joined.Go(func() {
		<-ctx.Done()
		_ = l.Close() // Accept says so
	})
	for {
		local, err := accept(ctx, l)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := c.Err(); err != nil {
				return err
			}
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		joined.Go(func() {
			err := c.join(ctx, local, req)
			if onEnd != nil {
				tell.Lock()
				defer tell.Unlock()
				onEnd(local.RemoteAddr(), err)
			}
		})
	}
}

// acceptAgain is the pause after an Accept that failed for want of something that comes back.
const acceptAgain = 50 * time.Millisecond

// accept is l's next connection. The want of file descriptors, and a caller who has left, are no end of a listener.
func accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	for {
		conn, err := l.Accept()
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ECONNABORTED) {
			return conn, err
		}
		t := time.NewTimer(acceptAgain)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		}
	}
}

// join joins a TCP connection with one into a pod until both have ended, and returns why if that was not by their FINs.
func (c *Client) join(ctx context.Context, local net.Conn, req PortForwardRequest) error {
	f, err := c.PortForward(ctx, req)
	if err != nil {
		reset(local)
		return err
	}
	stop := context.AfterFunc(ctx, func() {
		f.Reset()
		reset(local)
	})
	defer stop()
	var sent error
	var up sync.WaitGroup
	up.Go(func() { sent = carryUp(f, local) })
	received := carryDown(local, f)
	up.Wait()
	f.Reset() // what has ended well is not touched by it
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case sent != nil && !errors.Is(sent, net.ErrClosed): // closed by carryDown, which knows why
		return sent
	}
	return received
}

// carryUp carries what a TCP connection brings into the pod, and returns what was wrong with the TCP connection. It ends with either; what is
// wrong with the way into the pod is told where it is read.
func carryUp(f *Forward, local net.Conn) error {
	_, err := f.ReadFrom(local)
	if broken, ok := errors.AsType[*copyError](err); ok {
		f.Reset()
		return broken.err
	}
	if err == nil {
		_ = f.CloseWrite() // fails for what is closed
	}
	return nil
}

// carryDown carries what the pod sends to a TCP connection, and ends that with the Forward: by a reset unless that has ended well.
func carryDown(local net.Conn, f *Forward) error {
	_, err := f.WriteTo(local)
	if broken, ok := errors.AsType[*copyError](err); ok {
		f.Reset()
		reset(local)
		return broken.err
	}
	if err == nil {
		if half, ok := local.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // who has left already is told by its reading
		}
		err = f.awaitEnd()
	}
	if err != nil {
		reset(local)
		return err
	}
	_ = local.Close() // all was written, and said so
	return nil
}

// reset closes a TCP connection by a RST.
func reset(conn net.Conn) {
	if tcp, ok := conn.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0) // fails for what is closed
	}
	_ = conn.Close() // nothing is waited for
}
