//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/bench/load"
	"github.com/sluice-gateway/sluice/bench/process"
)

// result is what one measurement of a suite in one way has shown. Fields that a suite has nothing to say about are 0.
type result struct {
	Suite   string   `json:"suite"`
	Way     load.Way `json:"way"`
	Round   int      `json:"round"`
	Watches int      `json:"watches"`

	// OpenMS is until each watch had its first event.
	OpenMS float64 `json:"open_ms,omitempty"`
	// EventsPerS are delivered, HeavyPerS those of the heavy neighbour among them.
	EventsPerS float64 `json:"events_per_s,omitempty"`
	HeavyPerS  float64 `json:"heavy_events_per_s,omitempty"`
	// MiBPerS are those of a process's output.
	MiBPerS float64 `json:"mib_per_s,omitempty"`
	// CPUPerMiBUS is the gateway's CPU time for a MiB in microseconds.
	CPUPerMiBUS float64 `json:"gateway_cpu_us_per_mib,omitempty"`
	// ClientCPUPerMiBUS is the client's.
	ClientCPUPerMiBUS float64 `json:"client_cpu_us_per_mib,omitempty"`
	// UpstreamCPUPerMiBUS is the upstream's: of a real one, the API server's, the node's and the process's.
	UpstreamCPUPerMiBUS float64 `json:"upstream_cpu_us_per_mib,omitempty"`
	// AllocationsPerMiB are the gateway's.
	AllocationsPerMiB float64 `json:"gateway_allocations_per_mib,omitempty"`
	// Delivered is the part of what was due that was delivered, of watches with a rate.
	Delivered float64 `json:"delivered,omitempty"`
	// P50US, P99US and MaxUS are the latency of an event in microseconds. At saturation it is the length of the queues and means nothing.
	P50US float64 `json:"p50_us,omitempty"`
	P99US float64 `json:"p99_us,omitempty"`
	MaxUS float64 `json:"max_us,omitempty"`

	// CPUPerEventUS is the gateway's CPU time for an event in microseconds, which is seconds for a million.
	CPUPerEventUS float64 `json:"gateway_cpu_us_per_event,omitempty"`
	// AllocationsPerEvent are the gateway's.
	AllocationsPerEvent float64 `json:"gateway_allocations_per_event,omitempty"`
	// RSSBytes is the gateway's at the end, PeakBytes the most it was, BytesPerWatch what RSS has grown by for each watch, and
	// LivePerWatch what of its heap was alive after a collection.
	RSSBytes      int64   `json:"gateway_rss_bytes,omitempty"`
	PeakBytes     int64   `json:"gateway_peak_rss_bytes,omitempty"`
	BytesPerWatch float64 `json:"gateway_bytes_per_watch,omitempty"`
	LivePerWatch  float64 `json:"gateway_live_bytes_per_watch,omitempty"`
	// Goroutines are the gateway's while its watches are idle.
	Goroutines int `json:"gateway_goroutines,omitempty"`

	// OtherCPUs is how many CPUs were busy with something else than the measurement: the noise.
	OtherCPUs float64 `json:"other_cpus"`

	load.Faults
}

// memoryLimit is the gateway's GOMEMLIMIT where its clients read nothing.
const memoryLimit = 512 << 20

// bench measures.
type bench struct {
	settings settings
	log      io.Writer // for progress
}

// rig is the processes of one measurement.
type rig struct {
	bench     *bench
	suite     suite
	up        *process.Child
	gw        *process.Child // nil without a gateway
	cl        *process.Child
	admin     string
	processes []*process.Child
}

// measure measures a suite in one way.
func (b *bench) measure(ctx context.Context, s suite, way load.Way) (res result, err error) {
	res = result{Suite: s.name, Way: way, Watches: s.watches}
	r := &rig{bench: b, suite: s}
	defer func() {
		if err = errors.Join(err, r.stop(ctx)); err != nil {
			err = fmt.Errorf("%s, %s: %w", s.name, way, err)
		}
	}()
	if err := r.start(ctx, way); err != nil {
		return res, err
	}
	switch s.kind {
	case idle:
		err = r.idle(ctx, &res)
	case unread:
		err = r.unread(ctx, &res)
	default:
		err = r.flow(ctx, &res)
	}
	return res, err
}

// start starts the processes.
func (r *rig) start(ctx context.Context, way load.Way) (err error) {
	var up upstreamReady
	role := upstreamRole
	if r.suite.real {
		role = realRole
	}
	if r.up, err = r.child(ctx, role, upstreamConfig{TLS: r.suite.tls}, &up); err != nil {
		return err
	}
	c := load.Config{
		Way: way, Upstream: up.URL, UpstreamCA: up.CA, Token: up.Token, Watches: r.suite.plan(), Unread: r.suite.kind == unread,
		Shell: r.suite.process(up),
	}
	if way != load.Direct {
		var env []string
		if r.suite.kind == unread {
			env = append(env, fmt.Sprintf("GOMEMLIMIT=%d", memoryLimit))
		}
		var gw gatewayReady
		if r.gw, err = r.child(ctx, string(way), gatewayConfig{Upstream: up}, &gw, env...); err != nil {
			return err
		}
		c.Address, c.CA, r.admin = gw.Address, gw.CA, gw.Admin
	}
	r.cl, err = r.child(ctx, clientRole, c, nil)
	return err
}

