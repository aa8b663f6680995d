//go:build unix

package process_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/bench/process"
)

// TestMain is also the child of the tests.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "child" {
		if err := process.Serve(os.Stdin, os.Stdout, begin); err != nil {
			fmt.Fprintln(os.Stderr, "the child says:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

type config struct{ Refuse, Env string }

func begin(_ context.Context, c config) (any, process.Commands, error) {
	if c.Refuse != "" {
		return nil, nil, errors.New(c.Refuse)
	}
	return os.Getenv(c.Env), process.Commands{
		"double": process.With(func(n int) (any, error) { return 2 * n, nil }),
		"hang":   func(json.RawMessage) (any, error) { select {} },
		"fail":   func(json.RawMessage) (any, error) { return nil, errors.New("it failed") },
	}, nil
}

func TestAChildIsConfiguredAnswersAndEnds(t *testing.T) {
	var ready string
	c, err := process.Start(t.Context(), "child", config{Env: "BENCH_TEST"}, &ready, "BENCH_TEST=set")
	if err != nil || ready != "set" {
		t.Fatalf("ready with %q: %v", ready, err)
	}
	var n int
	if err := c.Call(t.Context(), "double", 21, &n); err != nil || n != 42 {
		t.Errorf("answered %d: %v", n, err)
	}
	for name, want := range map[string]string{"fail": "it failed", "nothing": "no command", "double": "decode the argument"} {
		if err := c.Call(t.Context(), name, "x", nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	u, err := c.Usage(t.Context())
	if err != nil || u.CPU <= 0 || u.Allocations == 0 || u.Live == 0 || u.Goroutines == 0 {
		t.Errorf("usage %+v: %v", u, err)
	}
	if err := errors.Join(c.Stop(), c.Stop()); err != nil {
		t.Error(err)
	}
}

func TestAChildIsProfiled(t *testing.T) {
	c, err := process.Start(t.Context(), "child", config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cpu.pprof")
	end, err := c.Profile(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Profile(t.Context(), file); err == nil {
		t.Error("two profiles were begun")
	}
	if err := errors.Join(end(), end(), c.Stop()); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
		t.Errorf("%d bytes that are no profile: %v", len(b), err)
	}
}

func TestARefusalToBeginIsTold(t *testing.T) {
	_, err := process.Start(t.Context(), "child", config{Refuse: "no such thing"}, nil)
	if err == nil || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("got %v", err)
	}
}

func TestAChildThatHangsEndsWithTheContext(t *testing.T) {
	c, err := process.Start(t.Context(), "child", config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "hang", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := c.Stop(); err == nil {
		t.Error("that it was killed is not told")
	}
}

func TestCPUAndMemoryOfAProcessGrow(t *testing.T) {
	before := process.ReadUsage()
	var kept [][]byte
	for i := range 64 {
		kept = append(kept, make([]byte, 1<<20))
		for j := range kept[i] {
			kept[i][j] = byte(j)
		}
	}
	after := process.ReadUsage()
	if after.CPU <= before.CPU || after.Allocations < before.Allocations+64 || after.Live < before.Live+32<<20 || after.Peak < after.RSS {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if len(kept[0]) == 0 || process.FileLimit() <= 0 {
		t.Error("no limit on files")
	}
}
