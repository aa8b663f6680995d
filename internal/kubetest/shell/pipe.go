package shell

import (
	"context"
	"io"
	"sync"
)

// Pipe is a bounded pipe of bytes whose ends can both be waited at with a
// context. Several may read and write at the same time; a write of more than
// the pipe holds may be interleaved with others.
type Pipe struct {
	size int // Immutable.

	mu      sync.Mutex
	data    []byte        // what is held, and before it what was taken already; Guarded by mu.
	taken   int           // of data; Guarded by mu.
	ended   bool          // no more is written; Guarded by mu.
	broken  bool          // nobody reads any more; Guarded by mu.
	changed chan struct{} // closed and replaced at every change; Guarded by mu.
}

// PipeSize is what a pipe of the shell holds, in bytes, as one of Linux does.
const PipeSize = 64 << 10

// NewPipe makes a pipe that holds so many bytes.
func NewPipe(size int) *Pipe { return &Pipe{size: size, changed: make(chan struct{})} }

// ReadContext reads what there is, and waits while there is nothing. It fails
// with [io.EOF] after CloseWrite and what was written before, with
// [io.ErrClosedPipe] after CloseRead, and with the cause of ctx.
func (p *Pipe) ReadContext(ctx context.Context, b []byte) (int, error) {
	for {
		over := ctx.Err() != nil // what has come before that is still read
		p.mu.Lock()
		n, changed, err := p.read(b), p.changed, p.readError()
		p.mu.Unlock()
		switch {
		case n > 0 || len(b) == 0:
			return n, nil
		case err != nil:
			return 0, err
		case over:
			return 0, context.Cause(ctx)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// read takes what fits into b. Called with mu held.
func (p *Pipe) read(b []byte) int {
	if p.broken {
		return 0
	}
	n := copy(b, p.data[p.taken:])
	if n == 0 {
		return 0
	}
	p.taken += n
	if p.taken == len(p.data) {
		p.data, p.taken = p.data[:0], 0
	}
	p.change()
	return n
}

// readError is why nothing can be read ever again. Called with mu held.
func (p *Pipe) readError() error {
	switch {
	case p.broken:
		return io.ErrClosedPipe
	case p.ended:
		return io.EOF
	}
	return nil
}

// WriteContext writes all of b, and waits while the pipe is full. It fails
// with [io.ErrClosedPipe] after either end was closed, and with the cause of
// ctx.
func (p *Pipe) WriteContext(ctx context.Context, b []byte) (written int, err error) {
	for {
		p.mu.Lock()
		closed, changed := p.broken || p.ended, p.changed
		if !closed {
			n := min(len(b)-written, p.room())
			p.append(b[written : written+n])
			written += n
		}
		p.mu.Unlock()
		switch {
		case closed:
			return written, io.ErrClosedPipe
		case written == len(b):
			return written, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return written, context.Cause(ctx)
		}
	}
}

// TryWrite writes as much of b as fits at once; the rest is dropped.
func (p *Pipe) TryWrite(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.broken && !p.ended {
		p.append(b[:min(len(b), p.room())])
	}
}

// room is how much may be added. Called with mu held.
func (p *Pipe) room() int { return p.size - (len(p.data) - p.taken) }

// append adds b. Called with mu held.
func (p *Pipe) append(b []byte) {
	if len(b) == 0 {
		return
	}
	if p.taken > 0 && len(p.data)+len(b) > cap(p.data) { // move rather than grow
		p.data, p.taken = p.data[:copy(p.data, p.data[p.taken:])], 0
	}
	p.data = append(p.data, b...)
	p.change()
}

// change wakes who waits. Called with mu held.
func (p *Pipe) change() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// Read is ReadContext without an end to its patience.
func (p *Pipe) Read(b []byte) (int, error) { return p.ReadContext(context.Background(), b) }

// Write is WriteContext without an end to its patience.
func (p *Pipe) Write(b []byte) (int, error) { return p.WriteContext(context.Background(), b) }

// CloseWrite ends the pipe: who reads gets what was written, and then [io.EOF].
func (p *Pipe) CloseWrite() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.change()
}

// CloseRead breaks the pipe: what it holds is lost, and who writes fails.
func (p *Pipe) CloseRead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken, p.data, p.taken = true, nil, 0
	p.change()
}

type contextReader interface {
	ReadContext(ctx context.Context, b []byte) (int, error)
}

type contextWriter interface {
	WriteContext(ctx context.Context, b []byte) (int, error)
}

// bindReader is r whose reads end with ctx, where r knows how.
func bindReader(ctx context.Context, r io.Reader) io.Reader {
	if c, ok := r.(contextReader); ok {
		return boundReader{ctx, c}
	}
	return r
}

// bindWriter is w whose writes end with ctx, where w knows how.
func bindWriter(ctx context.Context, w io.Writer) io.Writer {
	if c, ok := w.(contextWriter); ok {
		return boundWriter{ctx, c}
	}
	return w
}

type boundReader struct {
	ctx context.Context
	contextReader
}

func (r boundReader) Read(b []byte) (int, error) { return r.ReadContext(r.ctx, b) }

type boundWriter struct {
	ctx context.Context
	contextWriter
}

func (w boundWriter) Write(b []byte) (int, error) { return w.WriteContext(w.ctx, b) }
