package shell

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"mvdan.cc/sh/v3/expand"
)

// commands are the programs that every container has.
var commands map[string]command

func init() { //nolint:gochecknoinits // the table's functions call what reads the table
	commands = map[string]command{
		"[": test, "ash": runShell, "bash": runShell, "cat": cat, "clear": clearScreen, "date": date, "echo": echo, "env": env, "expr": expr, "false": falsely,
		"head": head, "hostname": hostname, "id": id, "ls": ls, "mkdir": mkdir, "printf": printf, "pwd": pwd, "rm": rm, "seq": seq, "sh": runShell,
		"sha256sum": sha256sum, "sleep": sleep, "stty": stty, "tail": tail, "tee": tee, "test": test, "touch": touch, "true": truly, "tty": tty,
		"uname": uname, "wc": wc, "whoami": whoami, "yes": yes,
	}
}

func truly(context.Context, *invocation) int   { return 0 }
func falsely(context.Context, *invocation) int { return 1 }

// write writes text, and is the exit code.
func (in *invocation) write(text string) int {
	_, err := io.WriteString(in.stdout, text)
	return in.finish(err)
}

func hostname(_ context.Context, in *invocation) int { return in.write(in.process.Hostname + "\n") }
func whoami(_ context.Context, in *invocation) int   { return in.write("root\n") }
func id(_ context.Context, in *invocation) int {
	return in.write("uid=0(root) gid=0(root) groups=0(root)\n")
}
func pwd(_ context.Context, in *invocation) int         { return in.write(in.dir + "\n") }
func clearScreen(_ context.Context, in *invocation) int { return in.write("\x1b[H\x1b[2J") }

func uname(_ context.Context, in *invocation) int {
	if slices.Contains(in.args, "-a") {
		return in.write("Linux " + in.process.Hostname + " embedded\n")
	}
	return in.write("Linux\n")
}

// env prints the environment.
func env(_ context.Context, in *invocation) int {
	if len(in.args) > 0 {
		return in.misuse("running a command is not offered here")
	}
	var b strings.Builder
	for _, pair := range in.exported {
		b.WriteString(pair + "\n")
	}
	return in.write(b.String())
}

// echo is echo [-n] [-e] ARG...
func echo(_ context.Context, in *invocation) int {
	end, escapes, args := "\n", false, in.args
	for len(args) > 0 && (args[0] == "-n" || args[0] == "-e" || args[0] == "-ne" || args[0] == "-en") {
		if strings.Contains(args[0], "n") {
			end = ""
		}
		escapes = escapes || strings.Contains(args[0], "e")
		args = args[1:]
	}
	text := strings.Join(args, " ")
	if escapes {
		expanded, _, err := expand.Format(nil, strings.ReplaceAll(text, "%", "%%"), nil)
		if err != nil {
			return in.fail(err)
		}
		text = expanded
	}
	return in.write(text + end)
}

// printf is printf FORMAT ARG...: the format is used again while there are arguments.
func printf(ctx context.Context, in *invocation) int {
	if len(in.args) == 0 {
		return in.misuse("a format must be given")
	}
	format, args := in.args[0], in.args[1:]
	for ctx.Err() == nil {
		text, used, err := expand.Format(nil, format, args)
		if err != nil {
			return in.fail(err)
		}
		if code := in.write(text); code != 0 || used == 0 || used >= len(args) {
			return code
		}
		args = args[used:]
	}
	return 1
}

// inputs are the files that the arguments name, or the standard input. f
// returns an error to stop.
func (in *invocation) inputs(names []string, f func(name string, r io.Reader) error) int {
	if len(names) == 0 {
		return in.finish(f("-", in.stdin))
	}
	code := 0
	for _, name := range names {
		r := in.stdin
		if name != "-" {
			var err error
			if r, err = in.shell.openFile(absolute(in.dir, name)); err != nil {
				code = in.fail(err)
				continue
			}
		}
		if err := f(name, r); err != nil {
			return in.fail(err)
		}
	}
	return code
}

func cat(ctx context.Context, in *invocation) int {
	return in.inputs(in.args, func(_ string, r io.Reader) error {
		return transfer(ctx, in.stdout, r)
	})
}

