package kube

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// ErrOffline means that a program has to be built and its modules cannot be had:
// they are neither in the module cache nor to be downloaded from here.
var ErrOffline = errors.New("the modules of a program that tests need cannot be downloaded")

const (
	quietFor      = 2 * time.Second  // a build that is faster says nothing
	progressEvery = 15 * time.Second // between the lines of one that is not
)

// Binaries returns the paths of etcd and kube-apiserver, which it builds when the
// user's cache folder does not hold them yet: from the modules below
// test/kube/tools, stripped, without cgo, about 7 minutes on 2 cores with an
// empty Go cache. A binary is stamped with all that decides what it is (Go
// version, platform, package, flags, go.mod, go.sum), so a second call builds
// nothing and takes some 50 ms, and a changed pin never runs an old binary.
// Processes that need the same binary at the same time wait for one build.
//
// What takes longer than two seconds is told on progress, a line at a time. The
// error is [ErrOffline] when there is nothing to build from. The working
// directory must be inside this repository. Binaries is safe for concurrent use.
func Binaries(ctx context.Context, progress io.Writer) (etcd, apiserver string, err error) {
	tools, err := toolsDir()
	if err != nil {
		return "", "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", "", err
	}
	if etcd, err = etcdProgram.provide(ctx, tools, cache, progress); err != nil {
		return "", "", err
	}
	if apiserver, err = apiserverProgram.provide(ctx, tools, cache, progress); err != nil {
		return "", "", err
	}
	return etcd, apiserver, nil
}

// NodeBinary returns the path of the program that plays a node ([Node]), which is
// ours (test/kube/node) and builds in some seconds, as [Binaries] does: a change
// of its source makes another binary.
func NodeBinary(ctx context.Context, progress io.Writer) (string, error) {
	tools, err := toolsDir()
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	return nodeProgram.provide(ctx, tools, cache, progress)
}

// toolsDir finds test/kube/tools in the folder of this repository that the
// working directory is in.
func toolsDir() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		tools := filepath.Join(dir, "test", "kube", "tools")
		if _, err := os.Stat(tools); err == nil {
			return tools, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no test/kube/tools above %s", start)
		}
	}
}

func cacheDir() (string, error) {
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(user, "sluice", "kube")
	return dir, os.MkdirAll(dir, 0o755)
}

// provide returns the path of the program's binary, built if need be.
func (p program) provide(ctx context.Context, tools, cache string, progress io.Writer) (string, error) {
	r, err := p.plan(ctx, tools)
	if err != nil {
		return "", fmt.Errorf("plan the build of %s: %w", p.name, err)
	}
	binary := r.binary(cache)
	if present(binary) {
		return binary, nil
	}
	if err := r.buildOnce(ctx, cache, progress); err != nil {
		return "", fmt.Errorf("build %s %s: %w", r.name, r.version, err)
	}
	return binary, nil
}

func present(binary string) bool {
	info, err := os.Stat(binary)
	return err == nil && info.Mode().IsRegular()
}

// buildOnce builds unless another process, for which it waits, has done so.
func (r recipe) buildOnce(ctx context.Context, cache string, progress io.Writer) error {
	done := report(progress, fmt.Sprintf("building %s %s, once, %s on 2 cores (this machine has %d)",
		r.name, r.version, r.takes, runtime.NumCPU()))
	defer done()
	held, err := lock(ctx, filepath.Join(cache, r.name+".lock"))
	if err != nil {
		return err
	}
	defer held.Close()
	if present(r.binary(cache)) {
		return nil
	}
	if err := r.download(ctx); err != nil {
		return err
	}
	return r.build(ctx, r.binary(cache))
}

// download loads every package of the program, which brings the modules that are
// missing and compiles nothing: if this fails, the build has not been tried.
func (r recipe) download(ctx context.Context) error {
	cmd := r.golang(ctx, "list", "-deps", r.pkg)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%w: %w: %s", ErrOffline, err, lastBytes(stderr.Bytes(), 1000))
	}
	return nil
}

// build compiles into a folder beside the binary's and renames it, so that a
// binary is either whole or not there.
func (r recipe) build(ctx context.Context, binary string) error {
	final := filepath.Dir(binary)
	unfinished, err := os.MkdirTemp(filepath.Dir(final), ".unfinished-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	cmd := r.golang(ctx, "build", "-trimpath", "-buildvcs=false", "-ldflags", r.flags,
		"-o", filepath.Join(unfinished, r.name), r.pkg)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := runToEnd(ctx, cmd); err != nil {
		return fmt.Errorf("go build: %w: %s", err, lastBytes(output.Bytes(), 4000))
	}
	return os.Rename(unfinished, final)
}

func lastBytes(b []byte, n int) []byte {
	return bytes.TrimSpace(b[max(0, len(b)-n):])
}

// report writes what to progress once quietFor has gone by, then how long it has
// taken every progressEvery. The function it returns ends that and waits for the
// reporting goroutine.
func report(progress io.Writer, what string) (done func()) {
	started, stop, ended := time.Now(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTimer(quietFor)
		defer tick.Stop()
		for line := what + " ..."; ; line = elapsed(what, started) {
			select {
			case <-stop:
				return
			case <-tick.C:
				fmt.Fprintln(progress, line)
				tick.Reset(progressEvery)
			}
		}
	}()
	return func() {
		close(stop)
		<-ended
		if time.Since(started) > quietFor {
			fmt.Fprintln(progress, elapsed(what, started)+", ended")
		}
	}
}

func elapsed(what string, started time.Time) string {
	return fmt.Sprintf("%s: %s", what, time.Since(started).Round(time.Second))
}
