//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/bench/live"
	"github.com/sluice-gateway/sluice/bench/load"
	"github.com/sluice-gateway/sluice/test/kube"
)

// TestMain is also the processes that the benchmark starts: it starts its own executable, which here is the test.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && roles[os.Args[1]] != nil || len(os.Args) == 3 && os.Args[1] == live.Role {
		if err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The race detector has a process sleep for a second before it exits, in case something is still to be reported; here dozens of them do.
	if err := os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func TestAQuickRunMeasuresEveryKindOfSuiteAndLosesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "result.json")
	var out, log bytes.Buffer
	names := "sat2k-tls,stalled,heavy,idle1k,unread,echo,pour"
	if err := run([]string{"-quick", "-suite", names, "-json", file}, nil, &out, &log); err != nil {
		t.Fatalf("%v\n%s%s", err, &log, &out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	measured := map[string]int{}
	for _, res := range r.Results {
		measured[res.Suite]++
		s := named(t, res.Suite)
		gateway := res.Way != load.Direct
		switch {
		case s.kind == saturation && (res.EventsPerS <= 0 || gateway && (res.CPUPerEventUS <= 0 || res.AllocationsPerEvent <= 0)),
			s.kind == latency && (res.Way != load.Naive || s.neighbour != load.Stalled) && (res.P50US <= 0 || res.P99US < res.P50US || res.Delivered <= 0),
			s.neighbour == load.Heavy && res.HeavyPerS <= 0,
			s.kind == idle && (res.OpenMS <= 0 || gateway && res.LivePerWatch <= 0),
			s.kind == unread && res.RSSBytes <= 0,
			s.kind == keyboard && (res.P50US <= 0 || res.P99US < res.P50US),
			s.kind == bulk && (res.MiBPerS <= 0 || gateway && res.CPUPerMiBUS <= 0):
			t.Errorf("%s, %s measured nothing: %+v", res.Suite, res.Way, res)
		}
	}
	for name := range strings.SplitSeq(names, ",") {
		if want := len(named(t, name).ways()); measured[name] != want || !strings.Contains(out.String(), name+": ") {
			t.Errorf("%s was measured in %d ways, want %d; the table:\n%s", name, measured[name], want, &out)
		}
	}
}

func TestARealClusterPours(t *testing.T) {
	_, _, err := kube.Binaries(t.Context(), os.Stderr)
	if err == nil {
		_, err = kube.NodeBinary(t.Context(), os.Stderr)
	}
	if errors.Is(err, kube.ErrOffline) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "result.json")
	var out, log bytes.Buffer
	if err := run([]string{"-quick", "-suite", "pour-real", "-json", file}, nil, &out, &log); err != nil {
		t.Fatalf("%v\n%s%s", err, &log, &out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for _, res := range r.Results {
		if res.MiBPerS <= 0 || res.UpstreamCPUPerMiBUS <= 0 || res.Way == load.Sluice && res.CPUPerMiBUS <= 0 {
			t.Errorf("%s measured nothing: %+v", res.Way, res)
		}
	}
	if len(r.Results) != 2 {
		t.Errorf("measured in %d ways, want 2; the table:\n%s", len(r.Results), &out)
	}
}

// named is a suite by its name.
func named(t *testing.T, name string) suite {
	t.Helper()
	s, err := selected(name)
	if err != nil {
		t.Fatal(err)
	}
	return s[0]
}

func TestARunFailsWhenAnEventIsNotThereOnce(t *testing.T) {
	stalled, quiet := named(t, "stalled"), named(t, "quiet")
	for _, c := range []struct {
		name  string
		res   result
		fails bool
	}{
		{"nothing", result{Suite: "quiet", Way: load.Sluice}, false},
		{"lost", result{Suite: "quiet", Way: load.Sluice, Faults: load.Faults{Lost: 1}}, true},
		{"doubled", result{Suite: "quiet", Way: load.Naive, Faults: load.Faults{Duplicated: 1}}, true},
		{"damaged", result{Suite: "quiet", Way: load.Direct, Faults: load.Faults{Unmarked: 1}}, true},
		{"interrupted", result{Suite: "quiet", Way: load.Sluice, Faults: load.Faults{Interrupted: 1}}, true},
		{"late", result{Suite: "stalled", Way: load.Sluice, Faults: load.Faults{Missing: 1}}, true},
		{"naive stands still", result{Suite: "stalled", Way: load.Naive, Faults: load.Faults{Missing: 1}}, false},
		{"naive loses", result{Suite: "stalled", Way: load.Naive, Faults: load.Faults{Missing: 1, Lost: 1}}, true},
	} {
		r := &report{Results: []result{c.res}, suites: []suite{quiet, stalled}}
		if err := r.verdict(); (err != nil) != c.fails {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestSummaryComparesWithinRounds(t *testing.T) {
	add := func(way load.Way, name string, p50 ...float64) (out []result) {
		for round, v := range p50 {
			out = append(out, result{Suite: name, Way: way, Round: round, P50US: v, Delivered: 1})
		}
		return out
	}
	r := &report{suites: []suite{named(t, "quiet"), named(t, "stalled")}}
	r.Results = append(r.Results, add(load.Direct, "quiet", 10, 100, 1000)...)
	r.Results = append(r.Results, add(load.Sluice, "quiet", 30, 200, 4000)...)
	r.Results = append(r.Results, add(load.Sluice, "stalled", 60, 100)...)
	r.summarize()
	for _, c := range []struct {
		of   line
		want spread
	}{
		{line{Suite: "quiet", Metric: p50.Name, Way: load.Sluice}, spread{Median: 200, Min: 30, Max: 4000, N: 3}},
		{line{Suite: "quiet", Metric: p50.Name, Way: load.Sluice, To: load.Direct}, spread{Median: 3, Min: 2, Max: 4, N: 3}},
		{line{Suite: "stalled", Metric: p50.Name, Way: load.Sluice, Without: "quiet"}, spread{Median: 1.25, Min: 0.5, Max: 2, N: 2}},
	} {
		if got, _ := r.find(c.of); got != c.want {
			t.Errorf("%+v is %+v, want %+v", c.of, got, c.want)
		}
	}
	var out bytes.Buffer
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"200 [30–4000]", "sluice : direct", "3.00x [2.00x–4.00x]", "sluice, with : without", "1.25x [0.50x–2.00x]"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &out)
		}
	}
}

func TestALimitOnFilesLowersTheWatchesLoudly(t *testing.T) {
	s := named(t, "idle10k")
	if fitting, note := s.fit(20_000); fitting.watches != 10_000 || note != "" {
		t.Errorf("%d watches, %q with room for all", fitting.watches, note)
	}
	fitting, note := s.fit(4096)
	if fitting.watches+filesBeside > 4096 || !strings.Contains(note, "INSTEAD OF 10000") {
		t.Errorf("%d watches, %q", fitting.watches, note)
	}
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{{"-suite", "sat3k"}, {"-way", "wss"}, {"-rounds", "0"}, {"-duration", "-1s"}, {"sat2k"}, {"-speed", "9"}} {
		if _, err := parse(args, &bytes.Buffer{}); err == nil {
			t.Errorf("%v is accepted", args)
		}
	}
	s, err := parse(nil, &bytes.Buffer{})
	if err != nil || len(s.suites) != len(suites)-len(extraNames()) || slices.ContainsFunc(s.suites, func(s suite) bool { return s.extra }) {
		t.Errorf("%d of %d suites by default (%v)", len(s.suites), len(suites), err)
	}
}
