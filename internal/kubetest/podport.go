package kubetest

import (
	"context"
	"fmt"
	"net"
	"sync"
)

// podPort is what listens at a port of a pod: on loopback, at a number of the
// system's choice.
type podPort struct {
	net.Listener

	mu     sync.Mutex
	closed bool                  // Guarded by mu.
	conns  map[net.Conn]struct{} // open ones; Guarded by mu.
}

// listen begins to listen for a pod, until ctx ends.
func (n *node) listen(ctx context.Context, serve func(net.Conn)) (*podPort, error) {
	under, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &podPort{Listener: under, conns: map[net.Conn]struct{}{}}
	if !n.begin(func() { p.accept(n, serve) }) {
		under.Close()
		return nil, unclassified("the server is closed")
	}
	context.AfterFunc(ctx, p.close)
	return p, nil
}

// accept serves connections until the port is closed. The node waits for it.
func (p *podPort) accept(n *node, serve func(net.Conn)) {
	for {
		conn, err := p.Accept()
		if err != nil {
			return
		}
		if !p.keep(conn) || !n.begin(func() { p.serve(conn, serve) }) {
			conn.Close()
		}
	}
}

func (p *podPort) serve(conn net.Conn, serve func(net.Conn)) {
	defer func() {
		p.mu.Lock()
		delete(p.conns, conn)
		p.mu.Unlock()
		conn.Close()
	}()
	serve(conn)
}

func (p *podPort) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

// close stops listening and resets what is open, as the end of a pod does.
func (p *podPort) close() {
	p.mu.Lock()
	p.closed = true
	var open []net.Conn
	for conn := range p.conns {
		open = append(open, conn)
	}
	p.mu.Unlock()
	p.Close()
	for _, conn := range open {
		resetConn(conn)
	}
}

// dial connects to a port of the pod from inside of it.
func (b *sandbox) dial(ctx context.Context, number uint16) (*net.TCPConn, error) {
	port := b.ports[number]
	if port == nil {
		return nil, fmt.Errorf("failed to connect to localhost:%d inside the pod: dial tcp 127.0.0.1:%d: connect: connection refused", number, number)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", port.Addr().String())
	if err != nil {
		return nil, fmt.Errorf("failed to connect to localhost:%d inside the pod: %w", number, err)
	}
	return conn.(*net.TCPConn), nil
}
