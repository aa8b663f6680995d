package seeded

import (
	"bytes"
	"io"
	"testing"
)

// whole is the first n bytes of a stream, made at once.
func whole(key uint64, n int) []byte {
	b := make([]byte, n)
	Fill(b, key, 0)
	return b
}

// TestAStreamIsTheSameHoweverItIsRead: in pieces of any length, from any offset.
func TestAStreamIsTheSameHoweverItIsRead(t *testing.T) {
	want := whole(7, 1000)
	for from := range 40 {
		for n := range 40 {
			got := make([]byte, n)
			Fill(got, 7, int64(from))
			if !bytes.Equal(got, want[from:from+n]) {
				t.Fatalf("%d bytes from %d differ", n, from)
			}
		}
	}
	got, err := io.ReadAll(NewReader(7, 1000))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("a Reader gives %d bytes, %v", len(got), err)
	}
	if bytes.Equal(whole(8, 1000), want) {
		t.Error("two streams are the same")
	}
}

// TestOneWrongByteIsFound, and so is one too few or too many.
func TestOneWrongByteIsFound(t *testing.T) {
	const size = 100_000
	for _, wrong := range []int{-1, 0, 5, 40_000, size - 1} {
		b := whole(9, size)
		if wrong >= 0 {
			b[wrong] ^= 1
		}
		c := NewChecker(9)
		n, err := c.Write(b)
		if wrong < 0 && (err != nil || n != size || c.Whole(size) != nil || c.Whole(size+1) == nil || c.Whole(size-1) == nil) {
			t.Errorf("of a right stream: %d, %v, %v", n, err, c.Whole(size))
		}
		if wrong >= 0 && (err == nil || c.Whole(size) == nil) {
			t.Errorf("byte %d is wrong, and nobody noticed", wrong)
		}
	}
	twisted := whole(9, size)
	Transform(twisted, 3, 0)
	c := NewChecker(9)
	c.Twist = 3
	if _, err := c.Write(twisted); err != nil || c.Whole(size) != nil {
		t.Errorf("a transformed stream: %v", err)
	}
}

// TestOneWrongLineIsFound: one that is missing, repeated, torn or follows the last.
func TestOneWrongLineIsFound(t *testing.T) {
	lines := make([][]byte, 500)
	longest := 0
	for i := range lines {
		lines[i] = AppendLine(nil, 4, uint64(i))
		longest = max(longest, len(lines[i]))
	}
	if longest < 16<<10 {
		t.Errorf("no line is longer than %d bytes", longest)
	}
	end := []byte(LastLine(500))
	join := func(parts ...[][]byte) []byte {
		var all []byte
		for _, p := range parts {
			all = append(all, bytes.Join(p, nil)...)
		}
		return all
	}
	for name, text := range map[string][]byte{
		"missing":  join(lines[:200], lines[201:], [][]byte{end}),
		"repeated": join(lines[:200], lines[199:], [][]byte{end}),
		"torn":     join(lines[:200], [][]byte{lines[200][:1], lines[200]}, lines[201:], [][]byte{end}),
		"unended":  join(lines),
		"more":     join(lines, [][]byte{end, lines[0]}),
		"short":    join(lines[:499], [][]byte{end}),
	} {
		c := NewLineChecker(4)
		if _, err := c.Write(text); err == nil && c.Whole() == nil {
			t.Errorf("%s: nobody noticed", name)
		}
	}
	c := NewLineChecker(4)
	for all := join(lines, [][]byte{end}); len(all) > 0; { // in pieces that respect no line
		n := min(len(all), 1009)
		if _, err := c.Write(all[:n]); err != nil {
			t.Fatal(err)
		}
		all = all[n:]
	}
	if err := c.Whole(); err != nil || c.Count() != 500 {
		t.Errorf("%d lines, %v", c.Count(), err)
	}
}
