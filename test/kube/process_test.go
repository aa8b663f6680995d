package kube

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startSleeper starts a process that would stay for a while.
func startSleeper(t *testing.T) *process {
	t.Helper()
	p, err := startProcess("sleeper", exec.Command("sleep", "300"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.kill(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func TestKilledProcessIsGone(t *testing.T) {
	p := startSleeper(t)
	if !p.alive() {
		t.Fatal("it did not start")
	}
	for range 2 { // a second time is not an error
		if err := p.kill(); err != nil || p.alive() {
			t.Errorf("alive %v, %v", p.alive(), err)
		}
	}
	if _, err := startProcess("nothing", exec.Command("/no/such/program")); err == nil {
		t.Error("a program that does not exist was started")
	}
}

// orphanEnv makes the test binary play the parent that is killed.
const orphanEnv = "SLUICE_TEST_KUBE_ORPHAN"

// TestProcessesEndWithTheirParent kills a copy of this test binary that has
// started a process, and waits for that process to end.
func TestProcessesEndWithTheirParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the kernel here cannot tie a child to its parent")
	}
	if os.Getenv(orphanEnv) != "" {
		fmt.Println("\npid", startSleeper(t).pid())
		select {}
	}
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	parent.Env = append(os.Environ(), orphanEnv+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	child := readPid(t, bufio.NewScanner(out))
	if birth(child) == "" {
		t.Fatalf("process %d does not run", child)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	awaitGone(t, child)
}

func readPid(t *testing.T, lines *bufio.Scanner) int {
	t.Helper()
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), "pid "); found {
			pid, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatal("no pid was told")
	return 0
}

// awaitGone waits for a process that is not our child, which only looking tells.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for birth(pid) != "" {
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("process %d still runs", pid)
		}
	}
}

// abandoned makes a state folder as a killed run leaves it: with a record of the
// process, and unlocked unless owned.
func abandoned(t *testing.T, parent, name, record string, owned bool) string {
	t.Helper()
	dir := filepath.Join(parent, "sluice-kube-"+name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	held, err := tryLock(filepath.Join(dir, stateLock))
	if err != nil {
		t.Fatal(err)
	}
	if owned {
		t.Cleanup(func() { held.Close() })
	} else {
		held.Close()
	}
	if err := os.WriteFile(filepath.Join(dir, statePids), []byte(record), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

func TestSweepRemovesWhatNobodyOwns(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("births are not known here")
	}
	parent := t.TempDir()
	left, kept, stranger := startSleeper(t), startSleeper(t), startSleeper(t)
	record := func(p *process, birth string) string { return fmt.Sprintf("sleeper %d %s\n", p.pid(), birth) }
	gone := abandoned(t, parent, "left", record(left, birth(left.pid())), false)
	owned := abandoned(t, parent, "owned", record(kept, birth(kept.pid())), true)
	reused := abandoned(t, parent, "reused", record(stranger, "12345"), false)

	sweep(parent)
	if got := deathOf(t, left); got != syscall.SIGKILL {
		t.Errorf("a process left behind ended by %v", got)
	}
	if exists(gone) || exists(reused) {
		t.Error("folders nobody owns are still there")
	}
	if !exists(owned) {
		t.Error("a folder in use was removed")
	}
	// A process that was killed before this cannot die of it.
	for _, p := range []*process{kept, stranger} {
		if err := p.signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if got := deathOf(t, p); got != syscall.SIGTERM {
			t.Errorf("a process in use, or a stranger with its pid, ended by %v", got)
		}
	}
}

// deathOf waits for the end of the process and tells the signal it died of.
func deathOf(t *testing.T, p *process) syscall.Signal {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	_ = p.wait(ctx) // a signal is an error too
	if p.alive() {
		t.Fatalf("process %d does not end", p.pid())
	}
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()
}
