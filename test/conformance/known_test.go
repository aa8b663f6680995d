package conformance

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// known are the cases of a suite that fail, and are left as they are. In the file a case is a line, and the lines before it that begin with #
// say why. A case after a ~ may pass as well, since chance decides.
type known struct {
	file  string
	cases map[string]bool // true of one that may pass
	used  map[string]bool
}

func readKnown(t *testing.T, file string) *known {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	k := &known{file: file, cases: map[string]bool{}, used: map[string]bool{}}
	reason := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			reason = false
		case strings.HasPrefix(line, "#"):
			reason = true
		case !reason:
			t.Errorf("%s: no comment says why %q fails", file, line)
		default:
			name, chance := strings.CutPrefix(line, "~ ")
			k.cases[name] = chance
		}
	}
	return k
}

// judge fails the test if a case has not ended as is known.
func (k *known) judge(t *testing.T, name string, failed bool, report string) {
	t.Helper()
	mayPass, listed := k.cases[name]
	k.used[name] = true
	switch {
	case failed && !listed:
		t.Errorf("%s: %s", name, report)
	case !failed && listed && !mayPass:
		t.Errorf("%s passes: strike it from %s", name, k.file)
	}
}

// unused fails the test if a case of the list is none of the suite's.
func (k *known) unused(t *testing.T) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(k.cases)) {
		if !k.used[name] {
			t.Errorf("%s names a case that there is not: %s", k.file, name)
		}
	}
}
