package kubetest

import (
	"bytes"
	"slices"
	"sync"
	"time"
)

// logRecord is a line of a container's log with the newline, or a piece of
// a line that was too long. Immutable.
type logRecord struct {
	at   time.Time
	data []byte
}

// logPiece is how long a line may be, in bytes, before a container runtime
// cuts it in pieces, as containerd does.
const logPiece = 16 << 10

// logFile is the log of one run of a container. Safe for concurrent use.
type logFile struct {
	limit int // of what is kept, in bytes; Immutable.

	mu      sync.Mutex
	records []logRecord       // Guarded by mu.
	first   int               // the number of records[0]; Guarded by mu.
	current int               // the first record that the file still has: those before were rotated away; Guarded by mu.
	bytes   int               // of records; Guarded by mu.
	begun   map[string][]byte // lines without an end yet, by stream; Guarded by mu.
	ended   bool              // Guarded by mu.
	changed chan struct{}     // closed and replaced at every change; Guarded by mu.
}

func newLogFile(limit int) *logFile {
	return &logFile{limit: limit, begun: map[string][]byte{}, changed: make(chan struct{})}
}

// write adds what a stream of the container says. A line is seen once it ends.
func (l *logFile) write(stream string, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	line := slices.Concat(l.begun[stream], data)
	for len(line) > 0 {
		end := bytes.IndexByte(line, '\n') + 1
		if end == 0 || end > logPiece {
			end = logPiece
		}
		if len(line) < end {
			break
		}
		l.add(line[:end])
		line = line[end:]
	}
	l.begun[stream] = bytes.Clone(line)
	l.trim()
	l.change()
}

// add adds a record. Called with mu held.
func (l *logFile) add(data []byte) {
	l.records = append(l.records, logRecord{time.Now(), bytes.Clone(data)})
	l.bytes += len(data)
}

// trim rotates a log away that has become too long, and forgets what was
// rotated before. Called with mu held.
func (l *logFile) trim() {
	if l.bytes <= l.limit {
		return
	}
	for l.bytes > l.limit/2 && len(l.records) > 1 {
		l.bytes -= len(l.records[0].data)
		l.records[0] = logRecord{}
		l.records = l.records[1:]
		l.first++
	}
	l.current = max(l.current, l.first)
}

// end ends the log: the container runs no more. A line without an end gets one.
func (l *logFile) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, stream := range []string{stdout, stderr} {
		if line := l.begun[stream]; len(line) > 0 {
			l.add(append(line, '\n'))
		}
	}
	l.begun = nil
	l.ended = true
	l.change()
}

// rotate begins a new file: who reads from now on does not see what there is,
// who is reading already does.
func (l *logFile) rotate() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = l.first + len(l.records)
}

// change wakes who waits. Called with mu held.
func (l *logFile) change() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// start is the number of the record where reading begins: the last so many
// ones, or all if tail is negative.
func (l *logFile) start(tail int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := l.first + len(l.records)
	if tail < 0 {
		return l.current
	}
	return max(l.current, end-tail)
}

// from returns the records from a number on, the number that follows them,
// what is closed when there are more, and whether there never will be.
func (l *logFile) from(number int) (records []logRecord, next int, changed <-chan struct{}, ended bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	number = max(number, l.first)
	records = l.records[number-l.first : len(l.records) : len(l.records)]
	return records, number + len(records), l.changed, l.ended
}
