package bridge

import "unicode/utf8"

// runes cuts a long text message between runes, and checks it on the way. The zero value stands at a message's beginning.
type runes struct {
	part [utf8.UTFMax]byte // the beginning of a rune that a cut went through
	n    uint8
}

// cut takes the next bytes of the message; last says that they are the last. It returns the rune that was cut before, if it is whole now,
// and what follows it up to the last whole rune, in b. It is not ok when the message is not UTF-8.
func (r *runes) cut(b []byte, last bool) (first, rest []byte, ok bool) {
	if r.n > 0 {
		n := r.complete(b)
		if first, ok = r.take(); !ok {
			return nil, nil, !last && n == len(b) && !utf8.FullRune(r.part[:r.n])
		}
		b = b[n:]
	}
	if !last {
		whole := wholeRunes(b)
		r.n = uint8(copy(r.part[:], b[whole:]))
		b = b[:whole]
	}
	return first, b, utf8.Valid(b)
}

// complete adds bytes of b to the rune until it is whole, and returns how many.
func (r *runes) complete(b []byte) (n int) {
	for n < len(b) && !utf8.FullRune(r.part[:r.n]) {
		r.part[r.n] = b[n]
		r.n++
		n++
	}
	return n
}

// take returns the rune, if it is whole and valid.
func (r *runes) take() ([]byte, bool) {
	if c, size := utf8.DecodeRune(r.part[:r.n]); c == utf8.RuneError && size <= 1 || size != int(r.n) {
		return nil, false
	}
	whole := append([]byte(nil), r.part[:r.n]...)
	r.n = 0
	return whole, true
}

// wholeRunes is the length of b without the beginning of a rune at its end.
func wholeRunes(b []byte) int {
	for i := len(b) - 1; i >= 0 && i > len(b)-utf8.UTFMax; i-- {
		if utf8.RuneStart(b[i]) {
			if utf8.FullRune(b[i:]) {
				return len(b)
			}
			return i
		}
	}
	return len(b)
}
