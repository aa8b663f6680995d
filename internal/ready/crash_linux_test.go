package ready

import (
	"bytes"
	"os"
	"os/exec"
	"runtime/debug"
	"testing"
)

// TestPanicLeaves: a source that takes its panics leaves with one, and the others of its loop go on.
func TestPanicLeaves(t *testing.T) {
	l := start(t, 1)
	other := addIdler(t, l)
	fd := pausedSocket(t)
	defer shut(t, fd)
	p := &panicker{probe: newProbe(func(bool) Next { panic("a bug of the source") })}
	add(t, l, fd, p)
	receive(t, "Left", p.left)
	if p.reason != "a bug of the source" {
		t.Errorf("Panicked was told %v", p.reason)
	}
	if !bytes.Contains(p.stack, []byte("TestPanicLeaves")) {
		t.Errorf("the stack does not show who panicked:\n%s", p.stack)
	}
	other.dismiss(t)
}

// TestUnknownNextPanics: a value that is none of Next's must not be taken for one.
func TestUnknownNextPanics(t *testing.T) {
	l := start(t, 1)
	fd := pausedSocket(t)
	defer shut(t, fd)
	p := &panicker{probe: newProbe(func(bool) Next { return Leave + 1 })}
	add(t, l, fd, p)
	receive(t, "Left", p.left)
	if p.reason == nil {
		t.Error("Step returned what is no Next, and nobody was told")
	}
}

// panicker is a source that takes its own panics.
type panicker struct {
	*probe
	reason any
	stack  []byte
}

func (p *panicker) Panicked(reason any) { p.reason, p.stack = reason, debug.Stack() }

// crash names the crash that a child process of these tests dies of.
const crash = "READY_TEST_CRASH"

// TestCrash: what nobody takes, and what must not go on, ends the process, and says why.
func TestCrash(t *testing.T) {
	crashes := map[string]struct {
		die  func(t *testing.T)
		says string
	}{
		"panic": {dieOfPanic, "a bug of the source"},
		"early": {dieOfEarlyClose, "must stay open until Left"},
	}
	if c, ok := crashes[os.Getenv(crash)]; ok {
		c.die(t)
		return
	}
	for name, c := range crashes {
		t.Run(name, func(t *testing.T) {
			child := exec.Command(os.Args[0], "-test.run=^TestCrash$", "-test.timeout=60s")
			child.Env = append(os.Environ(), crash+"="+name)
			output, err := child.CombinedOutput()
			if err == nil || !bytes.Contains(output, []byte(c.says)) {
				t.Errorf("ended with %v, want a crash that says %q:\n%s", err, c.says, output)
			}
		})
	}
}

// dieOfPanic has a source panic that does not take it.
func dieOfPanic(t *testing.T) {
	p := newProbe(func(bool) Next { panic("a bug of the source") })
	add(t, start(t, 1), pausedSocket(t), p)
	receive(t, "the crash", p.left)
}

// dieOfEarlyClose closes a descriptor before its source has left.
func dieOfEarlyClose(t *testing.T) {
	i := addIdler(t, start(t, 1))
	shut(t, i.fd)
	i.dismiss(t)
}
