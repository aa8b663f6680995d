package kubetest

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// Whoever hears that something runs finds it counted, and can break it off: a conn without a buffer keeps the server in the middle of saying so.
func TestWhatRunsIsCountedBeforeItsClientHearsOfIt(t *testing.T) {
	s := serve(t, Options{})
	s.run(Pod{Containers: []Container{{Stdin: true}}, Ports: map[uint16]func(net.Conn){7: func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) }}})
	p := &pipes{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: s.Server, ReadHeaderTimeout: patience}
	served := make(chan error, 1)
	go func() { served <- server.Serve(p) }()
	defer func() {
		s.must(server.Close())
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	const socket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nOrigin: http://x\r\n"
	for name, request := range map[string]string{
		"a watch":                    configMaps + "?watch=1 HTTP/1.1\r\n",
		"a watch by WebSocket":       configMaps + "?watch=1 HTTP/1.1\r\n" + socket,
		"a log":                      podPath("pod", "log") + "?follow=true HTTP/1.1\r\n",
		"a log by WebSocket":         podPath("pod", "log") + "?follow=true HTTP/1.1\r\n" + socket,
		"an exec":                    podPath("pod", "exec") + "?command=cat&stdin=true&stdout=true HTTP/1.1\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n" + socket,
		"an attach":                  podPath("pod", "attach") + "?stdin=true&stdout=true HTTP/1.1\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n" + socket,
		"a port-forward":             podPath("pod", "portforward") + "?ports=7 HTTP/1.1\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n" + socket,
		"a port-forward in a tunnel": podPath("pod", "portforward") + " HTTP/1.1\r\nSec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n" + socket,
	} {
		t.Run(name, func(t *testing.T) {
			s := *s
			s.T = t
			near, far := net.Pipe()
			p.conns <- far
			s.must(near.SetDeadline(time.Now().Add(patience)))
			_, err := io.WriteString(near, "GET "+request+"Host: x\r\n\r\n")
			s.must(err)
			begin := make([]byte, len("HTTP/1.1 x"))
			_, err = io.ReadFull(near, begin)
			s.must(err)
			if n := s.Counts(); n.Live+n.Streams != 1 {
				t.Errorf("of what runs %d watches and %d streams are counted", n.Live, n.Streams)
			}
			s.ResetWatches()
			s.ResetStreams()
			rest, err := io.ReadAll(near)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("it was not broken off")
			}
			if answer := string(begin) + string(rest); !strings.HasPrefix(answer, "HTTP/1.1 101 ") && !strings.HasPrefix(answer, "HTTP/1.1 200 ") {
				t.Errorf("answered with %.200q", answer)
			}
			s.must(near.Close())
			s.await(func(n Counts) bool { return n.Live == 0 && n.Streams == 0 })
		})
	}
}
