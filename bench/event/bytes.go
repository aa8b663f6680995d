package event

import "math/rand/v2"

// period is after how many bytes a stream repeats itself: a prime, so that no size of a message or a window divides it.
const period = 65521

// MaxBytes is the longest piece of a stream that Bytes makes.
const MaxBytes = 64 << 10

// rendered is the stream's beginning, long enough for MaxBytes from any place of a period on.
var rendered = render()

func render() []byte {
	b := make([]byte, period+MaxBytes)
	r := rand.NewChaCha8([32]byte{'s', 'l', 'u', 'i', 'c', 'e'})
	_, _ = r.Read(b[:period])      // it never fails
	for n := period; n < len(b); { // again and again: a copy onto itself takes what is not there yet
		n += copy(b[n:], b[:n])
	}
	return b
}

// Bytes are n bytes, at most MaxBytes, of the stream of bytes that shells pour, from its at-th on. They must not be written to.
func Bytes(at uint64, n int) []byte {
	from := int(at % period)
	return rendered[from : from+n : from+n]
}
