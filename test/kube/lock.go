package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockInterval is how often a busy lock is tried again: flock(2) cannot be
// waited for with a context.
const lockInterval = 100 * time.Millisecond

// tryLock takes the exclusive lock of the file name, which it creates if need
// be, or returns nil without an error when another process holds it. Closing the
// file, or the end of the process however it comes, gives the lock back.
func tryLock(name string) (*os.File, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock %s: %w", name, err)
}

// lock waits for the exclusive lock of the file name until ctx ends.
func lock(ctx context.Context, name string) (*os.File, error) {
	again := time.NewTicker(lockInterval)
	defer again.Stop()
	for {
		if file, err := tryLock(name); file != nil || err != nil {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", name, context.Cause(ctx))
		case <-again.C:
		}
	}
}
