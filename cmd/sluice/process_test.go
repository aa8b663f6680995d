package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary builds the command once for all tests, as `make build` does.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-test-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "sluice")
	out, err := exec.Command("go", "build", "-trimpath", "-ldflags", stamped, "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", errors.New(string(out))
	}
	return path, nil
})

var binaryDir string // Written once by binary.

// stamped is a stamp as tools/stamp.sh prints it.
const stamped = "-X main.version=v1.2.3-dirty -X main.commit=0123456789abcdef0123456789abcdef01234567 -X main.date=2026-01-02T03:04:05Z"

func removeBinary() {
	if binaryDir != "" {
		os.RemoveAll(binaryDir)
	}
}

// grpcurl is the pinned one, in a folder for the PATH.
func grpcurl(t *testing.T) (dir string) {
	t.Helper()
	cmd := exec.Command("../../tools/build.sh", "grpcurl")
	cmd.Stderr = os.Stderr
	path, err := cmd.Output()
	if err != nil {
		t.Fatalf("build grpcurl: %v", err)
	}
	dir = t.TempDir()
	if err := os.Symlink(strings.TrimSpace(string(path)), filepath.Join(dir, "grpcurl")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// process is a command that runs in a process of its own.
type process struct {
	cmd            *exec.Cmd
	stdout, stderr *output
	ended          chan error
}

// start starts a program with an environment of its own. It is killed, by its group, at the latest when the test ends.
func start(t *testing.T, env environment, stdin io.Reader, name string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{cmd, newOutput(), newOutput(), make(chan error, 1)}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, p.stdout, p.stderr // a nil stdin is /dev/null: at its end at once
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { p.ended <- cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // gone already, if all went well
		<-done
	})
	return p
}

// end waits for the process and returns its exit code.
func (p *process) end(t *testing.T, within time.Duration) int {
	t.Helper()
	select {
	case err := <-p.ended:
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		t.Fatalf("the process goes on after %v; it printed:\n%s%s", within, p.stdout, p.stderr)
		return -1
	}
}

// dev is `sluice dev` in a process of its own, once it serves.
func devProcess(t *testing.T, env environment, args ...string) (p *process, r ready, readyFile string) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	readyFile = filepath.Join(t.TempDir(), "ready.json")
	p = start(t, env, nil, path, append([]string{"dev", "--ready-file", readyFile}, args...)...)
	p.stdout.await(t, "the last line", func(s string) bool { return strings.Contains(s, "The token lives until ") })
	return p, readReady(t, readyFile), readyFile
}

// endByItself waits for the exit of a gateway that was told to end: no call is left that it would have to cut off.
func (p *process) endByItself(t *testing.T) {
	t.Helper()
	if code := p.end(t, patience); code != exitOK || strings.Contains(p.stderr.String(), "cut off") {
		t.Errorf("exit code %d:\n%s", code, p.stderr)
	}
}

// readReady reads a ready file that is there.
func readReady(t *testing.T, file string) ready {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the ready file's mode is %v", info.Mode())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r ready
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatalf("ready file %q: %v", text, err)
	}
	return r
}

var freePorts = []string{"--grpc-addr", "127.0.0.1:0", "--web-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}

// printed is the only line of a text that begins with a word, without its indentation.
func printed(t *testing.T, text, word string) string {
	t.Helper()
	lines := regexp.MustCompile(`(?m)^ +(`+regexp.QuoteMeta(word)+` .*)$`).FindAllStringSubmatch(text, -1)
	if len(lines) != 1 {
		t.Fatalf("%d lines begin %q in:\n%s", len(lines), word, text)
	}
	return lines[0][1]
}

// liveEvents reports whether a text shows the end of the initial list and changes after it.
func liveEvents(text string) bool {
	_, after, found := strings.Cut(text, "KIND_RESYNC_END")
	return found && strings.Count(after, `\"kind\":\"Pod\"`) >= 2
}

func TestTheLinesThatDevPrintsWorkAsTheyArePrinted(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	tools := grpcurl(t)
	env := environment{"XDG_CACHE_HOME": t.TempDir(), "PATH": tools + ":" + filepath.Dir(path) + ":/usr/bin:/bin", "KUBECONFIG": "/nonexistent"}
	p, r, _ := devProcess(t, env, append(freePorts, "--log-level", "debug")...)
	text := p.stdout.String()

	setting, call, watch := printed(t, text, "export"), printed(t, text, "grpcurl"), printed(t, text, "sluice watch")
	logs, shellLine := printed(t, text, "sluice logs"), printed(t, text, "sluice exec")
	shell := func(line string) *process {
		return start(t, environment{"PATH": env["PATH"]}, nil, "/bin/sh", "-c", setting+"\n"+line)
	}
	byHand, byCommand, log := shell(call), shell(watch), shell(logs)
	byHand.stdout.await(t, "a change", liveEvents)
	byCommand.stdout.await(t, "a change", func(s string) bool { return strings.Contains(s, "\nMODIFIED   ") })
	log.stdout.await(t, "lines", func(s string) bool { return strings.Count(s, "\n") > 3 })
	typed := start(t, environment{"PATH": env["PATH"]}, strings.NewReader("echo fine\nexit 3\n"), "/bin/sh", "-c", setting+"\n"+shellLine)
	if code := typed.end(t, patience); code != 3 || typed.stdout.String() != "fine\n" {
		t.Errorf("%s: exit code %d, %q, %s", shellLine, code, typed.stdout, typed.stderr)
	}
	if watch != "sluice watch pods" {
		t.Errorf("printed %q for a sluice on the PATH", watch)
	}
	if got := strings.Count(text+p.stderr.String(), r.Token); got != 1 {
		t.Errorf("the token was printed %d times", got)
	}
	p.stderr.await(t, "the notice of the variable", func(s string) bool { return strings.Contains(s, "$KUBECONFIG is ignored") })
	if byCommand.stderr.String() != "" {
		t.Errorf("sluice watch pods said %s", byCommand.stderr)
	}

	connect := start(t, environment{"SLUICE_TOKEN": r.Token, "PATH": env["PATH"]},
		strings.NewReader(`{"frames":[{"channel":1,"open":{"cluster":"dev","target":{"watch":{"version":"v1","resource":"pods"}},"text":true}}]}`),
		"/bin/sh", "-c", `exec grpcurl -cacert `+r.CAFile+` -H "Authorization: Bearer $SLUICE_TOKEN" -d @ `+r.GRPCAddr+` sluice.v1.GatewayService/Connect`)
	connect.stdout.await(t, "a change", liveEvents)
}

func TestTheLinesForCurlWorkAsTheyArePrinted(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Fatal("curl is missing: tools/setup.sh installs it")
	}
	p, r, _ := devProcess(t, environment{"XDG_CACHE_HOME": t.TempDir()}, freePorts...)
	text := p.stdout.String()
	setting := printed(t, text, "export")
	lines := regexp.MustCompile(`(?m)^ {2}(curl .*)$`).FindAllStringSubmatch(text, -1)
	if len(lines) != 2 || !strings.Contains(text, "  web        https://"+r.WebAddr+"\n") {
		t.Fatalf("printed %q in:\n%s", lines, text)
	}
	shell := func(line string) *process {
		return start(t, environment{"PATH": "/usr/bin:/bin"}, nil, "/bin/sh", "-c", setting+"\n"+line)
	}
	clusters, watch := shell(lines[0][1]), shell(lines[1][1])
	if code := clusters.end(t, patience); code != exitOK || !strings.Contains(clusters.stdout.String(), `"dev"`) {
		t.Errorf("exit code %d:\n%s%s", code, clusters.stdout, clusters.stderr)
	}
	watch.stdout.await(t, "a change", liveEvents)
}

