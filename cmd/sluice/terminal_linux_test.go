package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// opened is what a process's channel says when it stands.
var opened = &sluicev1.Opened{Capabilities: &sluicev1.Capabilities{HalfClose: true, Resize: true}}

// consoleOn is a console of an interactive process in a terminal.
func consoleOn(p *pty) *console {
	sys := system{stdin: p.program, stdout: p.program, stderr: p.program}
	return &console{sys: sys, n: newNotices(sys.stderr), terminal: newTerminal(p.program, p.program), stdin: true, slow: time.NewTimer(patience)}
}

func TestATerminalIsRawForTheProcessAloneAndGivenBackOnEveryWayOut(t *testing.T) {
	lost := status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the upstream is gone")
	for _, tc := range []struct {
		name string
		end  func(context.CancelFunc) error
		want string
	}{
		{"success", func(context.CancelFunc) error { return nil }, ""},
		{"an exit code", func(context.CancelFunc) error { return &client.ExitError{Code: 7} }, "exit code 7"},
		{"a loss", func(context.CancelFunc) error { return lost }, "exit status unknown"},
		{"an interruption", func(stop context.CancelFunc) error { stop(); return context.Canceled }, "exit code 130"},
		{"a panic", func(context.CancelFunc) error { panic("of the session") }, "panic"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPTY(t, 80, 24)
			before := p.mode()
			if p.isRaw() {
				t.Fatal("the terminal is raw to begin with")
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			err := recovered(func() error {
				return consoleOn(p).run(ctx, func(_ context.Context, j joint) error {
					if p.isRaw() {
						t.Error("raw before there is a process: Ctrl-C would be lost")
					}
					j.onOpened(opened)
					if !p.isRaw() {
						t.Error("not raw while there is a process")
					}
					return tc.end(stop)
				})
			})
			if after := p.mode(); after != before {
				t.Errorf("the terminal is left %+v, it was %+v", after, before)
			}
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("ended with %v, want %q", err, tc.want)
			}
		})
	}
}

// recovered calls f and makes its panic an error.
func recovered(f func() error) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("panic")
		}
	}()
	return f()
}

func TestTheSizeIsToldAtTheStartAndWhenItChanges(t *testing.T) {
	p := newPTY(t, 80, 24)
	sizes, stop := newTerminal(p.program, nil).sizes()
	defer stop()
	next := func() client.Size {
		select {
		case s := <-sizes:
			return s
		case <-time.After(patience):
			t.Fatal("no size was told")
			return client.Size{}
		}
	}
	if got := next(); got != (client.Size{Width: 80, Height: 24}) {
		t.Errorf("began with %+v", got)
	}
	p.resize(132, 50)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil { // this process is not the terminal's foreground: the kernel does not tell it
		t.Fatal(err)
	}
	if got := next(); got != (client.Size{Width: 132, Height: 50}) {
		t.Errorf("then %+v", got)
	}
}

func TestNoticesStandOnLinesOfTheirOwnBesideAProcess(t *testing.T) {
	p := newPTY(t, 80, 24)
	n := newNotices(p.program)
	reset := status.New(codes.Unavailable, sluicev1.Reason_REASON_UNSPECIFIED, "reset")
	n.session(client.State{Phase: client.Waiting, Attempt: 1, Err: reset, Next: time.Second})
	p.shown.await(t, "a plain notice", func(s string) bool { return s == "sluice: no link to the gateway (reset); attempt 2 in 1s\r\n" })
	n.session(client.State{Phase: client.Connected, Resumed: true})
	term := newTerminal(p.program, p.program)
	if err := term.raw(); err != nil {
		t.Fatal(err)
	}
	n.pin()
	n.session(client.State{Phase: client.Connected, Session: "another"})
	n.session(client.State{Phase: client.Waiting, Session: "another", Attempt: 1, Err: reset})
	n.beside(true, "Enter ~ . leaves")
	from := len(p.shown.await(t, "the second notice", func(s string) bool { return strings.Contains(s, "again;") && strings.HasSuffix(s, "\n") }))
	for attempt := range 3 {
		n.session(client.State{Phase: client.Waiting, Attempt: attempt, Err: reset, Next: time.Second})
	}
	n.session(client.State{Phase: client.Connected, Resumed: true})
	want := "\r\nsluice: no link to the gateway (reset); what is typed is sent when it is back, Enter ~ . leaves\r\n" +
		"\r\nsluice: linked to the gateway again; the session goes on, nothing is missing\r\n"
	p.shown.await(t, "one notice of the loss and one of its end", func(s string) bool { return s[from:] == want })
}
