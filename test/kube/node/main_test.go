package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain lets the test binary be the guardian of what it starts, as the node is of its containers.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == guardianCommand {
		os.Exit(guardian(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}
