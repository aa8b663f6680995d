package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"strings"
	"sync"

	"mvdan.cc/sh/v3/syntax"
)

// Bounds of a shell.
const (
	scriptSize = 1 << 20 // of what is parsed at once, in bytes
	callDepth  = 50      // of functions, subshells, substitutions and scripts within each other
	jobCount   = 50      // commands in the background
)

// shell is one shell of a process: the first one, or a subshell. Owned by one
// goroutine.
type shell struct {
	process *Process
	name    string // $0
	jobs    *jobs  // shared with the subshells

	variables *variables
	functions map[string]*syntax.Stmt
	params    []string // $1 and following
	dir       string
	status    int // $?
	depth     int
	errexit   bool // set -e
	tested    int  // >0 where a failure is a condition, which errexit does not see

	stdin          io.Reader
	stdout, stderr io.Writer
}

// jobs are the commands in the background of a process, and its pipelines'.
type jobs struct {
	sync.WaitGroup

	mu    sync.Mutex
	count int // Guarded by mu.
}

// add begins a job, unless there are too many.
func (j *jobs) add() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.count >= jobCount {
		return false
	}
	j.count++
	j.WaitGroup.Add(1)
	return true
}

func (j *jobs) done() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.count--
	j.WaitGroup.Done()
}

func newShell(p *Process) *shell {
	sh := &shell{
		process: p, name: "sh", jobs: new(jobs), functions: map[string]*syntax.Stmt{}, dir: path.Clean("/" + p.Dir),
		stdin: p.Stdin, stdout: p.Stdout, stderr: p.Stderr,
	}
	sh.variables = newVariables(sh, p.Env)
	return sh
}

// subshell is a copy that goes its own way.
func (sh *shell) subshell() *shell {
	sub := *sh
	sub.depth++
	sub.variables = sh.variables.clone(&sub)
	sub.functions = maps.Clone(sh.functions)
	return &sub
}

// invocation is a call of a command from this shell. args begin with its name.
func (sh *shell) invocation(ctx context.Context, args []string) *invocation {
	return &invocation{
		shell: sh, process: sh.process, dir: sh.dir, name: path.Base(args[0]), args: args[1:], exported: sh.variables.exported(),
		stdin: bindReader(ctx, sh.stdin), stdout: bindWriter(ctx, sh.stdout), stderr: bindWriter(ctx, sh.stderr),
	}
}

// runShell is the command sh: [-c SCRIPT [NAME]] [-e] [-i] [-s] [ARG...]. Scripts come from
// the argument, from a file, or line by line from the standard input, with
// prompts if that is a terminal.
func runShell(ctx context.Context, in *invocation) int {
	sh := in.shell.subshell()
	sh.params, sh.status, sh.tested, sh.name = nil, 0, 0, in.name
	sh.stdin, sh.stdout, sh.stderr = in.shell.stdin, in.shell.stdout, in.shell.stderr
	sh.functions = map[string]*syntax.Stmt{}
	sh.variables = newVariables(sh, in.exported)
	script, given, args := false, false, in.args
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		for _, flag := range args[0][1:] {
			switch flag {
			case 'c':
				script = true
			case 'e':
				sh.errexit = true
			case 's':
				given = true
			case 'i', 'l', '-':
			default:
				return in.misuse("-%c: no such option", flag)
			}
		}
		args = args[1:]
	}
	switch {
	case sh.depth > callDepth:
		return in.fail(errors.New("too many shells within each other"))
	case script && len(args) == 0:
		return in.misuse("-c requires an argument")
	case script:
		if len(args) > 1 {
			sh.name, sh.params = args[1], args[2:]
		}
		return sh.script(ctx, strings.NewReader(args[0]))
	case len(args) > 0 && !given:
		file, err := in.process.Files.open(absolute(in.dir, args[0]))
		if err != nil {
			in.complain(err)
			return exitNotFound
		}
		sh.name, sh.params = args[0], args[1:]
		return sh.script(ctx, file)
	}
	sh.params = args
	return sh.read(ctx)
}

// absolute is a path as seen from a directory.
func absolute(dir, name string) string {
	if !strings.HasPrefix(name, "/") {
		name = dir + "/" + name
	}
	return path.Clean(name)
}

