package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
)

// longestLine is how much of a line is held back, in bytes, until the whole of it is there. A kubelet tells lines of any length.
const longestLine = 1 << 20

// lineOutput is an output that several logs share, each line whole. It is safe for concurrent use.
type lineOutput struct {
	mu  sync.Mutex // guards everything below
	w   io.Writer
	err error // the first
}

func newLineOutput(w io.Writer) *lineOutput { return &lineOutput{w: w} }

// lines writes whole lines.
func (o *lineOutput) lines(b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		if _, err := o.w.Write(b); err != nil {
			o.err = fmt.Errorf("print the log: %w", err)
		}
	}
	return o.err
}

// failed is why nothing is printed any more; nil if that is not so.
func (o *lineOutput) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// lineWriter is the part of one log in a [lineOutput]. Its methods are one goroutine's.
type lineWriter struct {
	out    *lineOutput
	prefix string // before each line
	onLong func() // is told of each line that is cut because it is longer than is held back

	rest []byte // the beginning of a line
	line []byte // is used again
}

// Write implements io.Writer: it writes the lines that have ended.
func (l *lineWriter) Write(b []byte) (int, error) {
	end := bytes.LastIndexByte(b, '\n') + 1
	if end > 0 {
		lines := b[:end]
		if len(l.rest) > 0 {
			lines = append(l.rest, lines...)
		}
		if err := l.emit(lines); err != nil {
			return 0, err
		}
		l.rest = l.rest[:0]
	}
	l.rest = append(l.rest, b[end:]...)
	if len(l.rest) > longestLine {
		l.onLong()
		return len(b), l.flush()
	}
	return len(b), nil
}

// flush writes what has begun, as a line of its own.
func (l *lineWriter) flush() error {
	if len(l.rest) == 0 {
		return nil
	}
	err := l.emit(append(l.rest, '\n'))
	l.rest = nil // it may be long
	return err
}

// emit writes whole lines, each with its prefix.
func (l *lineWriter) emit(text []byte) error {
	if l.prefix == "" {
		return l.out.lines(text)
	}
	l.line = l.line[:0]
	for line := range bytes.Lines(text) {
		l.line = append(append(l.line, l.prefix...), line...)
	}
	return l.out.lines(l.line)
}
