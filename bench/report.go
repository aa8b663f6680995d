//go:build unix

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/sluice-gateway/sluice/bench/load"
)

// report is the whole of a run: what -json writes.
type report struct {
	Machine  machine  `json:"machine"`
	Settings settings `json:"settings"`
	// Notes are what a reader must know to compare.
	Notes   []string `json:"notes"`
	Results []result `json:"results"`
	Summary []line   `json:"summary"`

	suites []suite
}

// line is one metric of one suite: of a way, or compared.
type line struct {
	Suite  string   `json:"suite"`
	Metric string   `json:"metric"`
	Way    load.Way `json:"way"`
	// To is what Way is divided by: another way, or empty. Without is the suite that it is divided by.
	To      load.Way `json:"to,omitempty"`
	Without string   `json:"without,omitempty"`
	spread
}

// summarize fills the summary.
func (r *report) summarize() {
	for _, s := range r.suites {
		for _, m := range s.metrics() {
			for _, way := range s.ways() {
				values := m.of(r.Results, s.name, way)
				r.add(line{Suite: s.name, Metric: m.Name, Way: way}, spreadOfRounds(values))
				if !m.compared {
					continue
				}
				if s.without != "" {
					r.add(line{Suite: s.name, Metric: m.Name, Way: way, Without: s.without}, ratio(values, m.of(r.Results, s.without, way)))
				}
				if way != load.Sluice {
					r.add(line{Suite: s.name, Metric: m.Name, Way: load.Sluice, To: way}, ratio(m.of(r.Results, s.name, load.Sluice), values))
				}
			}
		}
	}
}

func (r *report) add(l line, s spread) {
	if s.N > 0 {
		l.spread = s
		r.Summary = append(r.Summary, l)
	}
}

// find is a line of the summary.
func (r *report) find(want line) (spread, bool) {
	for _, l := range r.Summary {
		got := l
		got.spread = spread{}
		if got == want {
			return l.spread, true
		}
	}
	return spread{}, false
}

// write writes the report for people.
func (r *report) write(w io.Writer) error {
	fmt.Fprintf(w, "\n%s\n%d round(s) of %v; median [min–max]; ratios are of the same round\n", r.Machine, r.Settings.Rounds, r.Settings.duration)
	for _, s := range r.suites {
		if err := r.writeSuite(w, s); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "\nfaults (lost, duplicated, unmarked, missing, interrupted): %s\n", r.faults())
	for _, n := range r.Notes {
		fmt.Fprintf(w, "NOTE: %s\n", n)
	}
	return nil
}

func (r *report) writeSuite(w io.Writer, s suite) error {
	fmt.Fprintf(w, "\n%s: %s\n", s.name, s.title)
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	head := []string{""}
	for _, m := range s.metrics() {
		head = append(head, m.Name)
	}
	row(t, head)
	for _, way := range s.ways() {
		r.writeRow(t, s, string(way), line{Suite: s.name, Way: way}, false)
	}
	for _, way := range s.ways() {
		if way != load.Sluice {
			r.writeRow(t, s, "sluice : "+string(way), line{Suite: s.name, Way: load.Sluice, To: way}, true)
		}
	}
	if s.without != "" {
		for _, way := range s.ways() {
			r.writeRow(t, s, string(way)+", with : without", line{Suite: s.name, Way: way, Without: s.without}, true)
		}
	}
	return t.Flush()
}

// writeRow writes a row of metrics, if there is anything in it.
func (r *report) writeRow(t io.Writer, s suite, name string, l line, isRatio bool) {
	cells, some := []string{name}, false
	for _, m := range s.metrics() {
		l.Metric = m.Name
		v, ok := r.find(l)
		some = some || ok
		switch {
		case !ok:
			cells = append(cells, "-")
		case isRatio:
			cells = append(cells, v.show("%.2fx", 1))
		default:
			cells = append(cells, v.show(m.format, m.scale))
		}
	}
	if some {
		row(t, cells)
	}
}

func row(t io.Writer, cells []string) { fmt.Fprintf(t, "%s\t\n", strings.Join(cells, "\t")) }

func (s spread) show(format string, scale float64) string {
	median := fmt.Sprintf(format, s.Median*scale)
	if s.N == 1 {
		return median
	}
	return fmt.Sprintf("%s [%s–%s]", median, fmt.Sprintf(format, s.Min*scale), fmt.Sprintf(format, s.Max*scale))
}

// faults are the faults of each way.
func (r *report) faults() string {
	sums := map[load.Way]load.Faults{}
	for _, res := range r.Results {
		sums[res.Way] = sums[res.Way].Plus(res.Faults)
	}
	var out []string
	for _, way := range []load.Way{load.Direct, load.Naive, load.Sluice} {
		f := sums[way]
		out = append(out, fmt.Sprintf("%s %d, %d, %d, %d, %d", way, f.Lost, f.Duplicated, f.Unmarked, f.Missing, f.Interrupted))
	}
	return strings.Join(out, " · ")
}

// verdict is the error of a run whose events were not all there once: a fast gateway that loses some is no gateway.
func (r *report) verdict() error {
	var bad []string
	for _, res := range r.Results {
		f := res.Faults
		if res.Way == load.Naive && r.stalls(res.Suite) {
			f.Missing = 0 // it stands still behind the watch that is not read: that is what the suite shows
		}
		if !f.None() {
			bad = append(bad, fmt.Sprintf("%s, %s, round %d: %+v", res.Suite, res.Way, res.Round, f))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("events were lost, doubled, damaged or late:\n%s", strings.Join(bad, "\n"))
	}
	return nil
}

func (r *report) stalls(name string) bool {
	for _, s := range r.suites {
		if s.name == name {
			return s.neighbour == load.Stalled
		}
	}
	return false
}
