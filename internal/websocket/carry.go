package websocket

import (
	"math/bits"
	"sync"
)

// carry holds what one walk leaves to the next. Its buffer is from a pool and at most twice as large as what it holds, since an idle channel
// may keep it for long; whoever reads without a pause gets the one that it has just given back.
type carry struct {
	b *[]byte // nil for nothing
}

// Carries are pooled by the power of two of their capacity, from 64 bytes to what holds all that a walk can leave.
const (
	minCarry = 6
	maxCarry = 17
)

var carries [maxCarry - minCarry + 1]sync.Pool

// carryClass is the smallest class that holds n bytes.
func carryClass(n int) int { return max(bits.Len(uint(n-1)), minCarry) - minCarry }

func (c *carry) len() int {
	if c.b == nil {
		return 0
	}
	return len(*c.b)
}

// fill puts two runs of bytes, one after the other, into an empty carry.
func (c *carry) fill(held, raw []byte) {
	n := len(held) + len(raw)
	if n == 0 {
		return
	}
	k := carryClass(n)
	if k < len(carries) {
		c.b, _ = carries[k].Get().(*[]byte)
	}
	if c.b == nil {
		b := make([]byte, 0, 1<<(k+minCarry))
		c.b = &b
	}
	*c.b = append(append((*c.b)[:0], held...), raw...)
}

// drain copies the bytes to dst, which is long enough, and leaves the carry empty.
func (c *carry) drain(dst []byte) (n int) {
	if c.b == nil {
		return 0
	}
	n = copy(dst, *c.b)
	if k := carryClass(cap(*c.b)); k < len(carries) {
		carries[k].Put(c.b)
	}
	c.b = nil
	return n
}
