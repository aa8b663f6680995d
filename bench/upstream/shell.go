package upstream

import (
	"context"
	"encoding/binary"
	"net/http"
	"strings"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/sluice-gateway/sluice/bench/event"
)

// The commands that a shell of the benchmark knows.
const (
	// Echo sends back what it is sent.
	Echo = "echo"
	// Pour sends event.Bytes as fast as they are taken, in messages as long as a kubelet's.
	Pour = "pour"
)

// Shell is the namespace, the pod and the name, in Stop's answer, of the shells: there what was poured is counted in bytes.
const Shell = "shell"

// subprotocols are those of exec that the benchmark speaks. Here they do not differ: no stream ends before its shell.
var subprotocols = []string{"v5.channel.k8s.io", "v4.channel.k8s.io"}

// The channels of the subprotocols that the shells use.
const (
	stdin  = 0
	stdout = 1
)

// poured is how many bytes a message of Pour holds: what a kubelet reads at once.
const poured = 32 << 10

var shells = websocket.Upgrader{
	ReadBufferSize: 64 << 10, WriteBufferSize: 256, CheckOrigin: func(*http.Request) bool { return true }, Subprotocols: subprotocols,
}

// isShell reports whether a request is for a process.
func isShell(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/exec") }

// serveShell runs a command of the benchmark until the peer or the server leaves.
func (s *Server) serveShell(w http.ResponseWriter, r *http.Request) {
	ws, err := shells.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	stop := context.AfterFunc(s.ctx, func() { _ = ws.Close() })
	defer stop()
	defer ws.Close()
	if r.URL.Query().Get("command") == Echo {
		echo(ws)
		return
	}
	s.spout(ws)
}

// echo sends back what comes until the peer leaves.
func echo(ws *websocket.Conn) {
	for {
		_, b, err := ws.ReadMessage()
		if err != nil {
			return
		}
		if len(b) < 2 || b[0] != stdin {
			continue
		}
		b[0] = stdout
		if ws.WriteMessage(websocket.BinaryMessage, b) != nil {
			return
		}
	}
}

// spout pours until the server is stopped or the peer leaves, and returns when the peer has left.
func (s *Server) spout(ws *websocket.Conn) {
	s.begin(Shell)
	gone := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(gone)
		for {
			if _, _, err := ws.NextReader(); err != nil {
				return
			}
		}
	})
	frame := make([]byte, 0, 5+poured) // a header of RFC 6455 section 5.2, the channel, and the bytes
	frame = append(binary.BigEndian.AppendUint16(append(frame, 0x82, 126), poured+1), stdout)
	head := len(frame)
	frame = frame[:head+poured]
	at := uint64(0)
	for !ended(s.stop, gone) {
		copy(frame[head:], event.Bytes(at, poured))
		if _, err := ws.NetConn().Write(frame); err != nil {
			break
		}
		at += poured
	}
	s.end(Shell, at)
	reading.Wait()
}

// ended reports whether one of two channels is closed.
func ended(a, b <-chan struct{}) bool {
	select {
	case <-a:
		return true
	case <-b:
		return true
	default:
		return false
	}
}
