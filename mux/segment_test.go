package mux

import "testing"

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// TestSegmentsAreFreedOnce proves that a double free and the use of a freed segment are noticed at once: they are memory corruption.
func TestSegmentsAreFreedOnce(t *testing.T) {
	g := newSegment(1 << 20) // of no class: nobody can get it from a pool meanwhile
	g.ref()
	g.free()
	g.free()
	if !panics(g.free) {
		t.Error("a second free is not noticed")
	}
	h := newSegment(1 << 20)
	h.free()
	if !panics(h.ref) {
		t.Error("a reference to a freed segment is not noticed")
	}
}

// TestBatchesHoldTheirParts proves that each part of a batch holds a reference of its own.
func TestBatchesHoldTheirParts(t *testing.T) {
	g := newSegment(1 << 20)
	g.b = append(g.b, "abcdef"...)
	p := Part{g, 2}
	p.Ref()
	b := Batch{{g, 0}, p}
	if b.Len() != 10 || string(p.Bytes()) != "cdef" {
		t.Fatalf("a batch of %d bytes, part %q", b.Len(), p.Bytes())
	}
	b.Free()
	if n := g.refs.Load(); n != 0 {
		t.Errorf("%d references are left", n)
	}
}

// TestSegmentsHaveRoom proves that each size gets a class that holds it and wastes less than half, and that the largest frame of ours has one.
func TestSegmentsHaveRoom(t *testing.T) {
	for n := range 80 << 10 {
		k := classOf(n)
		switch {
		case k < 0 && n <= classSize(maxClass-minClass):
			t.Fatalf("%d bytes have no class", n)
		case k < 0:
			continue
		case classSize(k) < n:
			t.Fatalf("%d bytes have the class of %d", n, classSize(k))
		case k > 0 && classSize(k-1) >= n:
			t.Fatalf("%d bytes have the class of %d, and would fit %d", n, classSize(k), classSize(k-1))
		}
	}
	if classOf(LargePiece+1024) < 0 {
		t.Error("the largest piece with a long cursor has no class")
	}
	for _, n := range []int{0, 1, 576, 577, 72 << 10, 72<<10 + 1} {
		if g := newSegment(n); cap(g.b) < n || len(g.b) != 0 || g.refs.Load() != 1 {
			t.Errorf("a segment for %d bytes has room for %d, length %d, %d references", n, cap(g.b), len(g.b), g.refs.Load())
		}
	}
}
