package main

import (
	"fmt"
	"strings"
)

// The generated part of a document lies between these lines.
const (
	begin = "<!-- What follows is generated from cmd/sluice/config by `make generate`. -->"
	end   = "<!-- What was generated ends here. -->"
)

// insert puts text between the two lines of a document.
func insert(document, text string) (string, error) {
	before, rest, ok := strings.Cut(document, begin+"\n")
	_, after, closed := strings.Cut(rest, end+"\n")
	if !ok || !closed {
		return "", fmt.Errorf("the document has no lines %s and %s", begin, end)
	}
	return before + begin + "\n\n" + text + "\n" + end + "\n" + after, nil
}

// markdown is a table for each section, the file's own first.
func markdown(s *section) string {
	var b strings.Builder
	s.markdown(&b)
	return strings.TrimSuffix(b.String(), "\n")
}

func (s *section) markdown(b *strings.Builder) {
	if s.path != "" {
		fmt.Fprintf(b, "### `%s`\n\n%s.\n\n", s.path, capital(s.meaning))
	}
	b.WriteString("| field | type | default | bounds | meaning |\n| --- | --- | --- | --- | --- |\n")
	for _, f := range s.fields {
		path := strings.TrimPrefix(s.path+"."+f.name, ".")
		kind, meaning := f.kind, cell(f.meaning)
		if f.nested != nil {
			meaning += "; [its fields](#" + anchor(f.nested.path) + ")"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %s |\n", path, kind, cell(f.fallback), cell(f.bounds), meaning)
	}
	b.WriteString("\n")
	for _, f := range s.fields {
		if f.nested != nil {
			f.nested.markdown(b)
		}
	}
}

// cell is text that ends no cell of a table and begins no markup but code.
func cell(s string) string {
	return strings.NewReplacer("|", `\|`, "*", `\*`, "[", `\[`, "_", `\_`).Replace(s)
}

// capital is a sentence's beginning.
func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// anchor is the link that a heading of this path gets.
func anchor(path string) string { return strings.NewReplacer(".", "", "[", "", "]", "").Replace(path) }
