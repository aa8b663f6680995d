package kubetest

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/kubetest/shell"
)

// The streams of a program.
const (
	stdout = "stdout"
	stderr = "stderr"
)

// exitKilled is the exit code of what was killed.
const exitKilled = 137

// errKilled is the cause of the end of a process that was killed.
var errKilled = errors.New("killed")

// container is a container of a pod that runs: one run after another.
type container struct {
	// Immutable after newContainer.
	box     *sandbox
	spec    Container
	files   *shell.Files
	started chan struct{} // closed when the first run has begun
	again   chan struct{} // wakes supervise to begin the next run at once

	mu       sync.Mutex
	log      *logFile               // of the current or last run; Guarded by mu.
	previous *logFile               // of the run before; Guarded by mu.
	run      *containerRun          // nil while there is none; Guarded by mu.
	state    containerRuns          // Guarded by mu.
	attached map[*attacher]struct{} // Guarded by mu.
	changed  chan struct{}          // closed and replaced when a run begins or ends; Guarded by mu.
}

// containerRuns is what the status of a container tells of its runs.
type containerRuns struct {
	begun, ended time.Time // of the current or last run
	code         int       // of the last one that has ended
	running      bool
	over         bool // no other run follows
	restarts     int
	lastBegun    time.Time // of the run before
	lastEnded    time.Time
	lastCode     int
}

// containerRun is one run of a container.
type containerRun struct {
	ctx      context.Context // ends with the main program
	cancel   context.CancelCauseFunc
	done     chan struct{}   // closed when nothing of it runs
	stdin    *shell.Pipe     // nil with a terminal, or without an input
	terminal *shell.Terminal // nil without one
	stdout   *shell.Pipe
	stderr   *shell.Pipe
}

// attacher is one who sees what a main program writes.
type attacher struct {
	ctx    context.Context
	stdout *shell.Pipe
	stderr *shell.Pipe
}

func newContainer(b *sandbox, spec Container) *container {
	files := map[string]string{"/etc/hostname": b.pod.Name + "\n"}
	maps.Copy(files, spec.Files)
	return &container{
		box: b, spec: spec, files: shell.NewFiles(files), started: make(chan struct{}), again: make(chan struct{}, 1),
		log: newLogFile(b.node.server.options.LogBytes), attached: map[*attacher]struct{}{}, changed: make(chan struct{}),
	}
}

// supervise runs the container, again and again if its policy says so, until
// ctx ends. Started by place; the node waits for it.
func (c *container) supervise(ctx context.Context) {
	for first := true; ctx.Err() == nil; first = false {
		run := c.begin(ctx, first)
		c.box.show()
		if first {
			close(c.started)
		}
		code := c.execute(run)
		follows := ctx.Err() == nil && c.follows(code)
		c.end(run, code, follows)
		if ctx.Err() != nil {
			return
		}
		c.box.show()
		if !c.pause(ctx, follows) {
			return
		}
	}
}

// follows says whether another run follows one that ended with code.
func (c *container) follows(code int) bool {
	return c.box.pod.Restart == "Always" || c.box.pod.Restart == "OnFailure" && code != 0
}

// pause waits for the time of the next run. False when ctx ends before.
func (c *container) pause(ctx context.Context, follows bool) bool {
	timer := time.NewTimer(restartDelay)
	defer timer.Stop()
	due := timer.C
	if !follows || c.box.told {
		due = nil // only on demand
	}
	select {
	case <-due:
	case <-c.again:
	case <-ctx.Done():
		return false
	}
	return true
}

// begin makes the next run. A killed one has ended all that is done in it.
func (c *container) begin(ctx context.Context, first bool) *containerRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.again: // asked for before it could be needed
	default:
	}
	run := &containerRun{done: make(chan struct{}), stdout: shell.NewPipe(shell.PipeSize), stderr: shell.NewPipe(shell.PipeSize)}
	run.ctx, run.cancel = context.WithCancelCause(ctx)
	if !first {
		c.previous, c.log = c.log, newLogFile(c.box.node.server.options.LogBytes)
		c.state.restarts++
		c.state.lastBegun, c.state.lastEnded, c.state.lastCode = c.state.begun, c.state.ended, c.state.code
	}
	c.state.begun, c.state.running, c.state.over = time.Now(), true, false
	switch {
	case c.spec.TTY:
		run.terminal = shell.NewTerminal(run.stdout)
		run.terminal.OnInterrupt(func() { run.cancel(errInterrupted) })
	case c.spec.Stdin:
		run.stdin = shell.NewPipe(shell.PipeSize)
	}
	c.run = run
	c.change()
	return run
}

