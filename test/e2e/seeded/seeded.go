// Package seeded makes bytes and lines of which everybody who knows their key knows every one: what a process in a container writes, a test
// checks byte by byte wherever it arrives, and the other way round, without either having seen it before.
package seeded

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Fill writes to b what the stream with this key has from offset on.
func Fill(b []byte, key uint64, offset int64) {
	for len(b) > 0 {
		at, word := int(offset%8), mix(key, uint64(offset)/8)
		n := 8
		if at == 0 && len(b) >= 8 {
			binary.LittleEndian.PutUint64(b, word)
		} else {
			var bytes [8]byte
			binary.LittleEndian.PutUint64(bytes[:], word)
			n = copy(b, bytes[at:])
		}
		b, offset = b[n:], offset+int64(n)
	}
}

// mix is the number with this index of a key's (the finalizer of SplitMix64).
func mix(key, index uint64) uint64 {
	z := key*0xd1342543de82ef95 + (index+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Transform XORs b, which is at offset of something, with the stream of this key. What is transformed twice is what it was.
func Transform(b []byte, key uint64, offset int64) {
	var with [4 << 10]byte
	for len(b) > 0 {
		n := min(len(b), len(with))
		Fill(with[:n], key, offset)
		for i := range n {
			b[i] ^= with[i]
		}
		b, offset = b[n:], offset+int64(n)
	}
}

// Reader reads a stream from its beginning. One goroutine uses it at a time.
type Reader struct {
	key          uint64
	offset, left int64
}

// NewReader makes a Reader of the first n bytes of a stream.
func NewReader(key uint64, n int64) *Reader { return &Reader{key: key, left: n} }

// Read implements io.Reader.
func (r *Reader) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), r.left)]
	Fill(b, r.key, r.offset)
	r.offset += int64(len(b))
	r.left -= int64(len(b))
	return len(b), nil
}

// Checker is written to, and fails at the first byte that is not the stream's. One goroutine uses it at a time.
type Checker struct {
	// Twist, unless zero, is the key of the stream with which the bytes were transformed.
	Twist uint64

	key   uint64
	count int64
	want  []byte
	err   error
}

// NewChecker makes a Checker of a stream from its beginning.
func NewChecker(key uint64) *Checker { return &Checker{key: key} }

// Write implements io.Writer.
func (c *Checker) Write(b []byte) (n int, err error) {
	if c.want == nil {
		c.want = make([]byte, 32<<10)
	}
	for c.err == nil && len(b) > 0 {
		some, want := b[:min(len(b), len(c.want))], c.want[:min(len(b), len(c.want))]
		Fill(want, c.key, c.count)
		if c.Twist != 0 {
			Transform(want, c.Twist, c.count)
		}
		if !bytes.Equal(some, want) {
			c.err = fmt.Errorf("stream %x differs from byte %d on", c.key, c.count+int64(differ(some, want)))
			break
		}
		n, b, c.count = n+len(some), b[len(some):], c.count+int64(len(some))
	}
	return n, c.err
}

func differ(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// Count is how many bytes were right.
func (c *Checker) Count() int64 { return c.count }

// Whole fails unless exactly the first n bytes of the stream have been written, and nothing wrong.
func (c *Checker) Whole(n int64) error {
	if c.err == nil && c.count != n {
		return fmt.Errorf("stream %x has ended after %d bytes of %d", c.key, c.count, n)
	}
	return c.err
}
