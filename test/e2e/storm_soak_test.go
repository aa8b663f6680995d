//go:build soak

package e2e

import (
	"testing"
	"time"
)

// TestSoakOneStreamCarriesEverythingThroughCuts is the test of that name for two minutes.
func TestSoakOneStreamCarriesEverythingThroughCuts(t *testing.T) {
	(&storm{name: "storms", watches: 50, logs: 20, shells: 8, terminals: 2, echoes: 2, forwards: 10, cuts: 120, between: time.Second}).run(t)
}

// TestSoakEveryCutIsHarmless cuts a link two thousand times.
func TestSoakEveryCutIsHarmless(t *testing.T) {
	(&storm{name: "cuts", logs: 2, shells: 2, terminals: 1, echoes: 2, forwards: 2, cuts: 2_000, between: 100 * time.Millisecond}).run(t)
}

// TestSoakLogsOutliveTheirUpstreams cuts link and upstreams two hundred times.
func TestSoakLogsOutliveTheirUpstreams(t *testing.T) {
	(&storm{name: "loglines", logs: 10, cuts: 200, between: 400 * time.Millisecond, upstreams: true}).run(t)
}
