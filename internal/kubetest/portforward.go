package kubetest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/kubetest/shell"
)

// protocolTunnel is SPDY/3.1 inside binary messages (KEP-4006).
const protocolTunnel = "SPDY/3.1+portforward.k8s.io"

// servePortForward serves pods/portforward: the tunnel, and the older
// subprotocol that names its ports in the query.
func (s *Server) servePortForward(c *call, k *Kind) error {
	if err := s.mayCreate(c); err != nil {
		return err
	}
	pod, err := s.podFor(c, k)
	switch {
	case err != nil:
		return err
	case pod.object.String("spec", "nodeName") == "":
		return badRequest("pod %s does not have a host assigned", pod.name)
	case !wantsWebSocket(c.r):
		return badRequest("Upgrade request required")
	}
	f := &forward{stream: s.newStream(c), pod: pod}
	release := context.AfterFunc(s.ctx, func() { f.cancel(errEnded) })
	defer release()
	if protocol, ok := c.plan.protocol(c.r, func(p string) bool { return p == protocolTunnel }); ok {
		return f.serveTunnel(c, protocol)
	}
	return f.serveChannels(c)
}

// forward is one port-forward, of one port or several.
type forward struct {
	*stream

	pod *revision // Immutable.
}

// halfOpen is how long a port-forward goes on in the other direction when the
// pod has ended its own, as containerd does.
const halfOpen = time.Second

// pipe is what a forwarded connection is on the client's side.
type pipe interface {
	// in is what the client sends. Its end is the client's half-close, its
	// failure the client's reset.
	in() *shell.Pipe
	// data sends what the pod says.
	data(b []byte) error
	// end tells the client that the pod says no more.
	end() error
}

// connect forwards between the client and a port of the pod until it is over.
// An error is what the client is told on the error stream.
func (f *forward) connect(number uint16, p pipe) error {
	box := f.server.node.find(f.pod.key(), f.pod.uid)
	if box == nil {
		return f.failed(number, fmt.Errorf("pod %s is not running", f.pod.name))
	}
	conn, err := box.dial(f.ctx, number)
	if err != nil {
		return f.failed(number, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	release := context.AfterFunc(ctx, func() { conn.Close() })
	defer release()
	var upward sync.WaitGroup
	upward.Go(func() {
		switch err := carry(ctx, conn, p.in()); {
		case err == nil:
			_ = conn.CloseWrite() // It fails where the pod has gone, which is noticed below.
		case errors.Is(err, io.ErrClosedPipe):
			resetConn(conn) // the client's reset
		}
	})
	err = f.down(conn, p)
	if err == nil {
		timer := time.AfterFunc(halfOpen, cancel)
		defer timer.Stop()
	} else {
		cancel()
	}
	upward.Wait()
	if err != nil {
		return f.failed(number, err)
	}
	return nil
}

func (f *forward) failed(number uint16, err error) error {
	return fmt.Errorf("error forwarding port %d to pod %s, uid : %w", number, f.pod.path, err)
}

// carry takes what the client sends to the pod.
func carry(ctx context.Context, to net.Conn, from *shell.Pipe) error {
	b := make([]byte, 32<<10)
	for {
		n, err := from.ReadContext(ctx, b)
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// down takes what the pod says to the client, and its end. An error is a reset
// of the pod's; that the client has gone is none.
func (f *forward) down(conn net.Conn, p pipe) error {
	b := make([]byte, 32<<10)
	for {
		n, err := conn.Read(b)
		if n > 0 && p.data(b[:n]) != nil {
			return nil //nolint:nilerr // the client is gone, which is no error of the pod's
		}
		switch {
		case errors.Is(err, io.EOF):
			_ = p.end() // If it fails, the client is gone.
			return nil
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			return err
		}
	}
}

// parsePorts reads the ports of a query. What is no number the API server
// refuses; what is no port, the kubelet.
func parsePorts(q url.Values) (ports []uint16, err error) {
	var numbers []int64
	for _, value := range q["ports"] {
		for p := range strings.SplitSeq(value, ",") {
			n, err := strconv.ParseInt(p, 10, 32)
			if err != nil {
				return nil, badRequest("%v", err)
			}
			numbers = append(numbers, n)
		}
	}
	if len(numbers) == 0 {
		return nil, errors.New(`query parameter "port" is required`)
	}
	for _, n := range numbers {
		switch {
		case n < 0 || n > math.MaxUint16:
			return nil, fmt.Errorf(`unable to parse "%d" as a port`, n)
		case n == 0:
			return nil, errors.New(`port "0" must be > 0`)
		}
		ports = append(ports, uint16(n))
	}
	return ports, nil
}

// serveChannels serves v4.channel.k8s.io: two channels for each port, one of
// data and one for an error. The client cannot half-close.
func (f *forward) serveChannels(c *call) error {
	ports, err := parsePorts(c.r.URL.Query())
	var status *Status
	switch {
	case errors.As(err, &status):
		return err
	case err != nil:
		http.Error(c.w, err.Error(), http.StatusBadRequest)
		return nil
	}
	protocol, ok := c.plan.protocol(c.r, func(p string) bool { return p == protocolV4 || p == "" })
	if !ok {
		return hangUp(c)
	}
	pipes := make([]*channelPipe, len(ports))
	for i := range ports {
		pipes[i] = &channelPipe{f: f, channel: byte(2 * i), input: shell.NewPipe(shell.PipeSize)}
	}
	receive := func(message []byte) bool {
		if len(message) > 0 && message[0]%2 == 0 && int(message[0]/2) < len(pipes) {
			_, _ = pipes[message[0]/2].input.WriteContext(f.ctx, message[1:]) // What nobody reads any more is dropped.
		}
		return true
	}
	if opened, err := f.open(f.upgradeTo(c, handshake{lenient: true, protocol: protocol, binary: true, receive: receive})); !opened {
		return err
	}
	defer f.finish()
	for i, port := range ports {
		for _, channel := range []byte{byte(2 * i), byte(2*i + 1)} {
			if f.send(binary.LittleEndian.AppendUint16([]byte{channel}, port)) != nil {
				return nil // The client is gone, or a fault has struck.
			}
		}
	}
	var all sync.WaitGroup
	for i, port := range ports {
		all.Go(func() {
			if err := f.connect(port, pipes[i]); err != nil {
				_ = f.send(append([]byte{byte(2*i + 1)}, err.Error()...)) // As above.
			}
			pipes[i].input.CloseRead()
		})
	}
	all.Wait()
	return nil
}

// channelPipe is a [pipe] over two channels.
type channelPipe struct {
	f       *forward
	channel byte
	input   *shell.Pipe
}

func (p *channelPipe) in() *shell.Pipe { return p.input }

func (p *channelPipe) data(b []byte) error { return p.f.send(append([]byte{p.channel}, b...)) }

// end says nothing: the subprotocol has no word for it but the end of all.
func (p *channelPipe) end() error {
	p.input.CloseWrite()
	return nil
}
