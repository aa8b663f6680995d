package shell

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/pattern"
	"mvdan.cc/sh/v3/syntax"
)

// What ends the statements around it. Any other error is the end of the context.
type (
	exitError   int                     // exit: the shell ends with this code
	returnError int                     // return: the function does
	loopError   struct{ levels, n int } // break (n == 0) and continue, out of so many loops
)

func (e exitError) Error() string   { return fmt.Sprintf("exit %d", int(e)) }
func (e returnError) Error() string { return fmt.Sprintf("return %d", int(e)) }
func (loopError) Error() string     { return "break or continue outside of a loop" }

const (
	breakLoop = iota
	continueLoop
)

// run runs statements one after another.
func (sh *shell) run(ctx context.Context, stmts []*syntax.Stmt) error {
	for _, st := range stmts {
		if err := sh.stmt(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

// stmt runs one statement, with its redirections.
func (sh *shell) stmt(ctx context.Context, st *syntax.Stmt) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if st.Background {
		return sh.background(ctx, st)
	}
	stdin, stdout, stderr := sh.stdin, sh.stdout, sh.stderr
	defer func() { sh.stdin, sh.stdout, sh.stderr = stdin, stdout, stderr }()
	for _, r := range st.Redirs {
		if err := sh.redirect(ctx, r); err != nil {
			return sh.failed(err)
		}
	}
	if st.Negated {
		sh.tested++
	}
	err := error(nil)
	if st.Cmd != nil {
		err = sh.command(ctx, st.Cmd)
	} else {
		sh.status = 0
	}
	if st.Negated {
		sh.tested--
		sh.status = fromBool(sh.status != 0)
	}
	if err == nil && sh.errexit && sh.tested == 0 && sh.status != 0 && !st.Negated {
		return exitError(sh.status)
	}
	return err
}

// failed is for an error that makes a statement fail, and not end the shell,
// unless the context has ended.
func (sh *shell) failed(err error) error {
	sh.sayf("%v", err)
	sh.status = 1
	if sh.errexit && sh.tested == 0 {
		return exitError(1)
	}
	return nil
}

// background runs a statement beside what follows. Its input is empty.
func (sh *shell) background(ctx context.Context, st *syntax.Stmt) error {
	if !sh.jobs.add() {
		return sh.failed(errors.New("too many jobs"))
	}
	job, sub := *st, sh.subshell()
	job.Background = false
	sub.stdin = strings.NewReader("")
	go func() { // ends with the statement or ctx; it is waited for by Run, and by wait
		defer sh.jobs.done()
		_ = sub.stmt(ctx, &job) // How a job in the background ended is of no interest.
	}()
	sh.status = 0
	return nil
}

func (sh *shell) command(ctx context.Context, c syntax.Command) error {
	switch c := c.(type) {
	case *syntax.CallExpr:
		return sh.call(ctx, c)
	case *syntax.BinaryCmd:
		if c.Op == syntax.Pipe {
			return sh.pipeline(ctx, c)
		}
		return sh.list(ctx, c)
	case *syntax.Block:
		return sh.run(ctx, c.Stmts)
	case *syntax.Subshell:
		return sh.inSubshell(func(sub *shell) error { return sub.run(ctx, c.Stmts) })
	case *syntax.IfClause:
		return sh.conditional(ctx, c)
	case *syntax.WhileClause:
		return sh.while(ctx, c)
	case *syntax.ForClause:
		return sh.forEach(ctx, c)
	case *syntax.CaseClause:
		return sh.choose(ctx, c)
	case *syntax.FuncDecl:
		sh.functions[c.Name.Value] = c.Body
		sh.status = 0
		return nil
	default:
		return sh.failed(fmt.Errorf("%T is not offered here", c))
	}
}

// inSubshell runs f in a subshell, whose end is not the end of this one.
func (sh *shell) inSubshell(f func(*shell) error) error {
	sub := sh.subshell()
	if sub.depth > callDepth {
		return sh.failed(errors.New("too many shells within each other"))
	}
	err := f(sub)
	sh.status = sub.exitCode(err)
	if endsShell(err) {
		return nil
	}
	return err
}

// endsShell says whether err ends a shell, and nothing beyond it.
func endsShell(err error) bool {
	_, exit := errors.AsType[exitError](err)
	_, ret := errors.AsType[returnError](err)
	_, loop := errors.AsType[loopError](err)
	return exit || ret || loop
}

// list is "a && b" and "a || b".
func (sh *shell) list(ctx context.Context, c *syntax.BinaryCmd) error {
	if err := sh.condition(ctx, c.X); err != nil || (sh.status == 0) != (c.Op == syntax.AndStmt) {
		return err
	}
	return sh.stmt(ctx, c.Y)
}

// condition runs statements whose failure is no error.
func (sh *shell) condition(ctx context.Context, stmts ...*syntax.Stmt) error {
	sh.tested++
	defer func() { sh.tested-- }()
	return sh.run(ctx, stmts)
}

// pipeline is "a | b": both run at the same time, each in a subshell.
func (sh *shell) pipeline(ctx context.Context, c *syntax.BinaryCmd) error {
	pipe := NewPipe(PipeSize)
	left, right := sh.subshell(), sh.subshell()
	if left.depth > callDepth {
		return sh.failed(errors.New("too many shells within each other"))
	}
	left.stdout, right.stdin = pipe, pipe
	left.tested++ // only the last command's status counts
	done := make(chan struct{})
	go func() { // ends with the statement or ctx; waited for below
		defer close(done)
		defer pipe.CloseWrite()
		_ = left.stmt(ctx, c.X) // Only the last command of a pipeline counts.
	}()
	err := right.stmt(ctx, c.Y)
	pipe.CloseRead()
	<-done
	sh.status = right.exitCode(err)
	if endsShell(err) {
		return nil
	}
	return err
}

func (sh *shell) conditional(ctx context.Context, c *syntax.IfClause) error {
	for ; c != nil; c = c.Else {
		if len(c.Cond) == 0 { // else
			return sh.run(ctx, c.Then)
		}
		if err := sh.condition(ctx, c.Cond...); err != nil {
			return err
		}
		if sh.status == 0 {
			return sh.run(ctx, c.Then)
		}
	}
	sh.status = 0
	return nil
}

func (sh *shell) while(ctx context.Context, c *syntax.WhileClause) error {
	status := 0
	for {
		if err := sh.condition(ctx, c.Cond...); err != nil {
			return sh.leave(err)
		}
		if (sh.status == 0) == c.Until {
			sh.status = status
			return nil
		}
		if again, err := sh.body(ctx, c.Do); !again {
			return err
		}
		status = sh.status
	}
}

func (sh *shell) forEach(ctx context.Context, c *syntax.ForClause) error {
	loop, ok := c.Loop.(*syntax.WordIter)
	if !ok || c.Select {
		return sh.failed(errors.New("this kind of loop is not offered here"))
	}
	items := sh.params
	if loop.InPos.IsValid() {
		var err error
		if items, err = sh.fields(ctx, loop.Items); err != nil {
			return sh.failed(err)
		}
	}
	sh.status = 0
	for _, item := range items {
		if err := sh.variables.assign(loop.Name.Value, item); err != nil {
			return sh.failed(err)
		}
		if again, err := sh.body(ctx, c.Do); !again {
			return err
		}
	}
	return nil
}

// body runs the body of a loop; again says whether the loop goes on.
func (sh *shell) body(ctx context.Context, stmts []*syntax.Stmt) (again bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	err = sh.run(ctx, stmts)
	var loop loopError
	if errors.As(err, &loop) && loop.levels <= 1 && loop.n == continueLoop {
		return true, nil
	}
	return err == nil, sh.leave(err)
}

// leave is what is left of an error outside of a loop that it ends.
func (sh *shell) leave(err error) error {
	var loop loopError
	if !errors.As(err, &loop) {
		return err
	}
	if loop.levels <= 1 {
		return nil
	}
	loop.levels--
	return loop
}

func (sh *shell) choose(ctx context.Context, c *syntax.CaseClause) error {
	word, err := expand.Literal(sh.config(ctx), c.Word)
	if err != nil {
		return sh.failed(err)
	}
	sh.status = 0
	for _, item := range c.Items {
		for _, p := range item.Patterns {
			matches, err := sh.matches(ctx, p, word)
			if err != nil {
				return sh.failed(err)
			}
			if matches {
				return sh.run(ctx, item.Stmts)
			}
		}
	}
	return nil
}

func (sh *shell) matches(ctx context.Context, p *syntax.Word, text string) (bool, error) {
	glob, err := expand.Pattern(sh.config(ctx), p)
	if err != nil {
		return false, err
	}
	expr, err := pattern.Regexp(glob, pattern.EntireString)
	if err != nil {
		return false, err
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return false, err
	}
	return re.MatchString(text), nil
}

// call runs a simple command: assignments, a function, a built-in command or a program.
func (sh *shell) call(ctx context.Context, c *syntax.CallExpr) error {
	args, err := sh.fields(ctx, c.Args)
	if err != nil {
		return sh.failed(err)
	}
	if len(args) == 0 {
		sh.status = 0
		return sh.assign(ctx, sh, c.Assigns)
	}
	if body := sh.functions[args[0]]; body != nil {
		return sh.function(ctx, body, args[1:])
	}
	if builtin := builtins[args[0]]; builtin != nil {
		if err := sh.assign(ctx, sh, c.Assigns); err != nil {
			return err
		}
		return builtin(ctx, sh, sh.invocation(ctx, args))
	}
	sub := sh
	if len(c.Assigns) > 0 {
		sub = sh.subshell()
		if err := sh.assign(ctx, sub, c.Assigns); err != nil {
			return err
		}
	}
	run, ok := findCommand(args[0])
	if !ok {
		sh.sayf("%s: not found", args[0])
		sh.status = exitNotFound
		return nil
	}
	sh.status = run(ctx, sub.invocation(ctx, args))
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case sh.status == exitBrokenPipe && (args[0] == "echo" || args[0] == "printf"):
		return exitError(exitBrokenPipe) // Shells write these themselves, and the signal ends them.
	}
	return nil
}

// assign expands in sh and sets in target, where those for one command are exported.
func (sh *shell) assign(ctx context.Context, target *shell, assigns []*syntax.Assign) error {
	for _, a := range assigns {
		value, err := expand.Literal(sh.config(ctx), a.Value)
		if err == nil {
			err = target.variables.assign(a.Name.Value, value)
		}
		if err == nil && target != sh {
			err = target.variables.mark(a.Name.Value, func(v *variable) { v.exported = true })
		}
		if err != nil {
			return sh.failed(err)
		}
	}
	return nil
}

func (sh *shell) function(ctx context.Context, body *syntax.Stmt, args []string) error {
	if sh.depth >= callDepth {
		return sh.failed(errors.New("too many calls within each other"))
	}
	params := sh.params
	sh.params = args
	sh.depth++
	err := sh.stmt(ctx, body)
	sh.depth--
	sh.params = params
	if ret, ok := errors.AsType[returnError](err); ok {
		sh.status = int(ret)
		return nil
	}
	return err
}

// config is how words are expanded here and now.
func (sh *shell) config(ctx context.Context) *expand.Config {
	return &expand.Config{
		Env: sh.variables,
		CmdSubst: func(w io.Writer, c *syntax.CmdSubst) error {
			return sh.inSubshell(func(sub *shell) error {
				sub.stdout = &boundedWriter{to: w, left: variableSize}
				return sub.run(ctx, c.Stmts)
			})
		},
		ReadDir2: func(dir string) ([]fs.DirEntry, error) { return sh.process.Files.list(path.Clean(dir)) },
	}
}

// boundedWriter takes so many bytes, and breaks then.
type boundedWriter struct {
	to   io.Writer
	left int
}

func (w *boundedWriter) Write(b []byte) (int, error) {
	if len(b) > w.left {
		return 0, io.ErrClosedPipe
	}
	w.left -= len(b)
	return w.to.Write(b)
}

func (sh *shell) fields(ctx context.Context, words []*syntax.Word) ([]string, error) {
	return expand.Fields(sh.config(ctx), words...)
}

// redirect points one of the three streams elsewhere.
func (sh *shell) redirect(ctx context.Context, r *syntax.Redirect) error {
	if r.Op == syntax.Hdoc || r.Op == syntax.DashHdoc {
		text, err := expand.Document(sh.config(ctx), r.Hdoc)
		sh.stdin = strings.NewReader(text)
		return err
	}
	target, err := expand.Literal(sh.config(ctx), r.Word)
	if err != nil {
		return err
	}
	name := absolute(sh.dir, target)
	switch r.Op {
	case syntax.RdrIn:
		sh.stdin, err = sh.openFile(name)
		return err
	case syntax.RdrOut, syntax.RdrClob, syntax.AppOut:
		w, err := sh.createFile(name, r.Op == syntax.AppOut)
		if err != nil {
			return err
		}
		return sh.setOutput(descriptor(r), w)
	case syntax.DplOut:
		switch target {
		case "1":
			return sh.setOutput(descriptor(r), sh.stdout)
		case "2":
			return sh.setOutput(descriptor(r), sh.stderr)
		case "-":
			return sh.setOutput(descriptor(r), io.Discard)
		}
	case syntax.DplIn:
		if target == "-" {
			sh.stdin = bytes.NewReader(nil)
			return nil
		}
	default:
	}
	return fmt.Errorf("%s%s: no such redirection", r.Op, target)
}

// descriptor is which output is redirected.
func descriptor(r *syntax.Redirect) string {
	if r.N != nil {
		return r.N.Value
	}
	return "1"
}

func (sh *shell) setOutput(descriptor string, w io.Writer) error {
	switch descriptor {
	case "1":
		sh.stdout = w
	case "2":
		sh.stderr = w
	default:
		return fmt.Errorf("%s: bad file descriptor", descriptor)
	}
	return nil
}

// openFile reads a file; /dev/tty is the terminal.
func (sh *shell) openFile(name string) (io.Reader, error) {
	if name == "/dev/tty" && sh.process.Terminal != nil {
		return sh.process.Terminal, nil
	}
	return sh.process.Files.open(name)
}

// createFile writes a file; /dev/tty, /dev/stdout and /dev/stderr are streams.
func (sh *shell) createFile(name string, end bool) (io.Writer, error) {
	switch {
	case name == "/dev/tty" && sh.process.Terminal != nil:
		return sh.process.Terminal, nil
	case name == "/dev/stdout":
		return sh.stdout, nil
	case name == "/dev/stderr":
		return sh.stderr, nil
	}
	return sh.process.Files.create(name, end)
}

func fromBool(ok bool) int {
	if ok {
		return 0
	}
	return 1
}
