package auth

import "time"

// pace admits events at a rate and in bursts (the generic cell rate algorithm).
// Its owner guards it.
type pace struct {
	interval time.Duration // between two events in the long run
	slack    time.Duration // by how much events may come before they are due
	due      time.Time     // when the next event would be, had all come evenly
}

// newPace admits rate events a second, and burst of them at once; both are positive.
func newPace(rate float64, burst int) pace {
	interval := time.Duration(float64(time.Second) / rate)
	return pace{interval: interval, slack: time.Duration(burst-1) * interval}
}

// take admits an event and returns 0, or returns how long to wait for the next
// that will be admitted.
func (p *pace) take(now time.Time) time.Duration {
	ahead := p.due.Sub(now)
	if ahead < 0 || ahead > p.slack+p.interval {
		ahead = 0 // It has been quiet, or the clock was set back.
	}
	if ahead > p.slack {
		return ahead - p.slack
	}
	p.due = now.Add(ahead + p.interval)
	return 0
}
