package auth

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestAPaceIsKept: in any stretch of time no more are admitted than the burst and what the rate allows, and whoever waits
// as long as told is admitted.
func TestAPaceIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(minReviewRate, 1000).Draw(t, "rate")
		burst := rapid.IntRange(1, 20).Draw(t, "burst")
		p := newPace(rate, burst)
		now := time.Unix(2_000_000_000, 0)
		var admitted []time.Time
		for range 300 {
			wait := p.take(now)
			if wait == 0 {
				admitted = append(admitted, now)
			} else if rapid.Bool().Draw(t, "patient") {
				if now = now.Add(wait); p.take(now) != 0 {
					t.Fatalf("told to wait %v, and refused then", wait)
				}
				admitted = append(admitted, now)
			}
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(2*p.interval)).Draw(t, "elapsed")))
		}
		for i, from := range admitted {
			for j := i; j < len(admitted); j++ {
				if allowed := burst + int(admitted[j].Sub(from)/p.interval); j-i+1 > allowed {
					t.Fatalf("%d admitted in %v, at %v a second with a burst of %d", j-i+1, admitted[j].Sub(from), rate, burst)
				}
			}
		}
	})
}

func TestAPaceOutlivesAClockThatIsSetBack(t *testing.T) {
	p := newPace(1, 1)
	now := time.Unix(2_000_000_000, 0)
	if p.take(now) != 0 || p.take(now) == 0 {
		t.Fatal("one a second is not kept")
	}
	if wait := p.take(now.Add(-time.Hour)); wait != 0 {
		t.Errorf("after the clock was set back an hour, the next waits %v", wait)
	}
}

func TestWholeBurstsAtOnce(t *testing.T) {
	p := newPace(0.1, 5)
	now := time.Unix(2_000_000_000, 0)
	for n := range 5 {
		if wait := p.take(now); wait != 0 {
			t.Fatalf("number %d of a burst of 5 waits %v", n+1, wait)
		}
	}
	if wait := p.take(now); wait != 10*time.Second {
		t.Errorf("the sixth waits %v", wait)
	}
}
