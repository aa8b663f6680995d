package shell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sink is a buffer that jobs in the background write to as well.
type sink struct {
	mu sync.Mutex
	bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(b)
}

// result is what a program leaves behind.
type result struct {
	code     int
	out, err string
}

func process(stdin io.Reader, args ...string) (*Process, *sink, *sink) {
	var out, err sink
	return &Process{
		Args: args, Env: []string{"HOME=/root", "PATH=/bin", "GREETING=hello"}, Stdin: stdin, Stdout: &out, Stderr: &err,
		Files: NewFiles(map[string]string{"/etc/hostname": "shell\n", "/srv/www/index.html": "<h1>"}), Hostname: "shell",
	}, &out, &err
}

func run(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, out, err := process(strings.NewReader(stdin), args...)
	code := Run(ctx, p)
	if ctx.Err() != nil {
		t.Fatalf("%q did not end", args)
	}
	return result{code, out.String(), err.String()}
}

// Each script says what a POSIX shell says.
func TestScripts(t *testing.T) {
	for _, tc := range []struct {
		script, out string
		code        int
	}{
		{`echo hello`, "hello\n", 0},
		{`exit 7`, "", 7},
		{`false`, "", 1},
		{`false || echo or; true && echo and`, "or\nand\n", 0},
		{`! false; echo $?`, "0\n", 0},
		{`x=1; y="a  b"; echo $x $y "$y" '$y' ${x}2 ${z:-none} ${#y}`, "1 a b a  b $y 12 none 4\n", 0},
		{`echo $((6*7)) $(echo inner) ` + "`echo old`", "42 inner old\n", 0},
		{`for i in 1 2 3; do echo $i; done`, "1\n2\n3\n", 0},
		{`for i in 1 2 3; do [ $i = 2 ] && continue; [ $i = 3 ] && break; echo $i; done; echo end`, "1\nend\n", 0},
		{"for i in 1 2; do for j in a b; do break 2; done\ndone; echo $i$j", "1a\n", 0},
		{`i=0; while [ $i -lt 3 ]; do i=$((i+1)); echo $i; done`, "1\n2\n3\n", 0},
		{`i=0; until [ $i -ge 2 ]; do i=$((i+1)); done; echo $i`, "2\n", 0},
		{`case abc in x) echo x;; a*|b) echo glob;; *) echo else;; esac`, "glob\n", 0},
		{`if false; then echo a; elif true; then echo b; else echo c; fi`, "b\n", 0},
		{`f() { echo "$1 of $#"; return 3; }; f one two; echo $?`, "one of 2\n3\n", 0},
		{`(cd /tmp; x=2; exit 4); echo $? $x $PWD`, "4 /\n", 0},
		{`seq 5 | head -n 2 | wc -l`, "2\n", 0},
		{`seq 3 1; seq 3 -1 1; seq 2 3`, "3\n2\n1\n2\n3\n", 0},
		{`yes no | head -2 | tail -1`, "no\n", 0},
		{`while true; do echo loop; done | head -n 1`, "loop\n", 0},
		{`echo out; echo err >&2; echo both 2>&1 >/dev/null`, "out\n", 0},
		{`echo a > /tmp/f; echo b >> /tmp/f; cat < /tmp/f; cat /tmp/f | wc -c`, "a\nb\n4\n", 0},
		{"cat <<EOF\nx is $((1+1))\nEOF\n", "x is 2\n", 0},
		{`printf '%s-%d|' a 1 b 2`, "a-1|b-2|", 0},
		{`printf 'no newline\x21\101'`, "no newline!A", 0},
		{`cat /etc/hostname; ls /srv/www; hostname`, "shell\nindex.html\nshell\n", 0},
		{`echo /srv/*/*.html /none*`, "/srv/www/index.html /none*\n", 0},
		{`echo {1..3} a{b,c}`, "{1..3} a{b,c}\n", 0},
		{`export A=1; B=2; env | head -n 1; C=3 env | tail -n +2 | head -n 1`, "A=1\nC=3\n", 0},
		{`printf 'one two three\nlast' | while read -r a b; do echo "$a:$b"; done`, "one:two three\n", 0},
		{`set -e; false; echo never`, "", 1},
		{`set -e; if false; then :; fi; false || true; echo here`, "here\n", 0},
		{`set -- a b c; shift; echo $1 $# "$@"`, "b 2 b c\n", 0},
		{`nosuch; echo $?`, "127\n", 0},
		{`sh -c 'echo $0 $1' name arg; sh -c 'exit 9'; echo $?`, "name arg\n9\n", 0},
		{`x=old; (x=new); echo $x; { x=block; }; echo $x`, "old\nblock\n", 0},
		{`echo bg & wait; echo fg`, "bg\nfg\n", 0},
		{`mkdir -p /tmp/a/b && touch /tmp/a/b/c && rm -r /tmp/a && ls /tmp`, "", 0},
		{`head -c 5 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c`, "5\n3\n", 0},
		{`printf abc | sha256sum`, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n", 0},
		{`echo ~ ~nobody`, "/root ~nobody\n", 0},
		{`command -v cat; command -v nosuch`, "/bin/cat\n", 127},
		{`cd /tmp && pwd && cd - && pwd`, "/tmp\n/\n", 0},
		{`eval 'echo evaluated'; . /etc/nofile; echo $?`, "evaluated\n1\n", 0},
		{`readonly r=1; r=2; echo $r`, "1\n", 0},
		{`if true; then`, "", 2},
		{`stty size`, "", 1},
	} {
		if got := run(t, "", "sh", "-c", tc.script); got.out != tc.out || got.code != tc.code {
			t.Errorf("%s\n\t%q and %d, want %q and %d (%s)", tc.script, got.out, got.code, tc.out, tc.code, got.err)
		}
	}
}

func TestShellReadsItsInput(t *testing.T) {
	got := run(t, "read x\nfrom input\necho \"[$x]\"\nif true\nthen echo later\nfi\ncat\nthe rest\nof it", "sh")
	if want := "[from input]\nlater\nthe rest\nof it"; got.out != want || got.code != 0 {
		t.Errorf("%+v, want %q", got, want)
	}
	if got := run(t, "exit 5\necho never\n", "sh"); got.code != 5 || got.out != "" {
		t.Errorf("%+v", got)
	}
	if got := run(t, "a", "cat"); got.out != "a" {
		t.Errorf("%+v", got)
	}
}

// No script reaches a file or a program of the host, however it asks.
func TestNothingOfTheHostIsReached(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("of the host"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{
		"cat %[1]s", ". %[1]s", "sh %[1]s", "read x < %[1]s; echo $x", "[ -e %[1]s ] && echo there", "ls %[2]s", "echo %[2]s/*", "cd %[2]s && echo there",
		"head %[1]s", "tail %[1]s", "tee < %[1]s", "test -f %[1]s && echo there", "/usr/bin/env true && echo ran; exec /bin/uname -r", "cat <(echo x)", "echo x > %[2]s/new",
		"echo $(< %[1]s)", "echo ~root/x", "cat /proc/self/environ", "cat ../../../../../..%[1]s",
	} {
		got := run(t, "", "sh", "-c", fmt.Sprintf(script, secret, dir))
		if strings.Contains(got.out, "host") || strings.Contains(got.out, "there") || strings.Contains(got.out, "ran") {
			t.Errorf("%s: %+v", script, got)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); !os.IsNotExist(err) {
		t.Errorf("a file was made on the host: %v", err)
	}
}

// What would take all memory fails instead.
func TestScriptsAreBounded(t *testing.T) {
	for _, script := range []string{
		`x=aaaaaaaaaaaaaaaa; for i in $(seq 100); do x=$x$x; done; echo ${#x}`,
		`x=$(yes); echo ${#x}`,
		`f() { f; }; f`,
		`cat /dev/zero > /tmp/full`,
		`i=0; while [ $i -lt 20000 ]; do i=$((i+1)); eval "v$i=1" || break; done 2>/dev/null`,
		`for i in $(seq 200); do sleep 0.01 & done; wait`,
	} {
		p, out, errs := process(strings.NewReader(""), "sh", "-c", script)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		Run(ctx, p)
		if ctx.Err() != nil {
			t.Errorf("%s: did not end", script)
		}
		cancel()
		if out.Len() > variableSize+100 {
			t.Errorf("%s: %d bytes, %q", script, out.Len(), errs.String())
		}
	}
}

// Whatever a program waits for, its context ends it, and nothing is left.
func TestContextEndsEverything(t *testing.T) {
	for _, script := range []string{
		`sleep infinity`, `cat`, `read x`, `while :; do :; done`, `yes`, `yes | cat`, `cat | cat`, `sleep 1h & wait`, `(sleep 1h)`, `echo $(sleep 1h)`, `f() { sleep 1h; }; f`, ``, `tail -f /dev/null`,
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			p, _, _ := process(NewPipe(10), "sh", "-c", script)
			if script == "" {
				p.Args = []string{"sh"}
			}
			p.Stdout = NewPipe(1000) // nobody reads
			if strings.Contains(script, ":;") {
				cancel() // a busy loop stops a bubble's clock
			}
			Run(ctx, p)
			if ctx.Err() == nil {
				t.Errorf("%s ended by itself", script)
			}
		})
	}
}

func TestSleepTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if got := run(t, "", "sleep", "1.5", "2s"); got.code != 0 || time.Since(began) != 3500*time.Millisecond {
			t.Errorf("%+v after %v", got, time.Since(began))
		}
		if got := run(t, "", "date", "-u", "+%Y-%m-%dT%H:%M:%S %s %%"); got.out != "2000-01-01T00:00:03 946684803 %\n" {
			t.Errorf("%q", got.out)
		}
	})
}

func TestProgramsThatDoNotExist(t *testing.T) {
	if err := Find("nosuch"); err == nil || err.Error() != `exec: "nosuch": executable file not found in $PATH` {
		t.Errorf("%v", err)
	}
	if err := Find("/usr/bin/env"); err != nil {
		t.Errorf("%v", err)
	}
	if err := Find("/opt/cat"); err == nil {
		t.Error("a program where there is none")
	}
	if got := run(t, "", "nosuch"); got.code != 127 {
		t.Errorf("%+v", got)
	}
}
