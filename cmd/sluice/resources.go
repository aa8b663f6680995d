package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// wanted is how a person names a resource: NAME, NAME.GROUP or NAME.VERSION.GROUP. A trailing dot means the core group.
type wanted struct {
	text     string
	readings []reading
}

// reading is one way to read it.
type reading struct {
	name, version, group string
	anyGroup             bool
}

// parseWanted reads a resource as kubectl does.
func parseWanted(text string) wanted {
	w := wanted{text: text}
	name, rest, qualified := strings.Cut(strings.ToLower(text), ".")
	if !qualified {
		w.readings = []reading{{name: name, anyGroup: true}}
		return w
	}
	if version, group, versioned := strings.Cut(rest, "."); versioned && isVersion(version) {
		w.readings = append(w.readings, reading{name: name, version: version, group: group})
	}
	w.readings = append(w.readings, reading{name: name, group: rest})
	return w
}

// isVersion reports whether s has the form of an API version, such as v1 or v2beta1; anything else is the beginning of a group's name.
func isVersion(s string) bool {
	digits, ok := strings.CutPrefix(s, "v")
	return ok && digits != "" && digits[0] >= '0' && digits[0] <= '9'
}

// matches reports whether a resource is meant, by its plural, singular, kind or a short name.
func (r reading) matches(s *sluicev1.Resource) bool {
	if r.name == "" || !r.anyGroup && r.group != s.GetGroup() {
		return false
	}
	return r.name == s.GetResource() || r.name == s.GetSingular() || r.name == strings.ToLower(s.GetKind()) ||
		slices.Contains(s.GetShortNames(), r.name)
}

// find is the resource that is meant, in the version that is. Where several groups have it, the API server's order decides, which has the
// core group first.
func (w wanted) find(served *sluicev1.ListResourcesResponse) (*sluicev1.Resource, error) {
	s, version := w.lookUp(served)
	switch {
	case s == nil:
		return nil, w.notFound(served)
	case !slices.Contains(s.GetVerbs(), "watch"):
		return nil, fmt.Errorf("%s cannot be watched; the API server offers %s", qualified(s), strings.Join(s.GetVerbs(), ", "))
	case version == s.GetVersion():
		return s, nil
	}
	return &sluicev1.Resource{
		Group: s.GetGroup(), Version: version, Resource: s.GetResource(), Kind: s.GetKind(), Namespaced: s.GetNamespaced(),
	}, nil
}

// lookUp finds the resource and the version that is meant. A version that is not the group's preferred one is what is left when nothing else
// is: the API server knows whether it serves it.
func (w wanted) lookUp(served *sluicev1.ListResourcesResponse) (other *sluicev1.Resource, version string) {
	for _, r := range w.readings {
		for _, s := range served.GetResources() {
			switch {
			case !r.matches(s):
			case r.version == "":
				return s, s.Version
			case r.version == s.GetVersion():
				return s, r.version
			case other == nil:
				other, version = s, r.version
			}
		}
	}
	return other, version
}

// notFound says what there is instead, and what is not known.
func (w wanted) notFound(served *sluicev1.ListResourcesResponse) error {
	message := fmt.Sprintf("the cluster has no resource %q", w.text)
	if like := w.like(served); len(like) > 0 {
		message += "; did you mean " + strings.Join(like, ", ") + "?"
	}
	var silent []string
	for _, f := range served.GetFailures() {
		silent = append(silent, f.GetGroupVersion())
	}
	if len(silent) > 0 {
		message += " (these API groups did not answer: " + strings.Join(silent, ", ") + ")"
	}
	return errors.New(message)
}

// like are at most three resources whose names are close.
func (w wanted) like(served *sluicev1.ListResourcesResponse) []string {
	name := w.readings[0].name
	var out []string
	for _, s := range served.GetResources() {
		if near(name, s.GetResource()) || near(name, s.GetSingular()) {
			out = append(out, qualified(s))
		}
	}
	return out[:min(3, len(out))]
}

// near reports whether a is the beginning of b, or differs from it by at most two typing errors.
func near(a, b string) bool {
	return len(a) > 2 && (strings.HasPrefix(b, a) || distance(a, b) <= min(2, len(a)/3))
}

// distance is how many letters must be put in, left out or replaced to make b of a (Levenshtein).
func distance(a, b string) int {
	before := make([]int, len(b)+1)
	for j := range before {
		before[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			replaced := before[j]
			if a[i] != b[j] {
				replaced++
			}
			row[j+1] = min(replaced, before[j+1]+1, row[j]+1)
		}
		before = row
	}
	return before[len(b)]
}

// qualified is the name that find finds again: pods, deployments.apps.
func qualified(s *sluicev1.Resource) string {
	if s.GetGroup() == "" {
		return s.GetResource()
	}
	return s.GetResource() + "." + s.GetGroup()
}
