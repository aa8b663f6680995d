package event_test

import (
	"bytes"
	"testing"

	"github.com/sluice-gateway/sluice/bench/event"
)

// TestBytesDoNotDependOnHowTheyAreCut from one end of a period to the other.
func TestBytesDoNotDependOnHowTheyAreCut(t *testing.T) {
	const period = 65521
	for at := range uint64(period) {
		whole := event.Bytes(at, event.MaxBytes)
		first := 1 + int(at)%(event.MaxBytes-1)
		if cut := event.Bytes(at+uint64(first), event.MaxBytes-first); !bytes.Equal(whole[first:], cut) {
			t.Fatalf("from %d on: the bytes after %d are others when they are asked for alone", at, first)
		}
	}
}
