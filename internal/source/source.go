// Package source reads the repository's own Go files, for the tests that hold the tree to its rules: which package may
// import which (internal/deptest), and the rules that no linter knows (internal/houserules).
package source

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// File is one parsed Go file. It is immutable.
type File struct {
	Path   string // from the root of the repository, with slashes
	Module string // the folder of the module it belongs to, "." for the main one
	Lines  int
	Syntax *ast.File // comments included; bodies are parsed as well
	fset   *token.FileSet
}

// Dir is the folder of the file's package, from the root of the repository.
func (f File) Dir() string { return path.Dir(f.Path) }

// Test says whether only `go test` compiles the file.
func (f File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Line is the line of the file on which a node of its syntax begins.
func (f File) Line(node ast.Node) int { return f.fset.Position(node.Pos()).Line }

// Root finds the root of the repository: the nearest folder with a Makefile and a go.mod, from the current folder upward.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the root of the repository: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if exists(filepath.Join(dir, "go.mod")) && exists(filepath.Join(dir, "Makefile")) {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find the root of the repository: no folder above has both a go.mod and a Makefile")
		}
	}
}

// Load parses every Go file below root that people write: not generated code (gen/), test data, hidden folders or
// installed packages of other languages. Nested modules are included.
func Load(root string) ([]File, error) {
	var files []File
	fset := token.NewFileSet()
	modules := map[string]string{}
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if entry.IsDir() {
			if skipped(rel) {
				return filepath.SkipDir
			}
			modules[rel] = moduleOf(modules, root, rel)
			return nil
		}
		if path.Ext(rel) != ".go" {
			return nil
		}
		file, err := parse(fset, name, rel)
		file.Module = modules[file.Dir()]
		files = append(files, file)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the Go files of %s: %w", root, err)
	}
	return files, nil
}

func skipped(dir string) bool {
	base := path.Base(dir)
	return dir == "gen" || base == "testdata" || base == "node_modules" ||
		(strings.HasPrefix(base, ".") && dir != ".") || strings.HasPrefix(base, "_")
}

// moduleOf is the module of a folder, given those of the folders above it.
func moduleOf(known map[string]string, root, dir string) string {
	if exists(filepath.Join(root, filepath.FromSlash(dir), "go.mod")) {
		return dir
	}
	return known[path.Dir(dir)]
}

func parse(fset *token.FileSet, name, rel string) (File, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return File{}, err
	}
	syntax, err := parser.ParseFile(fset, rel, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return File{}, err
	}
	return File{
		Path:   rel,
		Lines:  strings.Count(string(text), "\n"),
		Syntax: syntax,
		fset:   fset,
	}, nil
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}
