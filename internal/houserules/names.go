package houserules

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/source"
)

// MaxLines is the greatest length of a Go file, tests included.
const MaxLines = 900

// vague are the names that say nothing of what is inside, and those that CONTRIBUTING.md's list of words replaces.
var vague = []string{
	"util", "utils", "helper", "helpers", "manager", "common", "misc", "types", "multiplexer", "connection",
}

func checkLengths(files []source.File) []string {
	var found []string
	for _, f := range files {
		if f.Lines > MaxLines {
			found = append(found, fmt.Sprintf("%s has %d lines, more than %d: split it by concept", f.Path, f.Lines, MaxLines))
		}
	}
	return found
}

func checkNames(files []source.File) []string {
	var found []string
	for _, f := range files {
		if name := vagueName(f); name != "" {
			found = append(found, fmt.Sprintf("%s: %q could hold anything: name what is inside", f.Path, name))
		}
	}
	return found
}

// vagueName is a word of the file's or its package's name that is on the list, or "".
func vagueName(f source.File) string {
	words := strings.Split(strings.TrimSuffix(path.Base(f.Path), ".go"), "_")
	words = append(words, strings.TrimSuffix(f.Syntax.Name.Name, "_test"), path.Base(f.Dir()))
	for _, word := range words {
		if slices.Contains(vague, word) {
			return word
		}
	}
	return ""
}
