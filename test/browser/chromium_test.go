package browser

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// question is what the driver is asked, as driver.ts has it.
type question struct {
	ID        int    `json:"id"`
	Do        string `json:"do"`
	On        int    `json:"on,omitempty"`
	URL       string `json:"url,omitempty"`
	Name      string `json:"name,omitempty"`
	Arguments []any  `json:"arguments,omitempty"`
}

type answer struct {
	ID     int             `json:"id"`
	Result json.RawMessage `json:"result"`
	Error  string          `json:"error"`
}

// chromium is a headless Chromium and the process that drives it. Its methods may be called from several goroutines.
type chromium struct {
	t     *testing.T
	stop  context.CancelFunc
	ended chan struct{} // closed by read at its end

	mu sync.Mutex
	// Guarded by mu.
	in      io.WriteCloser
	last    int
	waiting map[int]chan answer
}

// newChromium starts one that takes the certificates for good and finds the hosts below .example on the loopback interface. It ends
// with the test.
func newChromium(t *testing.T, certificates ...*x509.Certificate) *chromium {
	t.Helper()
	b := theBundle(t)
	folder := newFolder(t)
	driver := filepath.Join(folder, "driver.js")
	if err := os.WriteFile(driver, b.driver, 0o600); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for _, c := range certificates {
		sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
		keys = append(keys, base64.StdEncoding.EncodeToString(sum[:]))
	}
	ctx, stop := context.WithCancel(context.Background()) // outlives the test's own, so that Chromium can be closed in order
	cmd := b.command(ctx, driver, b.chromium,
		"--host-resolver-rules=MAP *.example 127.0.0.1", "--ignore-certificate-errors-spki-list="+strings.Join(keys, ","),
		"--renderer-process-limit=4")
	cmd.Env = append(cmd.Env, "TMPDIR="+folder, "XDG_CONFIG_HOME="+folder, "XDG_CACHE_HOME="+folder)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan answer, 1)
	c := &chromium{t: t, stop: stop, ended: make(chan struct{}), in: in, waiting: map[int]chan answer{0: started}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go c.read(out)
	t.Cleanup(func() {
		c.close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the driver ended: %v; it said: %s", err, complaints.Bytes())
		}
		stop()
	})
	if err := c.await(within(t, time.Minute), started, nil); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return c
}

// newFolder is for all that Chromium writes, a crash's dump as well. Its path is short, since that of a socket in it must be.
func newFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "sluice-browser-") //nolint:usetesting // the path of t.TempDir holds the test's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// close lets the driver end Chromium and itself, and waits until it has closed its output; one that does not end is killed.
func (c *chromium) close() {
	c.mu.Lock()
	err := c.in.Close()
	c.mu.Unlock()
	if err != nil {
		c.t.Errorf("close the driver's input: %v", err)
	}
	select {
	case <-c.ended:
	case <-time.After(30 * time.Second):
		c.t.Error("Chromium does not end")
		c.stop()
		<-c.ended
	}
}

// read hands the driver's answers to who waits for them. Started by newChromium; ends with the driver's output; close waits for it.
func (c *chromium) read(out io.Reader) {
	defer close(c.ended)
	lines := bufio.NewReader(out) // an answer can be megabytes
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			c.t.Errorf("the driver says %q: %v", line, err)
			return
		}
		c.mu.Lock()
		waits := c.waiting[a.ID]
		delete(c.waiting, a.ID)
		c.mu.Unlock()
		if waits != nil {
			waits <- a
		}
	}
}

var errDriverEnded = errors.New("the driver has ended")

// ask asks the driver and waits for the answer, which is decoded into out unless that is nil.
func (c *chromium) ask(ctx context.Context, q question, out any) error {
	waits := make(chan answer, 1)
	c.mu.Lock()
	c.last++
	q.ID = c.last
	c.waiting[q.ID] = waits
	line, err := json.Marshal(q)
	if err == nil {
		_, err = c.in.Write(append(line, '\n'))
	}
	c.mu.Unlock()
	if err == nil {
		err = c.await(ctx, waits, out)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", q.Do, q.Name, err)
	}
	return nil
}

func (c *chromium) await(ctx context.Context, waits <-chan answer, out any) error {
	select {
	case a := <-waits:
		if a.Error != "" {
			return errors.New(a.Error)
		}
		if out == nil || len(a.Result) == 0 {
			return nil
		}
		return json.Unmarshal(a.Result, out)
	case <-c.ended:
		return errDriverEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// do asks the driver, or ends the test.
func (c *chromium) do(q question, out any) {
	c.t.Helper()
	if err := c.ask(within(c.t, time.Minute), q, out); err != nil {
		c.t.Fatal(err)
	}
}

// context is a new browser context, which shares nothing with the others.
func (c *chromium) context() (number int) {
	c.t.Helper()
	c.do(question{Do: "context"}, &number)
	return number
}

// open opens a page of ours in a new tab.
func (c *chromium) open(context int, url string) *tab {
	c.t.Helper()
	tab := &tab{chromium: c}
	c.do(question{Do: "open", On: context, URL: url}, &tab.number)
	return tab
}

// tab is a tab with a page of ours.
type tab struct {
	chromium *chromium
	number   int
}

// openAnother opens the page of a tab once more, in a tab that the same process draws.
func (b *tab) openAnother() *tab {
	b.chromium.t.Helper()
	another := &tab{chromium: b.chromium}
	b.chromium.do(question{Do: "openAnother", On: b.number}, &another.number)
	return another
}

// call calls what the page offers, and decodes what it resolves to into out unless that is nil.
func (b *tab) call(out any, name string, arguments ...any) {
	b.chromium.t.Helper()
	b.chromium.do(question{Do: "call", On: b.number, Name: name, Arguments: arguments}, out)
}

// close closes the tab as its user does; crash kills what draws it.
func (b *tab) close() { b.chromium.do(question{Do: "close", On: b.number}, nil) }
func (b *tab) crash() { b.chromium.do(question{Do: "crashTab", On: b.number}, nil) }
