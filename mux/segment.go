package mux

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Segment is a run of whole encoded frames of one channel, or of the session. It is queue, message part and replay buffer at once: its
// channel holds one reference until it is acknowledged, and each batch it is sent in holds another, which the link frees once the bytes
// are written. Nothing writes to a segment after it was queued. A reference that is never freed costs only the reuse of the memory.
type Segment struct {
	// Immutable once queued.
	b     []byte
	class int8   // of the pool it returns to; -1 for none
	first uint64 // its first frame's number, 0 for the session's frames
	last  uint64 // its last frame's number
	cost  uint64 // the direction's cumulative cost up to and with last

	refs atomic.Int32
}

// ref adds a reference. It panics on a freed segment: that is memory corruption.
func (g *Segment) ref() {
	if g.refs.Add(1) <= 1 {
		panic("mux: reference to a freed segment")
	}
}

// free drops a reference. It panics when there is none: that is memory corruption.
func (g *Segment) free() {
	switch n := g.refs.Add(-1); {
	case n < 0:
		panic("mux: segment freed twice")
	case n == 0 && g.class >= 0:
		pools[g.class].Put(g)
	}
}

// Part is a segment in a batch, or the end of one after a resume inside it. The zero Part is not valid.
type Part struct {
	seg  *Segment
	from int
}

// Bytes are whole encoded frames. They must not be changed.
func (p Part) Bytes() []byte { return p.seg.b[p.from:] }

// Ref adds a reference, for a link that keeps the bytes beyond one Free.
func (p Part) Ref() { p.seg.ref() }

// Free drops a reference. A link calls it once for each part it was given, after the bytes are written.
func (p Part) Free() { p.seg.free() }

// Batch is what one message of a link carries: whole frames, in order.
type Batch []Part

// Len is the batch's size in bytes.
func (b Batch) Len() int {
	n := 0
	for _, p := range b {
		n += len(p.Bytes())
	}
	return n
}

// Free drops one reference of each part.
func (b Batch) Free() {
	for _, p := range b {
		p.Free()
	}
}

// Size classes are 2^k + 2^(k-3), so that a power-of-two payload with its header does not fall into the next class.
const (
	minClass = 9  // 576 B
	maxClass = 16 // 72 KiB
)

var pools [maxClass - minClass + 1]sync.Pool

func classSize(k int) int { return 1<<(k+minClass) + 1<<(k+minClass-3) }

// classOf is the smallest class that holds n bytes, or -1.
func classOf(n int) int {
	k := max(bits.Len(uint(n))-1-minClass, 0)
	if classSize(k) < n {
		k++
	}
	if k > maxClass-minClass {
		return -1
	}
	return k
}

// newSegment is an empty segment with room for n bytes and one reference.
func newSegment(n int) *Segment {
	k := classOf(n)
	if k < 0 {
		g := &Segment{b: make([]byte, 0, n), class: -1}
		g.refs.Store(1)
		return g
	}
	g, _ := pools[k].Get().(*Segment)
	if g == nil {
		g = &Segment{b: make([]byte, classSize(k)), class: int8(k)}
	}
	g.b, g.first, g.last, g.cost = g.b[:0], 0, 0, 0
	g.refs.Store(1)
	return g
}
