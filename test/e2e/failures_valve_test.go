package e2e

import (
	"net"
	"sync"
	"testing"
)

// valve is a TCP relay that can stop passing anything, either way, without closing anything: what is behind it accepts and says nothing. Its
// goroutines end with their TCP connections; the test's end waits for them.
type valve struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup

	mu    sync.Mutex
	shut  chan struct{} // Guarded by mu: closed when the valve opens again; nil while it is open.
	conns []net.Conn    // Guarded by mu.
	over  bool          // Guarded by mu.
}

func newValve(t *testing.T, target string) *valve {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v := &valve{listener: l, target: target}
	v.running.Go(v.accept)
	t.Cleanup(func() {
		_ = l.Close() // its only error is that it is closed
		v.mu.Lock()
		v.over = true
		for _, c := range v.conns {
			_ = c.Close() // it may have ended
		}
		v.mu.Unlock()
		v.open()
		v.running.Wait()
	})
	return v
}

func (v *valve) addr() string { return v.listener.Addr().String() }

// close stops everything that passes, and what is to pass.
func (v *valve) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shut == nil {
		v.shut = make(chan struct{})
	}
}

// open lets everything pass again that has come meanwhile.
func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.shut != nil {
		close(v.shut)
		v.shut = nil
	}
}

// await waits until the valve is open.
func (v *valve) await() {
	v.mu.Lock()
	shut := v.shut
	v.mu.Unlock()
	if shut != nil {
		<-shut
	}
}

// accept takes TCP connections until the listener is closed, also while the valve is.
func (v *valve) accept() {
	for {
		in, err := v.listener.Accept()
		if err != nil {
			return
		}
		if v.add(in) {
			v.running.Go(func() { v.pass(in) })
		}
	}
}

// add has a connection closed at the end.
func (v *valve) add(c net.Conn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		_ = c.Close() // nobody waits for it
		return false
	}
	v.conns = append(v.conns, c)
	return true
}

func (v *valve) pass(in net.Conn) {
	defer in.Close()
	v.await()
	out, err := net.Dial("tcp", v.target)
	if err != nil || !v.add(out) {
		return
	}
	defer out.Close()
	var back sync.WaitGroup
	back.Go(func() { v.carry(in, out) })
	v.carry(out, in)
	back.Wait()
}

// carry copies until either end is gone; the other learns it.
func (v *valve) carry(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		v.await()
		if _, werr := to.Write(b[:n]); werr != nil || err != nil {
			return
		}
	}
}