// execute runs the main program of a run to its end, with all that it has said
// passed on, and returns its exit code.
func (c *container) execute(run *containerRun) int {
	p := c.process(c.spec.Name)
	p.Stdin, p.Stdout, p.Stderr = strings.NewReader(""), run.stdout, run.stderr
	if run.stdin != nil {
		p.Stdin = run.stdin
	}
	if run.terminal != nil {
		p.Stdout, p.Stderr, p.Terminal = run.terminal, run.terminal, run.terminal
	}
	if run.terminal != nil && c.spec.Stdin {
		p.Stdin = run.terminal
	}
	var streams sync.WaitGroup
	streams.Go(func() { c.pass(run.ctx, stdout, run.stdout) })
	streams.Go(func() { c.pass(run.ctx, stderr, run.stderr) })
	code := exitCode(run.ctx, c.spec.Run(run.ctx, p))
	run.stdout.CloseWrite()
	run.stderr.CloseWrite()
	streams.Wait()
	return code
}

// errInterrupted is the cause of the end of what was interrupted at its terminal.
var errInterrupted = errors.New("interrupted")

// exitCode is the exit code of a program that returned code when ctx may have
// ended: why tells the signal.
func exitCode(ctx context.Context, code int) int {
	switch {
	case ctx.Err() == nil:
		return code & 0xff
	case errors.Is(context.Cause(ctx), errInterrupted):
		return 130
	}
	return exitKilled
}

// pass passes on what a stream of the main program says.
func (c *container) pass(ctx context.Context, stream string, from io.Reader) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if n > 0 {
			c.output(ctx, stream, b[:n])
		}
		if err != nil {
			return
		}
	}
}

// output logs what a stream says, and shows it to who is attached.
func (c *container) output(ctx context.Context, stream string, data []byte) {
	c.mu.Lock()
	log, all := c.log, slices.Collect(maps.Keys(c.attached))
	c.mu.Unlock()
	log.write(stream, data)
	for _, a := range all {
		to := a.stdout
		if stream == stderr {
			to = a.stderr
		}
		if to != nil {
			stop := context.AfterFunc(ctx, to.CloseWrite)
			_, _ = to.WriteContext(a.ctx, data) // Who has gone misses it.
			stop()
		}
	}
}

// end ends a run. Who is attached is told.
func (c *container) end(run *containerRun, code int, follows bool) {
	c.mu.Lock()
	c.log.end()
	c.state.ended, c.state.code, c.state.running, c.state.over = time.Now(), code, false, !follows
	c.run = nil
	attached := c.attached
	c.attached = map[*attacher]struct{}{}
	c.change()
	c.mu.Unlock()
	run.cancel(errKilled) // what exec started dies with the main program
	for a := range attached {
		a.end()
	}
	close(run.done)
}

func (a *attacher) end() {
	for _, p := range []*shell.Pipe{a.stdout, a.stderr} {
		if p != nil {
			p.CloseWrite()
		}
	}
}

// change wakes who waits. Called with mu held.
func (c *container) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// current is the run there is; nil while there is none.
func (c *container) current() *containerRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run
}

// kill kills the run there is. The result is closed when it has ended.
func (c *container) kill() <-chan struct{} {
	run := c.current()
	if run == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	run.cancel(errKilled)
	return run.done
}

// restart kills the run there is, begins another and waits for it.
func (c *container) restart() error {
	c.mu.Lock()
	restarts := c.state.restarts
	c.mu.Unlock()
	<-c.kill()
	c.startAgain()
	for {
		c.mu.Lock()
		begun, changed := c.run != nil && c.state.restarts > restarts, c.changed
		c.mu.Unlock()
		if begun {
			return nil
		}
		select {
		case <-changed:
		case <-c.box.node.server.ctx.Done():
			return unclassified("the server is closed")
		}
	}
}

// startAgain lets the next run begin at once, where none runs.
func (c *container) startAgain() {
	select {
	case c.again <- struct{}{}:
	default: // somebody else has asked
	}
}

// logs are the log of the current or last run, and that of the run before; nil
// if there was none.
func (c *container) logs() (current, previous *logFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log, c.previous
}

func (c *container) runs() containerRuns {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// attach shows what the main program writes from now on. It fails when it does
// not run.
func (c *container) attach(a *attacher) (*containerRun, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		return nil, containerNotFound(c.spec.Name)
	}
	c.attached[a] = struct{}{}
	return c.run, nil
}

func (c *container) detach(a *attacher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.attached, a)
}

// process is what a program of the container begins with, but for its streams.
func (c *container) process(args ...string) *shell.Process {
	env := []string{"HOME=/root", "HOSTNAME=" + c.box.pod.Name, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, name := range slices.Sorted(maps.Keys(c.spec.Env)) {
		env = append(env, name+"="+c.spec.Env[name])
	}
	if c.spec.TTY {
		env = append(env, "TERM=xterm")
	}
	return &shell.Process{Args: args, Env: env, Dir: "/", Files: c.files, Hostname: c.box.pod.Name}
}
