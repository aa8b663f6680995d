package client_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"golang.org/x/net/nettest"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/mux"
)

// A Forward is a net.Conn by the measure that Go holds its own to.
func TestForwardIsANetConn(t *testing.T) {
	pods := make(chan net.Conn, 1)
	_, _, c := relayed(t, mux.Config{}, func(ch *served, _ *sluicev1.Open) { joinPod(ch, <-pods) })
	nettest.TestConn(t, func() (one, other net.Conn, stop func(), err error) {
		pod, other := net.Pipe()
		pods <- pod
		f, err := c.PortForward(t.Context(), client.PortForwardRequest{Target: &sluicev1.PortForwardTarget{Namespace: "n", Pod: "p", Port: 1}})
		if err != nil {
			return nil, nil, nil, err
		}
		return f, other, func() {
			f.Reset()
			_ = other.Close() // as every end of a net.Pipe
		}, nil
	})
}

// joinPod joins a channel with the pod's end of a connection, until both directions or the channel have ended.
func joinPod(ch *served, pod net.Conn) {
	ch.Opened(&sluicev1.Opened{})
	var up sync.WaitGroup
	up.Go(func() {
		defer pod.Close()
		for {
			ev, err := ch.Next(ch.Context())
			if err != nil || ev.Kind == mux.EventCloseSend {
				return
			}
			if _, err := pod.Write(ev.Data); err != nil {
				return
			}
			ch.Used(&ev)
		}
	})
	b := make([]byte, 16<<10)
	for {
		n, err := pod.Read(b)
		if n > 0 && !ch.send(0, "", b[:n]) {
			break
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				ch.CloseSend()
			}
			break
		}
	}
	_ = pod.Close()
	up.Wait()
	ch.Finish(nil, nil, false)
}
