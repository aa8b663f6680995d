// Command reference generates what documents say of the configuration's fields from the types' comments and tags and from the defaults:
// the tables of docs/configuration.md, and docs/sluice.example.yaml.
//
// It is run by `make generate` with the repository's folder as its argument. A test fails when the documents are not what it would write.
package main

import (
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("the argument is the repository's folder, not %q", args)
	}
	root, err := os.OpenRoot(args[0])
	if err != nil {
		return fmt.Errorf("open the repository: %w", err)
	}
	defer root.Close()
	files, err := generate(root)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := root.WriteFile(name, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write the reference: %w", err)
		}
	}
	return nil
}

// Where what is generated belongs, from the repository's folder.
const (
	source   = "cmd/sluice/config/config.go"
	document = "docs/configuration.md"
	sample   = "docs/sluice.example.yaml"
)

// generate returns the documents as they ought to be, by name.
func generate(root *os.Root) (map[string]string, error) {
	types, err := parseTypes(root)
	if err != nil {
		return nil, err
	}
	empty, err := defaults()
	if err != nil {
		return nil, err
	}
	file, err := types.section("Config", "", empty)
	if err != nil {
		return nil, err
	}
	old, err := root.ReadFile(document)
	if err != nil {
		return nil, fmt.Errorf("read the document: %w", err)
	}
	text, err := insert(string(old), markdown(file))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", document, err)
	}
	return map[string]string{document: text, sample: example(file)}, nil
}
