package bridge

import (
	"bytes"
	"encoding/json"
)

// Where the resource version of a watch event is, and nowhere else: an annotation may have the same name, and a custom resource comes
// with its keys sorted, annotations first.
var versionPath = []string{"object", "metadata", "resourceVersion"}

// scanner finds one string in a JSON text by its path, without parsing the rest: it only counts how deep it is. It is fed the text in
// pieces of any size and keeps nothing of them but the beginning of a key or value that a cut went through. It is meant for valid JSON; of
// anything else it makes something, but never fails. The zero scanner is ready once path is set.
type scanner struct {
	path  []string
	found string // the value; empty until it is found
	part  []byte // the beginning of a captured string that is not at its end

	depth   int // objects and arrays that are open
	level   int // how many of them, from the outermost, are on the path
	within  string8
	key     bool // a string in this place would be a key of an object on the path
	matched bool // the key before this place is the path's next
	escaped bool // the last byte of the string was a backslash that escapes
	begun   bool
}

// string8 is what kind of string the scanner is in.
type string8 uint8

const (
	noString string8 = iota
	skipped          // a string that does not matter
	capturedKey
	capturedValue
)

// maxCapture is how long a key or value may be to be looked at, escapes included.
const maxCapture = 6 * maxVersion

// feed reads the next piece and reports whether the value has been found.
func (s *scanner) feed(b []byte) bool {
	if !s.begun {
		s.begun, s.matched = true, true // the text itself is where the path begins
	}
	for i := 0; i < len(b) && s.found == ""; {
		if s.within != noString {
			i = s.string(b, i)
			continue
		}
		s.token(b[i])
		i++
	}
	return s.found != ""
}

// token takes one byte outside of strings.
func (s *scanner) token(c byte) {
	onPath := s.depth == s.level
	switch c {
	case '"':
		s.quote(onPath)
	case '{', '[':
		if c == '{' && onPath && s.matched && s.level < len(s.path) {
			s.level++
			s.key = true
		}
		s.depth++
		s.matched = false
	case '}', ']':
		if s.depth == 0 {
			return
		}
		if onPath {
			s.level--
			s.key = false
		}
		s.depth--
	case ',':
		if onPath {
			s.key, s.matched = true, false
		}
	case ':':
		if onPath {
			s.key = false
		}
	}
}

// quote begins a string.
func (s *scanner) quote(onPath bool) {
	s.within = skipped
	switch {
	case !onPath || s.level == 0:
	case s.key:
		s.within = capturedKey
	case s.matched && s.level == len(s.path):
		s.within = capturedValue
	}
}

// string reads on in a string from b[from] and returns where it stopped: after the closing quote, or at the end of b.
func (s *scanner) string(b []byte, from int) int {
	for i := from; i < len(b); i++ {
		switch {
		case s.escaped:
			s.escaped = false
		case b[i] == '\\':
			s.escaped = true
		case b[i] == '"':
			s.closeQuote(b[from:i])
			return i + 1
		}
	}
	if s.within != skipped {
		s.keep(b[from:])
	}
	return len(b)
}

// keep copies the beginning of a captured string, unless it is too long to be looked at.
func (s *scanner) keep(b []byte) {
	if len(s.part)+len(b) > maxCapture {
		s.within, s.part = skipped, nil
		return
	}
	s.part = append(s.part, b...)
}

// closeQuote ends a string, the last bytes of which are rest.
func (s *scanner) closeQuote(rest []byte) {
	within := s.within
	s.within = noString
	if within == skipped {
		return
	}
	if len(s.part) > 0 {
		rest = append(s.part, rest...)
		s.part = nil
	}
	if within == capturedKey {
		s.matched = equals(rest, s.path[s.level-1])
		return
	}
	s.matched = false
	s.found = unquoted(rest)
}

// equals reports whether raw, between quotes in JSON, is want.
func equals(raw []byte, want string) bool {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw) == want
	}
	return unquoted(raw) == want
}

// unquoted is a JSON string's value, given what is between its quotes.
func unquoted(raw []byte) string {
	if len(raw) > maxCapture {
		return ""
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	var v string
	if json.Unmarshal(append(append([]byte{'"'}, raw...), '"'), &v) != nil {
		return ""
	}
	return v
}

// resourceVersion finds the resource version of a whole event; empty if it has none.
func resourceVersion(event []byte) string {
	s := scanner{path: versionPath}
	s.feed(event)
	return s.found
}
