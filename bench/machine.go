//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// machine is where a run was.
type machine struct {
	OS   string    `json:"os"`
	Arch string    `json:"arch"`
	CPUs int       `json:"cpus"`
	CPU  string    `json:"cpu,omitempty"`
	Go   string    `json:"go"`
	Time time.Time `json:"time"`
	// Load1 is the load average of the minute before the run.
	Load1 float64 `json:"load_before"`
}

func thisMachine() machine {
	m := machine{OS: runtime.GOOS, Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version(), Time: time.Now().UTC()}
	info, _ := os.ReadFile("/proc/cpuinfo") // where there is one
	_, name, _ := bytes.Cut(info, []byte("model name\t: "))
	name, _, _ = bytes.Cut(name, []byte("\n"))
	m.CPU = string(name)
	loads, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(loads), " ")
	m.Load1, _ = strconv.ParseFloat(first, 64)
	return m
}

func (m machine) String() string {
	return fmt.Sprintf("%s/%s, %d CPUs (%s), %s, load before %.1f", m.OS, m.Arch, m.CPUs, m.CPU, m.Go, m.Load1)
}

// busyCPU is how long all CPUs together have been busy since the machine started, with anything; 0 where there is no /proc.
func busyCPU() time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ, 100 on every Linux
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	var sum time.Duration
	for i, field := range strings.Fields(line) {
		if i == 0 || i == 4 || i == 5 || i > 8 { // the name; idle and iowait; guests, who are in user already
			continue
		}
		n, _ := strconv.ParseInt(field, 10, 64)
		sum += time.Duration(n) * tick
	}
	return sum
}
