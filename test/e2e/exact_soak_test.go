//go:build soak

package e2e

import "testing"

// TestSoakNoExecIsTruncated starts ten thousand processes.
func TestSoakNoExecIsTruncated(t *testing.T) { execMany(t, 10_000) }

// TestSoakForwardsDoNotTouchEachOther has a hundred rounds of 200 TCP connections.
func TestSoakForwardsDoNotTouchEachOther(t *testing.T) { forwardMany(t, 100) }
