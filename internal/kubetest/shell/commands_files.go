package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// flags takes the single-letter flags off the arguments.
func (in *invocation) flags(known string) (given string, rest []string, err error) {
	var flags strings.Builder
	rest = in.args
	for len(rest) > 0 && len(rest[0]) > 1 && rest[0][0] == '-' {
		for _, f := range rest[0][1:] {
			if !strings.ContainsRune(known, f) {
				return "", nil, fmt.Errorf("-%c: no such option", f)
			}
			flags.WriteRune(f)
		}
		rest = rest[1:]
	}
	return flags.String(), rest, nil
}

func ls(_ context.Context, in *invocation) int {
	flags, names, err := in.flags("1al")
	if err != nil {
		return in.misuse("%v", err)
	}
	if len(names) == 0 {
		names = []string{"."}
	}
	code := 0
	for _, name := range names {
		text, err := in.listing(name, strings.Contains(flags, "l"))
		if err != nil {
			code = in.fail(err)
			continue
		}
		if c := in.write(text); c != 0 {
			return c
		}
	}
	return code
}

// listing is what ls shows for a name.
func (in *invocation) listing(name string, long bool) (string, error) {
	at := absolute(in.dir, name)
	info, err := in.process.Files.stat(at)
	if err != nil {
		return "", err
	}
	if !info.dir {
		return entry(name, info, long), nil
	}
	entries, err := in.process.Files.list(at)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			b.WriteString(entry(e.Name(), info, long))
		}
	}
	return b.String(), nil
}

func entry(name string, info fs.FileInfo, long bool) string {
	if !long {
		return name + "\n"
	}
	return fmt.Sprintf("%s  1 root  %8d %s %s\n", info.Mode(), info.Size(), info.ModTime().UTC().Format("Jan _2 15:04"), name)
}

func mkdir(_ context.Context, in *invocation) int {
	flags, names, err := in.flags("p")
	if err != nil || len(names) == 0 {
		return in.misuse("directories must be named")
	}
	code := 0
	for _, name := range names {
		at := absolute(in.dir, name)
		if strings.Contains(flags, "p") {
			err = in.makeAll(at)
		} else {
			err = in.process.Files.makeDir(at)
		}
		if err != nil {
			code = in.fail(err)
		}
	}
	return code
}

func (in *invocation) makeAll(at string) error {
	for i := 1; i <= len(at); i++ {
		if i < len(at) && at[i] != '/' {
			continue
		}
		if err := in.process.Files.makeDir(at[:i]); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func rm(_ context.Context, in *invocation) int {
	flags, names, err := in.flags("rRf")
	if err != nil {
		return in.misuse("%v", err)
	}
	code := 0
	for _, name := range names {
		err := in.process.Files.remove(absolute(in.dir, name), strings.ContainsAny(flags, "rR"))
		if strings.Contains(flags, "f") && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			code = in.fail(err)
		}
	}
	return code
}

func touch(_ context.Context, in *invocation) int {
	code := 0
	for _, name := range in.args {
		if _, err := in.process.Files.create(absolute(in.dir, name), true); err != nil {
			code = in.fail(err)
		}
	}
	return code
}

// tee is tee [-a] FILE...
func tee(ctx context.Context, in *invocation) int {
	flags, names, err := in.flags("a")
	if err != nil {
		return in.misuse("%v", err)
	}
	to := []io.Writer{in.stdout}
	for _, name := range names {
		w, err := in.shell.createFile(absolute(in.dir, name), strings.Contains(flags, "a"))
		if err != nil {
			return in.fail(err)
		}
		to = append(to, w)
	}
	return in.finish(transfer(ctx, io.MultiWriter(to...), in.stdin))
}

// test is test, and [ with a last argument ]: strings, numbers and files, with
// ! in front; no -a and -o, which POSIX has taken out.
func test(_ context.Context, in *invocation) int {
	args := in.args
	if in.name == "[" {
		if len(args) == 0 || args[len(args)-1] != "]" {
			return in.misuse("missing ]")
		}
		args = args[:len(args)-1]
	}
	is, err := in.holds(args)
	if err != nil {
		return in.misuse("%v", err)
	}
	return fromBool(is)
}

func (in *invocation) holds(args []string) (bool, error) {
	switch {
	case len(args) == 0:
		return false, nil
	case args[0] == "!" && len(args) > 1:
		is, err := in.holds(args[1:])
		return !is, err
	case len(args) == 1:
		return args[0] != "", nil
	case len(args) == 2:
		return in.unary(args[0], args[1])
	case len(args) == 3:
		return binary(args[0], args[1], args[2])
	}
	return false, errors.New("too many arguments")
}

func (in *invocation) unary(operator, operand string) (bool, error) {
	info, err := in.process.Files.stat(absolute(in.dir, operand))
	switch operator {
	case "-n":
		return operand != "", nil
	case "-z":
		return operand == "", nil
	case "-e", "-r", "-w":
		return err == nil, nil
	case "-f":
		return err == nil && !info.dir, nil
	case "-d":
		return err == nil && info.dir, nil
	case "-s":
		return err == nil && info.size > 0, nil
	case "-t":
		return in.process.Terminal != nil, nil
	}
	return false, fmt.Errorf("%s: no such operator", operator)
}

func binary(a, operator, b string) (bool, error) {
	switch operator {
	case "=", "==":
		return a == b, nil
	case "!=":
		return a != b, nil
	}
	x, err := strconv.Atoi(strings.TrimSpace(a))
	if err != nil {
		return false, fmt.Errorf("%s: bad number", a)
	}
	y, err := strconv.Atoi(strings.TrimSpace(b))
	if err != nil {
		return false, fmt.Errorf("%s: bad number", b)
	}
	comparisons := map[string]bool{"-eq": x == y, "-ne": x != y, "-lt": x < y, "-le": x <= y, "-gt": x > y, "-ge": x >= y}
	is, ok := comparisons[operator]
	if !ok {
		return false, fmt.Errorf("%s: no such operator", operator)
	}
	return is, nil
}

// expr is expr A OPERATOR B, in whole numbers.
func expr(_ context.Context, in *invocation) int {
	if len(in.args) != 3 || !slices.Contains([]string{"+", "-", "*", "/", "%"}, in.args[1]) {
		return in.misuse("only two numbers and one of + - * / %% are offered here")
	}
	x, errX := strconv.Atoi(in.args[0])
	y, errY := strconv.Atoi(in.args[2])
	if errX != nil || errY != nil {
		return in.misuse("bad number")
	}
	if y == 0 && (in.args[1] == "/" || in.args[1] == "%") {
		return in.misuse("division by zero")
	}
	var n int
	switch in.args[1] {
	case "+":
		n = x + y
	case "-":
		n = x - y
	case "*":
		n = x * y
	case "/":
		n = x / y
	default:
		n = x % y
	}
	return max(in.write(strconv.Itoa(n)+"\n"), fromBool(n != 0))
}
