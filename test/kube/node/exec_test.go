package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	utilexec "k8s.io/utils/exec"
)

// containerFor is a container that runs nothing itself, for execs.
func containerFor(t *testing.T) containerRun {
	t.Helper()
	l, err := newLauncher(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.alive.Close() })
	p := &pod{node: &node{launcher: l}, root: t.TempDir()}
	return containerRun{&container{pod: p}, &run{exited: make(chan struct{})}}
}

// slowStream takes nothing before may is closed.
type slowStream struct {
	may    <-chan struct{}
	got    bytes.Buffer
	closed bool
}

func (s *slowStream) Write(p []byte) (int, error) {
	<-s.may
	return s.got.Write(p)
}

func (s *slowStream) Close() error {
	s.closed = true
	return nil
}

// awaitEnded waits until a process whose pid is in the file has ended, which only looking tells.
func awaitEnded(t *testing.T, file string) {
	t.Helper()
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for range again.C {
		text, _ := os.ReadFile(file)
		pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			continue // not written yet
		}
		if _, err := os.Stat(fmt.Sprint("/proc/", pid)); errors.Is(err, os.ErrNotExist) {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("the process does not end")
		}
	}
}

// The last output comes although nobody reads it before the guardian has ended: a pipe and a terminal hold it.
func TestSlowReaderLosesNothing(t *testing.T) {
	if _, err := os.Stat("/proc/self"); err != nil {
		t.Skip("the end of a process cannot be seen here")
	}
	for tty, size := range map[bool]int{false: 34000, true: 4000} { // more than is read at once, less than is held
		const text = "all of this is still there"
		c := containerFor(t)
		may, pid := make(chan struct{}), filepath.Join(c.pod.root, "pid")
		out := &slowStream{may: may}
		ended := make(chan error, 1)
		go func() {
			script := fmt.Sprintf("echo $PPID > %s; head -c %d /dev/zero; printf %q; exit 3", pid, size, text)
			command := []string{"sh", "-c", script}
			ended <- c.ExecInContainer(t.Context(), "", "", "", command, nil, out, nil, tty, nil, 0)
		}()
		awaitEnded(t, pid)
		select {
		case err := <-ended:
			t.Fatalf("tty %v: it has ended before its output was read: %v", tty, err)
		default:
		}
		close(may)
		err := <-ended
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 3 {
			t.Errorf("tty %v: ended with %v", tty, err)
		}
		if out.got.Len() != size+len(text) || !strings.HasSuffix(out.got.String(), text) || !out.closed {
			t.Errorf("tty %v: %d bytes came, closed %v", tty, out.got.Len(), out.closed)
		}
	}
}

func TestCommandThatCannotBeStarted(t *testing.T) {
	c := containerFor(t)
	err := c.ExecInContainer(t.Context(), "", "", "", []string{"/no/such/command"}, nil, nil, nil, false, nil, 0)
	var start startError
	if !errors.As(err, &start) || !strings.Contains(err.Error(), "/no/such/command") {
		t.Errorf("%v", err)
	}
}

// However the guardian learns that its command is gone, it was killed: it must not look like an end of its own.
func TestExecEndsWithItsContainer(t *testing.T) {
	for range 40 {
		c := containerFor(t)
		close(c.exited)
		err := c.ExecInContainer(t.Context(), "", "", "", []string{"sleep", "300"}, nil, nil, nil, false, nil, 0)
		var exit utilexec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != killed {
			t.Fatalf("%v", err)
		}
	}
}
