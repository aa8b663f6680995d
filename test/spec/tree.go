package spec

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/source"
)

// TestsOf are the tests, fuzz targets and examples in files, as `folder.TestName`, each with its comment.
func TestsOf(files []source.File) map[string]string {
	tests := map[string]string{}
	for _, f := range files {
		if !f.Test() {
			continue
		}
		for _, d := range f.Syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && testName(fn.Name.Name) {
				tests[f.Dir()+"."+fn.Name.Name] = fn.Doc.Text()
			}
		}
	}
	return tests
}

func testName(name string) bool {
	for _, prefix := range []string{"Test", "Fuzz", "Example"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" && name != "TestMain" {
			return true
		}
	}
	return false
}

var limit = regexp.MustCompile(`^limits\.[a-z_]+$`)

// LimitsOf are the names of limits that the product's code says, each once.
func LimitsOf(files []source.File) []string {
	var names []string
	for _, f := range files {
		if f.Test() || strings.HasPrefix(f.Path, "test/") || f.Module != "." {
			continue
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if s, err := strconv.Unquote(l.Value); err == nil && limit.MatchString(s) {
					names = append(names, s)
				}
			}
			return true
		})
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// MissingLimits are the limits that have no row in a document's tables.
func MissingLimits(text string, names []string) []string {
	return missing(text, names, func(name string) string { return "| `" + name + "` |" })
}

// MissingReasons are the reasons of a Status that have no row.
func MissingReasons(text string) []string {
	var names []string
	values := sluicev1.Reason(0).Descriptor().Values()
	for i := range values.Len() {
		names = append(names, strings.TrimPrefix(string(values.Get(i).Name()), "REASON_"))
	}
	return missing(text, names, func(name string) string { return "\n| " + name + " |" })
}

func missing(text string, names []string, row func(string) string) []string {
	var found []string
	for _, name := range names {
		if !strings.Contains(text, row(name)) {
			found = append(found, name+" is missing")
		}
	}
	return found
}

// MissingFrames are the frames without a row in the table of frames, and the fields that their row does not name.
func MissingFrames(text string) []string {
	var found []string
	for _, envelope := range []protoreflect.MessageDescriptor{
		(*sluicev1.ClientFrame)(nil).ProtoReflect().Descriptor(), (*sluicev1.ServerFrame)(nil).ProtoReflect().Descriptor(),
	} {
		frames := envelope.Oneofs().ByName("frame").Fields()
		for i := range frames.Len() {
			found = append(found, missingFields(text, frames.Get(i).Message())...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func missingFields(text string, frame protoreflect.MessageDescriptor) []string {
	begin := fmt.Sprintf("\n| %s | ", frame.Name())
	_, rest, ok := strings.Cut(text, begin)
	if !ok {
		return []string{fmt.Sprintf("frame %s is missing", frame.Name())}
	}
	row, _, _ := strings.Cut(rest, "\n")
	var found []string
	for i := range frame.Fields().Len() {
		if field := frame.Fields().Get(i).Name(); !strings.Contains(row, "`"+string(field)+"`") {
			found = append(found, fmt.Sprintf("field %s of frame %s is missing", field, frame.Name()))
		}
	}
	return found
}

// MissingFiles are the relative links of a document in folder dir that lead to no file.
func MissingFiles(text, dir string, exists func(string) bool) []string {
	var found []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		target, _, _ := strings.Cut(m[1], "#")
		if target == "" || strings.Contains(target, "://") {
			continue
		}
		if !exists(path.Join(dir, target)) {
			found = append(found, m[1]+" leads nowhere")
		}
	}
	return found
}

var link = regexp.MustCompile(`\]\(([^)]+)\)`)
