//go:build unix

package event

import (
	"time"

	"golang.org/x/sys/unix"
)

// epoch ties this process's readings of the monotonic clock to the system's own, so that they mean the same in every process.
var epoch = calibrate()

type tie struct {
	at     time.Time // read with Go's monotonic clock, which is CLOCK_MONOTONIC or runs at its pace
	system int64     // CLOCK_MONOTONIC then, in nanoseconds
}

// calibrate takes of several tries the one in which the two readings lie closest together.
func calibrate() tie {
	const tries = 32
	var best tie
	closest := time.Duration(1 << 62)
	for range tries {
		before := time.Now()
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic("the monotonic clock cannot be read: " + err.Error()) // POSIX has no reason for it
		}
		if gap := time.Since(before); gap < closest {
			closest, best = gap, tie{before.Add(gap / 2), ts.Nano()}
		}
	}
	return best
}

// Now is CLOCK_MONOTONIC in nanoseconds. It means the same in every process of the machine, and needs no system call where time.Now needs none.
func Now() int64 { return epoch.system + int64(time.Since(epoch.at)) }
