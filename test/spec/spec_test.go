package spec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/source"
)

// tree reads the repository.
func tree(t *testing.T) (root string, files []source.File) {
	t.Helper()
	root, err := source.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err = source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	return root, files
}

func read(t *testing.T, root, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func report(t *testing.T, what string, found []string) {
	t.Helper()
	for _, f := range found {
		t.Errorf("%s: %s", what, f)
	}
}

func TestEveryRuleOfTheSpecNamesItsTest(t *testing.T) {
	root, files := tree(t)
	d := Parse(read(t, root, "proto/SPEC.md"))
	if len(d.Rules) < 80 {
		t.Fatalf("found %d rules: the check would accept anything", len(d.Rules))
	}
	report(t, "proto/SPEC.md", Check(d, TestsOf(files)))
}

func TestTheSpecLeavesNothingOut(t *testing.T) {
	root, files := tree(t)
	text := read(t, root, "proto/SPEC.md")
	report(t, "frames", MissingFrames(text))
	report(t, "reasons", MissingReasons(text))
	limits := LimitsOf(files)
	if len(limits) < 5 {
		t.Fatalf("found the limits %v: the check would accept anything", limits)
	}
	report(t, "limits in proto/SPEC.md", MissingLimits(text, limits))
	report(t, "limits in docs/limits.md", MissingLimits(read(t, root, "docs/limits.md"), limits))
}

func TestLinksOfTheDocumentsLeadSomewhere(t *testing.T) {
	root, _ := tree(t)
	for _, name := range []string{"proto/SPEC.md", "docs/limits.md", "docs/architecture.md"} {
		report(t, name, MissingFiles(read(t, root, name), filepath.ToSlash(filepath.Dir(name)), func(file string) bool {
			_, err := os.Stat(filepath.Join(root, filepath.FromSlash(file)))
			return err == nil
		}))
	}
}

const sound = `
- **[SES-1]** A MUST b
  over two lines.
- **[SES-2]** C MUST d; see [SES-1].

` + Heading + `

| rule | tests |
| --- | --- |
| SES-1 | ` + "`mux.TestSPEC_A`, `mux.TestB`" + ` |
| SES-2 | untested |
`

func TestCheckAcceptsASoundSpecification(t *testing.T) {
	d := Parse(sound)
	if len(d.Rules) != 2 || d.Rules[0].Text != "A MUST b\n  over two lines." {
		t.Fatalf("rules are %q", d.Rules)
	}
	report(t, "sound", Check(d, map[string]string{"mux.TestSPEC_A": "", "mux.TestB": ""}))
}

func TestCheckFindsPlantedFaults(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"a test that is gone", "mux.TestB", "mux.TestC", "SES-1 names mux.TestC, which does not exist"},
		{"a rule without a row", "| SES-2 | untested |\n", "", "SES-2 has no row"},
		{"a row without a rule", "| SES-2 |", "| SES-2 | untested |\n| SES-3 |", "SES-3 has a row in the table of tests and is no rule"},
		{"an empty row", "| SES-2 | untested |", "| SES-2 | soon |", "SES-2 names no test"},
		{"a second row", "| SES-2 |", "| SES-2 | untested |\n| SES-2 |", "SES-2 has more than one row"},
		{"a rule that does not bind", "C MUST d", "C does d", "SES-2 says neither"},
		{"a gap in the numbers", "**[SES-2]**", "**[SES-3]**", "SES-3 stands where SES-2 belongs"},
		{"a mention of nothing", "see [SES-1]", "see [SES-9]", "SES-9 is mentioned and is no rule"},
		{"a claim that no rule makes", "`mux.TestSPEC_A`, ", "", "mux.TestSPEC_A proves a rule, and neither"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(sound, c.from, c.to, 1)
			if text == sound {
				t.Fatal("planted nothing")
			}
			found := Check(Parse(text), map[string]string{"mux.TestSPEC_A": "", "mux.TestB": ""})
			if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, c.want) }) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}

func TestTestsMaySayThemselvesWhatTheyProve(t *testing.T) {
	tests := map[string]string{"mux.TestSPEC_A": "", "mux.TestB": "", "mux.TestSPEC_C": "[SES-2] and more\n"}
	report(t, "sound", Check(Parse(sound), tests))
	tests["mux.TestSPEC_C"] = "[SES-7]\n"
	if found := Check(Parse(sound), tests); !slices.Equal(found, []string{"mux.TestSPEC_C proves SES-7, which is no rule"}) {
		t.Errorf("found %q", found)
	}
}

func TestLeavingSomethingOutIsFound(t *testing.T) {
	root, _ := tree(t)
	text := read(t, root, "proto/SPEC.md")
	for _, c := range []struct {
		from, to string
		find     func(string) []string
		want     string
	}{
		{"\n| Resize |", "\n| Size |", MissingFrames, "frame Resize is missing"},
		{"`on_detach_expiry` |", "|", MissingFrames, "field on_detach_expiry of frame Open is missing"},
		{"\n| SUPERSEDED |", "\n| REPLACED |", MissingReasons, "SUPERSEDED is missing"},
		{"| `limits.channels` |", "| channels |", func(s string) []string { return MissingLimits(s, []string{"limits.channels"}) }, "limits.channels is missing"},
		{"](sluice/v1)", "](sluice/v2)", func(s string) []string {
			return MissingFiles(s, "proto", func(file string) bool { return file != "proto/sluice/v2" })
		}, "sluice/v2 leads nowhere"},
	} {
		changed := strings.Replace(text, c.from, c.to, 1)
		if changed == text {
			t.Fatalf("%q is not in the text", c.from)
		}
		if found := c.find(changed); !slices.Equal(found, []string{c.want}) {
			t.Errorf("without %q found %q, want %q alone", c.from, found, c.want)
		}
	}
}
