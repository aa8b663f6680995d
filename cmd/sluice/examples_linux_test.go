package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"
)

// examples are the command lines of a command's help.
func examples(c *cobra.Command) (lines []string) {
	for line := range strings.Lines(c.Example) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// lasting wait until a command line that goes on does what it should.
var lasting = map[string]func(*testing.T, *process){
	"sluice serve": func(t *testing.T, p *process) {
		p.stderr.await(t, "serving", func(s string) bool { return strings.Contains(s, `"msg":"serving"`) })
	},
	"sluice dev": func(t *testing.T, p *process) {
		p.stdout.await(t, "the last line", func(s string) bool { return strings.Contains(s, "The token lives until ") })
	},
	"sluice watch": func(t *testing.T, p *process) {
		p.stdout.await(t, "an object", func(s string) bool { return strings.Count(s, "\n") > 1 })
	},
	"sluice logs": func(t *testing.T, p *process) {
		p.stdout.await(t, "a line", func(s string) bool { return strings.Contains(s, "\n") })
	},
	"sluice attach": func(t *testing.T, p *process) {
		p.stdout.await(t, "a line", func(s string) bool { return strings.Contains(s, "\n") })
	},
	"sluice port-forward": func(t *testing.T, p *process) {
		p.stdout.await(t, "an address", func(s string) bool { return strings.Contains(s, "Forwarding from 127.0.0.") })
	},
}

// endedByCtrlC are the exit codes of command lines for which Ctrl-C is not the way to end well.
var endedByCtrlC = map[string]int{"sluice logs": 130, "sluice attach": 130}

func TestTheExamplesOfTheHelpWork(t *testing.T) {
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	_, r, _ := devProcess(t, environment{"XDG_CACHE_HOME": t.TempDir()}, freePorts...)
	k := startKube(t)
	_, dir := k.configuration(t)
	home := t.TempDir()
	for _, folder := range []string{".kube", ".zfunc", ".local/share/bash-completion/completions", ".config/fish/completions"} {
		if err := os.MkdirAll(filepath.Join(home, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(k.kubeconfig(t, "lab"), filepath.Join(home, ".kube", "config")); err != nil {
		t.Fatal(err)
	}
	env := environment{
		"PATH": filepath.Dir(path) + ":/usr/bin:/bin", "HOME": home, "SLUICE_TOKEN": r.Token, "SLUICE_SERVER": r.GRPCAddr, "SLUICE_CA_FILE": r.CAFile,
	}
	for command, c := range commands(t) {
		for _, line := range examples(c) {
			t.Run(line, func(t *testing.T) {
				script := "cd " + quoted(dir) + "\n" + line
				if strings.Contains(line, " -it ") {
					interactively(t, env, script)
					return
				}
				p := start(t, env, nil, "/bin/bash", "-c", script)
				works := lasting[command]
				ends := works == nil || strings.Contains(line, "--check") || strings.Contains(line, "| head") || strings.Contains(line, " done ") ||
					command == "sluice logs" && !strings.Contains(line, " -f")
				if !ends {
					works(t, p)
					if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil {
						t.Error(err)
					}
				}
				want := exitOK
				if works != nil && !ends {
					want = endedByCtrlC[command]
				}
				if code := p.end(t, patience); code != want {
					t.Errorf("exit code %d, want %d:\n%s%s", code, want, p.stdout, p.stderr)
				}
			})
		}
	}
}

// interactively runs a line in a terminal, in which a shell, or a process that repeats what it reads, is then told to print something. A shell is
// left by its own command, another process by a signal.
func interactively(t *testing.T, env environment, script string) {
	t.Helper()
	terminal := newPTY(t, 80, 24)
	p := terminal.start(env, "/bin/bash", "-c", script)
	terminal.keys("echo fine\r")
	terminal.shows("\n", "fine\r\n")
	if strings.Contains(script, " -- sh") {
		terminal.keys("exit\r")
		if code := p.end(t, patience); code != exitOK {
			t.Errorf("exit code %d:\n%s", code, terminal.shown)
		}
		return
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if code := p.end(t, patience); code != 130 {
		t.Errorf("exit code %d:\n%s", code, terminal.shown)
	}
}
