//go:build !linux

package ready

import (
	"errors"
	"testing"
)

// TestNewSaysUnsupported, so that the caller can tell a system without loops from a failure.
func TestNewSaysUnsupported(t *testing.T) {
	if _, err := New(1); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, want %v", err, errors.ErrUnsupported)
	}
}
