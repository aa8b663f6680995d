// Command sluice is the gateway (`serve`, `dev`) and its command line client (`watch`, `clusters`).
//
// It reads flags, environment and configuration, wires the packages, and ends them on a signal; nothing else is decided here.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], system{stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}))
}
