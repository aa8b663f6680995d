// Package deptest states which package of the repository may import which, each ban with its reason, and finds the
// imports that break it. Its test runs over the tree; the table is in rules.go.
package deptest

import (
	"fmt"
	"strings"
)

// Module is the path of the main module; imports below it are imports of ours.
const Module = "github.com/sluice-gateway/sluice"

// Import is one import declaration.
type Import struct {
	File string // from the root of the repository
	Line int
	From string // the importing package: its folder from the root of the repository
	Path string // what it imports
}

// Rule says what one package, and those below its folder that have no rule of their own, may import besides the
// standard library and its own folder.
type Rule struct {
	Package string
	Ours    []string // folders of ours
	Others  []string // import paths of others; each allows what is below it as well
	Because string   // why everything else is banned
	Bans    []Ban    // reasons of their own for the bans somebody will run into
}

// Ban is a reason for one import, or everything below it, to be banned.
type Ban struct {
	Path    string // a folder of ours or an import path of others
	Because string
}

// Everything in a list of Rule.Ours or Rule.Others allows all of it.
const Everything = "*"

// Check returns a sentence for each import that no rule allows, and for each package that has no rule.
func Check(rules []Rule, imports []Import) []string {
	var found []string
	for _, i := range imports {
		rule, ok := ruleFor(rules, i.From)
		if !ok {
			found = append(found, fmt.Sprintf("%s:%d: package %s has no rule: give it one in internal/deptest/rules.go, with a reason", i.File, i.Line, i.From))
			continue
		}
		if !rule.allows(i.Path) {
			found = append(found, fmt.Sprintf("%s:%d: %s may not import %s: %s", i.File, i.Line, i.From, i.Path, rule.reason(i.Path)))
		}
	}
	return found
}

// ruleFor finds the rule of the nearest folder.
func ruleFor(rules []Rule, dir string) (Rule, bool) {
	var nearest Rule
	for _, r := range rules {
		if within(dir, r.Package) && len(r.Package) > len(nearest.Package) {
			nearest = r
		}
	}
	return nearest, nearest.Package != ""
}

func (r Rule) allows(path string) bool {
	if dir, ours := folder(path); ours {
		return within(dir, r.Package) || listed(r.Ours, dir)
	}
	return standard(path) || listed(r.Others, path)
}

func (r Rule) reason(path string) string {
	dir, _ := folder(path)
	for _, ban := range r.Bans {
		if within(dir, ban.Path) {
			return ban.Because
		}
	}
	return r.Because
}

// folder is the folder of a package of ours, or the path itself of one that is not.
func folder(path string) (string, bool) {
	dir, ours := strings.CutPrefix(path, Module+"/")
	return dir, ours
}

func listed(allowed []string, path string) bool {
	for _, a := range allowed {
		if a == Everything || within(path, a) {
			return true
		}
	}
	return false
}

// within says whether path is top or below it, by whole path elements.
func within(path, top string) bool {
	return path == top || strings.HasPrefix(path, top+"/")
}

// standard says whether the path is of the standard library: as in the go command, its first element has no dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}
