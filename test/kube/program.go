package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// program is one of the binaries: which package of which pinned module it is.
type program struct {
	name    string
	tools   string // folder, from test/kube/tools, whose go.mod pins everything
	module  string // the module whose version is the program's
	pkg     string
	takes   string // how long a cold build takes on 2 cores, for the progress line
	ldflags func(version string) string
}

const stripped = "-s -w"

var etcdProgram = program{
	name:    "etcd",
	tools:   "etcd",
	module:  "go.etcd.io/etcd/server/v3",
	pkg:     "go.etcd.io/etcd/server/v3",
	takes:   "about 1 minute",
	ldflags: func(string) string { return stripped },
}

var apiserverProgram = program{
	name:    "kube-apiserver",
	tools:   "kubernetes",
	module:  "k8s.io/kubernetes",
	pkg:     "k8s.io/kubernetes/cmd/kube-apiserver",
	takes:   "about 6 minutes",
	ldflags: kubernetesFlags,
}

// nodeProgram has its source where its pins are. Its version is that of the
// library that decides how it streams.
var nodeProgram = program{
	name:    "node",
	tools:   "../node",
	module:  "k8s.io/cri-streaming",
	pkg:     ".",
	takes:   "some seconds",
	ldflags: func(string) string { return stripped },
}

// kubernetesFlags stamps the version as Kubernetes' own build does; without it
// /version answers "v0.0.0-master+$Format:%H$".
func kubernetesFlags(version string) string {
	const pkg = "k8s.io/component-base/version"
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return strings.Join([]string{
		stripped,
		"-X " + pkg + ".gitVersion=" + version,
		"-X " + pkg + ".gitMajor=" + major,
		"-X " + pkg + ".gitMinor=" + minor,
		"-X k8s.io/client-go/pkg/version.gitVersion=" + version,
	}, " ")
}

// recipe is a program with all that decides what its build gives.
type recipe struct {
	program
	dir     string // of its go.mod
	version string
	flags   string
	stamp   string
}

// plan reads the program's pins from its module below tools.
func (p program) plan(ctx context.Context, tools string) (recipe, error) {
	r := recipe{program: p, dir: filepath.Join(tools, p.tools)}
	mod, err := os.ReadFile(filepath.Join(r.dir, "go.mod"))
	if err != nil {
		return r, err
	}
	sum, err := os.ReadFile(filepath.Join(r.dir, "go.sum"))
	if err != nil {
		return r, err
	}
	if r.version = pinned(string(mod), p.module); r.version == "" {
		return r, fmt.Errorf("%s/go.mod does not pin %s", r.dir, p.module)
	}
	r.flags = p.ldflags(r.version)
	toolchain, err := r.golang(ctx, "env", "GOVERSION", "GOOS", "GOARCH").Output()
	switch {
	case ctx.Err() != nil: // and what the command says is that it was killed
		return r, context.Cause(ctx)
	case err != nil:
		return r, fmt.Errorf("ask for the Go version: %w", err)
	}
	source, err := sources(r.dir)
	if err != nil {
		return r, err
	}
	r.stamp = stamp(append([][]byte{toolchain, []byte(p.pkg), []byte(r.flags), mod, sum}, source...)...)
	return r, nil
}

// sources returns the Go files beside the go.mod, which have part in the build if
// there are any.
func sources(dir string) ([][]byte, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		all = append(all, []byte(filepath.Base(name)), text)
	}
	return all, nil
}

// stamp is the first 64 bits of the SHA-256 of the inputs, in hex.
func stamp(inputs ...[]byte) string {
	hash := sha256.New()
	for _, input := range inputs {
		fmt.Fprintf(hash, "%d\n%s\n", len(input), input)
	}
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

// pinned returns the version that the text of a go.mod requires of the module.
func pinned(mod, module string) string {
	for line := range strings.Lines(mod) {
		fields := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(fields) >= 2 && fields[0] == module && strings.HasPrefix(fields[1], "v") {
			return fields[1]
		}
	}
	return ""
}

// binary is where the recipe's result is kept below cache.
func (r recipe) binary(cache string) string {
	return filepath.Join(cache, r.name+"-"+r.version+"-"+r.stamp, r.name)
}

// golang prepares a go command in the program's module. The module's own files
// decide alone: no workspace, no flags from the environment, no C compiler.
func (r recipe) golang(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=readonly",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	return cmd
}
