package kube

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports come from below the range the kernel draws from for itself
// (ip(7), ip_local_port_range), so that between two runs of the API server on the
// same port nobody else can be given it.
const (
	firstPort = 15000
	lastPort  = 30000
	portTries = 1000
)

// loopbackAddrs returns n different host:port addresses that were free a moment
// ago: it holds each until it has them all.
func loopbackAddrs(n int) ([]string, error) {
	var held []net.Listener
	defer func() {
		for _, listener := range held {
			listener.Close()
		}
	}()
	for range portTries {
		if len(held) == n {
			return addresses(held), nil
		}
		listener, err := net.Listen("tcp", loopback(firstPort+rand.IntN(lastPort-firstPort)))
		if err == nil {
			held = append(held, listener)
		}
	}
	return nil, fmt.Errorf("no %d free ports in [%d, %d) after %d tries", n, firstPort, lastPort, portTries)
}

func addresses(listeners []net.Listener) []string {
	var all []string
	for _, listener := range listeners {
		all = append(all, listener.Addr().String())
	}
	return all
}

func loopback(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
