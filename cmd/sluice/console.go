package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// processFlags are the flags of the commands that join a person to a process.
type processFlags struct {
	*podFlags

	stdin, tty bool
	onExpiry   detachPolicy
}

func newProcessFlags(cmd *cobra.Command, sys system) *processFlags {
	f := &processFlags{podFlags: newPodFlags(cmd, sys)}
	f.withContainer(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&f.stdin, "stdin", "i", false, "pass the standard input on to the process")
	flags.BoolVarP(&f.tty, "tty", "t", false, "give the process this terminal, every key of it; with -i")
	flags.Var(&f.onExpiry, "on-detach-expiry", "what becomes of the process if the gateway waits for this client in vain: `hang-up` ends its input, "+
		"leave lets it be")
	fixed(cmd, "on-detach-expiry", word("hang-up", "end its input, and hang up its terminal"), word("leave", "let it be"))
	return f
}

// detachPolicy is the value of --on-detach-expiry.
type detachPolicy sluicev1.DetachPolicy

var _ pflag.Value = (*detachPolicy)(nil)

var detachPolicies = map[string]sluicev1.DetachPolicy{
	"hang-up": sluicev1.DetachPolicy_DETACH_POLICY_HANG_UP, "leave": sluicev1.DetachPolicy_DETACH_POLICY_LEAVE,
}

// String implements pflag.Value.
func (p *detachPolicy) String() string {
	for name, v := range detachPolicies {
		if v == sluicev1.DetachPolicy(*p) {
			return name
		}
	}
	return "hang-up"
}

// Set implements pflag.Value.
func (p *detachPolicy) Set(text string) error {
	v, ok := detachPolicies[text]
	if !ok {
		return errors.New("it is one of hang-up, leave")
	}
	*p = detachPolicy(v)
	return nil
}

// Type implements pflag.Value.
func (p *detachPolicy) Type() string { return "string" }

// joint is what a process is joined to.
type joint struct {
	container string
	streams   client.Streams
	tty       bool // the process has a terminal
	onOpened  func(*sluicev1.Opened)
}

// run joins a person to a process by start, which returns when that has ended, and turns its end into the command's.
func (f *processFlags) run(cmd *cobra.Command, p *podTarget, verb string, start func(context.Context, joint) error) error {
	c := &console{sys: f.sys, n: p.n, terminal: f.terminal(p.n), stdin: f.stdin}
	c.slow = p.n.waiting(fmt.Sprintf("%s to %s pod %s", p.access.Server, verb, p.name))
	defer c.slow.Stop()
	err := p.orDefault(cmd.Context(), f.container, func(container string) error {
		return c.run(cmd.Context(), func(ctx context.Context, j joint) error {
			j.container = container
			return start(ctx, j)
		})
	})
	return p.advised(err, "create (and get) pods/"+verb)
}

// terminal is the one to give to the process; nil for none.
func (f *processFlags) terminal(n *notices) *terminal {
	in, isFile := f.sys.stdin.(*os.File)
	switch {
	case !f.tty:
	case !f.stdin:
		n.sayf("-t without -i has nobody to type; the process gets no terminal (-it gives it this one)")
	case !isFile || !isTerminal(in):
		n.sayf("the standard input is no terminal; the process gets none")
	default:
		return newTerminal(in, f.sys.stdout)
	}
	return nil
}

// console joins the streams of this process to one far away.
type console struct {
	// Immutable once it runs.
	sys      system
	n        *notices
	terminal *terminal // nil: the process has none
	stdin    bool      // the process has an input
	slow     *time.Timer

	opened atomic.Bool
}

// errLeft ends a console by the keys that leave it.
var errLeft = errors.New("left while the gateway was lost; the gateway decides what becomes of the process")

// run joins the streams by start until the process has ended, and says how it has.
func (c *console) run(ctx context.Context, start func(context.Context, joint) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	j := joint{streams: client.Streams{Stdout: c.sys.stdout}, tty: c.terminal != nil}
	keys := newKeyboard(c.sys.stdin)
	defer keys.Close()
	if c.stdin {
		j.streams.Stdin = keys
	}
	if c.terminal == nil {
		j.streams.Stderr = c.sys.stderr
	} else {
		stop := c.terminal.guard(cancel)
		defer stop()
		defer func() { _ = c.giveBack() }() // again, in case something panics
		sizes, stopSizes := c.terminal.sizes()
		defer stopSizes()
		j.streams.Resize = sizes
		keys.escape = &escapeKeys{lost: c.n.away, leave: func() { cancel(errLeft) }}
	}
	j.onOpened = func(o *sluicev1.Opened) { c.begun(o, keys, cancel) }
	err := start(ctx, j)
	if err := c.giveBack(); err != nil {
		return err
	}
	return c.outcome(ctx, err)
}

// begun hands the terminal to the process. Until then Ctrl-C ends the command, as everywhere.
func (c *console) begun(o *sluicev1.Opened, keys *keyboard, fail context.CancelCauseFunc) {
	c.opened.Store(true)
	c.slow.Stop()
	c.n.pin()
	if c.terminal != nil {
		if err := c.terminal.raw(); err != nil {
			fail(err)
			return
		}
		c.n.beside(true, "Enter ~ . leaves")
	}
	if !o.GetCapabilities().GetHalfClose() && c.terminal == nil {
		keys.onEOF = func() {
			c.n.sayf("the input has ended, but this API server cannot tell the process (it lacks v5.channel.k8s.io); what waits for the end waits on")
		}
	}
	keys.begin()
}

// giveBack makes the terminal what it was, if there is one.
func (c *console) giveBack() error {
	if c.terminal == nil {
		return nil
	}
	c.n.beside(false, "")
	return c.terminal.restore()
}

// outcome is the command's end: the process's exit code if there is one, and never success without.
func (c *console) outcome(ctx context.Context, err error) error {
	exit, exited := errors.AsType[*client.ExitError](err)
	switch cause := context.Cause(ctx); {
	case err == nil:
		return nil
	case exited:
		c.n.sayf("the command's exit code is %d", exit.Code)
		return exitStatus(exit.Code)
	case errors.Is(cause, errLeft), cause != nil && !isInterruption(cause):
		c.line()
		return cause
	case cause != nil:
		return interrupted(ctx)
	case c.opened.Load():
		c.line()
		return fmt.Errorf("exit status unknown, the process may go on: %w", err)
	}
	return err
}

// line ends the line in whose middle a process may have left the terminal.
func (c *console) line() {
	if c.terminal != nil && c.opened.Load() {
		fmt.Fprintln(c.sys.stderr)
	}
}

// isInterruption reports whether a context's cause is that somebody wants the command to end.
func isInterruption(cause error) bool {
	_, bySignal := errors.AsType[signalled](cause)
	return bySignal || errors.Is(cause, context.Canceled)
}

// exitStatus is an exit code of a process as one of this process, which has eight bits: no failure becomes success.
func exitStatus(code int) exitError {
	if code < 1 || code > 255 {
		return 255
	}
	return exitError(code)
}
