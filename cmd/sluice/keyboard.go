package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// keyboard is the standard input of a process far away. It gives nothing before the process has begun: what is refused leaves the input as it
// was. One goroutine calls Read; the rest may be called from any.
type keyboard struct {
	// Immutable after newKeyboard.
	in     io.Reader
	opened chan struct{} // closed by begin
	closed chan struct{} // closed by Close
	escape *escapeKeys   // nil: no keys mean anything here
	onEOF  func()

	begun, ended sync.Once
}

func newKeyboard(in io.Reader) *keyboard {
	return &keyboard{in: in, opened: make(chan struct{}), closed: make(chan struct{}), onEOF: func() {}}
}

// begin lets the input through.
func (k *keyboard) begin() { k.begun.Do(func() { close(k.opened) }) }

// Close ends the input: Read returns [os.ErrClosed], also one that waits. Its error says that one that waits cannot be ended: a terminal that
// other programs share stays blocking, so that Read ends with the process.
func (k *keyboard) Close() error {
	k.ended.Do(func() { close(k.closed) })
	if f, ok := k.in.(*os.File); ok {
		if err := f.SetReadDeadline(time.Now()); err != nil {
			return fmt.Errorf("interrupt the input: %w", err)
		}
	}
	return nil
}

// Read implements io.Reader.
func (k *keyboard) Read(b []byte) (int, error) {
	select {
	case <-k.opened:
	case <-k.closed:
		return 0, os.ErrClosed
	}
	n, err := k.in.Read(b)
	if k.escape != nil {
		k.escape.typed(b[:n])
	}
	switch {
	case errors.Is(err, io.EOF):
		k.onEOF()
	case err != nil:
		select {
		case <-k.closed:
			err = os.ErrClosed
		default:
		}
	}
	return n, err
}

// escapeKeys notices the keys that leave a session whose gateway is lost, ~ and . at the beginning of a line, as ssh has them. While the gateway is
// there they mean nothing: the process has every key.
type escapeKeys struct {
	lost  func() bool
	leave func()

	state escapeState // Owned by typed.
}

type escapeState uint8

const (
	atLineStart escapeState = iota
	afterTilde
	inLine
)

func (e *escapeKeys) typed(keys []byte) {
	for _, key := range keys {
		switch {
		case key == '\r' || key == '\n':
			e.state = atLineStart
		case e.state == atLineStart && key == '~':
			e.state = afterTilde
		case e.state == afterTilde && key == '.' && e.lost():
			e.leave()
			return
		default:
			e.state = inLine
		}
	}
}
