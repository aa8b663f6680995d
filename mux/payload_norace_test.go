//go:build !race

package mux

import "testing"

// TestPayloadsThatAreFreedAllocateLittle: a busy channel must not keep its client's collector busy.
func TestPayloadsThatAreFreedAllocateLittle(t *testing.T) { // the race detector empties pools at random
	source := make([]byte, 32<<10)
	if n := testing.AllocsPerRun(100, func() {
		ev := Event{Data: source}
		ev.copyData()
		ev.Free()
	}); n > 0 {
		t.Errorf("%v allocations an event", n)
	}
}
