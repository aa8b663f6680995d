package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-gateway/sluice/test/rig"
)

// buildCommand builds `sluice` and returns where it is.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/sluice-gateway/sluice/cmd/sluice").CombinedOutput()
	if err != nil {
		t.Fatalf("build the command: %v\n%s", err, out)
	}
	return path
}

// person is somebody with the command, who has one running for each kind, each against the same pod.
type person struct {
	t         *testing.T
	binary    string
	flags     []string // that say where the gateway is, and who asks
	namespace string
	pod       string
	policy    string
}

func (p *person) open(ctx context.Context, k kind, sc *scene) (*subject, error) {
	s := newSubject(k, "command, "+k.String())
	var err error
	switch k {
	case watchKind:
		s.send = sc.marker(p.pod)
		_, err = p.start(s, eventLines{s}, "watch", "pods", p.pod, "-o", "json")
	case logsKind:
		_, err = p.start(s, s, "logs", "-f", p.pod, "-c", talker)
	case execKind:
		err = p.runTyped(s, "exec", "-i", p.pod, "-c", echoer, "--on-detach-expiry", p.policy, "--", "sh", "-c", sc.script(k, p.pod))
	case terminalKind:
		err = p.atTerminal(s, "exec", "-it", p.pod, "-c", echoer, "--on-detach-expiry", p.policy, "--", "sh", "-c", sc.script(k, p.pod))
	case attachKind:
		err = p.runTyped(s, "attach", "-i", p.pod, "-c", echoer, "--on-detach-expiry", p.policy)
	case forwardKind:
		err = p.forward(ctx, s)
	}
	return s, err
}

// start runs the command. It is killed at the latest when the test ends.
func (p *person) start(s *subject, stdout io.Writer, args ...string) (*exec.Cmd, error) {
	return p.run(s, nil, stdout, args...)
}

func (p *person) run(s *subject, stdin io.Reader, stdout io.Writer, args ...string) (*exec.Cmd, error) {
	var rest []string
	for i, a := range args {
		if a == "--" {
			args, rest = args[:i], args[i:]
			break
		}
	}
	said := &rig.Buffer{}
	s.words = said.String
	cmd := exec.Command(p.binary, append(append(args, append(p.flags, "-n", p.namespace)...), rest...)...)
	cmd.Env = []string{"HOME=" + p.t.TempDir()}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt of the tests is not one of the command's
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { // ends with the command
		defer close(ended)
		_ = cmd.Wait() // its state says how
		code := cmd.ProcessState.ExitCode()
		s.update(func() { s.command = &code })
		if s.kind != forwardKind { // there the connection's end counts
			s.end(fmt.Errorf("exit code %d", code))
		}
	}()
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill() // gone already, if it has ended
		<-ended
	})
	return cmd, nil
}

// runTyped runs the command with an input that can be typed.
func (p *person) runTyped(s *subject, args ...string) error {
	in, typed, err := os.Pipe()
	if err != nil {
		return err
	}
	p.t.Cleanup(func() { _ = typed.Close() })
	s.send = func(n int) error {
		_, err := fmt.Fprintln(typed, n)
		return err
	}
	_, err = p.run(s, in, s, args...)
	return errors.Join(err, in.Close())
}

// atTerminal runs the command at a terminal of its own, with its standard error elsewhere.
func (p *person) atTerminal(s *subject, args ...string) error {
	keys, program, err := openTerminal()
	if err != nil {
		return err
	}
	s.send = func(n int) error {
		_, err := fmt.Fprintln(keys, n)
		return err
	}
	shown := make(chan struct{})
	go func() { // ends when the last program has closed its side
		defer close(shown)
		_, _ = io.Copy(s, keys) // its end is EIO
	}()
	p.t.Cleanup(func() {
		_ = keys.Close()
		<-shown
	})
	_, err = p.run(s, program, program, args...)
	if e := program.Close(); err == nil {
		err = e
	}
	return err
}

// eventLines takes events as the API server sent them, one a line.
type eventLines struct{ s *subject }

// Write implements io.Writer.
func (e eventLines) Write(b []byte) (int, error) {
	e.s.mu.Lock()
	e.s.partial = append(e.s.partial, b...)
	whole := string(e.s.partial[:bytes.LastIndexByte(e.s.partial, '\n')+1])
	e.s.partial = e.s.partial[len(whole):]
	e.s.mu.Unlock()
	for line := range strings.Lines(whole) {
		e.s.printed(line)
	}
	return len(b), nil
}

var forwardingFrom = regexp.MustCompile(`(?m)^Forwarding from (127\.0\.0\.1:\d+) -> `)

// forward runs the command and makes one TCP connection through it.
func (p *person) forward(ctx context.Context, s *subject) error {
	said := newSubject(s.kind, s.name)
	if _, err := p.start(s, said, "port-forward", p.pod, fmt.Sprint(":", servedPort)); err != nil {
		return err
	}
	addr := ""
	err := said.until(ctx, "waited for the address", func() bool {
		for _, line := range said.lines {
			if m := forwardingFrom.FindStringSubmatch(line); m != nil {
				addr = m[1]
			}
		}
		return addr != ""
	})
	if err != nil {
		return fmt.Errorf("%w; %s", err, s.words())
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	read := s.converse(conn)
	go func() { // ends with the connection
		defer close(ended)
		read()
	}()
	p.t.Cleanup(func() {
		_ = conn.Close() // it may be gone
		<-ended
	})
	return nil
}

// printed takes an event as the command has printed it.
func (s *subject) printed(line string) {
	var ev struct {
		Type   string          `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	if err := json.Unmarshal([]byte(line), &ev); err != nil {
		s.end(err)
		return
	}
	s.event(ev.Type, ev.Object)
}
