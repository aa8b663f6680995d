package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay is a TCP relay between a client and the gateway that resets what passes through it when told to, also in the middle of a message.
// Its goroutines end with their TCP connections; close waits for them.
type relay struct {
	// Immutable after newRelay.
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu    sync.Mutex // guards everything below
	pairs map[*pair]struct{}
	armed bool
	left  int           // bytes to the client that still pass, if armed
	fired chan struct{} // closed when the cut that is armed has happened
	cuts  int           // that reset something
	over  bool          // no more is relayed
}

// pair is a client's TCP connection and its continuation to the gateway.
type pair struct{ client, gateway *net.TCPConn }

func newRelay(t *testing.T, target string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{listener: l, target: target, pairs: map[*pair]struct{}{}}
	r.running.Go(r.accept)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.over = true
		r.mu.Unlock()
		r.cut()
		r.running.Wait()
	})
	return r
}

func (r *relay) addr() string { return r.listener.Addr().String() }

// accept takes clients until the listener is closed.
func (r *relay) accept() {
	for {
		c, err := r.listener.Accept()
		if err != nil {
			return
		}
		g, err := net.Dial("tcp", r.target)
		if err != nil { // the gateway is gone: so is the client's way to it
			reset(c.(*net.TCPConn))
			continue
		}
		p := &pair{client: c.(*net.TCPConn), gateway: g.(*net.TCPConn)}
		if !r.add(p) {
			return
		}
		r.running.Go(func() { r.pump(p, p.gateway, p.client, func(n int) (int, bool) { return n, false }) })
		r.running.Go(func() { r.pump(p, p.client, p.gateway, r.pass) })
	}
}

// add makes a pair one that can be cut, unless it is too late.
func (r *relay) add(p *pair) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		reset(p.client)
		reset(p.gateway)
		return false
	}
	r.pairs[p] = struct{}{}
	return true
}

// pump copies until either end is gone, as much as pass lets through.
func (r *relay) pump(p *pair, to io.Writer, from io.Reader, pass func(int) (int, bool)) {
	defer r.drop(p)
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		n, over := pass(n)
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
		if over {
			r.cut()
			return
		}
	}
}

// pass says how many of n bytes may reach the client, and whether the cut is due after them.
func (r *relay) pass(n int) (allowed int, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.armed || n < r.left {
		r.left -= n
		return n, false
	}
	return r.left, true
}

// cutAfter arms a cut after n more bytes to the client. The channel is closed when it has happened.
func (r *relay) cutAfter(n int) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.armed, r.left, r.fired = true, n, make(chan struct{})
	return r.fired
}

// cut resets everything that is open, now, and reports whether there was anything.
func (r *relay) cut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	some := len(r.pairs) > 0
	for p := range r.pairs {
		reset(p.client)
		reset(p.gateway)
	}
	clear(r.pairs)
	if some {
		r.cuts++
	}
	if r.armed {
		r.armed = false
		close(r.fired)
	}
	return some
}

// drop closes a pair of which one end is gone.
func (r *relay) drop(p *pair) {
	r.mu.Lock()
	delete(r.pairs, p)
	r.mu.Unlock()
	_ = p.client.Close()
	_ = p.gateway.Close()
}

func (r *relay) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cuts
}

// reset closes with a RST: a linger of zero throws away what is unsent (tcp(7), SO_LINGER).
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
