package ready

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestEverySourceGetsItsBytes: whatever a source answers within its rules, and whenever others wake it, it gets what its peer has sent, byte
// for byte and to the end, and leaves once. A source that leaves early gets a beginning of it.
func TestEverySourceGetsItsBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, err := New(rapid.IntRange(1, 3).Draw(t, "loops"))
		if err != nil {
			t.Fatalf("New: %v", err)
		}
		var others sync.WaitGroup // the peers, and who wakes from outside
		var all []*walker
		for range rapid.IntRange(1, 8).Draw(t, "sources") {
			all = append(all, newWalker(t, &others))
		}
		for _, w := range all {
			w.begin(t, l)
		}
		for _, w := range all {
			receive(t, "Left", w.left)
			shut(t, w.fd)
		}
		others.Wait()
		if n := l.Len(); n != 0 {
			t.Fatalf("%d sources are left", n)
		}
		l.Close()
		for i, w := range all {
			w.check(t, i)
		}
	})
}

// walker is a source that answers by chance what it may.
type walker struct {
	*probe
	others *sync.WaitGroup
	fd     int
	peer   int
	sent   []byte
	chunk  int // what the peer writes at once
	handle atomic.Pointer[Handle]

	// Owned by Step.
	rand    *rand.Rand
	scratch []byte
	got     []byte
	hangup  bool
	early   bool // may leave before the end
	ended   bool // the end was read
}

func newWalker(t *rapid.T, others *sync.WaitGroup) *walker {
	w := &walker{
		others:  others,
		rand:    rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)),
		sent:    make([]byte, rapid.IntRange(0, 200<<10).Draw(t, "bytes")),
		chunk:   rapid.IntRange(1, 64<<10).Draw(t, "chunk"),
		scratch: make([]byte, rapid.SampledFrom([]int{7, 1 << 10, 64 << 10}).Draw(t, "read")),
		early:   rapid.IntRange(0, 4).Draw(t, "early") == 0,
	}
	for i := range w.sent {
		w.sent[i] = byte(w.rand.Uint32())
	}
	if len(w.scratch) == 7 { // keep the number of Steps in bounds
		w.sent = w.sent[:min(len(w.sent), 2<<10)]
	}
	sockets := pair
	if rapid.Bool().Draw(t, "tcp") {
		sockets = tcpPair
	}
	w.fd, w.peer = sockets(t)
	w.probe = newProbe(w.walk)
	return w
}

// begin starts the peer, which ends when all is sent or its socket is shut, and the source.
func (w *walker) begin(t *rapid.T, l *Loops) {
	w.others.Go(func() {
		defer shut(t, w.peer)
		for b := w.sent; len(b) > 0; b = b[min(w.chunk, len(b)):] {
			err := trySend(w.peer, b[:min(w.chunk, len(b))])
			if w.early && (errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)) {
				return // the source has left
			}
			if err != nil {
				t.Errorf("send: %v", err)
				return
			}
		}
	})
	w.handle.Store(add(t, l, w.fd, w))
	w.handle.Load().Wake()
}

// walk reads once and chooses among what may be answered to that.
func (w *walker) walk(hangup bool) Next {
	w.hangup = w.hangup || hangup
	if w.handle.Load() == nil {
		return Pause
	}
	n := read(w.fd, w.scratch)
	w.got = append(w.got, w.scratch[:max(n, 0)]...)
	switch {
	case n == 0:
		w.ended = true
		return Leave
	case w.early && w.rand.IntN(10) == 0:
		return Leave
	case n < 0 || n < len(w.scratch) && !w.hangup:
		return w.choose(Await, Again, Pause)
	}
	return w.choose(Again, Pause)
}

// choose is one of the answers; one that waits is answered by a Wake from here, or from elsewhere, where it has to be.
func (w *walker) choose(answers ...Next) Next {
	next := answers[w.rand.IntN(len(answers))]
	wake := w.handle.Load().Wake
	switch {
	case next == Pause && w.rand.IntN(2) == 0, next == Await && w.rand.IntN(8) == 0:
		w.others.Go(wake)
	case next == Pause:
		wake()
	}
	return next
}

func (w *walker) check(t *rapid.T, i int) {
	t.Helper()
	want := w.sent
	if !w.ended {
		want = want[:min(len(w.got), len(want))]
	}
	if !bytes.Equal(w.got, want) {
		t.Fatalf("source %d got %d bytes that are not the first of the %d sent, ended %v", i, len(w.got), len(w.sent), w.ended)
	}
}
