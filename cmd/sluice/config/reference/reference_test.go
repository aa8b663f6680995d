package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/sluice-gateway/sluice/cmd/sluice/config"
)

// repository is the repository's folder.
func repository(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// whole is the file as the types have it.
func whole(t *testing.T) *section {
	t.Helper()
	types, err := parseTypes(repository(t))
	if err != nil {
		t.Fatal(err)
	}
	empty, err := defaults()
	if err != nil {
		t.Fatal(err)
	}
	s, err := types.section("Config", "", empty)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// leaves are all fields that hold a value, by path, in their order.
func (s *section) leaves() (paths []string, fields []field) {
	for _, f := range s.fields {
		if f.nested == nil {
			paths, fields = append(paths, strings.TrimPrefix(s.path+"."+f.name, ".")), append(fields, f)
			continue
		}
		p, below := f.nested.leaves()
		paths, fields = append(paths, p...), append(fields, below...)
	}
	return paths, fields
}

func TestTheDocumentsAreWhatTheTypesSay(t *testing.T) {
	root := repository(t)
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := root.ReadFile(name)
		if err != nil || string(got) != want {
			t.Errorf("%s is not what the types say: run `make generate` and commit the result (%v)", name, err)
		}
	}
}

func TestTheReferenceHasEveryFieldWithAllThereIsToKnow(t *testing.T) {
	paths, fields := whole(t).leaves()
	if want := config.Fields(); !slices.Equal(paths, want) {
		t.Errorf("the reference has\n%s\nthe types have\n%s", strings.Join(paths, "\n"), strings.Join(want, "\n"))
	}
	for i, f := range fields {
		if f.kind == "" || f.meaning == "" || f.fallback == "" || f.example == "" {
			t.Errorf("%s lacks a type, a meaning, a default or an example: %+v", paths[i], f)
		}
		if bounded := f.kind == "number" || f.kind == "bytes" || f.kind == "duration"; bounded && f.bounds == "" {
			t.Errorf("%s is a %s without bounds", paths[i], f.kind)
		}
	}
}

// parses reads a configuration and returns it as a tree as well.
func parses(t *testing.T, text string) (*config.Config, map[string]any) {
	t.Helper()
	c, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatal(err)
	}
	return c, tree
}

func TestTheExampleIsAWholeConfiguration(t *testing.T) {
	text, err := repository(t).ReadFile(sample)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := parses(t, string(text))
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	everything := regexp.MustCompile(`(?m)^( *)# ([a-z_]+:( .*)?)$`).ReplaceAllString(string(text), "$1$2")
	_, tree := parses(t, everything)
	for _, path := range config.Fields() {
		if !says(tree, strings.Split(path, ".")) {
			t.Errorf("the example does not say %s", path)
		}
	}
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "# ") && len(line) > width+len("#   ") {
			t.Errorf("line %d has %d characters: %s", i+1, len(line), line)
		}
	}
}

// says reports whether a tree has a value at a path.
func says(value any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	name, list := strings.CutSuffix(path[0], "[]")
	m, _ := value.(map[string]any)
	below, ok := m[name]
	if items, _ := below.([]any); list && len(items) > 0 {
		return says(items[0], path[1:])
	}
	return ok && !list && says(below, path[1:])
}

func TestOnlyTheMarkedPartOfADocumentIsReplaced(t *testing.T) {
	got, err := insert("before\n"+begin+"\nold\n"+end+"\nafter\n", "new")
	if want := "before\n" + begin + "\n\nnew\n" + end + "\nafter\n"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for _, document := range []string{"", begin + "\n", end + "\n" + begin + "\n"} {
		if _, err := insert(document, "new"); err == nil {
			t.Errorf("%q has no place for it", document)
		}
	}
}

func TestWhatGodocWantsIsNoPartOfAMeaning(t *testing.T) {
	for doc, want := range map[string]string{
		"X is where it is.\n": "where it is", "X are, with\nthis, that.\n": "with this, that", "X lets anybody ask.\n": "lets anybody ask",
		"X isolates. It is X.\n": "isolates. It is X",
	} {
		if got := meaning(doc, "X"); got != want {
			t.Errorf("%q means %q, want %q", doc, got, want)
		}
	}
}

func TestTheCommandWantsOneFolder(t *testing.T) {
	for _, args := range [][]string{nil, {"a", "b"}, {t.TempDir()}} {
		if err := run(args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
