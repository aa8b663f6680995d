package main

import (
	"crypto/rand"
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-gateway/sluice/test/rig"
)

// behindRelay is `sluice dev` in this process, and the environment of clients that reach it through a relay.
func behindRelay(t *testing.T) (*rig.Relay, environment) {
	t.Helper()
	_, r, env := devInProcess(t)
	relay := rig.NewRelay(t, r.GRPCAddr)
	return relay, env.with("SLUICE_SERVER", relay.Addr())
}

// interactive is a command of this repository's binary in a terminal.
func interactive(t *testing.T, p *pty, env environment, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return p.start(env, path, args...)
}

func TestAShellInATerminalGoesOnThroughACutInTheMiddleOfTyping(t *testing.T) {
	relay, env := behindRelay(t)
	p := newPTY(t, 80, 24)
	before := p.mode()
	sh := interactive(t, p, env, "exec", "-it", "shell", "--", "sh")
	p.keys("echo begun-$((1+1))\r")
	p.shows("begun-2\r\n")
	if !p.isRaw() {
		t.Error("the terminal is not raw")
	}
	p.keys("stty size\r")
	p.shows("24 80\r\n")

	p.keys("echo one-")
	p.shows("one-") // the echo: the shell has it
	relay.Cut()
	p.keys("two\r")
	p.shows("sluice: no link to the gateway")
	p.shows("the session goes on, nothing is missing")
	p.shows("\none-two\r\n")

	p.keys(`until [ "$(stty size)" = "50 132" ]; do sleep 0.02; done; echo resized-$((1+1))` + "\r")
	p.resize(132, 50) // it and keys do not wait for each other: the shell does
	p.shows("resized-2\r\n")

	p.keys("sleep 1000; echo never-$((1+1))\r")
	p.shows("sleep 1000")
	p.keys("\x03") // Ctrl-C is the process's
	p.shows("^C", "# ")
	p.keys("echo after-$((2+2))\r")
	p.shows("after-4\r\n")
	if strings.Contains(p.shown.String(), "never-2") {
		t.Error("the line went on after Ctrl-C")
	}

	p.keys("exit 7\r")
	if code := sh.end(t, patience); code != 7 {
		t.Errorf("exit code %d:\n%s", code, p.shown)
	}
	if after := p.mode(); after != before {
		t.Errorf("the terminal is left %+v, it was %+v", after, before)
	}
}

func TestCtrlDEndsAShell(t *testing.T) {
	_, env := behindRelay(t)
	p := newPTY(t, 80, 24)
	sh := interactive(t, p, env, "exec", "-it", "shell", "--", "sh")
	p.keys("echo begun-$((1+1))\r")
	p.shows("begun-2\r\n")
	p.keys("\x04")
	if code := sh.end(t, patience); code != exitOK {
		t.Errorf("exit code %d:\n%s", code, p.shown)
	}
}

func TestSignalsGiveTheTerminalBack(t *testing.T) {
	_, env := behindRelay(t)
	for signal, want := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGHUP: 129, syscall.SIGINT: 130, syscall.SIGQUIT: -1} {
		t.Run(signal.String(), func(t *testing.T) {
			p := newPTY(t, 80, 24)
			before := p.mode()
			sh := interactive(t, p, env, "exec", "-it", "shell", "--", "sh")
			p.keys("echo begun-$((1+1))\r")
			p.shows("begun-2\r\n")
			if !p.isRaw() {
				t.Error("the terminal is not raw")
			}
			if err := sh.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			code := sh.end(t, patience)
			if signal == syscall.SIGQUIT { // the runtime prints its stacks, and ends with 2
				want = 2
			}
			if code != want {
				t.Errorf("exit code %d, want %d:\n%s", code, want, p.shown)
			}
			if after := p.mode(); after != before {
				t.Errorf("the terminal is left %+v, it was %+v", after, before)
			}
		})
	}
}

func TestASecondSignalDoesNotWaitButGivesTheTerminalBack(t *testing.T) {
	relay, env := behindRelay(t)
	p := newPTY(t, 80, 24)
	before := p.mode()
	sh := interactive(t, p, env, "exec", "-it", "shell", "--", "sh")
	p.keys("echo begun-$((1+1))\r")
	p.shows("begun-2\r\n")
	relay.Retarget(nowhere(t))
	relay.Cut()
	p.shows("Enter ~ . leaves")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} { // the gateway, which the first waits for, is lost
		if err := sh.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	sh.end(t, patience)
	if status := sh.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
		t.Errorf("ended with %v, not by the signal:\n%s", status, p.shown)
	}
	if after := p.mode(); after != before {
		t.Errorf("the terminal is left %+v, it was %+v", after, before)
	}
}

