package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Process is what a program of a container has around it. It belongs to the
// program; nothing in it may be changed meanwhile.
type Process struct {
	// Args are the name and the arguments of the program.
	Args []string
	// Env is its environment, each NAME=VALUE.
	Env []string
	// Dir is its working directory; the root if empty.
	Dir string
	// Stdin, Stdout and Stderr are never nil. Those made by this package stop
	// waiting when the context does that the program was called with.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal is what the streams lead to; nil if they do not.
	Terminal *Terminal
	// Files are those of its container.
	Files *Files
	// Hostname is the name of its pod.
	Hostname string
}

// NotFoundError says that there is no such program.
type NotFoundError struct{ Name string }

func (e *NotFoundError) Error() string {
	if strings.Contains(e.Name, "/") {
		return fmt.Sprintf("exec: %q: stat %s: no such file or directory", e.Name, e.Name)
	}
	return fmt.Sprintf("exec: %q: executable file not found in $PATH", e.Name)
}

// Find fails with a [*NotFoundError] unless there is a program of this name: a
// bare name, or one in /bin or /usr/bin.
func Find(name string) error {
	if _, ok := findCommand(name); !ok {
		return &NotFoundError{name}
	}
	return nil
}

// Run runs the program that p.Args names until it ends or ctx does, and
// returns its exit code, 0 to 255: 127 where there is no such program. When
// ctx has ended, the code is of no meaning. Nothing runs afterwards.
func Run(ctx context.Context, p *Process) int {
	run, ok := findCommand(p.Args[0])
	if !ok {
		fmt.Fprintln(p.Stderr, (&NotFoundError{p.Args[0]}).Error())
		return exitNotFound
	}
	sh := newShell(p)
	code := run(ctx, sh.invocation(ctx, p.Args))
	sh.jobs.Wait()
	return code
}

// The exit codes with a meaning of their own (POSIX.1-2024, XCU 2.8.2).
const (
	exitMisuse      = 2
	exitNotFound    = 127
	exitInterrupted = 130 // by SIGINT
	exitBrokenPipe  = 141 // by SIGPIPE
)

// findCommand finds a program by its name or path.
func findCommand(name string) (command, bool) {
	for _, dir := range []string{"/bin/", "/usr/bin/"} {
		if base, ok := strings.CutPrefix(name, dir); ok {
			name = base
			break
		}
	}
	c, ok := commands[name]
	return c, ok
}

// command is a program: it runs until it ends or ctx does, and returns its
// exit code.
type command func(ctx context.Context, in *invocation) int

// invocation is one run of a command.
type invocation struct {
	shell    *shell // the shell that it was called from, which only sh and built-in commands use
	process  *Process
	dir      string
	args     []string // without the name
	name     string
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	exported []string // the environment
}

// complain prints an error in the way that commands do.
func (in *invocation) complain(err error) {
	fmt.Fprintf(in.stderr, "%s: %v\n", in.name, err)
}

// fail complains, and is what to return. A broken pipe says nothing, as the
// signal that ends the program then.
func (in *invocation) fail(err error) int {
	if errors.Is(err, io.ErrClosedPipe) {
		return exitBrokenPipe
	}
	in.complain(err)
	return 1
}

// misuse complains about the arguments, and is what to return.
func (in *invocation) misuse(format string, args ...any) int {
	in.complain(fmt.Errorf(format, args...))
	return exitMisuse
}

// finish is the exit code for the error of the last thing a command does.
func (in *invocation) finish(err error) int {
	if err != nil {
		return in.fail(err)
	}
	return 0
}
