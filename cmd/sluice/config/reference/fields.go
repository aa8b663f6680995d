package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/cmd/sluice/config"
)

// section is one struct of the file: its place, what it is, and its fields.
type section struct {
	path    string // such as "clusters[].kubeconfig"; empty for the file itself
	meaning string
	fields  []field
}

// field is one field as its comment, its tags and the defaults tell it.
type field struct {
	name     string // in the file
	kind     string // what belongs into it
	meaning  string
	fallback string // what holds when it is left out
	bounds   string
	example  string
	instead  bool     // it contradicts another field's example
	nested   *section // for a struct
	list     bool     // a list of nested
}

// types are the structs of a package's source, by name.
type types map[string]*ast.GenDecl

// parseTypes reads the structs of the configuration.
func parseTypes(root *os.Root) (types, error) {
	text, err := root.ReadFile(source)
	if err != nil {
		return nil, fmt.Errorf("read the types: %w", err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), source, text, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("parse the types: %w", err)
	}
	out := types{}
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.TYPE && len(g.Specs) == 1 {
			out[g.Specs[0].(*ast.TypeSpec).Name.Name] = g
		}
	}
	return out, nil
}

// defaults is the configuration of an empty file, as a tree.
func defaults() (map[string]any, error) {
	text, err := json.Marshal(config.Default())
	if err != nil {
		return nil, fmt.Errorf("encode the defaults: %w", err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("decode the defaults: %w", err)
	}
	return tree, nil
}

// section reads one struct. The default of a field is that of an empty file, or what the tag says where that is nothing.
func (t types) section(name, path string, defaults map[string]any) (*section, error) {
	g := t[name]
	if g == nil {
		return nil, fmt.Errorf("there is no type %s", name)
	}
	out := &section{path: path, meaning: meaning(g.Doc.Text(), name)}
	for _, f := range g.Specs[0].(*ast.TypeSpec).Type.(*ast.StructType).Fields.List {
		one, err := t.field(f, path, defaults)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out.fields = append(out.fields, one)
	}
	return out, nil
}

func (t types) field(f *ast.Field, path string, defaults map[string]any) (field, error) {
	quoted, err := strconv.Unquote(f.Tag.Value)
	if err != nil || len(f.Names) != 1 {
		return field{}, fmt.Errorf("a field needs one name and a tag: %v", f.Names)
	}
	tag := reflect.StructTag(quoted)
	out := field{
		name: tag.Get("json"), meaning: meaning(f.Doc.Text(), f.Names[0].Name), bounds: tag.Get("bounds"), example: tag.Get("example"),
		instead: tag.Get("instead") == "true", fallback: tag.Get("default"),
	}
	typeName, list := typeOf(f.Type)
	if t[typeName] == nil {
		if v := defaults[out.name]; v != nil && out.fallback == "" {
			out.fallback = fmt.Sprint(v)
		}
		out.kind = kinds[typeName]
		if unit := tag.Get("unit"); unit != "" {
			out.kind = unit
		}
		if list {
			out.kind = "list of texts"
		}
		return out, nil
	}
	if path != "" {
		path += "."
	}
	path += out.name
	out.kind = "mapping"
	if out.list = list; list {
		path += "[]"
		out.kind = "list of mappings"
	}
	below, _ := defaults[out.name].(map[string]any)
	out.nested, err = t.section(typeName, path, below)
	return out, err
}

// kinds are the types of Go in words of the file.
var kinds = map[string]string{
	"string": "text", "bool": "true or false", "int": "number", "float64": "number", "Duration": "duration",
}

// typeOf is the type's name without the pointer or the list around it.
func typeOf(e ast.Expr) (name string, list bool) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeOf(e.X)
	case *ast.ArrayType:
		name, _ = typeOf(e.Elt)
		return name, true
	case *ast.Ident:
		return e.Name, false
	}
	return "", false
}

// meaning is a field's comment without what godoc wants at its beginning: "GRPCAddr is where gRPC listens" says where gRPC listens.
func meaning(doc, name string) string {
	text := strings.TrimPrefix(sentences(doc), name+" ")
	for _, verb := range []string{"is, ", "are, ", "is ", "are "} {
		if rest, ok := strings.CutPrefix(text, verb); ok {
			return strings.TrimSuffix(rest, ".")
		}
	}
	return strings.TrimSuffix(text, ".")
}

// sentences is a comment on one line.
func sentences(doc string) string { return strings.Join(strings.Fields(doc), " ") }
