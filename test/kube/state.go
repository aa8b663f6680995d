package kube

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	statePattern = "sluice-kube-*"
	stateLock    = "lock"
	statePids    = "pids"
)

// state is the folder of one cluster: keys, configuration, etcd's data, logs and
// the pids of what runs. It is locked for as long as its owner lives, so that a
// later run can tell a folder in use from one whose owner was killed.
type state struct {
	// Immutable after newState.
	dir  string
	lock *os.File
}

// newState makes a fresh folder below the system's temporary folder and removes
// those that runs which were killed left there.
func newState() (*state, error) {
	sweep(os.TempDir())
	dir, err := os.MkdirTemp("", statePattern)
	if err != nil {
		return nil, err
	}
	held, err := tryLock(filepath.Join(dir, stateLock))
	if err == nil && held == nil {
		err = errors.New("a fresh state folder is locked")
	}
	if err == nil {
		err = os.Mkdir(filepath.Join(dir, "log"), 0o700)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &state{dir: dir, lock: held}, nil
}

func (s *state) path(name string) string { return filepath.Join(s.dir, name) }

// log opens the log file of a process for appending.
func (s *state) log(name string) (*os.File, error) {
	return os.OpenFile(s.logName(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

func (s *state) logName(name string) string { return s.path("log/" + name + ".log") }

// record notes a started process as "name pid birth".
func (s *state) record(p *process) error {
	file, err := os.OpenFile(s.path(statePids), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(file, "%s %d %s\n", p.name, p.pid(), birth(p.pid()))
	return errors.Join(err, file.Close())
}

// remove deletes the folder; the caller has ended every process in it.
func (s *state) remove() error {
	err := os.RemoveAll(s.dir)
	return errors.Join(err, s.lock.Close())
}

// sweep removes the state folders below parent that nobody owns any more, after
// ending what still runs there. What it may not touch it leaves alone.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, statePattern))
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, stateLock)); err != nil {
			continue // being made this moment
		}
		held, err := tryLock(filepath.Join(dir, stateLock))
		if held == nil || err != nil {
			continue
		}
		endRecorded(filepath.Join(dir, statePids))
		os.RemoveAll(dir)
		held.Close()
	}
}

// endRecorded kills the processes noted in the file by [state.record] that are
// still the same ones: same pid and same birth.
func endRecorded(pids string) {
	file, err := os.Open(pids)
	if err != nil {
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			continue
		}
		if pid, err := strconv.Atoi(fields[1]); err == nil && birth(pid) == fields[2] {
			_ = syscall.Kill(pid, syscall.SIGKILL) // fails only when it has ended or is not ours
		}
	}
}
