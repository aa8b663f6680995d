package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// maxLogLine is the content of a longest line in a log file, containerd's default; a longer line is cut into parts.
	maxLogLine = 16 << 10

	// rotatedSuffix is the time put behind the name of a log file that is no longer written (the kubelet's).
	rotatedSuffix = "20060102-150405"
)

// logFile is the log of one run of a container in the format of CRI: each line is a time, a stream, F (full) or P (the
// line goes on in the next one of this stream), and content. It is written by two goroutines and read by any number.
type logFile struct {
	path string // immutable

	mu sync.Mutex
	// Guarded by mu.
	file    *os.File      // the current part, to write
	current *logPart      // what that is to readers
	changed chan struct{} // closed at the next change of any of this
	ended   bool          // the run has ended, nothing is written any more
	err     error         // the first failure to write
}

// logPart is one file of a log that may have been rotated. It is guarded by the log's mu.
type logPart struct {
	path string
	next *logPart // what was begun when this one was rotated
}

func createLogFile(path string) (*logFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	l := &logFile{path: path, current: &logPart{path: path}, changed: make(chan struct{})}
	if err := l.open(); err != nil {
		return nil, err
	}
	return l, nil
}

// endedLog is the log of a run that ended before this process was started.
func endedLog(path string) *logFile {
	return &logFile{path: path, current: &logPart{path: path}, changed: make(chan struct{}), ended: true}
}

func (l *logFile) open() (err error) {
	l.file, err = os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	return err
}

// wake tells readers of a change. The caller holds mu.
func (l *logFile) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// append writes whole lines.
func (l *logFile) append(lines []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := l.file.Write(lines); err != nil && l.err == nil {
		l.err = err
	}
	l.wake()
}

// end closes the file and returns the first error there was.
func (l *logFile) end() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.wake()
	return errors.Join(l.err, l.file.Close())
}

// rotate renames the file and begins another under its name, as the kubelet does when one has grown too large: who
// follows goes on in the new one, who asks later sees only that.
func (l *logFile) rotate() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return errors.New("the container does not run")
	}
	renamed := l.path + "." + time.Now().Format(rotatedSuffix)
	for n := 1; exists(renamed); n++ { // a kubelet does not rotate twice in a second
		renamed = fmt.Sprintf("%s.%s.%d", l.path, time.Now().Format(rotatedSuffix), n)
	}
	if err := os.Rename(l.path, renamed); err != nil {
		return err
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	next := &logPart{path: l.path}
	l.current.path, l.current.next, l.current = renamed, next, next
	l.wake()
	return old.Close()
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// begin opens the current part to read.
func (l *logFile) begin() (*logPart, *os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.Open(l.current.path)
	return l.current, file, err
}

// follow opens the part after another, which was rotated.
func (l *logFile) follow(part *logPart) (*logPart, *os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	file, err := os.Open(part.next.path)
	return part.next, file, err
}

// logState is what a reader of a part must know before it reads to the end of that: all that was written by then is
// there, and if it goes on elsewhere or has ended, no more will be.
type logState struct {
	changed <-chan struct{}
	rotated bool
	ended   bool
}

func (l *logFile) state(part *logPart) logState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return logState{l.changed, part.next != nil, l.ended}
}

// lineWriter writes what one stream of a container prints to its log, cutting it into lines as containerd does. It is
// owned by the goroutine that reads the stream.
type lineWriter struct {
	log    *logFile
	stream string
	line   []byte // what came of the line under way
	lines  []byte // to be written
}

// write takes the next bytes of the stream.
func (w *lineWriter) write(p []byte) {
	w.lines = w.lines[:0]
	for {
		at := bytes.IndexByte(p, '\n')
		if at < 0 {
			break
		}
		w.grow(p[:at])
		w.put("F", w.line)
		w.line, p = w.line[:0], p[at+1:]
	}
	w.grow(p)
	if len(w.lines) > 0 {
		w.log.append(w.lines)
	}
}

// grow adds to the line under way and puts what is more than the longest.
func (w *lineWriter) grow(p []byte) {
	w.line = append(w.line, p...)
	for len(w.line) > maxLogLine {
		w.put("P", w.line[:maxLogLine])
		w.line = append(w.line[:0], w.line[maxLogLine:]...)
	}
}

func (w *lineWriter) put(tag string, content []byte) {
	w.lines = fmt.Appendf(w.lines, "%s %s %s %s\n", time.Now().Format(time.RFC3339Nano), w.stream, tag, content)
}

// end writes a last line that the stream did not end.
func (w *lineWriter) end() {
	if len(w.line) > 0 {
		w.lines = w.lines[:0]
		w.put("P", w.line)
		w.log.append(w.lines)
	}
}
