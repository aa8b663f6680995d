package main

import (
	"fmt"
	"strings"
)

// width is how long a line of the example becomes.
const width = 110

// exampleHead begins the example file.
const exampleHead = "Every field of the configuration of `sluice serve`, each with its meaning, default, bounds and an example. It is a whole " +
	"configuration as it is; what is commented out contradicts something beside it. What a gateway needs at least is the first example of " +
	"docs/configuration.md. Generated: `make generate` writes it."

// example is a file that says every field.
func example(s *section) string {
	var b strings.Builder
	comment(&b, "", exampleHead)
	s.example(&b, "", false)
	return b.String()
}

// example writes the fields at an indentation; those of a list's element begin with a dash.
func (s *section) example(b *strings.Builder, indent string, list bool) {
	first := list
	for i, f := range s.fields {
		if i > 0 || indent == "" {
			b.WriteString("\n")
		}
		comment(b, indent, f.describe())
		prefix := indent
		switch {
		case f.instead:
			prefix += "# "
		case first:
			prefix = strings.TrimSuffix(indent, "  ") + "- "
			first = false
		}
		if f.nested == nil {
			fmt.Fprintf(b, "%s%s: %s\n", prefix, f.name, f.value())
			continue
		}
		fmt.Fprintf(b, "%s%s:\n", prefix, f.name)
		below := indent + "  "
		if f.list {
			below += "  "
		}
		f.nested.example(b, below, f.list)
	}
}

// value is the example as YAML: an address with a colon at its beginning is a text.
func (f field) value() string {
	if strings.HasPrefix(f.example, ":") {
		return `"` + f.example + `"`
	}
	return f.example
}

// describe is all there is to know about a field.
func (f field) describe() string {
	text := capital(f.meaning) + "."
	if f.nested != nil {
		return text
	}
	details := []string{f.kind}
	if f.bounds != "" {
		details = append(details, f.bounds)
	}
	if f.fallback == "required" {
		details = append(details, "required")
	} else {
		details = append(details, "default "+f.fallback)
	}
	return text + " (" + strings.Join(details, "; ") + ")"
}

// comment writes text as lines of a comment.
func comment(b *strings.Builder, indent, text string) {
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			fmt.Fprintln(b, line)
			line = indent + "#"
		}
		line += " " + word
	}
	fmt.Fprintln(b, line)
}
