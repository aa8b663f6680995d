//go:build !race

package nowait

import (
	"syscall"
	"unsafe"
)

func read(fd int, p []byte) (int, error) { return raw(syscall.SYS_READ, fd, p) }

func write(fd int, p []byte) (int, error) { return raw(syscall.SYS_WRITE, fd, p) }

// raw is a system call that is announced to nobody.
func raw(call uintptr, fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
