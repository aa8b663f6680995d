package shell

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/expand"
)

// builtin is a command that acts on the shell itself. It sets the status; its
// error ends what is around it.
type builtin func(ctx context.Context, sh *shell, in *invocation) error

// builtins are the built-in commands that are no programs (POSIX.1-2024, XCU
// 2.15), and cd, read and wait.
var builtins map[string]builtin

func init() { //nolint:gochecknoinits // the table's functions call what reads the table
	builtins = map[string]builtin{
		":": succeed, "true": succeed, "break": breaks(breakLoop), "continue": breaks(continueLoop),
		"cd": changeDir, "eval": evaluate, "exec": execute, "exit": exit, "export": export, "kill": kill, "local": local, "read": readVariables,
		"readonly": readonly, "return": returns, "set": set, "shift": shift, "unset": unset, "wait": wait, "command": simply, "type": tell,
		".": source, "umask": succeed, "trap": succeed,
	}
}

func succeed(_ context.Context, sh *shell, _ *invocation) error {
	sh.status = 0
	return nil
}

// number is the only argument, if there is one.
func (in *invocation) number(usually int) (int, error) {
	if len(in.args) == 0 {
		return usually, nil
	}
	n, err := strconv.Atoi(in.args[0])
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s: bad number", in.args[0])
	}
	return n, nil
}

func breaks(kind int) builtin {
	return func(_ context.Context, sh *shell, in *invocation) error {
		levels, err := in.number(1)
		if err == nil && levels == 0 {
			err = errors.New("0: bad number")
		}
		if err != nil {
			sh.status = in.misuse("%v", err)
			return nil
		}
		sh.status = 0
		return loopError{levels, kind}
	}
}

func exit(_ context.Context, sh *shell, in *invocation) error {
	code, err := in.number(sh.status)
	if err != nil {
		return exitError(in.misuse("%v", err))
	}
	return exitError(code & 0xff)
}

func returns(_ context.Context, sh *shell, in *invocation) error {
	code, err := in.number(sh.status)
	if err != nil {
		code = in.misuse("%v", err)
	}
	sh.status = code & 0xff
	return returnError(sh.status)
}

func changeDir(_ context.Context, sh *shell, in *invocation) error {
	to := sh.variables.set["HOME"].value
	if len(in.args) > 0 {
		to = in.args[0]
	}
	if to == "-" {
		to = sh.variables.set["OLDPWD"].value
	}
	to = absolute(sh.dir, to)
	info, err := in.process.Files.stat(to)
	if err == nil && !info.dir {
		err = refused(to, "Not a directory")
	}
	if err == nil {
		err = sh.variables.assign("OLDPWD", sh.dir)
	}
	if err != nil {
		sh.status = in.fail(err)
		return nil
	}
	sh.dir, sh.status = to, 0
	return nil
}

func evaluate(ctx context.Context, sh *shell, in *invocation) error {
	stmts, err := parse(strings.NewReader(strings.Join(in.args, " ")))
	if err != nil {
		sh.status = in.fail(err)
		return nil
	}
	return sh.nested(func() error { return sh.run(ctx, stmts) })
}

// nested runs f one call deeper.
func (sh *shell) nested(f func() error) error {
	if sh.depth >= callDepth {
		return sh.failed(errors.New("too many calls within each other"))
	}
	sh.depth++
	defer func() { sh.depth-- }()
	sh.status = 0
	return f()
}

func source(ctx context.Context, sh *shell, in *invocation) error {
	if len(in.args) == 0 {
		sh.status = in.misuse("a file must be named")
		return nil
	}
	file, err := in.process.Files.open(absolute(sh.dir, in.args[0]))
	if err != nil {
		sh.status = in.fail(err)
		return nil
	}
	stmts, err := parse(file)
	if err != nil {
		sh.status = in.fail(err)
		return nil
	}
	return sh.nested(func() error { return sh.run(ctx, stmts) })
}

// execute is exec with a program; the shell ends with it.
func execute(ctx context.Context, sh *shell, in *invocation) error {
	if len(in.args) == 0 {
		sh.status = 0
		return nil
	}
	if err := simply(ctx, sh, in); err != nil {
		return err
	}
	return exitError(sh.status)
}

