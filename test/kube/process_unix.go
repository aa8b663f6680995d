//go:build unix && !linux

package kube

import "syscall"

// childAttributes cannot tie the child's life to ours here: a killed test binary
// leaves its processes behind.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

// birth is not known here, so no process of an earlier run is ever ended.
func birth(int) string { return "" }
