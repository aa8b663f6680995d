package main

import (
	"strings"
	"testing"
)

// report feeds lines of `go test -json` to a run and returns it with what it printed.
func report(t *testing.T, lines ...string) (*run, string) {
	t.Helper()
	var out strings.Builder
	r := newRun(&out)
	if err := r.read(strings.NewReader(strings.Join(lines, "\n"))); err != nil {
		t.Fatal(err)
	}
	r.summarize()
	return r, out.String()
}

func TestReportSeparatesPassedSkippedAndFailed(t *testing.T) {
	r, out := report(
		t,
		`{"Action":"output","Package":"p","Test":"TestGood","Output":"noise of a good test\n"}`,
		`{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":2.5}`,
		`{"Action":"output","Package":"p","Test":"TestSkipped","Output":"=== RUN   TestSkipped\n"}`,
		`{"Action":"output","Package":"p","Test":"TestSkipped","Output":"    x_test.go:1: no cluster here\n"}`,
		`{"Action":"skip","Package":"p","Test":"TestSkipped"}`,
		`{"Action":"output","Package":"p","Test":"TestBad","Output":"got 1, want 2\n"}`,
		`{"Action":"fail","Package":"p","Test":"TestBad","Elapsed":0.1}`,
		`{"Action":"fail","Package":"p","Elapsed":3}`,
	)
	if !r.failed() || len(r.skips) != 1 {
		t.Errorf("failed %v with %d skips, want true with 1", r.failed(), len(r.skips))
	}
	for _, want := range []string{
		"got 1, want 2",
		"FAILED   p TestBad",
		"SKIPPED  p TestSkipped: x_test.go:1: no cluster here",
		"slow     2.5s  p TestGood",
		"1 tests passed, 1 skipped, 1 failed",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, "noise") {
		t.Errorf("prints the output of a test that passed:\n%s", out)
	}
}

// The reason stands at the end, beside the name: whoever shows the output of a failed run may show no more.
func TestReportRepeatsWhatAFailedTestHasSaid(t *testing.T) {
	_, out := report(
		t,
		`{"Action":"output","Package":"p","Test":"TestBad","Output":"    x_test.go:7: got 1, want 2\n"}`,
		`{"Action":"output","Package":"p","Test":"TestBad","Output":"        a line of some log\n"}`,
		`{"Action":"fail","Package":"p","Test":"TestBad","Elapsed":0.1}`,
		`{"Action":"output","Package":"p","Output":"goleak: Errors on successful test run\n"}`,
		`{"Action":"fail","Package":"p","Elapsed":3}`,
		`{"Action":"output","Package":"q","Output":"goleak: found unexpected goroutines\n"}`,
		`{"Action":"fail","Package":"q","Elapsed":3}`,
	)
	for _, want := range []string{
		"FAILED   p TestBad\n           x_test.go:7: got 1, want 2\n",
		"FAILED   q \n           goleak: found unexpected goroutines\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

func TestReportShowsATestThatNeverEnded(t *testing.T) {
	r, out := report(
		t,
		`{"Action":"output","Package":"p","Test":"TestHangs","Output":"panic: test timed out\n"}`,
		`{"Action":"fail","Package":"p","Elapsed":600}`,
	)
	if !r.failed() || !strings.Contains(out, "panic: test timed out") {
		t.Errorf("failed %v, printed:\n%s", r.failed(), out)
	}
}

func TestReportShowsWhatDoesNotBuild(t *testing.T) {
	r, out := report(
		t,
		`{"ImportPath":"p [p.test]","Action":"build-output","Output":"x.go:1: syntax error\n"}`,
		`{"ImportPath":"p [p.test]","Action":"build-fail"}`,
		`{"Action":"fail","Package":"p","Elapsed":0,"FailedBuild":"p [p.test]"}`,
	)
	if len(r.failures) != 1 || !strings.Contains(out, "x.go:1: syntax error") {
		t.Errorf("%d failures, want 1; printed:\n%s", len(r.failures), out)
	}
}

func TestReportAcceptsACleanRun(t *testing.T) {
	r, out := report(
		t,
		`go: downloading example.com/m v1.0.0`,
		`{"Action":"skip","Package":"empty","Elapsed":0}`,
		`{"Action":"pass","Package":"p","Test":"TestGood","Elapsed":0.1}`,
		`{"Action":"pass","Package":"p","Elapsed":0.2}`,
	)
	if r.failed() || len(r.skips) != 0 {
		t.Errorf("failed %v with %d skips, want a clean run", r.failed(), len(r.skips))
	}
	for _, want := range []string{"go: downloading example.com/m", "ok    p", "1 tests passed, 0 skipped, 0 failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
