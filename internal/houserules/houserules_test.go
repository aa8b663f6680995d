package houserules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/source"
)

func TestTheTreeKeepsItsRules(t *testing.T) {
	root, err := source.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("found no Go file at all: the check would accept anything")
	}
	for _, violation := range Check(files) {
		t.Error(violation)
	}
}

// tree writes files to a folder and loads them as a repository.
func tree(t *testing.T, files map[string]string) []source.File {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestCheckAcceptsAWellKeptTree(t *testing.T) {
	found := Check(tree(t, map[string]string{
		"go.mod":             "module m\n",
		"a/doc.go":           "// Package a is documented here.\npackage a\n",
		"a/a.go":             "package a\n",
		"a/a_linux.go":       "//go:build linux\n\npackage a\n",
		"a/a_test.go":        "package a_test\n",
		"cmd/tool/main.go":   "// Command tool does one thing.\npackage main\n",
		"gen/x/x.go":         "package x\n",
		"a/testdata/util.go": "package broken ...\n",
	}))
	for _, violation := range found {
		t.Error(violation)
	}
}

func TestCheckFindsPlantedViolations(t *testing.T) {
	long := "// Package a is long.\npackage a\n" + strings.Repeat("//\n", MaxLines)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"no package comment", map[string]string{"a/a.go": "package a\n"}, "package a in a has no package comment"},
		{
			"two package comments",
			map[string]string{"a/a.go": "// Package a is one.\npackage a\n", "a/b.go": "// Package a is two.\npackage a\n"},
			"package a in a has 2 package comments: a/a.go, a/b.go",
		},
		{"another beginning", map[string]string{"a/a.go": "// This is a.\npackage a\n"}, `a/a.go: its package comment does not begin "Package a "`},
		{"a command called package", map[string]string{"cmd/x/m.go": "// Package main is x.\npackage main\n"}, `does not begin "Command x "`},
		{
			"a documented external test",
			map[string]string{"a/a.go": "// Package a is a.\npackage a\n", "a/a_test.go": "// Package a_test tests.\npackage a_test\n"},
			"a/a_test.go: external tests have no package comment",
		},
		{"a long file", map[string]string{"a/a.go": long}, "a/a.go has 902 lines, more than 900"},
		{"a vague file", map[string]string{"a/ring_util.go": "// Package a is a.\npackage a\n"}, `a/ring_util.go: "util" could hold anything`},
		{"a vague package", map[string]string{"common/a.go": "// Package common is all.\npackage common\n"}, `"common" could hold anything`},
		{
			"a search in the text of an error",
			map[string]string{"a/a.go": "// Package a is a.\npackage a\n\nvar x = strings.Contains(err.Error(), \"closed\")\n"},
			"a/a.go:4: decides by the text of an error",
		},
		{
			"a comparison with the text of an error",
			map[string]string{"a/a.go": "// Package a is a.\npackage a\n\nvar x = \"EOF\" == f().Error()\n"},
			"a/a.go:4: decides by the text of an error",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := Check(tree(t, c.files))
			if len(found) != 1 || !strings.Contains(found[0], c.want) {
				t.Errorf("found %q, want one with %q", found, c.want)
			}
		})
	}
}
