package conformance

import (
	"context"
	"encoding/xml"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

const (
	// h2specCases is how many cases there are, so that none is lost unseen.
	h2specCases = 145
	// h2specAtOnce is how many run at a time, each in a process of its own: most of the time they wait for what does not come.
	h2specAtOnce = 32
	// h2specWithin is how long, in seconds, a case waits for an answer: what passes takes milliseconds, but the machine may be busy.
	h2specWithin = "10"
)

func TestH2spec(t *testing.T) {
	t.Parallel()
	g := newGateway(t)
	roots := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(roots, g.certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	suite := h2spec{program: tool(t, "h2spec"), roots: roots, reports: t.TempDir()}
	cases := suite.list(t)
	t.Run("gRPC", func(t *testing.T) { suite.hold(t, "grpc", g.Server.GRPCAddr(), cases) })
	t.Run("web", func(t *testing.T) { suite.hold(t, "web", g.Server.WebAddr(), cases) })
}

// h2spec runs cases of h2spec.
type h2spec struct{ program, roots, reports string }

// h2specCase is a case by the names that h2spec has for it.
type h2specCase struct{ id, name string }

func (c h2specCase) String() string { return c.id + " " + c.name }

// Lines of h2spec's list: a section, and a case in it.
var (
	sectionLine = regexp.MustCompile(`^ *([\d.]+)\. `)
	caseLine    = regexp.MustCompile(`^ *(\d+): (.*)$`)
)

// list is every case of h2spec.
func (h h2spec) list(t *testing.T) []h2specCase {
	t.Helper()
	var cases []h2specCase
	for _, part := range []string{"generic", "http2", "hpack"} {
		section := ""
		for line := range strings.Lines(string(run(t, exec.CommandContext(t.Context(), h.program, part, "--dryrun")))) {
			line = strings.TrimRight(line, "\n")
			if m := sectionLine.FindStringSubmatch(line); m != nil {
				section = m[1]
			} else if m := caseLine.FindStringSubmatch(line); m != nil {
				cases = append(cases, h2specCase{id: part + "/" + section + "/" + m[1], name: m[2]})
			}
		}
	}
	if len(cases) != h2specCases {
		t.Fatalf("h2spec has %d cases, want %d", len(cases), h2specCases)
	}
	return cases
}

// hold runs the cases against a door of the gateway, whose known failures are in testdata/h2spec.
func (h h2spec) hold(t *testing.T, door string, addr net.Addr, cases []h2specCase) {
	t.Parallel()
	known := readKnown(t, filepath.Join("testdata", "h2spec", door+"-known.txt"))
	outcomes := make([]outcome, len(cases))
	atOnce := make(chan struct{}, h2specAtOnce)
	var running sync.WaitGroup
	for i, c := range cases {
		atOnce <- struct{}{}
		running.Go(func() {
			defer func() { <-atOnce }()
			outcomes[i] = h.run(t.Context(), door, addr, c)
		})
	}
	running.Wait()
	count := map[verdict]int{}
	for i, c := range cases {
		o := outcomes[i]
		count[o.verdict]++
		known.judge(t, c.String(), o.verdict == failed, o.report)
	}
	known.unused(t)
	t.Logf("%d passed, %d do not apply, %d failed as is known", count[passed], count[skipped], count[failed])
}

// verdict is how a case ended.
type verdict uint8

const (
	failed verdict = iota
	passed
	skipped // it does not apply, as when it needs an answer with a body
)

// outcome is how a case ended, and what h2spec says of it.
type outcome struct {
	verdict verdict
	report  string
}

// run runs one case.
func (h h2spec) run(ctx context.Context, door string, addr net.Addr, c h2specCase) outcome {
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return outcome{failed, err.Error()}
	}
	report := filepath.Join(h.reports, door+"-"+strings.ReplaceAll(c.id, "/", "-")+".xml")
	cmd := exec.CommandContext(ctx, h.program, c.id, "--tls", "--port", port, "--timeout", h2specWithin, "--junit-report", report)
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+h.roots)
	out, err := cmd.CombinedOutput() // it fails when the case does: the report is what tells
	if !exited(err) {
		return outcome{failed, fmt.Sprintf("%v\n%s", err, out)}
	}
	o, err := readReport(report)
	if err != nil {
		return outcome{failed, fmt.Sprintf("%v\n%s", err, out)}
	}
	return o
}

// readReport reads the report of one case.
func readReport(file string) (outcome, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return outcome{}, err
	}
	type text struct {
		Text string `xml:",chardata"`
	}
	var report struct {
		Cases []struct {
			Skipped *text `xml:"skipped"`
			Error   *text `xml:"error"`
			Failure *text `xml:"failure"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(b, &report); err != nil {
		return outcome{}, fmt.Errorf("%s: %w", file, err)
	}
	if len(report.Cases) != 1 {
		return outcome{}, fmt.Errorf("%s has %d cases, want one", file, len(report.Cases))
	}
	switch c := report.Cases[0]; {
	case c.Skipped != nil:
		return outcome{verdict: skipped}, nil
	case c.Failure != nil:
		return outcome{failed, c.Failure.Text}, nil
	case c.Error != nil && !closed(c.Error.Text):
		return outcome{failed, c.Error.Text}, nil
	}
	return outcome{verdict: passed}, nil
}

// closed says whether a case failed only because the connection was closed, as it is to be, before the gateway had read all that the case sent:
// TCP then says so with a reset, which h2spec does not take for a close.
func closed(report string) bool {
	expected, actual, _ := cutLast(report, "\n")
	return strings.Contains(expected, "Connection closed") && strings.HasPrefix(actual, "Error: ") && strings.HasSuffix(actual, "connection reset by peer")
}

// cutLast is strings.Cut at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