func TestAnOutputThatNobodyReadsGivesTheTerminalBack(t *testing.T) {
	_, env := behindRelay(t)
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := newPTY(t, 80, 24)
	before := p.mode()
	sh := p.start(env.with("PATH", filepath.Dir(path)+":/usr/bin:/bin"), "/bin/bash", "-c", "set -o pipefail; sluice exec -it shell -- yes | head -n 1")
	p.shows("broken pipe")
	if code := sh.end(t, patience); code != exitFailed {
		t.Errorf("exit code %d:\n%s", code, p.shown)
	}
	if after := p.mode(); after != before {
		t.Errorf("the terminal is left %+v, it was %+v", after, before)
	}
}

func TestAShellThatIsLostWithItsGatewayIsAFailureThatIsSaid(t *testing.T) {
	k := startKube(t)
	written(t, k)
	file, dir := k.configuration(t)
	gateway, r := gatewayOf(t, file, dir, "first")
	relay := rig.NewRelay(t, r.GRPCAddr)
	env := isolated(t).with("SLUICE_SERVER", relay.Addr(), "SLUICE_CA_FILE", filepath.Join(dir, "ca.crt"), "SLUICE_CLUSTER", "own",
		"SLUICE_TOKEN", k.token(t, "alice", "sluice", "kubernetes"))
	p := newPTY(t, 80, 24)
	before := p.mode()
	sh := interactive(t, p, env, "exec", "-it", "written", "--", "sh")
	p.keys("echo begun-$((1+1))\r")
	p.shows("begun-2\r\n")
	_, r = gatewayOf(t, file, dir, "second")
	relay.Retarget(r.GRPCAddr) // as if the first had been killed
	relay.Cut()
	p.shows("error: exit status unknown, the process may go on: ")
	if code := sh.end(t, patience); code != exitFailed {
		t.Errorf("exit code %d:\n%s", code, p.shown)
	}
	if after := p.mode(); after != before {
		t.Errorf("the terminal is left %+v, it was %+v", after, before)
	}
	gateway.stop()
	gateway.end(t)
}

func TestAShellWhoseGatewayIsLostCanBeLeft(t *testing.T) {
	relay, env := behindRelay(t)
	p := newPTY(t, 80, 24)
	before := p.mode()
	sh := interactive(t, p, env, "exec", "-it", "shell", "--", "sh")
	p.keys("echo begun-$((1+1))\r")
	p.shows("begun-2\r\n")
	p.keys("\r~.\r") // means nothing to us while the gateway is there
	p.keys("echo still-$((2+1))\r")
	p.shows("still-3\r\n")
	relay.Retarget(nowhere(t))
	relay.Cut()
	p.shows("Enter ~ . leaves")
	p.keys("\r~.")
	if code := sh.end(t, patience); code != exitFailed {
		t.Errorf("exit code %d:\n%s", code, p.shown)
	}
	p.shows("error: left while the gateway was lost")
	if after := p.mode(); after != before {
		t.Errorf("the terminal is left %+v, it was %+v", after, before)
	}
}

func TestCtrlCBeforeThereIsAProcessEndsTheCommand(t *testing.T) {
	p := newPTY(t, 80, 24)
	env := startSilent(t)
	sh := interactive(t, p, env, "exec", "-it", "shell", "--", "sh")
	p.shows("sluice: still waiting for " + env["SLUICE_SERVER"] + " to exec pod shell")
	p.keys("\x03")
	if code := sh.end(t, patience); code != 130 {
		t.Errorf("exit code %d:\n%s", code, p.shown)
	}
}

// callingReader calls f once so many bytes are read.
type callingReader struct {
	io.Reader

	left int
	f    func()
}

// Read implements io.Reader.
func (r *callingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	if r.left -= n; r.left <= 0 && r.f != nil {
		r.f()
		r.f = nil
	}
	return n, err
}

