//go:build soak

package mux

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// soakFor is how long the model is run by `make soak`: some 200,000 schedules on one processor.
const soakFor = 4 * time.Minute

// TestSoakMachineLosesNothing is TestMachineLosesNothing for as long as a night shift would have it: every round has schedules of its own.
func TestSoakMachineLosesNothing(t *testing.T) {
	rounds := 0
	for end := time.Now().Add(soakFor); time.Now().Before(end) && !t.Failed(); rounds++ {
		rapid.Check(t, schedule)
	}
	t.Logf("%d rounds", rounds)
}
