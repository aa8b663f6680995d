package shell

import (
	"bytes"
	"context"
	"io"
	"sync"
	"unicode/utf8"
)

// Terminal is the line discipline between a keyboard, a screen and the
// programs between them (termios(3), in its usual settings): what is typed is
// echoed, edited by the line and handed over by the line; Ctrl-C and Ctrl-\
// interrupt, Ctrl-D ends the input once; a new line on the screen begins in its
// first column. Its methods are safe for concurrent use.
type Terminal struct {
	screen *Pipe // Immutable.

	mu        sync.Mutex
	width     uint16 // in columns; Guarded by mu.
	height    uint16 // in lines; Guarded by mu.
	raw       bool   // hand over byte by byte, interpret nothing; Guarded by mu.
	silent    bool   // do not echo; Guarded by mu.
	editing   []byte // the line that is being typed; Guarded by mu.
	lines     [][]byte
	queued    int           // bytes in lines; Guarded by mu, as lines are. An empty line is an end of input.
	hungUp    bool          // Guarded by mu.
	interrupt func()        // Guarded by mu.
	changed   chan struct{} // closed and replaced at every change; Guarded by mu.
}

// Bounds of what is typed ahead, in bytes: who types more waits, and a line
// that is longer is cut.
const (
	typedAhead = 64 << 10
	lineLength = 4096
)

// The keys that a terminal acts upon.
const (
	keyInterrupt = 0x03 // Ctrl-C
	keyEOF       = 0x04 // Ctrl-D
	keyBackspace = 0x08 // Ctrl-H
	keyKill      = 0x15 // Ctrl-U
	keyWordErase = 0x17 // Ctrl-W
	keyQuit      = 0x1c // Ctrl-\
	keyErase     = 0x7f
)

// NewTerminal makes a terminal of 80 by 24 that shows what it shows on screen.
func NewTerminal(screen *Pipe) *Terminal {
	return &Terminal{screen: screen, width: 80, height: 24, changed: make(chan struct{})}
}

// Resize changes the size, in characters; 0 by 0 is ignored.
func (t *Terminal) Resize(width, height uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if width > 0 || height > 0 {
		t.width, t.height = width, height
		t.change()
	}
}

// Size is the size in characters.
func (t *Terminal) Size() (width, height uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.width, t.height
}

// AwaitResize waits until the size is another than this one.
func (t *Terminal) AwaitResize(ctx context.Context, width, height uint16) error {
	return t.await(ctx, func() bool { return t.width != width || t.height != height })
}

// await waits until ok, which is called with mu held.
func (t *Terminal) await(ctx context.Context, ok func() bool) error {
	for {
		t.mu.Lock()
		done, changed := ok(), t.changed
		t.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// change wakes who waits. Called with mu held.
func (t *Terminal) change() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// OnInterrupt has f called for Ctrl-C and Ctrl-\ in place of what was called
// before, until restore is called. f must not block.
func (t *Terminal) OnInterrupt(f func()) (restore func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.interrupt
	t.interrupt = f
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.interrupt = before
	}
}

// SetMode switches echo on or off, and the discipline as a whole: raw input is
// handed over as it comes.
func (t *Terminal) SetMode(echo, raw bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.silent, t.raw = !echo, raw
}

// Hangup ends the input for good.
func (t *Terminal) Hangup() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hungUp = true
	t.change()
}

// Type is what the keyboard sends. It waits while too much is typed ahead, and
// fails with the cause of ctx, or with [io.ErrClosedPipe] after Hangup.
func (t *Terminal) Type(ctx context.Context, keys []byte) error {
	for _, key := range keys {
		if err := t.await(ctx, func() bool { return t.queued < typedAhead || t.hungUp }); err != nil {
			return err
		}
		t.mu.Lock()
		closed, interrupt := t.hungUp, t.key(key)
		t.mu.Unlock()
		if closed {
			return io.ErrClosedPipe
		}
		if interrupt != nil {
			interrupt()
		}
	}
	return nil
}

