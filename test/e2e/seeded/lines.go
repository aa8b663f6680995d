package seeded

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// LongestLine is how long a line may be, without its number and its newline: more than twice what a container runtime puts in one entry of a
// log (16 KiB).
const LongestLine = 40_000

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ."

// AppendLine appends the n-th line of a key, from 0, with its newline. Most are short, some empty but for their number, one in 128 long.
func AppendLine(b []byte, key, n uint64) []byte {
	b = append(strconv.AppendUint(b, n, 10), ' ')
	size := int(mix(key, 2*n) % 160)
	if mix(key, 2*n+1)%128 == 0 {
		size = int(mix(key, 2*n) % LongestLine)
	}
	start := len(b)
	b = append(b, make([]byte, size)...)
	text := b[start:]
	Fill(text, key^n<<20, 0)
	for i := range text {
		text[i] = alphabet[text[i]&63]
	}
	return append(b, '\n')
}

// LastLine is what follows the n lines that were written.
func LastLine(n uint64) string { return fmt.Sprintf("the end after %d lines\n", n) }

// LineChecker is written to, and fails at the first line that is not the key's next one, up to the [LastLine]. One goroutine uses it at a time.
type LineChecker struct {
	key, next uint64
	partial   []byte
	over      bool
	want      []byte
	err       error
}

// NewLineChecker makes a LineChecker that begins with the first line.
func NewLineChecker(key uint64) *LineChecker { return &LineChecker{key: key} }

// Write implements io.Writer.
func (c *LineChecker) Write(b []byte) (n int, err error) {
	n = len(b)
	for c.err == nil && len(b) > 0 {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		c.partial = append(c.partial, line...)
		if !whole {
			break
		}
		c.err = c.line(append(c.partial, '\n'))
		b, c.partial = rest, c.partial[:0]
	}
	return n, c.err
}

func (c *LineChecker) line(got []byte) error {
	c.want = AppendLine(c.want[:0], c.key, c.next)
	switch {
	case c.over:
		return fmt.Errorf("after the last of %d lines came %.100q", c.next, got)
	case bytes.Equal(got, c.want):
		c.next++
		return nil
	case string(got) == LastLine(c.next):
		c.over = true
		return nil
	case strings.HasPrefix(string(got), "the end"):
		return fmt.Errorf("%d lines came, and then %q", c.next, got)
	}
	return fmt.Errorf("line %d of %x is %.100q, %d bytes; want %.100q, %d bytes", c.next, c.key, got, len(got), c.want, len(c.want))
}

// Count is how many lines were right.
func (c *LineChecker) Count() uint64 { return c.next }

// Whole fails unless all has come, the last line too, and nothing wrong.
func (c *LineChecker) Whole() error {
	switch {
	case c.err != nil:
		return c.err
	case len(c.partial) > 0:
		return fmt.Errorf("after %d lines of %x there is a part of one, %.100q", c.next, c.key, c.partial)
	case !c.over:
		return fmt.Errorf("%d lines of %x came, and no last one", c.next, c.key)
	}
	return nil
}
