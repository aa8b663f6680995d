package browser

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/source"
)

// bundle is what the tests need of Node and of what npm brings, made once.
type bundle struct {
	node     string // the program
	packages string // the folder node_modules
	chromium string // the program
	driver   []byte
	page     map[string][]byte // the files of the page, by name
}

var bundled = sync.OnceValues(newBundle)

// theBundle is the bundle, or the end of the test: where Node or Chromium is missing the test is skipped and says so, except when the
// variable CI is set.
func theBundle(t *testing.T) *bundle {
	t.Helper()
	b, err := bundled()
	if err == nil {
		return b
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("no browser to test with: %v", err)
	}
	fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: NOT TESTED WITH A BROWSER: %v\n\n", t.Name(), err)
	t.Skip(err)
	return nil
}

func newBundle() (*bundle, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // npm may have to download
	defer cancel()
	root, err := source.Root()
	if err != nil {
		return nil, err
	}
	b := &bundle{packages: filepath.Join(root, "web", "node_modules")}
	if b.chromium, err = exec.LookPath("chromium"); err != nil {
		return nil, err
	}
	folder, err := output(exec.CommandContext(ctx, filepath.Join(root, "tools", "web.sh")))
	if err != nil {
		return nil, err
	}
	b.node = filepath.Join(strings.TrimSpace(string(folder)), "node")
	if b.driver, err = b.build(ctx, "driver.ts", "--platform=node", "--format=cjs", "--external:playwright-core"); err != nil {
		return nil, err
	}
	script, err := b.build(ctx, filepath.Join("page", "page.ts"), "--platform=browser", "--format=iife")
	if err != nil {
		return nil, err
	}
	html, err := os.ReadFile(filepath.Join("page", "index.html"))
	if err != nil {
		return nil, err
	}
	b.page = map[string][]byte{"index.html": html, "page.js": script}
	return b, nil
}

// build makes one script of a file and all it imports.
func (b *bundle) build(ctx context.Context, file string, args ...string) ([]byte, error) {
	// Without --tsconfig-raw the paths that tell tsc where the packages are would lead past their `exports`.
	args = append([]string{b.tool("esbuild"), file, "--bundle", "--target=es2022", "--log-level=warning", "--tsconfig-raw={}"}, args...)
	return output(b.command(ctx, args...))
}

// tool is a program that npm brought.
func (b *bundle) tool(name string) string { return filepath.Join(b.packages, ".bin", name) }

// command runs a script, which finds the packages, in Node.
func (b *bundle) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.node, args...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+b.packages)
	return cmd
}

// output is what a program prints; its error tells what it complained of.
func output(cmd *exec.Cmd) ([]byte, error) {
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s%s", filepath.Base(cmd.Path), err, out, complaints.Bytes())
	}
	return out, nil
}

// TestThePagesTypesAreRight, which esbuild does not look at: that they are is what shows the generated messages fit the client library.
func TestThePagesTypesAreRight(t *testing.T) {
	b := theBundle(t)
	if _, err := output(b.command(within(t, 2*time.Minute), b.tool("tsc"), "--project", ".")); err != nil {
		t.Error(err)
	}
}
