package auth

import (
	"bytes"
	"encoding/json"
	"iter"
	"unicode/utf8"
)

// This file reads JSON objects that nobody vouches for yet. encoding/json
// matches names in any case, lets the last of two equal names win and spends
// memory by what it is given; here a name is matched exactly, repeating one is
// an error, and walking an object allocates nothing.

// maxNesting is how deep arrays and objects may be nested. Real tokens need
// three levels; without a limit, brackets alone would cost memory.
const maxNesting = 16

// isObject reports whether doc is one JSON object in valid UTF-8, nested no
// deeper than maxNesting. The other functions of this file rely on it.
func isObject(doc []byte) bool {
	start := skipSpace(doc, 0)
	return start < len(doc) && doc[start] == '{' &&
		utf8.Valid(doc) && nesting(doc) <= maxNesting && json.Valid(doc)
}

// nesting returns how deep doc is nested, whether or not it is valid.
func nesting(doc []byte) int {
	depth, deepest := 0, 0
	for i := 0; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			i = skipString(doc, i) - 1
		case '{', '[':
			depth++
			deepest = max(deepest, depth)
		case '}', ']':
			depth--
		}
	}
	return deepest
}

// members yields the names (in quotes) and values of the object doc as they are
// written, in order, repeated ones too.
func members(doc []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		i := skipSpace(doc, skipSpace(doc, 0)+1) // past the brace
		for i < len(doc) && doc[i] == '"' {
			nameEnd := skipString(doc, i)
			start := skipSpace(doc, skipSpace(doc, nameEnd)+1) // past the colon
			end := skipValue(doc, start)
			if !yield(doc[i:nameEnd], doc[start:end]) {
				return
			}
			i = skipSpace(doc, skipSpace(doc, end)+1) // past the comma
		}
	}
}

// decodeMembers returns the values of the object doc by name; false if a name
// repeats.
func decodeMembers(doc []byte) (map[string][]byte, bool) {
	all := make(map[string][]byte)
	for quoted, value := range members(doc) {
		name, ok := decodeString(quoted)
		if _, repeated := all[name]; !ok || repeated {
			return nil, false
		}
		all[name] = value
	}
	return all, true
}

// decodeString returns the JSON string in value; false if it is something else.
func decodeString(value []byte) (string, bool) {
	if len(value) < 2 || value[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), true
	}
	var s string
	err := json.Unmarshal(value, &s)
	return s, err == nil
}

func skipSpace(doc []byte, i int) int {
	for i < len(doc) && (doc[i] == ' ' || doc[i] == '\t' || doc[i] == '\n' || doc[i] == '\r') {
		i++
	}
	return i
}

// skipString returns the index past the string whose opening quote is at i.
func skipString(doc []byte, i int) int {
	for i++; i < len(doc); i++ {
		switch doc[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(doc)
}

// skipValue returns the index past the value that begins at i.
func skipValue(doc []byte, i int) int {
	for depth := 0; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			i = skipString(doc, i) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
			continue
		}
		if depth == 0 && closes(doc[i]) {
			return i + 1
		}
	}
	return len(doc)
}

// closes reports whether c can only be the last byte of a value.
func closes(c byte) bool { return c == '"' || c == '}' || c == ']' }
