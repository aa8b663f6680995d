package conformance

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool is the path of a pinned tool's binary, which is built if the user's cache does not hold it yet.
func tool(t *testing.T, name string) string {
	t.Helper()
	// go test regards what was read as what a result depends on: with another pin, no cached one is taken.
	if _, err := os.ReadFile(filepath.Join("tools", name, "go.mod")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(run(t, exec.CommandContext(t.Context(), filepath.Join("..", "..", "tools", "build.sh"), name))))
}

// moduleDir is the folder with the sources of a module that a tool pins.
func moduleDir(t *testing.T, tool, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir = filepath.Join("tools", tool)
	var found struct{ Dir string }
	if err := json.Unmarshal(run(t, cmd), &found); err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return found.Dir
}

// run runs cmd, which has to succeed, and returns what it wrote to its standard output.
func run(t *testing.T, cmd *exec.Cmd) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, stderr.Bytes())
	}
	return out
}

// exited says whether a program ended by itself, with success or not: it has then done what it was run for.
func exited(err error) bool {
	var exit *exec.ExitError
	return err == nil || (errors.As(err, &exit) && exit.Exited())
}
