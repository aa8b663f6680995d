package conformance

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// knownConnect are the cases of the connectrpc suite that fail, and are left as they are. In the file a pattern of names is a line ("*" is any
// one part of a name, "**" any number of them); the lines before it that begin with # say why, and the indented line after it is what the
// suite's report of each such case contains, so that no case fails for another reason unseen. Cases after a ~ may pass as well, since chance
// decides.
type knownConnect []knownPattern

type knownPattern struct {
	pattern string
	chance  bool
	report  string
}

func readKnownConnect(t *testing.T, file string) knownConnect {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var k knownConnect
	for line := range strings.Lines(string(b)) {
		text := strings.TrimSpace(line)
		switch {
		case text == "" || strings.HasPrefix(text, "#"):
		case strings.HasPrefix(line, "\t"):
			for i := len(k) - 1; i >= 0 && k[i].report == ""; i-- {
				k[i].report = text
			}
		default:
			pattern, chance := strings.CutPrefix(text, "~ ")
			k = append(k, knownPattern{pattern: pattern, chance: chance})
		}
	}
	for _, p := range k {
		if p.report == "" {
			t.Errorf("%s does not say how %s fails", file, p.pattern)
		}
	}
	return k
}

// arguments tell the suite, which lets the cases fail, and lets none pass that chance has no part in.
func (k knownConnect) arguments() []string {
	var out []string
	for _, p := range k {
		flag := "--known-failing"
		if p.chance {
			flag = "--known-flaky"
		}
		out = append(out, flag, p.pattern)
	}
	return out
}

// expectedFailure is a case in the suite's report that failed as one of the patterns has it.
var expectedFailure = regexp.MustCompile(`(?m)^INFO: (.*) failed \(as expected\):\n((?:\t.*\n)*)`)

// judge fails the test if a case that was expected to fail did so for a reason of its own.
func (k knownConnect) judge(t *testing.T, out string) {
	t.Helper()
	for _, m := range expectedFailure.FindAllStringSubmatch(out, -1) {
		name, report := m[1], m[2]
		if !slices.ContainsFunc(k, func(p knownPattern) bool {
			return matcher(p.pattern).MatchString(name+"/") && strings.Contains(report, p.report)
		}) {
			t.Errorf("%s fails, as is known, but not so:\n%s", name, report)
		}
	}
}

// matcher matches the names that a pattern stands for, each with a slash after it.
func matcher(pattern string) *regexp.Regexp {
	var parts []string
	for part := range strings.SplitSeq(pattern, "/") {
		switch part {
		case "**":
			parts = append(parts, "(?:[^/]+/)*")
		default:
			parts = append(parts, strings.ReplaceAll(regexp.QuoteMeta(part), `\*`, "[^/]*")+"/")
		}
	}
	return regexp.MustCompile("^" + strings.Join(parts, "") + "$")
}
