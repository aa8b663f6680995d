package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/mux"
)

// stdin carries a process's input from the caller's Reader, which it reads only when there is credit. Its goroutine ends with the input, with
// ctx, or with the channel; stop waits for it, unless a Read cannot be interrupted.
type stdin struct {
	// Immutable after startStdin.
	ch   *mux.Channel
	r    io.Reader
	over chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	reading bool // Guarded by mu.
	stopped bool // Guarded by mu: the Reader is not touched any more
}

// startStdin begins to carry. broken is told what is wrong with r.
func startStdin(ctx context.Context, ch *mux.Channel, r io.Reader, broken func(error)) *stdin {
	in := &stdin{ch: ch, r: r, over: make(chan struct{})}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ch.Context(), cancel)
	go func() {
		defer close(in.over)
		defer cancel()
		defer stop()
		if err := in.carry(ctx); err != nil {
			broken(fmt.Errorf("read stdin: %w", err))
		}
	}()
	return in
}

// carry returns the Reader's error; nil after its end, and when nothing can be sent any more.
func (in *stdin) carry(ctx context.Context) error {
	b, _ := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	out := newSender(in.ch, sluicev1.Stream_STREAM_STDIN)
	for {
		most, err := credited(ctx, in.ch)
		if err != nil {
			return nil // the channel's end, which its reader tells
		}
		n, err := in.read((*b)[:most])
		if _, ended := out.send(ctx, (*b)[:n]); ended != nil {
			return nil // as above
		}
		switch {
		case errors.Is(err, io.EOF):
			in.ch.CloseSend()
			return nil
		case err != nil:
			return err
		}
	}
}

// read is the Reader's Read; the input has ended once stop was called.
func (in *stdin) read(b []byte) (int, error) {
	in.mu.Lock()
	if in.stopped {
		in.mu.Unlock()
		return 0, io.EOF
	}
	in.reading = true
	in.mu.Unlock()
	n, err := in.r.Read(b)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reading = false
	if in.stopped {
		return 0, io.EOF
	}
	return n, err
}

// stop ends the carrying once the channel has ended or was closed. It does not wait for a Read that nothing interrupts.
func (in *stdin) stop() {
	in.mu.Lock()
	in.stopped = true
	reading := in.reading
	in.mu.Unlock()
	if !reading {
		<-in.over
		return
	}
	if d, ok := in.r.(interface{ SetReadDeadline(t time.Time) error }); ok && d.SetReadDeadline(time.Unix(1, 0)) == nil {
		if in.awaitOver() {
			_ = d.SetReadDeadline(time.Time{}) // which has just been possible
		}
		return
	}
	if _, file := in.r.(*os.File); file { // closing one does not interrupt a Read that a deadline does not
		return
	}
	if c, ok := in.r.(io.Closer); ok && c.Close() == nil {
		in.awaitOver()
	}
}

// awaitOver waits for a Read that should be interrupted; for a moment only, since not every Close is one.
func (in *stdin) awaitOver() bool {
	t := time.NewTimer(closeWithin)
	defer t.Stop()
	select {
	case <-in.over:
		return true
	case <-t.C:
		return false
	}
}
