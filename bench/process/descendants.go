//go:build unix

package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ, 100 on every Linux.
const tick = 10 * time.Millisecond

// Descendants is the CPU time of the living processes below this one, in user and kernel; 0 where there is no /proc.
func Descendants() time.Duration {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	below, used := map[int][]int{}, map[int]time.Duration{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		pid, parent, cpu := ofStat(text)
		below[parent], used[pid] = append(below[parent], pid), cpu
	}
	var sum time.Duration
	for next := below[os.Getpid()]; len(next) > 0; {
		pid := next[len(next)-1]
		next = append(next[:len(next)-1], below[pid]...)
		sum += used[pid]
	}
	return sum
}

// ofStat reads proc_pid_stat(5).
func ofStat(text []byte) (pid, parent int, cpu time.Duration) {
	first, _, _ := bytes.Cut(text, []byte(" "))
	rest := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:]) // the command in parentheses may hold anything
	if len(rest) < 13 {
		return 0, 0, 0
	}
	number := func(b []byte) int {
		n, _ := strconv.Atoi(string(b)) // the kernel writes numbers
		return n
	}
	return number(first), number(rest[1]), time.Duration(number(rest[11])+number(rest[12])) * tick
}