// simply is command: a program or a built-in command, but no function.
func simply(ctx context.Context, sh *shell, in *invocation) error {
	if len(in.args) > 0 && in.args[0] == "-v" {
		in.args = in.args[1:]
		return tell(ctx, sh, in)
	}
	if len(in.args) == 0 {
		sh.status = 0
		return nil
	}
	if b := builtins[in.args[0]]; b != nil {
		return b(ctx, sh, sh.invocation(ctx, in.args))
	}
	run, ok := findCommand(in.args[0])
	if !ok {
		sh.sayf("%s: not found", in.args[0])
		sh.status = exitNotFound
		return nil
	}
	sh.status = run(ctx, sh.invocation(ctx, in.args))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// tell says what a name stands for.
func tell(_ context.Context, sh *shell, in *invocation) error {
	sh.status = 0
	for _, name := range in.args {
		_, program := findCommand(name)
		switch {
		case sh.functions[name] != nil, builtins[name] != nil:
			fmt.Fprintln(in.stdout, name)
		case program:
			fmt.Fprintln(in.stdout, "/bin/"+strings.TrimPrefix(strings.TrimPrefix(name, "/usr"), "/bin/"))
		default:
			sh.status = exitNotFound
		}
	}
	return nil
}

// declare sets the variables that the arguments name, some with a value, and
// changes their attributes.
func (sh *shell) declare(in *invocation, mark func(*variable)) {
	sh.status = 0
	for _, arg := range in.args {
		if strings.HasPrefix(arg, "-") {
			continue
		}
		name, value, given := strings.Cut(arg, "=")
		var err error
		if given {
			err = sh.variables.assign(name, value)
		}
		if err == nil {
			err = sh.variables.mark(name, mark)
		}
		if err != nil {
			sh.status = in.fail(err)
		}
	}
}

func export(_ context.Context, sh *shell, in *invocation) error {
	if len(in.args) == 0 {
		for _, pair := range sh.variables.exported() {
			fmt.Fprintf(in.stdout, "export %s\n", pair)
		}
	}
	sh.declare(in, func(v *variable) { v.exported = true })
	return nil
}

func readonly(_ context.Context, sh *shell, in *invocation) error {
	sh.declare(in, func(v *variable) { v.readonly = true })
	return nil
}

// local only sets: a function's variables are the shell's here, as POSIX has it.
func local(_ context.Context, sh *shell, in *invocation) error {
	sh.declare(in, func(*variable) {})
	return nil
}

func unset(_ context.Context, sh *shell, in *invocation) error {
	sh.status = 0
	for _, name := range in.args {
		if name == "-v" || name == "-f" {
			continue
		}
		delete(sh.functions, name)
		if err := sh.variables.unset(name); err != nil {
			sh.status = in.fail(err)
		}
	}
	return nil
}

// set is set -e, set +e and set -- ARG...; other options are taken and do nothing.
func set(_ context.Context, sh *shell, in *invocation) error {
	sh.status = 0
	for i, arg := range in.args {
		switch {
		case arg == "--":
			sh.params = in.args[i+1:]
			return nil
		case strings.HasPrefix(arg, "-") && strings.Contains(arg, "e"):
			sh.errexit = true
		case strings.HasPrefix(arg, "+") && strings.Contains(arg, "e"):
			sh.errexit = false
		case !strings.HasPrefix(arg, "-") && !strings.HasPrefix(arg, "+"):
			sh.params = in.args[i:]
			return nil
		}
	}
	return nil
}

func shift(_ context.Context, sh *shell, in *invocation) error {
	n, err := in.number(1)
	if err == nil && n > len(sh.params) {
		err = fmt.Errorf("%d: too many", n)
	}
	if err != nil {
		sh.status = in.misuse("%v", err)
		return nil
	}
	sh.params, sh.status = sh.params[n:], 0
	return nil
}

// kill is kill [-SIGNAL] PID; the only process there is has the number $$.
func kill(_ context.Context, sh *shell, in *invocation) error {
	signals := map[string]int{"-2": 2, "-INT": 2, "-9": 9, "-KILL": 9, "-15": 15, "-TERM": 15, "-1": 1, "-HUP": 1}
	number, args := 15, in.args
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		n, ok := signals[strings.Replace(args[0], "-SIG", "-", 1)]
		if !ok {
			sh.status = in.misuse("%s: no such signal", args[0])
			return nil
		}
		number, args = n, args[1:]
	}
	if len(args) != 1 || args[0] != sh.variables.Get("$").String() {
		sh.status = in.fail(errors.New("no such process"))
		return nil
	}
	return exitError(128 + number)
}

// readVariables is read [-r] [-p PROMPT] NAME...: a line into variables.
func readVariables(_ context.Context, sh *shell, in *invocation) error {
	raw, names := false, in.args
	for len(names) > 0 && strings.HasPrefix(names[0], "-") {
		switch {
		case names[0] == "-r":
			raw = true
		case names[0] == "-p" && len(names) > 1:
			fmt.Fprint(in.stderr, names[1])
			names = names[1:]
		default:
			sh.status = in.misuse("%s: no such option", names[0])
			return nil
		}
		names = names[1:]
	}
	if len(names) == 0 {
		names = []string{"REPLY"}
	}
	line, ended := readLine(in.stdin)
	line = strings.TrimSuffix(line, "\n")
	values := expand.ReadFields(&expand.Config{Env: sh.variables}, line, len(names), raw)
	sh.status = fromBool(ended == nil)
	for i, name := range names {
		value := ""
		if i < len(values) {
			value = values[i]
		}
		if err := sh.variables.assign(name, value); err != nil {
			sh.status = in.fail(err)
		}
	}
	return nil
}

// wait waits for all jobs in the background; which ones is not told apart.
func wait(ctx context.Context, sh *shell, _ *invocation) error {
	sh.jobs.Wait() // They end with ctx at the latest.
	sh.status = 0
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
