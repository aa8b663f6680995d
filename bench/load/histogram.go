package load

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts times in buckets that are 1/32 of their value wide, so that a quantile is off by 3 % at most. It is safe for concurrent use.
type histogram struct {
	counts [60 * subBuckets]atomic.Uint64
}

const (
	subBits    = 5
	subBuckets = 1 << subBits
)

func (h *histogram) add(ns int64) { h.counts[bucket(uint64(max(ns, 0)))].Add(1) }

// bucket is linear up to subBuckets, then subBuckets to each power of two.
func bucket(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*subBuckets + int(v>>shift)
}

// middle is a bucket's middle.
func middle(i int) time.Duration {
	if i < 2*subBuckets {
		return time.Duration(i)
	}
	shift := i/subBuckets - 1
	return time.Duration(uint64(i-shift*subBuckets)<<shift + 1<<shift/2)
}

// reset forgets all. What is added meanwhile may be forgotten or not.
func (h *histogram) reset() {
	for i := range h.counts {
		h.counts[i].Store(0)
	}
}

// quantiles are the times below which such parts of all lie, parts rising; all 0 without any.
func (h *histogram) quantiles(parts ...float64) []time.Duration {
	total := uint64(0)
	for i := range h.counts {
		total += h.counts[i].Load()
	}
	out := make([]time.Duration, len(parts))
	seen, next := uint64(0), 0
	for i := range h.counts {
		seen += h.counts[i].Load()
		for next < len(parts) && seen > 0 && float64(seen) >= parts[next]*float64(total) {
			out[next] = middle(i)
			next++
		}
	}
	return out
}
