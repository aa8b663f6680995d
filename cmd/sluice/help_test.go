package main

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// commands are all commands, by their paths.
func commands(t *testing.T) map[string]*cobra.Command {
	t.Helper()
	root := newRoot(system{})
	out := map[string]*cobra.Command{root.CommandPath(): root}
	for _, c := range root.Commands() {
		if c.Name() != "help" { // it is how to read the others
			out[c.CommandPath()] = c
		}
	}
	return out
}

func TestEveryCommandHasAManual(t *testing.T) {
	all := commands(t)
	if got, want := slices.Sorted(maps.Keys(manuals)), slices.Sorted(maps.Keys(all)); !slices.Equal(got, want) {
		t.Errorf("there are manuals of %q and commands %q", got, want)
	}
	for path, c := range all {
		m := manuals[path]
		if c.Short == "" || c.Long == "" || len(m.exits) == 0 || len(m.see) == 0 || c.Runnable() && c.HasParent() && c.Example == "" {
			t.Errorf("%s lacks a description, an example, its exit codes or what else to read", path)
		}
		grouped := map[string]int{}
		for _, g := range m.groups {
			for _, name := range g.flags {
				grouped[name]++
			}
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if grouped[f.Name] != 1 {
				t.Errorf("%s: --%s is in %d groups", path, f.Name, grouped[f.Name])
			}
			delete(grouped, f.Name)
		})
		if len(grouped) > 0 {
			t.Errorf("%s: groups name flags that it has not: %v", path, grouped)
		}
	}
}

func TestHelpTellsAllThereIsToKnow(t *testing.T) {
	for _, args := range [][]string{{"watch", "--help"}, {"help", "watch"}} {
		out, errs, code := sluice(t, isolated(t), args...)
		if code != exitOK || errs != "" {
			t.Errorf("%v: exit code %d, %s", args, code, errs)
		}
		for _, want := range []string{
			"Usage:\n  sluice watch RESOURCE [NAME] [FLAGS]\n", "Examples:\n  sluice watch pods ", "What is watched:\n      --cluster NAME ",
			"-n, --namespace NAMESPACE ", "Environment:\n  SLUICE_CLUSTER ", "Files:\n  $XDG_CONFIG_HOME/sluice/client.yaml\n", "Exit codes:\n  0 ",
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%v: %q is missing in:\n%s", args, want, out)
			}
		}
	}
	out, _, _ := sluice(t, isolated(t), "help")
	for _, want := range []string{"A gateway:\n  dev ", "Through a gateway:\n", "\n  watch "} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	if _, errs, code := sluice(t, isolated(t), "help", "wach"); code != exitUsage || !strings.Contains(errs, "did you mean watch?") {
		t.Errorf("help for no command: exit code %d, %s", code, errs)
	}
}

// manFolder is where the pages of the manual are.
const manFolder = "../../docs/man"

func TestTheManualIsWhatTheCommandsSay(t *testing.T) {
	want := pages(newRoot(system{}))
	for name, text := range want {
		if got, err := os.ReadFile(filepath.Join(manFolder, name)); err != nil || string(got) != text {
			t.Errorf("docs/man/%s is not what the commands say: run `make generate` and commit the result (%v)", name, err)
		}
	}
	entries, err := os.ReadDir(manFolder)
	if err != nil || len(entries) != len(want) {
		t.Errorf("docs/man has %d files, want %d (%v)", len(entries), len(want), err)
	}
	dir := filepath.Join(t.TempDir(), "new", "man1")
	if out, errs, code := sluice(t, isolated(t), "man", dir); code != exitOK || !strings.Contains(out, dir) {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if written, err := os.ReadDir(dir); err != nil || len(written) != len(want) {
		t.Errorf("wrote %v, %v", written, err)
	}
}

func TestAPageMeansItself(t *testing.T) {
	var r roff
	r.text("a\\b --flag `code` x")
	r.text(".not a request")
	r.verbatim("  'neither\n  ..")
	r.macro("SH", `say "it"`)
	want := "a\\eb \\-\\-flag \\fBcode\\fR x\n\\&.not a request\n.EX\n\\&'neither\n\\&..\n.EE\n.SH \"say \\(dqit\\(dq\"\n"
	if got := r.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
