package websocket

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
	"golang.org/x/sys/unix"
)

// The times of these tests: TCP asks no more often than every second.
const (
	hostEvery   = 50 * time.Millisecond
	hostTimeout = 500 * time.Millisecond
)

// tcpOf is the TCP connection under a peer's end.
func tcpOf(peer *gorilla.Conn) *net.TCPConn {
	nc := peer.UnderlyingConn()
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	return nc.(*net.TCPConn)
}

// vanish makes the peer's host one that is gone, as far as this connection goes: whatever comes for it is dropped before TCP sees it, and nothing is
// said of that.
func vanish(t testing.TB, peer *net.TCPConn) {
	t.Helper()
	onSocket(t, peer, func(fd int) error {
		drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	})
}

func onSocket(t testing.TB, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := errors.Join(raw.Control(func(fd uintptr) { failed = f(int(fd)) }), failed); err != nil {
		t.Fatal(err)
	}
}

// tcpInfo is what TCP knows of a Conn.
func tcpInfo(t testing.TB, c *Conn) (info *unix.TCPInfo) {
	t.Helper()
	nc := c.nc
	if s, secure := nc.(*secureConn); secure {
		nc = s.link.Conn
	}
	onSocket(t, nc.(*net.TCPConn), func(fd int) (err error) {
		info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		return err
	})
	return info
}

// heldPeer is a peer that reads nothing until it is told to, and a Conn whose silence is watched over.
type heldPeer struct {
	*Conn
	peer   *gorilla.Conn
	read   chan error // how the Read has ended
	wrote  chan error // how writing has
	resume chan struct{}
}

// hold starts one. What has the peer read is said with resume.
func hold(t *testing.T, transport string) *heldPeer {
	h := &heldPeer{read: make(chan error, 1), wrote: make(chan error, 1), resume: make(chan struct{})}
	peers := make(chan *gorilla.Conn, 1)
	over := make(chan struct{})
	h.Conn = start(t, transport, func(peer *gorilla.Conn) {
		peers <- peer
		select {
		case <-h.resume:
		case <-over:
			return
		}
		for {
			if _, _, err := peer.ReadMessage(); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() { close(over) })
	h.peer = <-peers
	h.Keepalive(hostEvery, hostTimeout)
	go func() {
		for {
			b, err := h.Read(MaxRead, MaxRead)
			if err != nil {
				h.read <- err
				return
			}
			b.Release()
		}
	}()
	return h
}

// write writes so much on a goroutine of its own.
func (h *heldPeer) write(n int) {
	go func() { h.wrote <- h.WriteMessage(Binary, make([]byte, n)) }()
}

const moreThanFits = 16 << 20 // of bytes, into both sockets

// situations are what a peer's host may be gone in. Each gets a peer that is there, and makes it vanish.
var situations = map[string]func(*testing.T, *heldPeer){
	"with input on its way": func(t *testing.T, h *heldPeer) {
		vanish(t, tcpOf(h.peer))
		h.write(8)
	},
	"with input that its host has": func(t *testing.T, h *heldPeer) {
		h.write(8)
		await(t, "the ping to be the host's", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			info := tcpInfo(t, h.Conn)
			return h.alive.sent != 0 && info.Unacked == 0 && info.Notsent_bytes == 0
		})
		vanish(t, tcpOf(h.peer))
	},
	"with input that it has no room for": func(t *testing.T, h *heldPeer) {
		h.write(moreThanFits)
		awaitNoRoom(t, h.Conn, 2)
		vanish(t, tcpOf(h.peer))
	},
}

// awaitNoRoom waits until the peer has been asked for room so often, and has had none.
func awaitNoRoom(t *testing.T, c *Conn, questions uint8) {
	t.Helper()
	await(t, "the peer to have no room", func() bool {
		info := tcpInfo(t, c)
		return info.Unacked == 0 && info.Notsent_bytes > 0 && info.Backoff >= questions
	})
}

// TestAHostThatIsGoneIsGivenUp although its silence is ambiguous: nobody knows whether it has read the input.
func TestAHostThatIsGoneIsGivenUp(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp", "tls"} {
		for name, situation := range situations {
			t.Run(transport+"/"+name, func(t *testing.T) {
				t.Parallel()
				h := hold(t, transport)
				situation(t, h)
				select {
				case err := <-h.read:
					var silent *TimeoutError
					if !errors.As(err, &silent) || !silent.Host || silent.After != hostTimeout {
						t.Errorf("it ends with %v", err)
					}
				case <-time.After(patience):
					t.Errorf("it is not given up: %+v", tcpInfo(t, h.Conn))
				}
				h.Close(CodeNormal)
				t.Log("the write that waited: ", <-h.wrote) // it fails, if it had begun
			})
		}
	}
}

// TestAHostWithoutRoomIsLeft for as long as it answers that it has none, however rarely it is asked.
func TestAHostWithoutRoomIsLeft(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			h := hold(t, transport)
			h.write(moreThanFits)
			awaitNoRoom(t, h.Conn, 4) // 3 s, in which an answer is older than the timeout more than once
			select {
			case err := <-h.read:
				t.Fatalf("it is given up: %v", err)
			default:
			}
			close(h.resume)
			if err := <-h.wrote; err != nil {
				t.Errorf("WriteMessage: %v", err)
			}
			h.Close(CodeNormal)
			if err := <-h.read; !errors.Is(err, net.ErrClosed) {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

// TestAHostThatHasTheInputIsLeft: its program waits, and the host answers for it.
func TestAHostThatHasTheInputIsLeft(t *testing.T) {
	t.Parallel()
	h := hold(t, "tcp")
	h.write(8)
	await(t, "keepalive to have asked", func() bool { // by then the first pings were not answered for long
		info := tcpInfo(t, h.Conn)
		return info.Unacked == 0 && info.Last_data_sent > 2500 && info.Last_ack_recv < 1000
	})
	select {
	case err := <-h.read:
		t.Fatalf("it is given up: %v", err)
	default:
	}
	close(h.resume)
	if err := <-h.wrote; err != nil {
		t.Errorf("WriteMessage: %v", err)
	}
	h.Close(CodeNormal)
	if err := <-h.read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("it ends with %v", err)
	}
}