// parse reads a whole script.
func parse(r io.Reader) ([]*syntax.Stmt, error) {
	text, err := io.ReadAll(io.LimitReader(r, scriptSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(text) > scriptSize:
		return nil, errors.New("the script is too long")
	}
	file, err := syntax.NewParser(syntax.Variant(syntax.LangPOSIX)).Parse(strings.NewReader(string(text)), "")
	if err != nil {
		return nil, err
	}
	syntax.Walk(file, withoutBraces)
	return file.Stmts, nil
}

// withoutBraces escapes the braces of words: POSIX knows no {1..1000000000},
// but the library that expands words does.
func withoutBraces(n syntax.Node) bool {
	if word, ok := n.(*syntax.Word); ok {
		for _, part := range word.Parts {
			if lit, ok := part.(*syntax.Lit); ok {
				lit.Value = escapeBraces(lit.Value)
			}
		}
	}
	return true
}

func escapeBraces(value string) string {
	var b strings.Builder
	escaped := false
	for i := range len(value) {
		if value[i] == '{' && !escaped {
			b.WriteByte('\\')
		}
		escaped = value[i] == '\\' && !escaped
		b.WriteByte(value[i])
	}
	return b.String()
}

// script runs a whole script and returns its exit code.
func (sh *shell) script(ctx context.Context, r io.Reader) int {
	stmts, err := parse(r)
	if err != nil {
		sh.sayf("%v", err)
		return exitMisuse
	}
	if err := sh.run(ctx, stmts); err != nil {
		return sh.exitCode(err)
	}
	return sh.status
}

// exitCode is the exit code for what ended a shell before its time.
func (sh *shell) exitCode(err error) int {
	if exit, ok := errors.AsType[exitError](err); ok {
		return int(exit)
	}
	return sh.status
}

// sayf complains in the shell's own name.
func (sh *shell) sayf(format string, args ...any) {
	fmt.Fprintf(sh.stderr, "%s: %s\n", sh.name, fmt.Sprintf(format, args...))
}

// read runs what the standard input says, line by line, and returns the exit
// code. The commands of a line read what follows it.
func (sh *shell) read(ctx context.Context) int {
	text := ""
	for {
		line, err := sh.readCommand(ctx, text != "")
		switch {
		case errors.Is(err, errInterrupted):
			text, sh.status = "", exitInterrupted
			continue
		case err != nil && text == "" && line == "":
			return sh.status
		}
		text += line
		stmts, parsing := parse(strings.NewReader(text))
		if parsing != nil && syntax.IsIncomplete(parsing) && err == nil && len(text) < scriptSize {
			continue
		}
		text = ""
		if parsing != nil {
			sh.sayf("%v", parsing)
			sh.status = exitMisuse
			if sh.process.Terminal == nil {
				return sh.status
			}
		} else if end := sh.runInterruptibly(ctx, stmts); end != nil {
			return sh.exitCode(end)
		}
	}
}

var errInterrupted = errors.New("interrupted")

// readCommand prompts, if there is a terminal, and reads one line.
func (sh *shell) readCommand(ctx context.Context, more bool) (line string, err error) {
	terminal := sh.process.Terminal
	if terminal == nil {
		return readLine(bindReader(ctx, sh.stdin))
	}
	prompt := sh.dir + " # "
	if more {
		prompt = "> "
	}
	interruptible, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	restore := terminal.OnInterrupt(func() { cancel(errInterrupted) })
	defer restore()
	if _, err := bindWriter(ctx, sh.stderr).Write([]byte(prompt)); err != nil {
		return "", err
	}
	line, err = readLine(bindReader(interruptible, sh.stdin))
	if errors.Is(err, errInterrupted) {
		fmt.Fprintln(bindWriter(ctx, sh.stderr))
	}
	return line, err
}

// runInterruptibly runs what was typed. An interrupt ends that, not the shell.
func (sh *shell) runInterruptibly(ctx context.Context, stmts []*syntax.Stmt) error {
	terminal := sh.process.Terminal
	if terminal == nil {
		return sh.run(ctx, stmts)
	}
	running, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	restore := terminal.OnInterrupt(func() { cancel(errInterrupted) })
	defer restore()
	err := sh.run(running, stmts)
	if ctx.Err() == nil && errors.Is(context.Cause(running), errInterrupted) {
		fmt.Fprintln(bindWriter(ctx, sh.stderr))
		sh.status = exitInterrupted
		return nil
	}
	return err
}

// readLine reads up to a newline, which the line includes unless the input
// ends before it, and not a byte more.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < scriptSize {
		n, err := r.Read(b)
		line = append(line, b[:n]...)
		if n > 0 && b[0] == '\n' {
			return string(line), nil
		}
		if err != nil {
			return string(line), err
		}
	}
	return string(line), errors.New("the line is too long")
}
