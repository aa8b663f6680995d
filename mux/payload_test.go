package mux

import (
	"bytes"
	"testing"
)

// TestThePayloadOfAnEventIsItsOwnUntilItIsFreed: memory that is used again is never that of an event which somebody still has.
func TestThePayloadOfAnEventIsItsOwnUntilItIsFreed(t *testing.T) {
	sizes := []int{1, leastHeld - 1, leastHeld, 4608, 4609, 32 << 10, 64 << 10, 72 << 10, 100 << 10}
	var kept []Event
	for round := range 8 {
		for _, n := range sizes {
			fill := byte(len(kept) + 1)
			source := bytes.Repeat([]byte{fill}, n)
			ev := Event{Data: source}
			ev.copyData()
			clear(source) // the link has it again
			if len(ev.Data) != n || !bytes.Equal(ev.Data, bytes.Repeat([]byte{fill}, n)) {
				t.Fatalf("%d bytes are not those that came", n)
			}
			if round%2 == 0 {
				kept = append(kept, ev)
				continue
			}
			ev.Free()
			ev.Free() // of the same event it does nothing
			if ev.Data != nil {
				t.Errorf("%d bytes are still there when they are freed", n)
			}
		}
	}
	for i, ev := range kept {
		if want := byte(i + 1); bytes.Count(ev.Data, []byte{want}) != len(ev.Data) {
			t.Errorf("event %d was overwritten", i)
		}
	}
}
