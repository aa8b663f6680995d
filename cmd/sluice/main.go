// Command sluice is the gateway (`serve`, `dev`) and its command line client (`watch`, `logs`, `exec`, `attach`, `port-forward`, `clusters`).
//
// It reads flags, environment and configuration, wires the packages, and ends them on a signal; nothing else is decided here.
package main

import (
	"context"
	"os"
)

func main() {
	ctx := untilSignal(context.Background())
	os.Exit(run(ctx, os.Args[1:], system{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv}))
}
