//go:build unix

package link

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// sockets are both ends of a TCP connection, the first of them a socket.
func sockets(t *testing.T) (s *socket, peer *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	near, err := net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr))
	if err != nil {
		t.Fatal(err)
	}
	if peer, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	s, ok := newSocket(near).(*socket)
	if !ok {
		t.Fatal("a TCP connection is no socket")
	}
	t.Cleanup(func() { _, _ = s.Close(), peer.Close() })
	return s, peer
}

// TestASocketWaits for room and for bytes, and brings all of them.
func TestASocketWaits(t *testing.T) {
	s, peer := sockets(t)
	if err := errors.Join(s.SetWriteBuffer(64<<10), s.SetReadBuffer(64<<10), peer.SetWriteBuffer(64<<10), peer.SetReadBuffer(64<<10)); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 4<<20) // more than they hold
	_, _ = rand.Read(sent)
	failed := make(chan error, 2)
	go func() {
		_, err := s.Write(sent)
		failed <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("what was written has not come: %v", err)
	}
	go func() {
		_, err := peer.Write(sent)
		failed <- errors.Join(err, peer.CloseWrite())
	}()
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes were read: %v", len(got), len(sent), err)
	}
	if err := errors.Join(<-failed, <-failed); err != nil {
		t.Error(err)
	}
}

// TestASocketFailsAsTCPDoes: errors are those of package net.
func TestASocketFailsAsTCPDoes(t *testing.T) {
	t.Run("a deadline", func(t *testing.T) {
		s, _ := sockets(t)
		if err := s.SetDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a read fails with %v", err)
		}
		if _, err := s.Write(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write fails with %v", err)
		}
	})
	t.Run("Close in a read", func(t *testing.T) {
		s, peer := sockets(t)
		failed := make(chan error, 1)
		go func() {
			_, err := io.ReadFull(s, make([]byte, 2))
			failed <- err
		}()
		if _, err := peer.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-failed; !errors.Is(err, net.ErrClosed) {
			t.Errorf("a read fails with %v", err)
		}
	})
	t.Run("a reset", func(t *testing.T) {
		s, peer := sockets(t)
		if err := errors.Join(peer.SetLinger(0), peer.Close()); err != nil {
			t.Fatal(err)
		}
		_, err := s.Read(make([]byte, 1))
		var op *net.OpError
		if !errors.Is(err, syscall.ECONNRESET) || !errors.As(err, &op) || op.Op != "read" {
			t.Errorf("a read fails with %v", err)
		}
		_, err = s.Write(make([]byte, 1))
		if !errors.Is(err, syscall.EPIPE) || !errors.As(err, &op) || op.Op != "write" {
			t.Errorf("a write fails with %v", err)
		}
	})
}

// TestAWrapperIsNotPassedBy: it may count, or slow down, what goes through it.
func TestAWrapperIsNotPassedBy(t *testing.T) {
	s, _ := sockets(t)
	type wrapper struct{ *net.TCPConn }
	if c := newSocket(wrapper{s.TCPConn}); c != (wrapper{s.TCPConn}) {
		t.Errorf("a wrapper became a %T", c)
	}
}

// TestASocketAllocatesNothing of its own.
func TestASocketAllocatesNothing(t *testing.T) {
	s, peer := sockets(t)
	b := []byte("some bytes")
	got := make([]byte, len(b))
	if n := testing.AllocsPerRun(100, func() {
		_, err := s.Write(b)
		_, err2 := io.ReadFull(peer, got)
		_, err3 := peer.Write(b)
		_, err4 := io.ReadFull(s, got)
		if err := errors.Join(err, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
