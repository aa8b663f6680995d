package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// signalled is why a context has ended that a signal ended.
type signalled struct{ signal syscall.Signal }

func (s signalled) Error() string { return "ended by the signal " + s.signal.String() }

// untilSignal is a context that Ctrl-C or SIGTERM ends, the signal being its cause. A second one ends the process at once.
func untilSignal(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	first := make(chan os.Signal, 1)
	signal.Notify(first, os.Interrupt, syscall.SIGTERM)
	go func() { // ends with the first signal, or with the process
		s := <-first
		signal.Stop(first)
		cancel(becauseOf(s))
	}()
	return ctx
}

func becauseOf(s os.Signal) error {
	if s, ok := s.(syscall.Signal); ok {
		return signalled{s}
	}
	return context.Canceled
}

// exitError is an error that is told by the exit code alone: what there was to say has been said.
type exitError int

func (e exitError) Error() string { return "exit code " + strconv.Itoa(int(e)) }

// interrupted is the exit code of a command that a signal has ended: 128 and the signal's number, as shells have it.
func interrupted(ctx context.Context) exitError {
	if s, ok := errors.AsType[signalled](context.Cause(ctx)); ok {
		return exitError(128 + int(s.signal))
	}
	return exitError(128 + int(syscall.SIGINT))
}
