package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// interruptGrace is how long an interrupted child may take to clean up.
const interruptGrace = 10 * time.Second

// process is a child that cannot outlive this process where the kernel can see
// to that (Linux). Its supervise goroutine starts it, waits for it and then ends;
// whoever holds the process waits for that by done.
type process struct {
	// Immutable after startProcess.
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed by supervise when the child was reaped

	// Owned by supervise until done is closed, then immutable.
	err error
}

// startProcess starts cmd in a process group of its own, so that an interrupt
// typed at the terminal reaches this process only.
func startProcess(name string, cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = childAttributes()
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go p.supervise(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// supervise keeps its thread for as long as the child lives, because the kernel
// takes the end of the thread that started a child for the death of its parent.
func (p *process) supervise(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	if err := p.cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	p.err = p.cmd.Wait()
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends sig; a child that has ended already is not an error. The pid
// cannot be a stranger's, because the child is not reaped before done.
func (p *process) signal(sig os.Signal) error {
	err := p.cmd.Process.Signal(sig)
	if err != nil && !errors.Is(err, os.ErrProcessDone) && p.alive() { // it is reaped a moment before done is closed
		return fmt.Errorf("signal %s (pid %d): %w", p.name, p.pid(), err)
	}
	return nil
}

// kill ends the child at once and waits until it is gone.
func (p *process) kill() error {
	err := p.signal(syscall.SIGKILL)
	if err == nil {
		<-p.done
	}
	return err
}

// wait returns how the child ended, or the cause of ctx if that comes first.
func (p *process) wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// runToEnd runs cmd to its end under the same guard as a process that stays.
// cmd must have been made with ctx.
func runToEnd(ctx context.Context, cmd *exec.Cmd) error {
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = interruptGrace
	p, err := startProcess(cmd.Args[0], cmd)
	if err != nil {
		return err
	}
	<-p.done
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.err
}
