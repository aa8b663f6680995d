package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"syscall"
	"time"
)

const (
	// portAnnotation, with the number of a port of the pod behind it, holds the port of the loopback interface on which
	// a process serves that port.
	portAnnotation = "sluice.test/port-"

	// lingerAnnotation holds a duration: a forwarded connection is closed that long after one direction has ended, and
	// the client's FIN is not passed on. containerd does this after a second. Without it each direction ends for itself.
	lingerAnnotation = "sluice.test/forward-linger"

	dialTimeout = 5 * time.Second
)

// PortForward implements portforward.PortForwarder for a pod: it joins a stream to a TCP connection. An error is told on
// the stream's error stream. As with containerd, the data stream is reset if the connection is refused, while one that
// breaks later looks like its end until the error is told.
func (p *pod) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := p.dial(port)
	if err != nil {
		return fmt.Errorf("failed to execute portforward in network namespace %q: failed to connect to localhost:%d: %w", "host", port, err)
	}
	defer stream.Close()
	defer conn.Close()
	stop := context.AfterFunc(p.ctx, func() { p.endWith(conn) })
	defer stop()
	if err := p.join(conn, stream); err != nil {
		return fmt.Errorf("failed to execute portforward for pod %q port %d: %w", p.object.Metadata.Name, port, err)
	}
	return nil
}

// endWith closes a connection when the pod's containers have ended, if it still is there.
func (p *pod) endWith(conn net.Conn) {
	<-p.gone
	conn.Close()
}

func (p *pod) dial(port int32) (*net.TCPConn, error) {
	served := p.object.Metadata.Annotations[portAnnotation+strconv.Itoa(int(port))]
	if served == "" {
		// Nothing of the host can be reached but what the pod says is its own.
		return nil, &net.OpError{Op: "dial", Net: "tcp4", Addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(port)}, Err: syscall.ECONNREFUSED}
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	conn, err := dialer.Dial("tcp", net.JoinHostPort(loopback, served))
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// join copies both ways to the end of both. An error ends both at once.
func (p *pod) join(conn *net.TCPConn, stream io.ReadWriteCloser) error {
	linger, _ := time.ParseDuration(p.object.Metadata.Annotations[lingerAnnotation]) // zero without it
	ended := make(chan error, 2)
	go func() {
		_, err := io.Copy(stream, conn)
		if err == nil && linger == 0 {
			err = stream.Close() // passes the FIN on
		}
		ended <- err
	}()
	go func() {
		_, err := io.Copy(conn, stream)
		if err == nil && linger == 0 {
			err = conn.CloseWrite()
		}
		ended <- err
	}()
	first := <-ended
	if first != nil {
		return first
	}
	var tooLate <-chan time.Time
	if linger > 0 {
		tooLate = time.After(linger)
	}
	select {
	case second := <-ended:
		if errors.Is(second, net.ErrClosed) || errors.Is(second, syscall.ENOTCONN) {
			return nil // it was closed from both sides
		}
		return second
	case <-tooLate:
		return nil
	}
}
