//go:build soak && linux

package e2e

import "testing"

// TestSoakMuchPassesThroughLittleMemory: 256 MiB of each kind.
func TestSoakMuchPassesThroughLittleMemory(t *testing.T) { muchPasses(t, 256<<20, 128<<20) }