// transfer copies until the end, or ctx's.
func transfer(ctx context.Context, w io.Writer, r io.Reader) error {
	b := make([]byte, 32<<10)
	for {
		n, err := r.Read(b)
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
}

// count is the argument of -n or -c.
type count struct {
	n     int
	bytes bool
	from  bool // tail -n +N
}

// counted reads -n N, -c N, -N and their like; the rest are names.
func (in *invocation) counted() (c count, follow bool, names []string, err error) {
	c.n = 10
	args := in.args
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		flag, value := args[0][:2], args[0][2:]
		args = args[1:]
		switch {
		case flag == "-f":
			follow = true
			continue
		case flag >= "-0" && flag <= "-9":
			flag, value = "-n", flag[1:]+value
		case value == "" && len(args) > 0:
			value, args = args[0], args[1:]
		}
		if flag != "-n" && flag != "-c" {
			return c, false, nil, fmt.Errorf("%s: no such option", flag)
		}
		c.bytes = flag == "-c"
		value, c.from = strings.CutPrefix(value, "+")
		if c.n, err = strconv.Atoi(value); err != nil || c.n < 0 {
			return c, false, nil, fmt.Errorf("%s: bad number", value)
		}
	}
	return c, follow, args, nil
}

func head(ctx context.Context, in *invocation) int {
	c, _, names, err := in.counted()
	if err != nil {
		return in.misuse("%v", err)
	}
	return in.inputs(names, func(_ string, r io.Reader) error {
		if c.bytes {
			return transfer(ctx, in.stdout, io.LimitReader(r, int64(c.n)))
		}
		return headLines(ctx, in.stdout, r, c.n)
	})
}

func headLines(ctx context.Context, w io.Writer, r io.Reader, n int) error {
	lines := bufio.NewReader(r)
	for range n {
		line, err := lines.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			if _, err := w.Write(line); err != nil {
				return err
			}
			line, err = lines.ReadSlice('\n')
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
	}
	return nil
}

// tailed bounds what tail keeps, in bytes.
const tailed = 1 << 20

// tail keeps the last lines of what it reads, or leaves out the first ones.
func tail(ctx context.Context, in *invocation) int {
	c, follow, names, err := in.counted()
	if err != nil || c.bytes {
		return in.misuse("only -n N is offered here")
	}
	code := in.inputs(names, func(_ string, r io.Reader) error {
		var kept [][]byte
		size, number := 0, 0
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadBytes('\n')
			number++
			switch {
			case c.from && number >= c.n:
				if _, err := in.stdout.Write(line); err != nil {
					return err
				}
			case !c.from && len(line) > 0:
				kept, size = append(kept, line), size+len(line)
			}
			for len(kept) > c.n || size > tailed && len(kept) > 0 {
				kept, size = kept[1:], size-len(kept[0])
			}
			if errors.Is(err, io.EOF) {
				_, err := in.stdout.Write(bytes.Join(kept, nil))
				return err
			}
			if err != nil {
				return err
			}
		}
	})
	if follow && code == 0 {
		<-ctx.Done() // tail -f /dev/null is how containers are kept idle
	}
	return code
}

// wc is wc [-clw] [FILE...].
func wc(ctx context.Context, in *invocation) int {
	flags, names, err := in.flags("lwc")
	if err != nil {
		return in.misuse("%v", err)
	}
	if flags == "" {
		flags = "lwc"
	}
	return in.inputs(names, func(name string, r io.Reader) error {
		var counts wordCounter
		if err := transfer(ctx, &counts, r); err != nil {
			return err
		}
		var fields []string
		for _, f := range []struct {
			flag string
			n    int
		}{{"l", counts.lines}, {"w", counts.words}, {"c", counts.bytes}} {
			if strings.Contains(flags, f.flag) {
				fields = append(fields, strconv.Itoa(f.n))
			}
		}
		if name != "-" {
			fields = append(fields, name)
		}
		_, err := fmt.Fprintln(in.stdout, strings.Join(fields, " "))
		return err
	})
}

// wordCounter counts what is written to it.
type wordCounter struct {
	lines, words, bytes int
	inside              bool // of a word
}

func (c *wordCounter) Write(b []byte) (int, error) {
	c.bytes += len(b)
	for _, char := range b {
		if char == '\n' {
			c.lines++
		}
		space := char == ' ' || char >= '\t' && char <= '\r'
		if !space && !c.inside {
			c.words++
		}
		c.inside = !space
	}
	return len(b), nil
}

func sha256sum(ctx context.Context, in *invocation) int {
	return in.inputs(in.args, func(name string, r io.Reader) error {
		h := sha256.New()
		if err := transfer(ctx, h, r); err != nil {
			return err
		}
		_, err := fmt.Fprintf(in.stdout, "%x  %s\n", h.Sum(nil), name)
		return err
	})
}

func yes(ctx context.Context, in *invocation) int {
	word := "y"
	if len(in.args) > 0 {
		word = strings.Join(in.args, " ")
	}
	page := bytes.Repeat([]byte(word+"\n"), 1+4096/(len(word)+1))
	for ctx.Err() == nil {
		if _, err := in.stdout.Write(page); err != nil {
			return in.fail(err)
		}
	}
	return 1
}

