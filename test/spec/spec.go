// Package spec holds proto/SPEC.md to the tree: every rule names the test that proves it, every test it names exists, and no frame, reason
// or limit of the code is missing from it.
package spec

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Untested is what the table says of a rule that no test proves.
const Untested = "untested"

// Heading is the title of the section that maps rules to tests.
const Heading = "## Rules and their tests"

// Document is what a specification says of itself.
type Document struct {
	// Text is the whole of it.
	Text string
	// Rules are the sentences with an id, in their order.
	Rules []Rule
	// Tests names for each rule, by id, its tests as `folder.TestName`; nil stands for Untested.
	Tests map[string][]string
	// Repeated are the ids that have more than one row.
	Repeated []string
}

// Rule is one sentence that binds.
type Rule struct {
	// ID is a group and a number in it, such as SES-3.
	ID string
	// Text is all that belongs to it, up to the next paragraph or rule.
	Text string
}

var (
	rule = regexp.MustCompile(`(?m)^- \*\*\[([A-Z]+-\d+)\]\*\* (.*(?:\n {2}.*)*)`)
	row  = regexp.MustCompile(`(?m)^\| ([A-Z]+-\d+) \| (.*?) \|$`)
	name = regexp.MustCompile("`([^`]+)`")
	// mention is an id in the text, as in "see [SES-3]".
	mention = regexp.MustCompile(`\[([A-Z]+-\d+)\]`)
	binding = regexp.MustCompile(`\b(MUST|SHOULD|MAY)\b`)
)

// Parse reads a specification.
func Parse(text string) Document {
	d := Document{Text: text, Tests: map[string][]string{}}
	for _, m := range rule.FindAllStringSubmatch(text, -1) {
		d.Rules = append(d.Rules, Rule{ID: m[1], Text: m[2]})
	}
	_, table, _ := strings.Cut(text, Heading)
	for _, m := range row.FindAllStringSubmatch(table, -1) {
		if _, ok := d.Tests[m[1]]; ok {
			d.Repeated = append(d.Repeated, m[1])
		}
		d.Tests[m[1]] = namesIn(m[2])
	}
	return d
}

func namesIn(cell string) []string {
	if cell == Untested {
		return nil
	}
	found := []string{}
	for _, m := range name.FindAllStringSubmatch(cell, -1) {
		found = append(found, m[1])
	}
	return found
}

// Check returns what is wrong with a specification, given the tests that exist, as `folder.TestName`, each with its comment.
func Check(d Document, tests map[string]string) []string {
	found := checkRules(d)
	known := map[string]bool{}
	for _, r := range d.Rules {
		known[r.ID] = true
		named, ok := d.Tests[r.ID]
		switch {
		case !ok:
			found = append(found, r.ID+" has no row in the table of tests")
		case named != nil && len(named) == 0:
			found = append(found, r.ID+" names no test and is not said to be untested")
		}
		for _, test := range named {
			if _, exists := tests[test]; !exists {
				found = append(found, fmt.Sprintf("%s names %s, which does not exist", r.ID, test))
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.Tests)) {
		if !known[id] {
			found = append(found, id+" has a row in the table of tests and is no rule")
		}
	}
	for _, m := range mention.FindAllStringSubmatch(d.Text, -1) {
		if !known[m[1]] {
			found = append(found, m[1]+" is mentioned and is no rule")
		}
	}
	for _, id := range d.Repeated {
		found = append(found, id+" has more than one row in the table of tests")
	}
	return append(found, checkClaims(d, known, tests)...)
}

// checkRules wants every rule to bind, and the rules of a group to be numbered from 1 on without a gap.
func checkRules(d Document) []string {
	var found []string
	last := map[string]int{}
	for _, r := range d.Rules {
		if !binding.MatchString(r.Text) {
			found = append(found, r.ID+" says neither MUST nor SHOULD nor MAY")
		}
		group, digits, _ := strings.Cut(r.ID, "-")
		last[group]++
		if digits != strconv.Itoa(last[group]) {
			found = append(found, fmt.Sprintf("%s stands where %s-%d belongs", r.ID, group, last[group]))
		}
	}
	return found
}

// checkClaims wants every test that claims to prove a rule, by its name, to say which: in the table, or in its comment, as in "[SES-3]".
func checkClaims(d Document, known map[string]bool, tests map[string]string) []string {
	named := map[string]bool{}
	for _, all := range d.Tests {
		for _, test := range all {
			named[test] = true
		}
	}
	var found []string
	for _, test := range slices.Sorted(maps.Keys(tests)) {
		if !strings.Contains(test, ".TestSPEC_") {
			continue
		}
		ids := mention.FindAllStringSubmatch(tests[test], -1)
		if len(ids) == 0 && !named[test] {
			found = append(found, test+" proves a rule, and neither the table nor its comment says which")
		}
		for _, m := range ids {
			if !known[m[1]] {
				found = append(found, fmt.Sprintf("%s proves %s, which is no rule", test, m[1]))
			}
		}
	}
	return found
}