func TestDevKeepsItsFilesToItsOwnerAndLeavesNothing(t *testing.T) {
	cache := t.TempDir()
	p, r, file := devProcess(t, environment{"XDG_CACHE_HOME": cache}, freePorts...)
	if info, err := os.Stat(filepath.Dir(r.CAFile)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(r.CAFile))
	if err != nil || len(entries) == 0 {
		t.Fatalf("files: %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if r.WebAddr == "" || r.Cluster != "dev" || r.AdminAddr == "" {
		t.Errorf("ready: %+v", r)
	}

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.endByItself(t)
	if left, err := os.ReadDir(filepath.Dir(filepath.Dir(r.CAFile))); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file is still there: %v", err)
	}
}

func TestSIGTERMEndsDevWithWatchesOpen(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p, r, _ := devProcess(t, environment{"XDG_CACHE_HOME": t.TempDir()}, freePorts...)
	w := start(t, environment{"SLUICE_TOKEN": r.Token, "SLUICE_SERVER": r.GRPCAddr, "SLUICE_CA_FILE": r.CAFile}, nil, path, "watch", "pods", "-o", "name")
	w.stdout.await(t, "a pod", func(s string) bool { return strings.Contains(s, "ADDED pods shop/") })
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.endByItself(t)
	w.stderr.await(t, "the notice", func(s string) bool { return strings.Contains(s, "no link to the gateway") })
	if err := w.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := w.end(t, patience); code != exitOK {
		t.Errorf("watch: exit code %d after Ctrl-C:\n%s", code, w.stderr)
	}
}

// occupy keeps an address busy until the test ends, unless somebody else does.
func occupy(t *testing.T, addr string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	switch {
	case err == nil:
		t.Cleanup(func() { l.Close() })
	case !errors.Is(err, syscall.EADDRINUSE):
		t.Fatal(err)
	}
}

// nowhere is an address at which nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestDevTakesFreePortsWhereTheUsualAreBusy(t *testing.T) {
	occupy(t, devGRPCAddr)
	occupy(t, devWebAddr)
	occupy(t, devAdminAddr)
	p, r, _ := devProcess(t, environment{"XDG_CACHE_HOME": t.TempDir()})
	for _, addr := range []string{devGRPCAddr, devWebAddr, devAdminAddr} {
		if r.GRPCAddr == addr || r.WebAddr == addr || r.AdminAddr == addr {
			t.Errorf("ready: %+v", r)
		}
		// The two outputs are two pipes: what was written to one before the other may be read after it.
		p.stderr.await(t, "the notice of "+addr, func(s string) bool { return strings.Contains(s, addr+" is busy") })
	}
	if !strings.Contains(p.stdout.String(), r.GRPCAddr+" sluice.v1.GatewayService/Watch") {
		t.Errorf("the lines to paste name another address than %s:\n%s", r.GRPCAddr, p.stdout)
	}
}

func TestTheFirstLineOfHelpSaysWhatItIs(t *testing.T) {
	out, _, code := sluice(t, isolated(t))
	line, _, _ := bufio.NewReader(strings.NewReader(out)).ReadLine()
	if code != exitOK || !strings.HasPrefix(string(line), "Sluice carries many Kubernetes watches, logs, shells") {
		t.Errorf("exit code %d, %q", code, line)
	}
}
