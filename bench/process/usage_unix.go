//go:build unix

package process

import (
	"bytes"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"syscall"
	"time"
)

// Usage is what the calling process has used until now.
type Usage struct {
	// CPU is of all its threads, in user and kernel.
	CPU time.Duration `json:"cpu_ns"`
	// RSS is its resident memory in bytes, and Peak the most that it was. 0 where there is no /proc.
	RSS  int64 `json:"rss"`
	Peak int64 `json:"peak_rss"`
	// Allocations is how many objects it has allocated on the heap.
	Allocations uint64 `json:"allocations"`
	// Live is the heap in use in bytes. After a collection it is what is alive.
	Live uint64 `json:"live"`
	// Goroutines is how many there are.
	Goroutines int `json:"goroutines"`
}

// ReadUsage reads the process's usage.
func ReadUsage() Usage {
	u := Usage{CPU: cpu(), Goroutines: runtime.NumGoroutine()}
	u.RSS, u.Peak = memory()
	samples := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(samples)
	u.Allocations, u.Live = samples[0].Value.Uint64(), samples[1].Value.Uint64()
	return u
}

func cpu() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic("getrusage: " + err.Error()) // it can only fail for wrong arguments
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// memory is the resident memory and its peak, of /proc/self/status.
func memory() (rss, peak int64) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	return kilobytes(text, "VmRSS:"), kilobytes(text, "VmHWM:")
}

func kilobytes(text []byte, key string) int64 {
	_, rest, _ := bytes.Cut(text, []byte(key))
	line, _, _ := bytes.Cut(rest, []byte("kB"))
	n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}

// FileLimit is how many files the process may have open.
func FileLimit() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024 // what POSIX systems begin with
	}
	// The Go runtime has raised the soft limit to the hard one already, here and in every process of ours.
	return int(min(l.Cur, 1<<30))
}