func TestACommandsStreamsAndItsExitCodeArePassedOn(t *testing.T) {
	relay, env := behindRelay(t)
	for code, want := range map[string]int{"0": 0, "1": 1, "7": 7, "255": 255} {
		out, errs, got := sluice(t, env, "exec", "shell", "--", "sh", "-c", `echo "out: $0 $1"; echo err >&2; exit `+code, "one", "-t")
		if got != want || out != "out: one -t\n" || !strings.HasPrefix(errs, "err\n") || (want != 0) != strings.Contains(errs, "the command's exit code is "+code) {
			t.Errorf("exit code %d, want %d: %q, %q", got, want, out, errs)
		}
	}
	all := make([]byte, 3<<20)
	_, _ = rand.Read(all) // never fails
	half := &callingReader{strings.NewReader(string(all)), len(all) / 2, relay.Cut}
	c := beginWith(t, env, half, "exec", "-i", "shell", "--", "cat")
	if code := c.end(t); code != exitOK || c.stdout.String() != string(all) || !strings.Contains(c.stderr.String(), "nothing is missing") {
		t.Errorf("cat of 3 MiB over a cut: exit code %d, %d bytes, %s", code, len(c.stdout.String()), c.stderr)
	}
	c = beginWith(t, env, strings.NewReader("for the default container"), "exec", "-i", "talker", "--", "cat")
	if code := c.end(t); code != exitOK || c.stdout.String() != "for the default container" {
		t.Errorf("the input of a command in the default container: exit code %d, %q, %s", code, c.stdout, c.stderr)
	}
	c = beginWith(t, env, strings.NewReader("never read"), "exec", "shell", "--", "wc", "-c")
	if code := c.end(t); code != exitOK || strings.TrimSpace(c.stdout.String()) != "0" {
		t.Errorf("without -i: exit code %d, %q", code, c.stdout)
	}
}

func TestWithoutATerminalThereIsNoneToGive(t *testing.T) {
	_, env := behindRelay(t)
	c := beginWith(t, env, strings.NewReader("echo of a pipe\nexit 3\n"), "exec", "-it", "shell", "--", "sh")
	if code := c.end(t); code != 3 || c.stdout.String() != "of a pipe\n" || !strings.Contains(c.stderr.String(), "the standard input is no terminal") {
		t.Errorf("exit code %d, %q, %s", code, c.stdout, c.stderr)
	}
	_, errs, code := sluice(t, env, "exec", "-t", "shell", "--", "true")
	if code != exitOK || !strings.Contains(errs, "-t without -i") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

func TestCtrlCEndsACommandWithoutATerminal(t *testing.T) {
	_, env := behindRelay(t)
	c := begin(t, env, "exec", "shell", "--", "sh", "-c", "echo begun; sleep 1000")
	c.stdout.await(t, "the beginning", func(s string) bool { return s == "begun\n" })
	c.stop()
	if code := c.end(t); code != 130 || c.stderr.String() != "" {
		t.Errorf("exit code %d, %s", code, c.stderr)
	}
}

func TestRefusedCommandsSayWhatToDo(t *testing.T) {
	_, env := behindRelay(t)
	for _, tc := range []struct {
		name string
		args []string
		want []string
	}{
		{"no such pod", []string{"exec", "shall", "--", "ls"}, []string{`"shall" not found`}},
		{"no such container", []string{"exec", "shell", "-c", "side", "--", "ls"}, []string{"side"}},
		{"no such command", []string{"exec", "shell", "--", "no-such-command"}, []string{"no-such-command"}},
		{"no such deployment", []string{"logs", "deploy/none"}, []string{"there is no deployments.apps/none in namespace default"}},
		{"no such type", []string{"logs", "podz/web"}, []string{"did you mean pods?"}},
		{"a pod to forward to", []string{"port-forward", "wob", "80"}, []string{`there is no pod "wob" in namespace default`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, errs, code := sluice(t, env, tc.args...)
			if code == exitOK || out != "" {
				t.Errorf("exit code %d, %q", code, out)
			}
			for _, want := range tc.want {
				if !strings.Contains(errs, want) {
					t.Errorf("%q is missing in:\n%s", want, errs)
				}
			}
		})
	}
}

func TestAttachJoinsAProcessThatRuns(t *testing.T) {
	relay, env := behindRelay(t)
	p := newPTY(t, 80, 24)
	term := interactive(t, p, env, "attach", "-it", "term")
	p.keys("one\r")
	p.shows("> one\r\n")
	p.keys("tw")
	p.shows("tw")
	relay.Cut()
	p.keys("o\r")
	p.shows("nothing is missing")
	p.shows("> two\r\n")
	if err := term.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := term.end(t, patience); code != 143 {
		t.Errorf("exit code %d:\n%s", code, p.shown)
	}

	c := begin(t, env, "attach", "talker")
	c.stdout.await(t, "lines", func(s string) bool { return strings.Count(s, "\n") > 3 })
	if !strings.Contains(c.stderr.String(), "container main of main, quiet; -c chooses another") {
		t.Errorf("the default container was not told: %s", c.stderr)
	}
	c.stop()
	if code := c.end(t); code != 130 {
		t.Errorf("exit code %d, %s", code, c.stderr)
	}
}
