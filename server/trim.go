package server

import (
	"runtime/debug"
	"sync"
	"time"
)

// trim gives memory back to the system after a burst of dials. A TLS handshake leaves several times the garbage of what its watch then holds,
// and a process whose watches are quiet allocates nothing, so that no collection would ever come. It is safe for concurrent use.
type trim struct {
	// Immutable after newTrim.
	free func()

	mu      sync.Mutex
	dials   int         // Guarded by mu. Since the last time.
	timer   *time.Timer // Guarded by mu. nil while no burst is on.
	running sync.WaitGroup
}

const (
	// burst is how many dials are worth a collection.
	burst = 100
	// calm is how long after the last dial a burst is over.
	calm = time.Second
)

func newTrim() *trim { return &trim{free: debug.FreeOSMemory} }

// dialled notes a dial that is over, well or not.
func (t *trim) dialled() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dials++
	if t.timer == nil {
		t.running.Add(1)
		t.timer = time.AfterFunc(calm, t.over)
		return
	}
	if t.timer.Stop() { // if not, it is about to run, and counts this one
		t.timer.Reset(calm)
	}
}

// over ends a burst.
func (t *trim) over() {
	defer t.running.Done()
	t.mu.Lock()
	dials := t.dials
	t.dials, t.timer = 0, nil
	t.mu.Unlock()
	if dials >= burst {
		t.free()
	}
}

// stop returns when nothing of it runs any more. No dial may follow.
func (t *trim) stop() {
	t.mu.Lock()
	if t.timer != nil && t.timer.Stop() {
		t.running.Done()
	}
	t.timer = nil
	t.mu.Unlock()
	t.running.Wait()
}
