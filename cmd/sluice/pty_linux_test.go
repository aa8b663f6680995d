package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pty is a terminal for a test: a person's side and the side that programs see. It ends with the test.
type pty struct {
	t       *testing.T
	person  *os.File
	program *os.File
	shown   *output // what the person sees
	seen    int     // how much of that a test has asked for
}

// newPTY makes a terminal of a size. See pts(4).
func newPTY(t *testing.T, width, height uint16) *pty {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{t: t, person: person, shown: newOutput()}
	number := 0
	p.control(person, func(fd int) (err error) {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if p.program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	p.resize(width, height)
	read := make(chan struct{})
	go func() { // ends when the last program has closed its side
		defer close(read)
		if _, err := io.Copy(p.shown, person); err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		p.program.Close()
		person.Close()
		<-read
	})
	return p
}

func (p *pty) control(f *os.File, do func(fd int) error) {
	p.t.Helper()
	if err := descriptor(f, do); err != nil {
		p.t.Fatal(err)
	}
}

// resize gives the terminal another size; the kernel tells its foreground processes.
func (p *pty) resize(width, height uint16) {
	p.t.Helper()
	p.control(p.person, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	})
}

// mode is how the terminal treats what passes through it.
func (p *pty) mode() (m unix.Termios) {
	p.t.Helper()
	p.control(p.program, func(fd int) error {
		got, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			m = *got
		}
		return err
	})
	return m
}

// isRaw reports whether every key goes through as it is, Ctrl-C included, and is not echoed.
func (p *pty) isRaw() bool { return p.mode().Lflag&(unix.ICANON|unix.ISIG|unix.ECHO) == 0 }

// keys types.
func (p *pty) keys(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.person, s); err != nil {
		p.t.Fatal(err)
	}
}

// shows waits for texts, one after the other, after what earlier calls have waited for.
func (p *pty) shows(texts ...string) {
	p.t.Helper()
	for _, what := range texts {
		from := p.seen
		all := p.shown.await(p.t, fmt.Sprintf("%q after %d bytes", what, from), func(s string) bool { return strings.Contains(s[from:], what) })
		p.seen = from + strings.Index(all[from:], what) + len(what)
	}
}

// start runs a program in the terminal, as its foreground.
func (p *pty) start(env environment, name string, args ...string) *process {
	p.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"HOME=" + p.t.TempDir()}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.program, p.program, p.program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	run := &process{cmd, p.shown, p.shown, make(chan error, 1)}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { run.ended <- cmd.Wait(); close(done) }()
	p.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // gone already, if all went well
		<-done
	})
	return run
}
