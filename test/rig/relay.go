package rig

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
)

// Relay passes TCP on to an address, until it cuts.
type Relay struct {
	lis net.Listener
	wg  sync.WaitGroup

	mu     sync.Mutex
	target string                    // Guarded by mu.
	conns  map[*net.TCPConn]struct{} // Guarded by mu.
	cuts   int                       // Guarded by mu.
	done   bool                      // Guarded by mu.
}

// NewRelay makes a relay to target; it ends with the test.
func NewRelay(tb testing.TB, target string) *Relay {
	tb.Helper()
	var lc net.ListenConfig
	lis, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &Relay{lis: lis, target: target, conns: map[*net.TCPConn]struct{}{}}
	r.wg.Go(r.accept)
	tb.Cleanup(r.close)
	return r
}

// Addr is where the relay listens.
func (r *Relay) Addr() string { return r.lis.Addr().String() }

// Retarget passes what connects from now on to another address.
func (r *Relay) Retarget(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// Cut resets every TCP connection that passes through, at once and in the middle of whatever it carries.
func (r *Relay) Cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cuts++
	for c := range r.conns {
		_ = c.SetLinger(0) // the close is a reset
		_ = c.Close()      // what is gone already needs no cut
	}
}

func (r *Relay) close() {
	_ = r.lis.Close() // its only error is that it is closed
	r.mu.Lock()
	r.done = true
	r.mu.Unlock()
	r.Cut()
	r.wg.Wait()
}

func (r *Relay) accept() {
	for {
		in, err := r.lis.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.pass(in.(*net.TCPConn)) })
	}
}

// add notes a connection; false when the relay has ended.
func (r *Relay) add(c *net.TCPConn) (target string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done {
		return "", false
	}
	r.conns[c] = struct{}{}
	return r.target, true
}

func (r *Relay) remove(c *net.TCPConn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	_ = c.Close() // it may have been cut
}

func (r *Relay) pass(in *net.TCPConn) {
	target, ok := r.add(in)
	if !ok {
		_ = in.Close() // nobody waits for it
		return
	}
	defer r.remove(in)
	var d net.Dialer
	dialled, err := d.DialContext(context.Background(), "tcp", target)
	if err != nil {
		return
	}
	out := dialled.(*net.TCPConn)
	if _, ok := r.add(out); !ok {
		_ = out.Close() // nobody waits for it
		return
	}
	defer r.remove(out)
	var both sync.WaitGroup
	copyTo := func(to, from *net.TCPConn) {
		_, _ = io.Copy(to, from) // ends with either side; the other is told below
		_ = to.CloseWrite()
	}
	both.Go(func() { copyTo(out, in) })
	both.Go(func() { copyTo(in, out) })
	both.Wait()
}
