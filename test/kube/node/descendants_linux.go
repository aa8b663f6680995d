package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// adoptOrphans makes this process the parent of every descendant whose own parent ends (prctl(2),
// PR_SET_CHILD_SUBREAPER), so that none gets away.
func adoptOrphans() error {
	return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// endDescendants kills the children of this process, then those they leave behind, until there are none.
func endDescendants(int) {
	for {
		for _, pid := range children() {
			_ = syscall.Kill(pid, syscall.SIGKILL) // fails only when it has ended
		}
		_, err := syscall.Wait4(-1, nil, 0, nil)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return // ECHILD: nobody is left
		}
	}
}

// children lists the processes whose parent this is (field 4 of proc_pid_stat(5)).
func children() []int {
	self := fmt.Append(nil, os.Getpid())
	names, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	var pids []int
	for _, name := range names {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // has ended since
		}
		// The second field is the command in parentheses and may hold anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil && len(fields) > 1 && bytes.Equal(fields[1], self) {
			pids = append(pids, pid)
		}
	}
	return pids
}
