//go:build unix

package websocket

import (
	"bytes"
	"crypto/rand"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRecordsAreReadTogether: what TLS asks for one record after the other is read of the socket at once, no more than is wanted, but a record
// however little is; and what TLS has not taken is there at the next try, in no more memory than it needs.
func TestRecordsAreReadTogether(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if err := unix.SetNonblock(fds[1], true); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 4*(maxRecord+seal))
	_, _ = rand.Read(sent)
	if n, err := unix.Write(fds[0], sent); n != len(sent) { // the socket's buffer is larger
		t.Fatalf("%d bytes are in the socket: %v", n, err)
	}
	var got []byte
	l := &link{fd: -1}
	read := func(n int) {
		t.Helper()
		p := make([]byte, n)
		k, err := l.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p[:k]...)
	}
	left := func() int {
		n, _, err := unix.Recvfrom(fds[1], make([]byte, len(sent)+1), unix.MSG_PEEK)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}

	l.begin(fds[1])
	l.want = sealed(1)
	read(maxRecord + seal) // TLS needs a record for a single byte of it
	if len(got) != maxRecord+seal || left() != 3*(maxRecord+seal) {
		t.Errorf("%d bytes were read and %d are left, want one record of four", len(got), left())
	}
	l.want = sealed(2 * maxRecord)
	read(100)
	if left() != maxRecord+seal {
		t.Errorf("%d bytes are left, want the record that is not wanted", left())
	}
	l.end()
	if l.ahead != nil || l.rest.len() != 2*(maxRecord+seal)-100 {
		t.Errorf("%d bytes are kept, want what was not taken", l.rest.len())
	}
	l.begin(fds[1])
	l.want = sealed(MaxRead)
	for len(got) < len(sent) {
		read(maxRecord)
	}
	if _, err := l.Read(make([]byte, 1)); !errors.Is(err, errAgain) {
		t.Errorf("an empty socket: %v", err)
	}
	l.end()
	if l.rest.len() != 0 || l.rest.b != nil {
		t.Error("a connection that waits keeps memory")
	}
	if !bytes.Equal(sent, got) {
		t.Error("other bytes came than were sent")
	}
}
