package kube

import (
	"net"
	"sync"
)

// trackedListener knows the connections it accepted and that are still open.
type trackedListener struct {
	net.Listener

	mu sync.Mutex
	// Guarded by mu.
	open map[*trackedConn]struct{}
}

// trackedConn leaves its listener's set when it is closed.
type trackedConn struct {
	*net.TCPConn
	listener *trackedListener
}

// Accept implements net.Listener.
func (l *trackedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tracked := &trackedConn{TCPConn: conn.(*net.TCPConn), listener: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[tracked] = struct{}{}
	return tracked, nil
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c)
	c.listener.mu.Unlock()
	return c.TCPConn.Close()
}

func (l *trackedListener) live() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// cutAll closes everything with a RST: a linger of zero throws away what is
// unsent (tcp(7), SO_LINGER).
func (l *trackedListener) cutAll() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	cut := len(l.open)
	for conn := range l.open {
		_ = conn.SetLinger(0) // fails only on one that is closed
		conn.TCPConn.Close()
	}
	clear(l.open)
	return cut
}
