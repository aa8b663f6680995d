package kubetest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// selector decides which objects of a kind a list or watch is about: those in
// its namespace that meet every requirement. Immutable.
type selector struct {
	namespace string // of the request's path; empty for all
	labels    []labelRequirement
	fields    []fieldRequirement
}

func (s *selector) matches(r *revision) bool {
	if s.namespace != "" && r.namespace != s.namespace {
		return false
	}
	for _, q := range s.labels {
		if !q.matches(r.labels) {
			return false
		}
	}
	for _, q := range s.fields {
		if !q.matches(r) {
			return false
		}
	}
	return true
}

// everything says that the selector leaves nothing of its namespace out, as
// far as a list's remainingItemCount is concerned.
func (s *selector) everything() bool { return len(s.labels) == 0 && len(s.fields) == 0 }

// scope is the narrowest namespace and name the selector is confined to; a
// part that is free is empty.
func (s *selector) scope() key {
	k := key{namespace: s.namespace}
	for _, q := range s.fields {
		switch {
		case q.negated:
		case q.field == "metadata.name":
			k.name = q.value
		case q.field == "metadata.namespace" && k.namespace == "":
			k.namespace = q.value
		}
	}
	return k
}

// fieldRequirement is one term of a fieldSelector.
type fieldRequirement struct {
	field   string
	value   string
	negated bool
	path    fieldPath
}

func (q fieldRequirement) matches(r *revision) bool {
	var v string
	switch q.field {
	case "metadata.name":
		v = r.name
	case "metadata.namespace":
		v = r.namespace
	default:
		text, ok := r.object.text(q.path.path)
		if !ok {
			text = q.path.initial
		}
		v = text
	}
	return (v == q.value) != q.negated
}

// parseFields reads a fieldSelector: terms field=value, field==value or
// field!=value, separated by commas. Only fields the kind offers are accepted.
func parseFields(k *Kind, text string) ([]fieldRequirement, error) {
	var out []fieldRequirement
	for term := range strings.SplitSeq(text, ",") {
		if term == "" {
			continue
		}
		q, ok := parseField(term)
		if !ok {
			return nil, badRequest("invalid selector: '%s'; can't understand '%s'", text, term)
		}
		path, err := q.resolve(k)
		if err != nil {
			return nil, err
		}
		q.path = path
		out = append(out, q)
	}
	return out, nil
}

func parseField(term string) (fieldRequirement, bool) {
	for _, op := range []string{"!=", "==", "="} {
		if field, value, ok := strings.Cut(term, op); ok {
			return fieldRequirement{field: field, value: value, negated: op == "!="}, true
		}
	}
	return fieldRequirement{}, false
}

func (q fieldRequirement) resolve(k *Kind) (fieldPath, error) {
	if q.field == "metadata.name" || q.field == "metadata.namespace" {
		return fieldPath{}, nil
	}
	path, ok := k.fields[q.field]
	switch {
	case ok:
		return path, nil
	case k.fields == nil:
		return path, badRequest("%q is not a known field selector: only %q, %q", q.field, "metadata.name", "metadata.namespace")
	default:
		return path, badRequest("field label not supported: %s", q.field)
	}
}

// labelOperator is how a label requirement compares.
type labelOperator int

const (
	labelIn labelOperator = iota
	labelNotIn
	labelExists
	labelAbsent
	labelGreater
	labelLess
)

// labelRequirement is one term of a labelSelector
// (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/).
type labelRequirement struct {
	label    string
	operator labelOperator
	values   []string
}

func (q labelRequirement) matches(labels map[string]string) bool {
	v, ok := labels[q.label]
	switch q.operator {
	case labelIn:
		return ok && slices.Contains(q.values, v)
	case labelNotIn:
		return !ok || !slices.Contains(q.values, v)
	case labelExists:
		return ok
	case labelAbsent:
		return !ok
	default:
		return ok && q.compares(v)
	}
}

func (q labelRequirement) compares(value string) bool {
	have, err := strconv.ParseInt(value, 10, 64)
	bound, boundErr := strconv.ParseInt(q.values[0], 10, 64)
	if err != nil || boundErr != nil {
		return false
	}
	if q.operator == labelGreater {
		return have > bound
	}
	return have < bound
}

// parseLabels reads a labelSelector: terms separated by the commas that are
// not inside a set's parentheses.
func parseLabels(text string) ([]labelRequirement, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var out []labelRequirement
	for _, term := range splitTerms(text) {
		q, err := parseLabel(strings.TrimSpace(term))
		if err != nil {
			return nil, badRequest("unable to parse requirement: %v", err)
		}
		out = append(out, q)
	}
	return out, nil
}

func splitTerms(text string) []string {
	var out []string
	depth, start := 0, 0
	for i, c := range text {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			out = append(out, text[start:i])
			start = i + 1
		}
	}
	return append(out, text[start:])
}

func parseLabel(term string) (labelRequirement, error) {
	if label, ok := strings.CutPrefix(term, "!"); ok && !strings.ContainsAny(label, "=!<>() ") {
		return checked(labelRequirement{label: label, operator: labelAbsent})
	}
	for _, op := range []struct {
		sign     string
		operator labelOperator
	}{{"!=", labelNotIn}, {"==", labelIn}, {"=", labelIn}, {">", labelGreater}, {"<", labelLess}} {
		if label, value, ok := strings.Cut(term, op.sign); ok {
			return checked(labelRequirement{strings.TrimSpace(label), op.operator, []string{strings.TrimSpace(value)}})
		}
	}
	if words := strings.Fields(term); len(words) > 1 {
		return parseSet(words[0], words[1], term)
	}
	return checked(labelRequirement{label: term, operator: labelExists})
}

// parseSet reads "label in (a, b)" and "label notin (a, b)".
func parseSet(label, word, term string) (labelRequirement, error) {
	word, _, _ = strings.Cut(word, "(")
	operator := labelIn
	switch word {
	case "in":
	case "notin":
		operator = labelNotIn
	default:
		return labelRequirement{}, fmt.Errorf("found '%s', expected: in, notin, =, ==, !=, gt, lt", word)
	}
	_, rest, open := strings.Cut(term, "(")
	set, closed := strings.CutSuffix(rest, ")")
	if !open || !closed {
		return labelRequirement{}, fmt.Errorf("found '%s', expected: '(' and ')' around the values", term)
	}
	var values []string
	for v := range strings.SplitSeq(set, ",") {
		values = append(values, strings.TrimSpace(v))
	}
	return checked(labelRequirement{label, operator, values})
}

// checked refuses labels and values that no object can have.
func checked(q labelRequirement) (labelRequirement, error) {
	name := q.label
	if prefix, rest, ok := strings.Cut(q.label, "/"); ok {
		if prefix == "" {
			return q, fmt.Errorf("key: Invalid value: %q: prefix part must be non-empty", q.label)
		}
		name = rest
	}
	if name == "" || !labelText(name) {
		return q, fmt.Errorf("key: Invalid value: %q: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character", q.label)
	}
	for _, v := range q.values {
		if !labelText(v) {
			return q, fmt.Errorf("values[0][%s]: Invalid value: %q: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character", q.label, v)
		}
	}
	return q, nil
}

// labelText says whether s is the name part of a label or a label's value.
func labelText(s string) bool {
	if len(s) > 63 {
		return false
	}
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1
		if !alphanumeric(s[i]) && (!inner || !strings.ContainsRune("-_.", rune(s[i]))) {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
