//go:build soak

package e2e

import "testing"

// TestSoakEveryEndLeavesNothing opens fifty thousand channels.
func TestSoakEveryEndLeavesNothing(t *testing.T) { openMany(t, 50_000) }
