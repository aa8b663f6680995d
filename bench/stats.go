//go:build unix

package main

import (
	"slices"

	"github.com/sluice-gateway/sluice/bench/load"
)

// spread is the median of some values, and the least and greatest of them.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return spread{Median: (v[(n-1)/2] + v[n/2]) / 2, Min: v[0], Max: v[n-1], N: n}
}

// metric is one number of a result.
type metric struct {
	Name string                        `json:"name"`
	get  func(*result) (float64, bool) // false where the result says nothing
	// format is how it is shown, scale what it is multiplied with for that.
	format string
	scale  float64
	// compared says that ratios of it mean something.
	compared bool
}

// measured is a metric that is 0 where it was not measured.
func measured(name, format string, scale float64, compared bool, get func(*result) float64) metric {
	return metric{Name: name, format: format, scale: scale, compared: compared, get: func(r *result) (float64, bool) {
		v := get(r)
		return v, v != 0
	}}
}

// gateways is a metric of what has one.
func gateways(name, format string, scale float64, get func(*result) float64) metric {
	m := measured(name, format, scale, true, get)
	m.get = func(r *result) (float64, bool) {
		v := get(r)
		return v, v != 0 && r.Way != load.Direct
	}
	return m
}

var (
	eventsPerS = measured("events/s", "%.0f", 1, true, func(r *result) float64 { return r.EventsPerS })
	cpuPerM    = gateways("gateway CPU us/event", "%.2f", 1, func(r *result) float64 { return r.CPUPerEventUS })
	allocs     = gateways("allocations/event", "%.2f", 1, func(r *result) float64 { return r.AllocationsPerEvent })
	rss        = gateways("gateway RSS MiB", "%.0f", 1.0/(1<<20), func(r *result) float64 { return float64(r.RSSBytes) })
	p50        = measured("p50 us", "%.0f", 1, true, func(r *result) float64 { return r.P50US })
	p99        = measured("p99 us", "%.0f", 1, true, func(r *result) float64 { return r.P99US })
	delivered  = metric{Name: "delivered %", format: "%.1f", scale: 100, get: func(r *result) (float64, bool) { return r.Delivered, true }}
	heavyPerS  = measured("neighbour's events/s", "%.0f", 1, false, func(r *result) float64 { return r.HeavyPerS })
	openMS     = measured("open ms", "%.0f", 1, true, func(r *result) float64 { return r.OpenMS })
	perWatch   = gateways("RSS bytes/watch", "%.0f", 1, func(r *result) float64 { return r.BytesPerWatch })
	livePer    = gateways("live bytes/watch", "%.0f", 1, func(r *result) float64 { return r.LivePerWatch })
	mibPerS    = measured("MiB/s", "%.0f", 1, true, func(r *result) float64 { return r.MiBPerS })
	cpuPerMiB  = gateways("gateway CPU us/MiB", "%.0f", 1, func(r *result) float64 { return r.CPUPerMiBUS })
	clientMiB  = measured("client CPU us/MiB", "%.0f", 1, true, func(r *result) float64 { return r.ClientCPUPerMiBUS })
	upMiB      = measured("upstream CPU us/MiB", "%.0f", 1, false, func(r *result) float64 { return r.UpstreamCPUPerMiBUS })
	allocsMiB  = gateways("allocations/MiB", "%.1f", 1, func(r *result) float64 { return r.AllocationsPerMiB })
	peak       = gateways("peak RSS MiB", "%.0f", 1.0/(1<<20), func(r *result) float64 { return float64(r.PeakBytes) })
)

// metrics are what is shown of a suite.
func (s suite) metrics() []metric {
	switch {
	case s.neighbour == load.Heavy:
		return []metric{p50, p99, delivered, heavyPerS, cpuPerM}
	case s.kind == latency:
		return []metric{p50, p99, delivered, cpuPerM}
	case s.kind == idle:
		return []metric{openMS, perWatch, livePer}
	case s.kind == keyboard:
		return []metric{p50, p99, cpuPerM, allocs}
	case s.kind == bulk:
		return []metric{mibPerS, upMiB, cpuPerMiB, clientMiB, allocsMiB, rss}
	case s.kind == unread:
		return []metric{peak, rss}
	}
	return []metric{eventsPerS, cpuPerM, allocs, rss}
}

// of are the values of a metric, by round.
func (m metric) of(results []result, suite string, way load.Way) map[int]float64 {
	out := map[int]float64{}
	for i := range results {
		r := &results[i]
		if r.Suite != suite || r.Way != way {
			continue
		}
		if v, ok := m.get(r); ok {
			out[r.Round] = v
		}
	}
	return out
}

func spreadOfRounds(byRound map[int]float64) spread {
	var values []float64
	for _, v := range byRound {
		values = append(values, v)
	}
	return spreadOf(values)
}

// ratio is a by b, each round's by the same round's: the machine drifts from one to the next.
func ratio(a, b map[int]float64) spread {
	var values []float64
	for round, v := range a {
		if w, ok := b[round]; ok && w != 0 {
			values = append(values, v/w)
		}
	}
	return spreadOf(values)
}
