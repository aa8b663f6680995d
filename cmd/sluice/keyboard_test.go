package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/synctest"
)

func TestAKeyboardGivesNothingBeforeTheProcessHasBegun(t *testing.T) {
	for _, tc := range []struct {
		name string
		then func(*keyboard)
		want string
	}{
		{"begun", (*keyboard).begin, "keys"},
		{"refused", func(k *keyboard) { k.Close() }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKeyboard(strings.NewReader("keys"))
				ended, read := false, make(chan string, 1)
				k.onEOF = func() { ended = true }
				go func() { b, _ := io.ReadAll(k); read <- string(b) }()
				synctest.Wait()
				select {
				case got := <-read:
					t.Fatalf("read %q before there is a process", got)
				default:
				}
				tc.then(k)
				if got := <-read; got != tc.want || ended != (tc.want != "") {
					t.Errorf("read %q, its end told: %v", got, ended)
				}
			})
		})
	}
}

func TestClosingAKeyboardEndsAReadThatWaits(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	k := newKeyboard(in)
	k.begin()
	got := make(chan error)
	go func() { _, err := k.Read(make([]byte, 1)); got <- err }()
	k.Close()
	if err := <-got; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read: %v", err)
	}
}

func TestTheKeysThatLeaveDoSoOnlyWhileTheGatewayIsLost(t *testing.T) {
	for _, tc := range []struct {
		name, keys string
		lost, left bool
	}{
		{"at the beginning", "~.", true, true},
		{"after Enter", "ls\r~.", true, true},
		{"in pieces", "\n|~|.", true, true},
		{"while all is well", "\r~.", false, false},
		{"within a line", "cd ~.", true, false},
		{"something between", "\r~ .", true, false},
		{"the tilde alone", "\r~\r.", true, false},
		{"a second tilde", "\r~~.", true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			left := false
			e := &escapeKeys{lost: func() bool { return tc.lost }, leave: func() { left = true }}
			for piece := range strings.SplitSeq(tc.keys, "|") {
				e.typed([]byte(piece))
			}
			if left != tc.left {
				t.Errorf("left: %v", left)
			}
		})
	}
}
