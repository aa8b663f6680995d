//go:build !linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// openTerminal makes a terminal where this test knows how.
func openTerminal() (person, program *os.File, err error) {
	return nil, nil, fmt.Errorf("a terminal on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
