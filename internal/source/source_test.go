package source

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLoadFindsWhatPeopleWroteAndItsModule(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                  "module m\n",
		"a/a.go":                  "package a\n\nimport \"fmt\"\n",
		"a/a_test.go":             "package a\n",
		"nested/go.mod":           "module n\n",
		"nested/deep/deep.go":     "package deep\n",
		"gen/x/x.go":              "not Go",
		"a/testdata/x.go":         "not Go",
		".hidden/x.go":            "not Go",
		"web/node_modules/x/x.go": "not Go",
	} {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Load(root)
	if err != nil {
		t.Fatal(err)
	}
	module := map[string]string{}
	for _, f := range files {
		module[f.Path] = f.Module
		if f.Path == "a/a.go" && (f.Lines != 3 || f.Dir() != "a" || f.Line(f.Syntax.Imports[0]) != 3 || f.Test()) {
			t.Errorf("%+v: want 3 lines in a with an import on the third", f)
		}
		if f.Path == "a/a_test.go" && !f.Test() {
			t.Error("does not know a test file")
		}
	}
	want := map[string]string{"a/a.go": ".", "a/a_test.go": ".", "nested/deep/deep.go": "nested"}
	if len(module) != len(want) {
		t.Errorf("loaded %v, want %v", module, want)
	}
	for file, m := range want {
		if module[file] != m {
			t.Errorf("%s is of module %q, want %q", file, module[file], m)
		}
	}
}

func TestLoadNamesTheFileThatDoesNotParse(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "x.go"), []byte("not Go"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(root); err == nil {
		t.Error("accepts a file that is not Go")
	}
}
