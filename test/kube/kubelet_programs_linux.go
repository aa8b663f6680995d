package kube

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// programs are the paths of what a kubelet needs, by name.
type programs map[string]string

var kubeletProgram = program{
	name:    "kubelet",
	tools:   "kubelet",
	module:  "k8s.io/kubernetes",
	pkg:     "k8s.io/kubernetes/cmd/kubelet",
	takes:   "about 2 minutes",
	ldflags: kubernetesFlags,
}

// packages are Debian's, with the programs that are taken from them.
var packages = map[string][]string{
	"busybox-static": {"busybox"},
	"containerd":     {"containerd", "containerd-shim-runc-v2", "ctr"},
	"runc":           {"runc"},
}

// kubeletPrograms returns all that a kubelet's machine is made of. What PATH does
// not have comes out of Debian's packages, which are unpacked in the user's cache
// folder and not installed: no service starts, and nothing of the machine's own
// changes.
func kubeletPrograms(ctx context.Context, progress io.Writer) (programs, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("%w: it takes root", ErrNoRuntime)
	}
	tools, err := toolsDir()
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	all, err := runtimePrograms(ctx, cache, progress)
	if err != nil {
		return nil, err
	}
	for _, p := range []program{kubeletProgram, nodeProgram} {
		if all[p.name], err = p.provide(ctx, tools, cache, progress); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// runtimePrograms returns containerd, runc and busybox.
func runtimePrograms(ctx context.Context, cache string, progress io.Writer) (programs, error) {
	all := programs{}
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		found := inPath(packages[name])
		if found == nil {
			var err error
			if found, err = unpacked(ctx, name, cache, progress); err != nil {
				return nil, err
			}
		}
		maps.Copy(all, found)
	}
	return all, nil
}

// inPath returns the programs, if PATH has all of them.
func inPath(names []string) programs {
	found := programs{}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil || name == "busybox" && !static(path) {
			return nil
		}
		found[name] = path
	}
	return found
}

// static tells whether a program needs no library, which the image does not have.
func static(path string) bool {
	file, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	return !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// unpacked returns the programs of a package below the cache folder, where they
// stay.
func unpacked(ctx context.Context, name, cache string, progress io.Writer) (programs, error) {
	final := filepath.Join(cache, name+"-"+runtime.GOARCH)
	if !complete(name, final) {
		if err := unpackOnce(ctx, name, final, progress); err != nil {
			return nil, fmt.Errorf("unpack Debian's %s: %w", name, err)
		}
	}
	found := programs{}
	for _, program := range packages[name] {
		found[program] = filepath.Join(final, program)
	}
	return found, nil
}

// complete tells whether a folder has all programs of a package.
func complete(name, folder string) bool {
	return !slices.ContainsFunc(packages[name], func(program string) bool { return !present(filepath.Join(folder, program)) })
}

func unpackOnce(ctx context.Context, name, final string, progress io.Writer) error {
	done := report(progress, "downloading Debian's package "+name)
	defer done()
	held, err := lock(ctx, final+".lock")
	if err != nil {
		return err
	}
	defer held.Close()
	if complete(name, final) {
		return nil
	}
	unfinished, err := os.MkdirTemp(filepath.Dir(final), ".unfinished-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unfinished)
	if err := download(ctx, name, unfinished); err != nil {
		return err
	}
	chosen := filepath.Join(unfinished, "chosen")
	if err := os.Mkdir(chosen, 0o755); err != nil {
		return err
	}
	for _, program := range packages[name] {
		if err := choose(unfinished, program, chosen); err != nil {
			return err
		}
	}
	// What is there already lacks something.
	return errors.Join(os.RemoveAll(final), os.Rename(chosen, final))
}

// download gets a package into dir and unpacks it there, as dir/root.
func download(ctx context.Context, name, dir string) error {
	for _, tool := range []string{"apt-get", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: neither its programs nor %s are in PATH", ErrNoRuntime, tool)
		}
	}
	get := func() error { return quietly(ctx, dir, "apt-get", "download", "-q", name) }
	err := get()
	if err != nil { // perhaps because this machine has never been told what there is
		if err = quietly(ctx, dir, "apt-get", "-o", "DPkg::Lock::Timeout=300", "-q", "update"); err == nil {
			err = get()
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoRuntime, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("%d packages were downloaded: %w", len(files), err)
	}
	return quietly(ctx, dir, "dpkg-deb", "-x", files[0], "root")
}

// choose moves a program of an unpacked package into a folder.
func choose(unpacked, program, into string) error {
	for _, dir := range []string{"usr/bin", "usr/sbin", "bin", "sbin"} {
		path := filepath.Join(unpacked, "root", dir, program)
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() { // a link would lead out of here
			return os.Rename(path, filepath.Join(into, program))
		}
	}
	return errors.New("it has no " + program)
}

// quietly runs a command, whose output only a failure shows.
func quietly(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := runToEnd(ctx, cmd); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, lastBytes(output.Bytes(), 1000))
	}
	return nil
}

// appletsOf returns the names that busybox can be called by.
func appletsOf(busybox string) ([]string, error) {
	names, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list the applets of busybox: %w", err)
	}
	return slices.DeleteFunc(strings.Fields(string(names)), func(name string) bool { return name == "busybox" }), nil
}
