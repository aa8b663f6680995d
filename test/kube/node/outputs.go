package main

import (
	"os"
	"sync"
)

// outputs is what a run prints, for its log and for who is attached. A process waits for the slowest of them, as it
// does with a real runtime.
type outputs struct {
	mu sync.Mutex
	// Guarded by mu.
	taps map[*tap]struct{}
}

// tap is what somebody who is attached reads from.
type tap struct {
	chunks chan chunk
	gone   chan struct{} // closed when nobody reads it any more
	once   sync.Once
}

// chunk is some output of one stream.
type chunk struct {
	stream string
	bytes  []byte
}

func newOutputs() *outputs { return &outputs{taps: map[*tap]struct{}{}} }

func (o *outputs) attach() *tap {
	t := &tap{chunks: make(chan chunk), gone: make(chan struct{})}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.taps[t] = struct{}{}
	return t
}

func (o *outputs) detach(t *tap) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.taps, t)
	t.leave()
}

func (t *tap) leave() { t.once.Do(func() { close(t.gone) }) }

// leave gives up on all who are attached.
func (o *outputs) leave() {
	for _, t := range o.attached() {
		o.detach(t)
	}
}

func (o *outputs) attached() []*tap {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make([]*tap, 0, len(o.taps))
	for t := range o.taps {
		all = append(all, t)
	}
	return all
}

// carry brings all of one stream to the log and to who is attached. The end of a terminal reads as an error (EIO).
func (o *outputs) carry(stream string, from *os.File, log *logFile) {
	lines := lineWriter{log: log, stream: stream}
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			lines.write(buffer[:n])
			o.tell(chunk{stream, append([]byte(nil), buffer[:n]...)})
		}
		if err != nil {
			lines.end()
			return
		}
	}
}

func (o *outputs) tell(c chunk) {
	for _, t := range o.attached() {
		select {
		case t.chunks <- c:
		case <-t.gone:
		}
	}
}
