package bridge

import (
	"errors"
	"testing"

	"github.com/sluice-gateway/sluice/internal/ready"
)

// loopsFor are the loops that the upstreams of a test are left to, if they are sockets.
func loopsFor(t testing.TB) *ready.Loops {
	l, err := ready.New(1)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}
