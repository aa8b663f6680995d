package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	// slowest is how many of the slowest tests the summary names, and slowEnough the least that is worth naming.
	slowest    = 10
	slowEnough = time.Second

	// complaints is how many lines of what a test itself has said are repeated beside its failure, and complaint how long one may be, in bytes.
	complaints = 8
	complaint  = 300
)

// event is one line of `go test -json`, as documented by `go doc test2json`; the fields read here.
type event struct {
	Action     string  `json:"Action"`
	Package    string  `json:"Package"`
	ImportPath string  `json:"ImportPath"`
	Test       string  `json:"Test"`
	Elapsed    float64 `json:"Elapsed"` // seconds
	Output     string  `json:"Output"`
}

// testID names a test; an empty name stands for the package itself.
type testID struct{ pkg, name string }

// timing is a finished test and how long it took.
type timing struct {
	test    testID
	elapsed time.Duration
}

// run is what is known of one run of `go test` so far. It belongs to one goroutine.
type run struct {
	out io.Writer

	output   map[testID][]string // of tests that have not passed
	builds   map[string][]string // compiler output by import path
	counts   map[string]int      // passed tests by package
	skips    []testID
	failures []testID
	timings  []timing
}

func newRun(out io.Writer) *run {
	return &run{
		out:    out,
		output: make(map[testID][]string),
		builds: make(map[string][]string),
		counts: make(map[string]int),
	}
}

// read consumes events until the end of the input. What is no event (a message of the go command, say) is printed as it is.
func (r *run) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *run) line(line string) {
	var e event
	if err := json.Unmarshal([]byte(line), &e); err != nil || e.Action == "" {
		fmt.Fprint(r.out, line)
		return
	}
	r.event(e)
}

func (r *run) event(e event) {
	id := testID{e.Package, e.Test}
	switch e.Action {
	case "output":
		r.output[id] = append(r.output[id], e.Output)
	case "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
	case "build-fail":
		r.fail(testID{pkg: packageOf(e.ImportPath)})
		fmt.Fprintf(r.out, "FAIL  %s does not build\n%s", e.ImportPath, strings.Join(r.builds[e.ImportPath], ""))
	case "pass", "skip", "fail":
		r.end(id, e.Action, time.Duration(e.Elapsed*float64(time.Second)))
	}
}

// end handles the last event of a test or of a package.
func (r *run) end(id testID, action string, elapsed time.Duration) {
	switch {
	case action == "fail":
		r.fail(id)
	case action == "skip" && id.name != "":
		r.skips = append(r.skips, id)
		return // its output is its reason
	case id.name != "":
		r.counts[id.pkg]++
	}
	if id.name != "" {
		r.timings = append(r.timings, timing{id, elapsed})
		if action == "pass" {
			delete(r.output, id)
		}
		return
	}
	r.endPackage(id, action, elapsed)
}

// fail notes a failure. A package fails with its tests, or because it does not build: that is the same failure again.
func (r *run) fail(id testID) {
	again := func(noted testID) bool { return noted.pkg == id.pkg }
	if id.name == "" && slices.ContainsFunc(r.failures, again) {
		return
	}
	r.failures = append(r.failures, id)
}

// packageOf is the package of an import path that may name a variant of it: "p [p.test]".
func packageOf(importPath string) string {
	pkg, _, _ := strings.Cut(importPath, " ")
	return strings.TrimSuffix(strings.TrimSuffix(pkg, ".test"), "_test")
}

func (r *run) endPackage(id testID, action string, elapsed time.Duration) {
	switch action {
	case "pass":
		fmt.Fprintf(r.out, "ok    %-60s %7.1fs  %d tests\n", id.pkg, elapsed.Seconds(), r.counts[id.pkg])
	case "skip": // a package without tests
	case "fail":
		fmt.Fprintf(r.out, "FAIL  %-60s %7.1fs\n", id.pkg, elapsed.Seconds())
		r.printFailed(id.pkg)
	}
}

// printFailed prints everything that the tests of pkg wrote, except those that passed or were skipped: after a panic or
// a timeout the guilty test may have no event of its own.
func (r *run) printFailed(pkg string) {
	var unfinished []testID
	for id := range r.output {
		if id.pkg == pkg && !slices.Contains(r.skips, id) {
			unfinished = append(unfinished, id)
		}
	}
	slices.SortFunc(unfinished, func(a, b testID) int { return strings.Compare(a.name, b.name) })
	for _, id := range unfinished {
		fmt.Fprint(r.out, strings.Join(r.output[id], ""))
	}
}

func (r *run) failed() bool { return len(r.failures) > 0 }

// summarize prints the slow, the skipped and the failed tests and the totals.
func (r *run) summarize() {
	r.printSlow()
	for _, id := range r.skips {
		fmt.Fprintf(r.out, "SKIPPED  %s %s: %s\n", id.pkg, id.name, r.skipReason(id))
	}
	for _, id := range r.failures {
		fmt.Fprintf(r.out, "FAILED   %s %s\n", id.pkg, id.name)
		for _, line := range r.complaints(id) {
			fmt.Fprintf(r.out, "           %s\n", line)
		}
	}
	passed := 0
	for _, n := range r.counts {
		passed += n
	}
	fmt.Fprintf(r.out, "%d tests passed, %d skipped, %d failed\n", passed, len(r.skips), len(r.failures))
}

// said is the first line of what a test says by t.Error, t.Log and the like, and what the race detector says.
var said = regexp.MustCompile(`^\s*[a-z0-9_]+_test\.go:\d+: |DATA RACE|^panic: |goleak: |^\s*Original traceback `)

// complaints are the last lines that a failed test itself has said, without what it shows of logs: where a reader sees but the end of the output,
// the reason is there.
func (r *run) complaints(id testID) []string {
	var lines []string
	for _, line := range r.output[id] {
		if !said.MatchString(line) {
			continue
		}
		line = strings.TrimSpace(line)
		lines = append(lines, line[:min(len(line), complaint)])
	}
	return lines[max(0, len(lines)-complaints):]
}

func (r *run) printSlow() {
	slices.SortStableFunc(r.timings, func(a, b timing) int { return int(b.elapsed - a.elapsed) })
	for i, t := range r.timings {
		if i == slowest || t.elapsed < slowEnough {
			return
		}
		fmt.Fprintf(r.out, "slow  %6.1fs  %s %s\n", t.elapsed.Seconds(), t.test.pkg, t.test.name)
	}
}

// skipReason is what the test said when it skipped itself, without the lines that the go command adds.
func (r *run) skipReason(id testID) string {
	var said []string
	for _, line := range r.output[id] {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	return strings.Join(said, " ")
}
