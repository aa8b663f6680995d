//go:build unix

package nowait_test

import (
	"bytes"
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/sluice-gateway/sluice/internal/nowait"
)

// pair is two ends of a socket that do not block.
func pair(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	return fds[0], fds[1]
}

func TestBytesArriveAndNothingIsWaitedFor(t *testing.T) {
	a, b := pair(t)
	defer syscall.Close(a)
	got := make([]byte, 100)
	if n, err := nowait.Read(b, got); n != 0 || !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("of nothing %d bytes were read: %v", n, err)
	}
	if n, err := nowait.Write(a, []byte("some bytes")); n != 10 || err != nil {
		t.Fatalf("%d bytes were written: %v", n, err)
	}
	if n, err := nowait.Read(b, got[:4]); string(got[:n]) != "some" || err != nil {
		t.Errorf("read %q: %v", got[:n], err)
	}
	if n, err := nowait.Read(b, got); string(got[:n]) != " bytes" || err != nil {
		t.Errorf("read %q: %v", got[:n], err)
	}
	if err := syscall.Close(b); err != nil {
		t.Fatal(err)
	}
	if n, err := nowait.Write(a, []byte("x")); n != 0 || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("to nobody %d bytes were written: %v", n, err)
	}
	if n, err := nowait.Read(a, got); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end %d bytes were read: %v", n, err)
	}
}

func TestAFullSocketTakesAPart(t *testing.T) {
	a, b := pair(t)
	defer syscall.Close(a)
	defer syscall.Close(b)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	n, err := nowait.Write(a, sent)
	if n == 0 || n == len(sent) || err != nil {
		t.Fatalf("%d of %d bytes were taken: %v", n, len(sent), err)
	}
	for { // a socket may have room left that it did not take at once
		k, err := nowait.Write(a, sent[n:])
		n += k
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []byte
	for p := make([]byte, 64<<10); ; {
		k, err := nowait.Read(b, p)
		if errors.Is(err, syscall.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p[:k]...)
	}
	if !bytes.Equal(got, sent[:n]) {
		t.Errorf("%d bytes were taken, and %d others came", n, len(got))
	}
}