func (r *rig) child(ctx context.Context, role string, config, ready any, env ...string) (*process.Child, error) {
	c, err := process.Start(ctx, role, config, ready, env...)
	if err == nil {
		r.processes = append(r.processes, c)
	}
	return c, err
}

// stop ends the processes, the client first.
func (r *rig) stop(ctx context.Context) (err error) {
	if r.cl != nil {
		err = r.cl.Call(ctx, load.Close, nil, nil)
	}
	for _, p := range slices.Backward(r.processes) {
		err = errors.Join(err, p.Stop())
	}
	return err
}

// open opens the watches.
func (r *rig) open(ctx context.Context, res *result) error {
	var took time.Duration
	err := r.cl.Call(ctx, load.Open, nil, &took)
	res.OpenMS = milliseconds(took)
	return err
}

// flow measures watches with events.
func (r *rig) flow(ctx context.Context, res *result) error {
	if err := r.open(ctx, res); err != nil {
		return err
	}
	if err := pause(ctx, r.bench.settings.duration/2); err != nil { // until windows, buffers and the collector are at their usual size
		return err
	}
	profiled, err := r.profile(ctx)
	if err != nil {
		return err
	}
	noise := r.listen(ctx)
	before, err := r.usages(ctx)
	if err != nil {
		return err
	}
	if err := r.cl.Call(ctx, load.Begin, nil, nil); err != nil {
		return err
	}
	if err := pause(ctx, r.bench.settings.duration); err != nil {
		return err
	}
	var m load.Measured
	if err := r.cl.Call(ctx, load.End, nil, &m); err != nil {
		return err
	}
	after, err := r.usages(ctx)
	if err != nil {
		return err
	}
	res.OtherCPUs = noise(ctx)
	res.flowed(r.suite, &m, before, after)
	return errors.Join(profiled(), r.settle(ctx, res))
}

// usage is the gateway's; nothing without one.
func (r *rig) usage(ctx context.Context) (process.Usage, error) {
	if r.gw == nil {
		return process.Usage{}, nil
	}
	return r.gw.Usage(ctx)
}

// usages are those of all processes of a measurement.
type usages struct{ upstream, gateway, client process.Usage }

func (r *rig) usages(ctx context.Context) (u usages, err error) {
	if u.upstream, err = r.up.Usage(ctx); err != nil {
		return u, err
	}
	if u.gateway, err = r.usage(ctx); err != nil {
		return u, err
	}
	u.client, err = r.cl.Usage(ctx)
	return u, err
}

func (res *result) flowed(s suite, m *load.Measured, began, ended usages) {
	before, after := began.gateway, ended.gateway
	res.EventsPerS = float64(m.Events+m.HeavyEvents) / m.Seconds
	res.HeavyPerS = float64(m.HeavyEvents) / m.Seconds
	if s.kind == keyboard {
		res.P50US, res.P99US, res.MaxUS = microseconds(m.P50), microseconds(m.P99), microseconds(m.Max)
	}
	if mib := float64(m.Bytes) / (1 << 20); mib > 0 {
		res.MiBPerS = mib / m.Seconds
		res.CPUPerMiBUS = microseconds(after.CPU-before.CPU) / mib
		res.ClientCPUPerMiBUS = microseconds(ended.client.CPU-began.client.CPU) / mib
		res.UpstreamCPUPerMiBUS = microseconds(ended.upstream.CPU-began.upstream.CPU) / mib
		res.AllocationsPerMiB = float64(after.Allocations-before.Allocations) / mib
	}
	if s.rate > 0 {
		res.Delivered = float64(m.Events) / (m.Seconds * float64(s.watches*s.rate))
		res.P50US, res.P99US, res.MaxUS = microseconds(m.P50), microseconds(m.P99), microseconds(m.Max)
	}
	if events := float64(m.Events + m.HeavyEvents); events > 0 {
		res.CPUPerEventUS = microseconds(after.CPU-before.CPU) / events
		res.AllocationsPerEvent = float64(after.Allocations-before.Allocations) / events
	}
	res.RSSBytes, res.PeakBytes = after.RSS, after.Peak
}

// settle stops the upstream and counts what is missing then.
func (r *rig) settle(ctx context.Context, res *result) error {
	var ignored []string
	for _, w := range r.suite.plan() {
		if w.Role == load.Stalled {
			ignored = append(ignored, w.Namespace)
		}
	}
	var sent map[string]uint64
	if err := r.up.Call(ctx, stopCommand, ignored, &sent); err != nil {
		return err
	}
	return r.cl.Call(ctx, load.Settle, sent, &res.Faults)
}

