package link

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"google.golang.org/grpc/credentials"
)

// wire is a connection that notes each Write, and fails when it is told to.
type wire struct {
	net.Conn

	mu     sync.Mutex
	writes []int
	err    error
}

func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	w.writes = append(w.writes, len(b))
	err := w.err
	w.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case w.Conn == nil:
		return len(b), nil
	}
	return w.Conn.Write(b)
}

// since are the writes from the n-th on.
func (w *wire) since(n int) []int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.writes[n:])
}

// secured is a client's and a server's end of TLS, and what lies under each.
func secured(t *testing.T, readBuffer int) (client, server net.Conn, under, over *wire) {
	t.Helper()
	https := httptest.NewTLSServer(nil)
	t.Cleanup(https.Close)
	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type end struct {
		c   net.Conn
		err error
	}
	accepted := make(chan end, 1)
	over = &wire{}
	go func() {
		raw, err := l.Accept()
		if err != nil {
			accepted <- end{nil, err}
			return
		}
		over.Conn = raw
		c, _, err := Credentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, Certificates: https.TLS.Certificates}), readBuffer).ServerHandshake(over)
		accepted <- end{c, err}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	under = &wire{Conn: raw}
	trust := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, ServerName: "example.com"})
	client, _, err = Credentials(trust, readBuffer).Clone().ClientHandshake(context.Background(), "example.com", under)
	got := <-accepted
	if err := errors.Join(err, got.err); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = client.Close(), got.c.Close() })
	return client, got.c, under, over
}

// TestTheRecordsOfAWriteLeaveTogether, and before it returns.
func TestTheRecordsOfAWriteLeaveTogether(t *testing.T) {
	for _, readBuffer := range []int{0, 64 << 10} {
		client, server, under, over := secured(t, readBuffer)
		if _, ok := server.(*conn); !ok {
			t.Fatalf("the server has a %T", server)
		}
		for _, way := range []struct {
			from, to net.Conn
			w        *wire
		}{{client, server, under}, {server, client, over}} {
			for range 20 { // crypto/tls begins with short records
				send(t, way.from, way.to, 16<<10)
			}
			for _, c := range []struct{ n, most int }{{1, 1}, {16 << 10, 1}, {WriteBuffer, 1}, {4 * WriteBuffer, 5}} {
				before := len(way.w.since(0))
				send(t, way.from, way.to, c.n)
				if got := way.w.since(before); len(got) == 0 || len(got) > c.most {
					t.Errorf("%d bytes left in writes of %v, want at most %d", c.n, got, c.most)
				}
			}
		}
	}
}

// send sends n random bytes and checks that they arrive.
func send(t *testing.T, from, to net.Conn, n int) {
	t.Helper()
	sent, got := make([]byte, n), make([]byte, n)
	_, _ = rand.Read(sent)
	failed := make(chan error, 1)
	go func() {
		k, err := from.Write(sent)
		if err == nil && k != n {
			err = io.ErrShortWrite
		}
		failed <- err
	}()
	_, err := io.ReadFull(to, got)
	if err := errors.Join(err, <-failed); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sent, got) {
		t.Fatalf("%d bytes came as others", n)
	}
}

// TestAWriteThatFailsIsTold to who has written, and nothing is written after it: the peer could not read it.
func TestAWriteThatFailsIsTold(t *testing.T) {
	client, _, under, _ := secured(t, 0)
	lost := errors.New("lost")
	under.mu.Lock()
	under.err = lost
	under.mu.Unlock()
	if n, err := client.Write(make([]byte, 20<<10)); n != 0 || !errors.Is(err, lost) {
		t.Errorf("%d bytes were taken: %v", n, err)
	}
	under.mu.Lock()
	under.err = nil
	under.mu.Unlock()
	before := len(under.since(0))
	if _, err := client.Write([]byte("x")); err == nil || len(under.since(before)) > 0 {
		t.Errorf("after an error %v was written: %v", under.since(before), err)
	}
}

// TestNothingFollowsARecordThatWasLost, in a hold or outside of one.
func TestNothingFollowsARecordThatWasLost(t *testing.T) {
	lost := errors.New("lost")
	w := &wire{err: lost}
	r := newRecords(w, 0)
	if _, err := r.Write([]byte("a")); !errors.Is(err, lost) {
		t.Errorf("got %v", err)
	}
	w.err = nil
	r.hold()
	_, err := r.Write([]byte("b"))
	if failed := r.release(); !errors.Is(err, lost) || !errors.Is(failed, lost) || len(w.since(1)) > 0 {
		t.Errorf("after an error %v was written: %v, %v", w.since(1), err, failed)
	}
}

// TestWhatIsWrittenInAHoldKeepsItsOrder, whoever writes it; without one it leaves at once.
func TestWhatIsWrittenInAHoldKeepsItsOrder(t *testing.T) {
	w := &wire{}
	r := newRecords(w, 0)
	write := func(n int) {
		if k, err := r.Write(make([]byte, n)); k != n || err != nil {
			t.Fatalf("%d of %d were written: %v", k, n, err)
		}
	}
	write(1)
	r.hold()
	write(2)
	r.hold() // another Write: crypto/tls takes them one by one, but begins both
	write(3)
	if got := w.since(0); !slices.Equal(got, []int{1}) {
		t.Errorf("writes of %v, want what was written before the hold", got)
	}
	if err := r.release(); err != nil {
		t.Error(err)
	}
	write(4)
	write(recordsOf) // does not fit beside the 4
	write(recordsOf + 1)
	if err := r.release(); err != nil {
		t.Error(err)
	}
	write(6)
	if got, want := w.since(0), []int{1, 5, 4, recordsOf, recordsOf + 1, 6}; !slices.Equal(got, want) {
		t.Errorf("writes of %v, want %v", got, want)
	}
	if r.out != nil {
		t.Error("a buffer is kept by a connection at rest")
	}
}