// key takes one key. The result, if any, is to be called without the lock.
// Called with mu held.
func (t *Terminal) key(key byte) (interrupt func()) {
	if t.raw {
		t.handOver([]byte{key})
		return nil
	}
	switch key {
	case keyInterrupt, keyQuit:
		t.editing, t.lines, t.queued = nil, nil, 0
		t.echo([]byte{'^', key ^ 0x40})
		t.change()
		return t.interrupt
	case keyEOF:
		t.handOver(t.editing)
		t.editing = nil
	case keyBackspace, keyErase:
		t.erase(1)
	case keyKill:
		t.erase(utf8.RuneCount(t.editing))
	case keyWordErase:
		t.eraseWord()
	case '\r', '\n':
		t.echo([]byte("\r\n"))
		t.handOver(append(t.editing, '\n'))
		t.editing = nil
	default:
		t.insert(key)
	}
	return nil
}

func (t *Terminal) insert(key byte) {
	if len(t.editing) >= lineLength-1 {
		t.echo([]byte{'\a'})
		return
	}
	t.editing = append(t.editing, key)
	if key < ' ' && key != '\t' {
		t.echo([]byte{'^', key ^ 0x40})
	} else {
		t.echo([]byte{key})
	}
}

// erase takes back the last n characters of the line that is being typed.
func (t *Terminal) erase(n int) {
	for range min(n, utf8.RuneCount(t.editing)) {
		r, size := utf8.DecodeLastRune(t.editing)
		t.editing = t.editing[:len(t.editing)-size]
		t.echo([]byte("\b \b"))
		if r < ' ' {
			t.echo([]byte("\b \b")) // it was shown as two characters
		}
	}
}

func (t *Terminal) eraseWord() {
	word := bytes.TrimRight(t.editing, " ")
	word = word[:bytes.LastIndexByte(word, ' ')+1]
	t.erase(utf8.RuneCount(t.editing[len(word):]))
}

func (t *Terminal) handOver(line []byte) {
	t.lines = append(t.lines, line)
	t.queued += len(line)
	t.change()
}

// echo shows what was typed, unless the screen is full: a program that does
// not read must not keep the keyboard waiting.
func (t *Terminal) echo(b []byte) {
	if !t.silent {
		t.screen.TryWrite(b)
	}
}

// ReadContext reads from the line that was typed first, and waits while there
// is none. It fails with [io.EOF] once for each Ctrl-D at the beginning of a
// line, always after Hangup, and with the cause of ctx.
func (t *Terminal) ReadContext(ctx context.Context, b []byte) (n int, err error) {
	err = t.await(ctx, func() bool {
		if len(t.lines) == 0 {
			return t.hungUp
		}
		n = copy(b, t.lines[0])
		t.queued -= n
		ended := len(t.lines[0]) == 0
		if t.lines[0] = t.lines[0][n:]; len(t.lines[0]) == 0 {
			t.lines = t.lines[1:]
		}
		if !ended {
			t.change()
			return true
		}
		n = -1
		return true
	})
	switch {
	case err != nil:
		return 0, err
	case n <= 0 && len(b) > 0:
		return 0, io.EOF
	}
	return max(n, 0), nil
}

// WriteContext shows b on the screen.
func (t *Terminal) WriteContext(ctx context.Context, b []byte) (int, error) {
	t.mu.Lock()
	raw := t.raw
	t.mu.Unlock()
	shown := b
	if !raw {
		shown = bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n"))
	}
	if _, err := t.screen.WriteContext(ctx, shown); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Read is ReadContext without an end to its patience.
func (t *Terminal) Read(b []byte) (int, error) { return t.ReadContext(context.Background(), b) }

// Write is WriteContext without an end to its patience.
func (t *Terminal) Write(b []byte) (int, error) { return t.WriteContext(context.Background(), b) }
