package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/creack/pty"
)

const (
	// guardianCommand is the first argument that makes this program a guardian of the command after it.
	guardianCommand = "guard"

	// killed is the exit status of a process that was ended by SIGKILL.
	killed = 128 + int(syscall.SIGKILL)
)

// launcher starts processes. It is safe for concurrent use.
type launcher struct {
	// Immutable.
	self  string   // the path of this program
	alive *os.File // locked; every guardian has it open too, so the lock outlives a killed node until they have ended
}

// spec is what a process is started with.
type spec struct {
	command []string
	dir     string
	env     []string
	stdin   bool // connected; otherwise there is nothing to read
	tty     bool // on a terminal, which has a stdin in any case
}

// process is a command below its guardian. Whoever started it waits for it, reads its output to the end and closes it.
type process struct {
	// Immutable after start.
	cmd            *exec.Cmd // the guardian
	stdin          *os.File  // nil if not connected
	stdout, stderr *os.File  // stderr is nil with a terminal
	terminal       *os.File  // nil without one, otherwise what stdin and stdout are

	mu sync.Mutex
	// Guarded by mu.
	lifeline *os.File // nil once cut
}

// startError tells why a command cannot be run.
type startError string

func (e startError) Error() string { return string(e) }

// start runs a command and returns when it runs. The error is a startError when the command is to blame.
func (l *launcher) start(s spec) (*process, error) {
	p, ends := &process{}, &pipeEnds{}
	lifelineEnd := ends.input(&p.lifeline)
	var report *os.File
	reportEnd := ends.output(&report)
	cmd := exec.Command(l.self, append([]string{guardianCommand}, s.command...)...)
	cmd.Dir, cmd.Env = s.dir, s.env
	cmd.ExtraFiles = []*os.File{lifelineEnd, reportEnd, l.alive}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: s.tty}
	if s.tty {
		user := ends.terminal(&p.terminal)
		p.stdin, p.stdout = p.terminal, p.terminal
		cmd.Stdin, cmd.Stdout, cmd.Stderr = user, user, user
	} else {
		cmd.Stdout, cmd.Stderr = ends.output(&p.stdout), ends.output(&p.stderr)
		if s.stdin {
			cmd.Stdin = ends.input(&p.stdin)
		}
	}
	p.cmd = cmd
	err := ends.err
	if err == nil {
		err = cmd.Start()
	}
	ends.closeTheirs()
	if err != nil {
		ends.closeOurs()
		return nil, fmt.Errorf("start %q: %w", s.command, err)
	}
	why, err := io.ReadAll(report)
	if len(why) > 0 {
		err = startError(why)
	}
	report.Close()
	if err != nil {
		p.kill()
		p.wait()
		p.close()
		return nil, err
	}
	return p, nil
}

// pipeEnds makes what connects a process: of each pair one end is ours, one theirs. After an error it makes no more.
type pipeEnds struct {
	ours, theirs []*os.File
	err          error
}

func (e *pipeEnds) keep(ours, theirs *os.File, err error) {
	if err != nil {
		e.err = errors.Join(e.err, err)
		return
	}
	e.ours, e.theirs = append(e.ours, ours), append(e.theirs, theirs)
}

// input sets *ours to what writes to the file it returns.
func (e *pipeEnds) input(ours **os.File) (theirs *os.File) {
	theirs, w, err := os.Pipe()
	*ours = w
	e.keep(w, theirs, err)
	return theirs
}

// output sets *ours to what reads from the file it returns.
func (e *pipeEnds) output(ours **os.File) (theirs *os.File) {
	r, theirs, err := os.Pipe()
	*ours = r
	e.keep(r, theirs, err)
	return theirs
}

// terminal sets *ours to the controlling side of a new terminal.
func (e *pipeEnds) terminal(ours **os.File) (theirs *os.File) {
	controlling, theirs, err := pty.Open()
	*ours = controlling
	e.keep(controlling, theirs, err)
	return theirs
}

func (e *pipeEnds) closeTheirs() { closeAll(e.theirs) }
func (e *pipeEnds) closeOurs()   { closeAll(e.ours) }

func closeAll(all []*os.File) {
	for _, file := range all {
		file.Close()
	}
}

// signal sends sig to the command, unless it has ended.
func (p *process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lifeline != nil {
		_, _ = p.lifeline.Write([]byte{byte(sig)}) // fails only when the guardian has ended
	}
}

// kill ends the command and every descendant of it.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lifeline != nil {
		p.lifeline.Close()
		p.lifeline = nil
	}
}

// wait waits for the end of the command, and of what it left running, and returns the exit status as a shell counts.
// The output may not have been read by then. It is called once.
func (p *process) wait() int {
	err := p.cmd.Wait()
	p.kill()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return killed
	}
	return exitStatus(exit.Sys().(syscall.WaitStatus))
}

// close closes what connected to the process.
func (p *process) close() {
	for _, file := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if file != nil {
			file.Close() // a terminal is closed twice
		}
	}
}

// resize sets the size of the terminal, if there is one.
func (p *process) resize(width, height uint16) {
	if p.terminal != nil {
		_ = pty.Setsize(p.terminal, &pty.Winsize{Cols: width, Rows: height}) // fails only when it is closed
	}
}