// seq is seq [FIRST [STEP]] LAST, in whole numbers.
func seq(ctx context.Context, in *invocation) int {
	n := []int{1, 1}
	var given []int
	for _, arg := range in.args {
		v, err := strconv.Atoi(arg)
		if err != nil {
			return in.misuse("%s: bad number", arg)
		}
		given = append(given, v)
	}
	switch len(given) {
	case 1:
		n = append(n, given[0])
	case 2:
		n = []int{given[0], 1, given[1]}
	case 3:
		n = given
	default:
		return in.misuse("one to three numbers must be given")
	}
	if n[1] == 0 {
		return in.misuse("a step of 0")
	}
	w := bufio.NewWriter(in.stdout)
	for i := n[0]; (n[1] > 0 && i <= n[2] || n[1] < 0 && i >= n[2]) && ctx.Err() == nil; i += n[1] {
		if _, err := fmt.Fprintln(w, i); err != nil {
			return in.fail(err)
		}
	}
	return in.finish(w.Flush())
}

// sleep is sleep TIME..., in seconds or with a unit s, m, h or d.
func sleep(ctx context.Context, in *invocation) int {
	var total time.Duration
	for _, arg := range in.args {
		d, err := parseSleep(arg)
		if err != nil {
			return in.misuse("%v", err)
		}
		total += d
	}
	timer := time.NewTimer(total)
	defer timer.Stop()
	select {
	case <-timer.C:
		return 0
	case <-ctx.Done():
		return 1
	}
}

// longest is a sleep without an end.
const longest = 365 * 24 * time.Hour

func parseSleep(arg string) (time.Duration, error) {
	if arg == "infinity" {
		return longest, nil
	}
	unit := time.Second
	number := strings.TrimRight(arg, "smhd")
	switch strings.TrimPrefix(arg, number) {
	case "m":
		unit = time.Minute
	case "h":
		unit = time.Hour
	case "d":
		unit = 24 * time.Hour
	case "", "s":
	default:
		return 0, fmt.Errorf("%s: bad time", arg)
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || n > float64(longest/unit) {
		return 0, fmt.Errorf("%s: bad time", arg)
	}
	return time.Duration(n * float64(unit)), nil
}

// date is date [-u] [-Iseconds] [+FORMAT].
func date(_ context.Context, in *invocation) int {
	now, format := time.Now().UTC(), "%a %b %e %H:%M:%S UTC %Y"
	for _, arg := range in.args {
		switch {
		case arg == "-u":
		case arg == "-Iseconds":
			format = "%Y-%m-%dT%H:%M:%S+00:00"
		case strings.HasPrefix(arg, "+"):
			format = arg[1:]
		default:
			return in.misuse("%s: no such option", arg)
		}
	}
	return in.write(strftime(format, now) + "\n")
}

// strftime formats a time by the conversions of strftime(3) that people use.
func strftime(format string, t time.Time) string {
	layouts := map[byte]string{
		'Y': "2006", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'M': "04", 'S': "05", 'a': "Mon", 'b': "Jan", 'T': "15:04:05", 'F': "2006-01-02",
		'Z': "MST", 'z': "-0700", 'N': "000000000", 'A': "Monday", 'B': "January", 'j': "002", 'y': "06", 'I': "03", 'p': "PM",
	}
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		layout, known := layouts[format[i]]
		switch {
		case format[i] == 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case format[i] == 'N':
			fmt.Fprintf(&b, "%09d", t.Nanosecond())
		case known:
			b.WriteString(t.Format(layout))
		case format[i] == '%':
			b.WriteByte('%')
		default:
			b.WriteString("%" + format[i:i+1])
		}
	}
	return b.String()
}

// tty says whether the standard streams lead to a terminal.
func tty(_ context.Context, in *invocation) int {
	if in.process.Terminal == nil {
		return max(1, in.write("not a tty\n"))
	}
	return in.write("/dev/pts/0\n")
}

// stty is stty size, and the modes echo, -echo, raw, -raw and sane.
func stty(_ context.Context, in *invocation) int {
	terminal := in.process.Terminal
	if terminal == nil {
		return in.fail(errors.New("standard input: Inappropriate ioctl for device"))
	}
	for _, arg := range in.args {
		switch arg {
		case "size":
			width, height := terminal.Size()
			if code := in.write(fmt.Sprintf("%d %d\n", height, width)); code != 0 {
				return code
			}
		case "echo", "-echo", "raw", "-raw", "sane":
			terminal.SetMode(arg != "-echo" && arg != "raw", arg == "raw")
		default:
			return in.misuse("%s: no such setting here", arg)
		}
	}
	return 0
}
