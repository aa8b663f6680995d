package rest_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// example is a line of docs/rest.md, and what it prints.
type example struct{ line, prints string }

// examples reads the lines of docs/rest.md: first what all of them need, then each with what the document says that it prints.
func examples(t *testing.T) (setting string, found []example) {
	t.Helper()
	text, err := os.ReadFile("../../docs/rest.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(sh|)\n(.*?\n)```\n").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 3 || blocks[0][1] != "sh" {
		t.Fatalf("docs/rest.md has %d blocks", len(blocks))
	}
	blocks, setting = blocks[1:], blocks[0][2]
	for ; len(blocks) > 1; blocks = blocks[2:] {
		if blocks[0][1] != "sh" || blocks[1][1] == "sh" {
			t.Fatalf("a line without what it prints: %s", blocks[0][2])
		}
		found = append(found, example{blocks[0][2], blocks[1][2]})
	}
	if len(blocks) != 0 {
		t.Fatalf("a line without what it prints: %s", blocks[0][2])
	}
	return setting, found
}

// pattern matches what a block of the document shows; … stands for anything within a line.
func (e example) pattern() *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(e.prints), "…", ".*?"))
}

// output collects what a shell prints, and wakes who waits for it.
type output struct {
	stop func() // ends the shell and what it has started, and waits for it

	mu      sync.Mutex
	b       bytes.Buffer  // guarded by mu
	changed chan struct{} // guarded by mu: closed and replaced by each write
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.b.Write(p)
}

func (o *output) now() (text string, changed chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String(), o.changed
}

// await waits until what was printed matches.
func (o *output) await(ctx context.Context, p *regexp.Regexp) error {
	for {
		text, changed := o.now()
		if p.MatchString(text) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("printed:\n%s\nwant:\n%s", text, p)
		}
	}
}

// shell runs a script, until it ends or is stopped.
func shell(t *testing.T, script string, variables []string) *output {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out := &output{changed: make(chan struct{})}
	c := exec.CommandContext(ctx, "/bin/sh", "-c", script)
	c.Env, c.Stdout, c.Stderr = variables, out, out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // curl as well
	if err := c.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	out.stop = func() {
		cancel()
		_ = c.Wait() // it may have been killed
	}
	return out
}

// The lines of docs/rest.md, run by a shell exactly as they are written, print what it says.
func TestTheLinesOfTheDocumentWorkAsTheyAreWritten(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl: tools/setup.sh installs it")
	}
	d := open(t, kubetest.Options{Authorizer: func(_ kubetest.User, a kubetest.Attributes) bool { return a.Namespace != "vault" }})
	d.apply("shop", "web", "0")
	d.run("done", "talker")
	setting, all := examples(t)
	variables := []string{
		"PATH=" + os.Getenv("PATH"), "SLUICE_WEB=" + d.Server.WebAddr().String(), "SLUICE_CA_FILE=" + d.caFile(), "SLUICE_TOKEN=" + d.Token("alice"),
	}
	for i, e := range all {
		printed := shell(t, setting+e.line, variables)
		if strings.Contains(e.prints, "MODIFIED") {
			if err := d.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 1 }); err != nil {
				t.Fatal(e.line, err)
			}
			d.apply("shop", "web", fmt.Sprint(i+1))
		}
		if err := printed.await(within(t), e.pattern()); err != nil {
			t.Errorf("%s%v", e.line, err)
		}
		printed.stop()
		if err := d.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 0 && c.Streams == 0 }); err != nil {
			t.Fatal(e.line, err)
		}
	}
}
