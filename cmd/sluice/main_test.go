package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		removeBinary()
		os.Exit(code)
	}))
}

// patience bounds failures; nothing that works takes long.
const patience = 30 * time.Second

// output is what a command prints, for a test that reads while it runs.
type output struct {
	mu      sync.Mutex // guards everything below
	text    bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// await waits until what was printed satisfies ok, and returns it.
func (o *output) await(t *testing.T, what string, ok func(string) bool) string {
	t.Helper()
	late := time.After(patience)
	for {
		o.mu.Lock()
		text, changed := o.text.String(), o.changed
		o.mu.Unlock()
		if ok(text) {
			return text
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("%s did not appear in:\n%s", what, text)
		}
	}
}

// command is one command line that runs in this process.
type command struct {
	stdout, stderr *output
	stop           context.CancelFunc // as Ctrl-C
	code           chan int
}

// environment is what a command sees of the environment.
type environment map[string]string

// with is the environment with more in it.
func (e environment) with(pairs ...string) environment {
	out := environment{}
	maps.Copy(out, e)
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}

// isolated is an environment whose folders are the test's own.
func isolated(t *testing.T) environment {
	t.Helper()
	return environment{"XDG_CACHE_HOME": t.TempDir(), "XDG_CONFIG_HOME": t.TempDir()}
}

// begin runs a command line until it ends or the test does.
func begin(t *testing.T, env environment, args ...string) *command {
	t.Helper()
	return beginWith(t, env, strings.NewReader(""), args...)
}

// beginWith is begin with a standard input.
func beginWith(t *testing.T, env environment, stdin io.Reader, args ...string) *command {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	c := &command{newOutput(), newOutput(), stop, make(chan int, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.code <- run(ctx, args, system{stdin: stdin, stdout: c.stdout, stderr: c.stderr, getenv: func(k string) string { return env[k] }})
	}()
	t.Cleanup(func() { stop(); <-done })
	return c
}

// end waits for the exit code.
func (c *command) end(t *testing.T) int {
	t.Helper()
	select {
	case code := <-c.code:
		return code
	case <-time.After(patience):
		t.Fatalf("the command goes on; it printed:\n%s%s", c.stdout, c.stderr)
		return -1
	}
}

// sluice runs a command line to its end.
func sluice(t *testing.T, env environment, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	c := begin(t, env, args...)
	code = c.end(t)
	return c.stdout.String(), c.stderr.String(), code
}
