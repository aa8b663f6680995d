package server

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsGivenBackOnceAfterABurst(t *testing.T) {
	cases := []struct {
		name  string
		dials int
		pause time.Duration
		want  int64
	}{
		{"a burst", 3 * burst, calm / 10, 1},
		{"a few", burst - 1, calm / 10, 0},
		{"many, one at a time", 3 * burst, 2 * calm, 0},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var freed atomic.Int64
				tr := newTrim()
				tr.free = func() { freed.Add(1) }
				for range c.dials {
					tr.dialled()
					<-time.After(c.pause)
				}
				if n := freed.Load(); n > c.want || c.pause < calm && n != 0 {
					t.Errorf("memory was given back %d times before the end", n)
				}
				<-time.After(2 * calm)
				tr.stop()
				if n := freed.Load(); n != c.want {
					t.Errorf("memory was given back %d times, want %d", n, c.want)
				}
			})
		})
	}
}

func TestABurstThatIsCutOffIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTrim()
		tr.free = func() { t.Error("memory was given back after the end") }
		for range 2 * burst {
			tr.dialled()
		}
		tr.stop()
		<-time.After(2 * calm)
	})
}
