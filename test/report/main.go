// Command report reads the output of `go test -json` and prints what a person needs of it: a line for each package as
// it ends, the whole output of whatever failed, every skipped test, and the slowest tests. With -fail-on-skip a skipped
// test is a failure: on a machine that is meant to run everything, a test that did not run proves nothing.
//
//	go test -json ./... | go run ./test/report [-fail-on-skip]
//
// It exits 1 if a test or a package failed. The exit status of `go test` is the caller's to look at as well (pipefail).
package main

import (
	"flag"
	"fmt"
	"os"
)

func main() {
	failOnSkip := flag.Bool("fail-on-skip", false, "exit 1 when any test was skipped")
	flag.Parse()

	run := newRun(os.Stdout)
	if err := run.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report: read the output of go test:", err)
		os.Exit(1)
	}
	run.summarize()
	if run.failed() || (*failOnSkip && len(run.skips) > 0) {
		os.Exit(1)
	}
}
