package main

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/term"

	"github.com/sluice-gateway/sluice/test/e2e/seeded"
)

// shell KEY is a session that remembers: it says "ready" and its process id, answers the n-th line of its input, which must be the n-th of KEY,
// with "did", n and its process id, and "over" with how many lines there were and how many hang-ups. A line that comes twice, or never, ends it.
// On a terminal it takes keys as they come.
func shell(a arguments) error {
	var hangUps atomic.Int64
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP)
	go func() { // for as long as the process
		for range signals {
			hangUps.Add(1)
		}
	}()
	if stdin := int(os.Stdin.Fd()); term.IsTerminal(stdin) {
		if _, err := term.MakeRaw(stdin); err != nil {
			return err
		}
	}
	key, pid := a.key(), os.Getpid()
	if _, err := fmt.Printf("ready %d\n", pid); err != nil {
		return err
	}
	lines := bufio.NewReader(os.Stdin)
	for n := uint64(0); ; n++ {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%w: after %d lines and %.100q: %w", errWrong, n, line, err)
		}
		if line == "over\n" {
			_, err := fmt.Printf("over %d %d\n", n, hangUps.Load())
			return err
		}
		if want := string(seeded.AppendLine(nil, key, n)); line != want {
			return fmt.Errorf("%w: line %d is %.100q, want %.100q", errWrong, n, strings.TrimSpace(line), want)
		}
		if _, err := fmt.Printf("did %d %d\n", n, pid); err != nil {
			return err
		}
	}
}