// idle measures what a watch without events costs.
func (r *rig) idle(ctx context.Context, res *result) error {
	before, err := r.collected(ctx)
	if err != nil {
		return err
	}
	noise := r.listen(ctx)
	if err := r.open(ctx, res); err != nil {
		return err
	}
	res.OtherCPUs = noise(ctx)
	// The last acknowledgements are sent, and what dialling needed is given back, within so long or not at all.
	if err := pause(ctx, 2*r.bench.settings.duration+time.Duration(r.suite.watches)*200*time.Microsecond); err != nil {
		return err
	}
	after, err := r.usage(ctx)
	if err != nil {
		return err
	}
	collected, err := r.collected(ctx)
	if err != nil {
		return err
	}
	n := float64(r.suite.watches)
	res.BytesPerWatch = float64(after.RSS-before.RSS) / n
	res.LivePerWatch = (float64(collected.Live) - float64(before.Live)) / n
	res.RSSBytes, res.PeakBytes, res.Goroutines = after.RSS, after.Peak, after.Goroutines
	return errors.Join(r.heap(ctx), r.settle(ctx, res))
}

// collected is the gateway's usage after it has collected its garbage; nothing without one.
func (r *rig) collected(ctx context.Context) (u process.Usage, err error) {
	if r.gw == nil {
		return u, nil
	}
	err = r.gw.Call(ctx, collectCommand, nil, &u)
	return u, err
}

// unread measures how much a gateway holds for clients that take nothing.
func (r *rig) unread(ctx context.Context, res *result) error {
	noise := r.listen(ctx)
	if err := r.open(ctx, res); err != nil {
		return err
	}
	if err := pause(ctx, 4*r.bench.settings.duration); err != nil {
		return err
	}
	if err := r.cl.Call(ctx, load.End, nil, nil); err != nil { // it fails if a session has ended: then nothing was held for it
		return err
	}
	res.OpenMS = 0 // it only sent
	res.OtherCPUs = noise(ctx)
	after, err := r.usage(ctx)
	if err != nil {
		return err
	}
	res.RSSBytes, res.PeakBytes = after.RSS, after.Peak
	if res.Way == load.Sluice && after.Peak > memoryLimit {
		return fmt.Errorf("the gateway has held %d MiB, more than its limit of %d MiB", after.Peak>>20, memoryLimit>>20)
	}
	return nil
}

// listen returns a function that says how many CPUs something else has kept busy since.
func (r *rig) listen(ctx context.Context) func(context.Context) float64 {
	began, busy, own := time.Now(), busyCPU(), r.ownCPU(ctx)
	return func(ctx context.Context) float64 {
		others := busyCPU() - busy - (r.ownCPU(ctx) - own)
		return max(0, others.Seconds()/time.Since(began).Seconds())
	}
}

// ownCPU is what the measurement itself has used.
func (r *rig) ownCPU(ctx context.Context) time.Duration {
	sum := process.ReadUsage().CPU
	for _, p := range r.processes {
		if u, err := p.Usage(ctx); err == nil { // else the measurement fails for the same reason
			sum += u.CPU
		}
	}
	return sum
}

// profile keeps the CPU profiles of Sluice and of its client in the measured time, and what Sluice has allocated, if that is wanted. What it
// returns waits for it.
func (r *rig) profile(ctx context.Context) (wait func() error, err error) {
	if r.bench.settings.profiles == "" || r.admin == "" {
		return func() error { return nil }, nil
	}
	client, err := r.cl.Profile(ctx, r.file("client"))
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 1)
	go func() {
		failed <- r.download(ctx, fmt.Sprintf("profile?seconds=%d", max(1, int(r.bench.settings.duration.Seconds()))), "cpu")
	}()
	return func() error { return errors.Join(client(), <-failed, r.download(ctx, "allocs", "allocs")) }, nil
}

// file is where a profile is kept.
func (r *rig) file(kind string) string {
	return filepath.Join(r.bench.settings.profiles, r.suite.name+"."+kind+".pprof")
}

// heap keeps what of Sluice's heap is alive, if that is wanted.
func (r *rig) heap(ctx context.Context) error { return r.download(ctx, "heap?gc=1", "heap") }

// download keeps a profile of Sluice as SUITE.KIND.pprof, if that is wanted.
func (r *rig) download(ctx context.Context, profile, kind string) (err error) {
	if r.bench.settings.profiles == "" || r.admin == "" {
		return nil
	}
	address := fmt.Sprintf("http://%s/debug/pprof/%s", r.admin, profile)
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(ask)
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("profile: %s", answer.Status)
	}
	f, err := os.Create(r.file(kind))
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, answer.Body)
	return err
}

// pause waits for d or ctx's end.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
