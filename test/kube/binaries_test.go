package kube

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestSecondBuildRebuildsNothing asks again for the real binaries, with a Go
// command that can do nothing but tell its version.
func TestSecondBuildRebuildsNothing(t *testing.T) {
	Shared(t) // skips where there are no binaries
	onlyEnv(t)
	progress := new(bytes.Buffer)
	etcd, apiserver, err := Binaries(t.Context(), progress)
	if err != nil {
		t.Fatal(err)
	}
	if progress.Len() > 0 {
		t.Errorf("it said %q", progress)
	}
	for _, binary := range []string{etcd, apiserver} {
		version, err := exec.CommandContext(t.Context(), binary, "--version").Output()
		pinned := strings.TrimPrefix(strings.Split(filepath.Base(filepath.Dir(binary)), "-v")[1], "v")
		pinned, _, _ = strings.Cut(pinned, "-")
		if err != nil || !strings.Contains(string(version), pinned) {
			t.Errorf("%s is of version %q, %v", binary, version, err)
		}
	}
}

// onlyEnv puts a go command in front of the real one that refuses all but "env".
func onlyEnv(t *testing.T) {
	t.Helper()
	found, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := "#!/bin/sh\n[ \"$1\" = env ] || exit 97\nexec " + found + " \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// tiny is a program that builds in a moment.
var tiny = program{
	name: "tiny", tools: "tiny", module: "tiny.example/tiny", pkg: "tiny.example/tiny",
	takes: "no time", ldflags: func(string) string { return stripped },
}

// tinyTools writes a tools folder whose module pins tiny at version, and has its
// source beside it.
func tinyTools(t *testing.T, version, source string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"tiny/go.mod": "module tools\n\ngo 1.26.0\n\nrequire tiny.example/tiny " + version +
			"\n\nreplace tiny.example/tiny => ../source\n",
		"tiny/go.sum":    "",
		"source/go.mod":  "module tiny.example/tiny\n\ngo 1.26.0\n",
		"source/main.go": source,
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const tinySource = "package main\n\nfunc main() { println(`tiny`) }\n"

func TestConcurrentBuildsAreOne(t *testing.T) {
	tools, cache := tinyTools(t, "v1.2.3", tinySource), t.TempDir()
	binaries := make([]string, 4)
	var all sync.WaitGroup
	for i := range binaries {
		all.Go(func() {
			var err error
			if binaries[i], err = tiny.provide(t.Context(), tools, cache, io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, binary := range binaries {
		if binary != binaries[0] {
			t.Errorf("%s and %s", binary, binaries[0])
		}
	}
	if out, err := exec.CommandContext(t.Context(), binaries[0]).CombinedOutput(); err != nil || string(out) != "tiny\n" {
		t.Errorf("it says %q, %v", out, err)
	}
	if unfinished, _ := filepath.Glob(filepath.Join(cache, ".unfinished-*")); len(unfinished) > 0 {
		t.Errorf("left behind: %v", unfinished)
	}
	onlyEnv(t)
	if _, err := tiny.provide(t.Context(), tools, cache, io.Discard); err != nil {
		t.Errorf("built again: %v", err)
	}
}

func TestChangedPinIsAnotherBinary(t *testing.T) {
	plan := func(version string) recipe {
		r, err := tiny.plan(t.Context(), tinyTools(t, version, tinySource))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first, same, other := plan("v1.2.3"), plan("v1.2.3"), plan("v1.2.4")
	if first.binary("c") != same.binary("c") {
		t.Errorf("%s and %s of the same inputs", first.binary("c"), same.binary("c"))
	}
	if first.stamp == other.stamp || other.version != "v1.2.4" {
		t.Errorf("%+v and %+v", first, other)
	}
}

func TestChangedSourceIsAnotherBinary(t *testing.T) {
	tools := tinyTools(t, "v1.2.3", tinySource)
	stampWith := func(name, text string) string {
		if err := os.WriteFile(filepath.Join(tools, "tiny", name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		r, err := tiny.plan(t.Context(), tools)
		if err != nil {
			t.Fatal(err)
		}
		return r.stamp
	}
	first := stampWith("main.go", "package main")
	if same := stampWith("main.go", "package main"); same != first {
		t.Error("two stamps of the same source")
	}
	if tested := stampWith("main_test.go", "package main"); tested != first {
		t.Error("a test has part in the stamp")
	}
	if other := stampWith("main.go", "package main // changed"); other == first {
		t.Error("one stamp of two sources")
	}
}

func TestBrokenSourceIsNotOffline(t *testing.T) {
	tools, cache := tinyTools(t, "v1.2.3", "package main\n\nfunc main() { undefined() }\n"), t.TempDir()
	binary, err := tiny.provide(t.Context(), tools, cache, io.Discard)
	if err == nil || errors.Is(err, ErrOffline) || binary != "" {
		t.Errorf("%q, %v", binary, err)
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "*", "tiny")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestMissingModuleIsOffline(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	tools := tinyTools(t, "v1.2.3", "package main\n\nimport _ \"missing.example/missing\"\n\nfunc main() {}\n")
	if _, err := tiny.provide(t.Context(), tools, t.TempDir(), io.Discard); !errors.Is(err, ErrOffline) {
		t.Errorf("the error: %v", err)
	}
}

func TestBuildEndsWithItsContext(t *testing.T) {
	tools, cache := tinyTools(t, "v1.2.3", tinySource), t.TempDir()
	held, err := tryLock(filepath.Join(cache, "tiny.lock"))
	if err != nil || held == nil {
		t.Fatal(held, err)
	}
	defer held.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	waiting := make(chan error)
	go func() {
		_, err := tiny.provide(ctx, tools, cache, io.Discard)
		waiting <- err
	}()
	cancel(enough)
	if err := <-waiting; !errors.Is(err, enough) && !errors.Is(err, context.Canceled) {
		t.Errorf("the error: %v", err)
	}
}

// verdict takes down how a test was ended.
type verdict struct {
	testing.TB
	failed, skipped bool
}

func (v *verdict) Helper()               {}
func (v *verdict) Name() string          { return "TestOfAnother" }
func (v *verdict) Fatalf(string, ...any) { v.failed = true }
func (v *verdict) Skip(...any)           { v.skipped = true }

// TestOfflineIsLoud: without binaries a test is skipped on a person's machine,
// and fails in CI, where a skipped test would pass for a tested product.
func TestOfflineIsLoud(t *testing.T) {
	for _, row := range []struct {
		ci      string
		err     error
		failed  bool
		skipped bool
	}{
		{ci: "", err: ErrOffline, skipped: true},
		{ci: "true", err: ErrOffline, failed: true},
		{ci: "", err: errDied, failed: true},
	} {
		t.Setenv("CI", row.ci)
		v := &verdict{TB: t}
		giveUp(v, row.err)
		if v.failed != row.failed || (v.skipped != row.skipped && !v.failed) {
			t.Errorf("CI=%q, %v: %+v", row.ci, row.err, v)
		}
	}
}
