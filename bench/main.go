//go:build unix

// Command bench measures the gateway beside direct watches and shells, and a naive bridge.
//
// One run takes the same watches directly by a WebSocket each, through a gateway of a hundred lines (bench/naive), and through Sluice with
// everything on. Upstream, gateway and client are processes of their own, so that what a gateway costs is read off its own clock. The order
// of the ways alternates, and ratios are of the same round. docs/performance.md says what is measured, and how to read it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/bench/live"
	"github.com/sluice-gateway/sluice/bench/load"
	"github.com/sluice-gateway/sluice/bench/process"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run is main, or one of the processes that main starts.
func run(args []string, in io.Reader, out, log io.Writer) error {
	switch {
	case len(args) == 1 && roles[args[0]] != nil:
		return roles[args[0]](in, out)
	case len(args) == 2 && args[0] == live.Role:
		return live.Pour(args[1], out)
	}
	s, err := parse(args, log)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	b := &bench{settings: s, log: log}
	r, err := b.run(ctx)
	if err != nil {
		return err
	}
	if err := r.write(out); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return errors.Join(r.save(), r.verdict())
}

// settings are what the flags say.
type settings struct {
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"`
	Quick   bool    `json:"quick,omitempty"`

	suites   []suite
	ways     []load.Way // none for all
	duration time.Duration
	json     string
	profiles string
}

func parse(args []string, log io.Writer) (settings, error) {
	var s settings
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(log)
	f.IntVar(&s.Rounds, "rounds", 3, "how many times each suite is measured; of memory, in every third round only")
	list := f.String("suite", "", "comma-separated suites: "+strings.Join(suiteNames(), ", ")+" (default all but "+strings.Join(extraNames(), ", ")+")")
	ways := f.String("way", "", "comma-separated ways: direct, naive, sluice (default all)")
	f.DurationVar(&s.duration, "duration", time.Second, "how long events are measured, after half as long without")
	f.StringVar(&s.json, "json", "", "write everything that was measured to `FILE`")
	f.StringVar(&s.profiles, "profile", "", "write profiles of Sluice in each suite to `DIR`; they cost some of what is measured")
	f.BoolVar(&s.Quick, "quick", false, "one short round of few watches: shows that it runs; its numbers mean nothing")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if s.Rounds < 1 || s.duration <= 0 {
		return s, errors.New("rounds and duration must be positive")
	}
	if s.Quick {
		s.Rounds, s.duration = 1, 300*time.Millisecond
	}
	s.Seconds = s.duration.Seconds()
	var err error
	if s.ways, err = selectedWays(*ways); err != nil {
		return s, err
	}
	s.suites, err = selected(*list)
	return s, err
}

// selectedWays are the ways of a list.
func selectedWays(list string) (out []load.Way, err error) {
	for name := range strings.SplitSeq(list, ",") {
		switch w := load.Way(name); w {
		case "":
		case load.Direct, load.Naive, load.Sluice:
			out = append(out, w)
		default:
			return nil, fmt.Errorf("there is no way %q", name)
		}
	}
	return out, nil
}

// run measures everything.
func (b *bench) run(ctx context.Context) (*report, error) {
	r := &report{Machine: thisMachine(), Settings: b.settings}
	for _, s := range b.settings.suites {
		if b.settings.Quick {
			s = s.quick()
		}
		s, note := s.fit(process.FileLimit())
		if note != "" {
			r.Notes = append(r.Notes, note)
			fmt.Fprintln(b.log, "NOTE:", note)
		}
		r.suites = append(r.suites, s)
	}
	for round := range b.settings.Rounds {
		if err := b.round(ctx, round, r); err != nil {
			return nil, err
		}
	}
	r.note()
	r.summarize()
	return r, nil
}

// rareRounds is how many rounds lie between two measurements of a rare suite.
const rareRounds = 3

func (b *bench) round(ctx context.Context, round int, r *report) error {
	for _, s := range r.suites {
		if s.rare && round%rareRounds != 0 {
			continue
		}
		ways := s.ways()
		if round%2 == 1 {
			slices.Reverse(ways)
		}
		for _, way := range ways {
			if len(b.settings.ways) > 0 && !slices.Contains(b.settings.ways, way) {
				continue
			}
			fmt.Fprintf(b.log, "round %d of %d: %s, %s\n", round+1, b.settings.Rounds, s.name, way)
			res, err := b.measure(ctx, s, way)
			if err != nil {
				return err
			}
			res.Round = round
			r.Results = append(r.Results, res)
		}
	}
	return nil
}

// busy is from how many other CPUs on a reader should know of them.
const busy = 0.3

// note notes when the machine had something else to do.
func (r *report) note() {
	var worst float64
	noisy := 0
	for _, res := range r.Results {
		worst = max(worst, res.OtherCPUs)
		if res.OtherCPUs > busy {
			noisy++
		}
	}
	if noisy > 0 {
		r.Notes = append(r.Notes, fmt.Sprintf("in %d of %d measurements something else kept more than %.1f CPUs busy, up to %.1f: trust no latency of this run",
			noisy, len(r.Results), busy, worst))
	}
	if r.Settings.Quick {
		r.Notes = append(r.Notes, "a quick run: its numbers mean nothing")
	}
}

// save writes the file of -json.
func (r *report) save() error {
	if r.Settings.json == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the report: %w", err)
	}
	return os.WriteFile(r.Settings.json, append(b, '\n'), 0o600)
}
