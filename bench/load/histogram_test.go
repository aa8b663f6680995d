package load

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestQuantilesAreThoseOfTheSortedTimesWithinThreePercent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		times := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 500).Draw(t, "times")
		part := rapid.Float64Range(0.01, 1).Draw(t, "part")
		var h histogram
		for _, ns := range times {
			h.add(ns)
		}
		slices.Sort(times)
		want := float64(times[int(math.Ceil(part*float64(len(times))))-1])
		if got := float64(h.quantiles(part)[0]); math.Abs(got-want) > want*0.032+1 {
			t.Errorf("quantile %v is %v, want %v", part, got, want)
		}
	})
}

func TestBucketsRiseAndHoldTheirMiddle(t *testing.T) {
	for v := uint64(0); v < 1<<40; v += 1 + v/97 {
		if b := bucket(v); bucket(v+1) < b || bucket(uint64(middle(b))) != b {
			t.Fatalf("%d lies in bucket %d, %d in %d, the middle %d in %d", v, b, v+1, bucket(v+1), middle(b), bucket(uint64(middle(b))))
		}
	}
}

func TestResetForgets(t *testing.T) {
	var h histogram
	h.add(5)
	h.reset()
	if q := h.quantiles(0.5, 1); q[0] != 0 || q[1] != 0 {
		t.Errorf("quantiles %v of nothing", q)
	}
}
