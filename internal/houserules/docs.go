package houserules

import (
	"fmt"
	"go/ast"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/source"
)

// goPackage is the folder and the name of a package: a folder may hold two, the second being its external tests.
type goPackage struct{ dir, name string }

func (p goPackage) external() bool { return strings.HasSuffix(p.name, "_test") }

// checkDocs wants exactly one package comment in each package. External tests belong to the package they test and have none.
func checkDocs(files []source.File) []string {
	var found []string
	docs := map[goPackage][]string{}
	for _, f := range files {
		p := goPackage{f.Dir(), f.Syntax.Name.Name}
		if !p.external() && docs[p] == nil {
			docs[p] = []string{}
		}
		text := documentation(f.Syntax)
		if text == "" {
			continue
		}
		docs[p] = append(docs[p], f.Path)
		if begin := beginning(p); !strings.HasPrefix(text, begin) {
			found = append(found, fmt.Sprintf("%s: its package comment does not begin %q", f.Path, begin))
		}
	}
	order := func(a, b goPackage) int { return strings.Compare(a.dir+a.name, b.dir+b.name) }
	for _, p := range slices.SortedFunc(maps.Keys(docs), order) {
		switch paths := docs[p]; {
		case p.external():
			found = append(found, fmt.Sprintf("%s: external tests have no package comment", strings.Join(paths, ", ")))
		case len(paths) == 0:
			found = append(found, fmt.Sprintf("package %s in %s has no package comment", p.name, p.dir))
		case len(paths) > 1:
			found = append(found, fmt.Sprintf("package %s in %s has %d package comments: %s", p.name, p.dir, len(paths), strings.Join(paths, ", ")))
		}
	}
	return found
}

// documentation is the package comment of a file without its directives.
func documentation(f *ast.File) string {
	if f.Doc == nil {
		return ""
	}
	return strings.TrimSpace(f.Doc.Text())
}

// beginning is how the comment of a package begins, by the convention of godoc.
func beginning(p goPackage) string {
	if p.name == "main" {
		return "Command " + path.Base(p.dir) + " "
	}
	return "Package " + p.name + " "
}
