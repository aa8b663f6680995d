//go:build !linux

package ready

import (
	"errors"
	"fmt"
	"runtime"
)

func newPoller() (poller, error) {
	return nil, fmt.Errorf("epoll on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}
