package shell

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
)

// desk is a terminal with a shell behind it, in a bubble.
type desk struct {
	*testing.T
	*Terminal
	screen *Pipe
	code   chan int
}

// sit starts a program at a terminal. It is waited for when the test ends.
func sit(t *testing.T, args ...string) *desk {
	screen := NewPipe(PipeSize)
	d := &desk{t, NewTerminal(screen), screen, make(chan int, 1)}
	p, _, _ := process(d.Terminal, args...)
	p.Stdout, p.Stderr, p.Terminal = d.Terminal, d.Terminal, d.Terminal
	go func() { d.code <- Run(t.Context(), p) }() // ends when the test does; wantExit waits
	return d
}

// see types keys and checks what then appears.
func (d *desk) see(keys, want string) {
	d.Helper()
	if err := d.Type(d.Context(), []byte(keys)); err != nil {
		d.Fatal(err)
	}
	synctest.Wait()
	d.screen.mu.Lock()
	got := string(d.screen.data[d.screen.taken:])
	d.screen.data, d.screen.taken = nil, 0
	d.screen.change()
	d.screen.mu.Unlock()
	if got != want {
		d.Errorf("typed %q, saw %q, want %q", keys, got, want)
	}
}

func (d *desk) wantExit(want int) {
	d.Helper()
	if code := <-d.code; code != want {
		d.Errorf("exit %d, want %d", code, want)
	}
}

func TestInteractiveShell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, "sh")
		d.see("", "/ # ")
		d.see("echo $((1+1))\r", "echo $((1+1))\r\n2\r\n/ # ")
		d.see("echx\x7fo \xc3\xa4\x7f\"a\n", "echx\b \bo \xc3\xa4\b \b\"a\r\n> ")
		d.see("b\"\r", "b\"\r\na\r\nb\r\n/ # ")
		d.see("some words\x17\x17echo \x15pwd\r", "some words\b \b\b \b\b \b\b \b\b \b\b \b\b \b\b \b\b \b\b \becho \b \b\b \b\b \b\b \b\b \bpwd\r\n/\r\n/ # ") //nolint:dupword // each is a character that is erased
		d.see("cd /tmp\r", "cd /tmp\r\n/tmp # ")
		d.see("stty size\r", "stty size\r\n24 80\r\n/tmp # ")
		d.Resize(133, 44)
		d.see("stty size\r", "stty size\r\n44 133\r\n/tmp # ")
		d.see("half a line\x03", "half a line^C\r\n/tmp # ")
		d.see("echo $?\r", "echo $?\r\n130\r\n/tmp # ")
		d.see("sleep 1000\r", "sleep 1000\r\n")
		d.see("\x03", "^C\r\n/tmp # ")
		d.see("while :; do sleep 1; done\r", "while :; do sleep 1; done\r\n")
		d.see("\x03", "^C\r\n/tmp # ")
		d.see("cat\r", "cat\r\n")
		d.see("typed\r", "typed\r\ntyped\r\n") //nolint:dupword // an echo, and an answer
		d.see("end\x04", "endend")
		d.see("\x04", "/tmp # ")
		d.see("nosuch\r", "nosuch\r\nsh: nosuch: not found\r\n/tmp # ")
		d.see("if\r", "if\r\n> ")
		d.see("\x03", "^C\r\n/tmp # ")
		d.see(")\r", ")\r\nsh: 1:1: `)` can only be used to close a subshell\r\n/tmp # ")
		d.see("stty -echo; read secret; stty echo; echo $secret\r", "stty -echo; read secret; stty echo; echo $secret\r\n")
		d.see("hidden\r", "hidden\r\n/tmp # ")
		d.see("(exit 3)\r", "(exit 3)\r\n/tmp # ")
		d.see("\x04", "")
		d.wantExit(3)
	})
}

func TestTerminalRaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, "sh", "-c", "stty raw; head -c 3; stty sane; stty size")
		synctest.Wait()
		d.see("\x03\x04\r", "\x03\x04\r24 80\r\n")
		d.wantExit(0)
	})
}

func TestTerminalHangup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := sit(t, "sh")
		d.see("", "/ # ")
		d.see("echo typed; exi", "echo typed; exi")
		d.Hangup()
		d.wantExit(0)
		if err := d.Type(t.Context(), []byte("x")); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("typing after a hangup: %v", err)
		}
	})
}

// Who types faster than a program reads waits, and stops waiting with its context.
func TestTypingAheadIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		screen := NewPipe(PipeSize)
		term := NewTerminal(screen)
		ctx, cancel := context.WithCancel(t.Context())
		typed := make(chan error)
		go func() { typed <- term.Type(ctx, []byte(strings.Repeat("0123456789\n", 2*typedAhead/11))) }() // ends with ctx; waited for below
		synctest.Wait()
		b := make([]byte, 1000)
		n, err := term.ReadContext(t.Context(), b)
		if err != nil || string(b[:n]) != "0123456789\n" {
			t.Errorf("%q %v", b[:n], err)
		}
		cancel()
		if err := <-typed; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if term.queued > typedAhead+lineLength {
			t.Errorf("%d bytes are typed ahead", term.queued)
		}
	})
}

func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPipe(4)
		wrote := make(chan error)
		go func() { _, err := p.Write([]byte("abcdef")); wrote <- err }() // ends with the read; waited for below
		synctest.Wait()
		b := make([]byte, 10)
		if n, err := p.Read(b); string(b[:n]) != "abcd" || err != nil {
			t.Errorf("%q %v", b[:n], err)
		}
		if err := <-wrote; err != nil {
			t.Error(err)
		}
		p.CloseWrite()
		if n, err := p.Read(b); string(b[:n]) != "ef" || err != nil {
			t.Errorf("%q %v", b[:n], err)
		}
		if _, err := p.Read(b); !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		if _, err := p.Write(b); !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
		p.CloseRead()
		if _, err := p.Read(b); !errors.Is(err, io.ErrClosedPipe) {
			t.Error(err)
		}
	})
}
