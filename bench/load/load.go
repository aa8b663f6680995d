//go:build unix

package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/bench/process"
)

// Way is how watches reach their upstream.
type Way string

// The ways.
const (
	Direct Way = "direct"
	Naive  Way = "naive"
	Sluice Way = "sluice"
)

// Config is what a client is started with.
type Config struct {
	Way Way `json:"way"`
	// Address and CA are the gateway's.
	Address string `json:"address,omitempty"`
	CA      []byte `json:"ca,omitempty"`
	// Upstream is the API server's URL for watches without a gateway, UpstreamCA its certificate.
	Upstream   string `json:"upstream"`
	UpstreamCA []byte `json:"upstream_ca"`
	// Token is the caller's.
	Token   string  `json:"token"`
	Watches []Watch `json:"watches"`
	// Unread opens the watches and never receives anything.
	Unread bool `json:"unread,omitempty"`
	// Shell is opened in place of watches; nil for none.
	Shell *Shell `json:"shell,omitempty"`
}

// Shell is a process in a container.
type Shell struct {
	// Kind is what it does: upstream.Echo or upstream.Pour.
	Kind string `json:"kind"`
	// Namespace, Pod and Command start it.
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Command   []string `json:"command"`
	// Offer are the subprotocols that an upstream without a gateway is offered.
	Offer []string `json:"offer"`
}

// Measured is what came between two commands.
type Measured struct {
	Seconds float64 `json:"seconds"`
	// Events are those of the watches that are measured, HeavyEvents those of their heavy neighbours.
	Events      uint64 `json:"events"`
	HeavyEvents uint64 `json:"heavy_events"`
	// Bytes are those of a shell that pours.
	Bytes uint64 `json:"bytes,omitempty"`
	// P50, P99 and Max are the latency of the former, from when each was due.
	P50 time.Duration `json:"p50_ns"`
	P99 time.Duration `json:"p99_ns"`
	Max time.Duration `json:"max_ns"`
}

// The commands of a client, beside process.Usages.
const (
	// Open opens the watches; it answers with a time.Duration until each had an event, and at once when nobody reads.
	Open = "open"
	// Begin and End bound what is measured; End answers Measured.
	Begin = "begin"
	End   = "end"
	// Settle is given the last number of each namespace, waits until all have come, and answers Faults.
	Settle = "settle"
	// Close ends the watches.
	Close = "close"
)

// New makes a client, for process.Serve.
func New(ctx context.Context, c Config) (any, process.Commands, error) {
	if c.Shell != nil {
		return struct{}{}, newShell(ctx, c), nil
	}
	g := newGroup(ctx, newMeter(c.Watches))
	l := &loader{config: c, group: g}
	return struct{}{}, process.Commands{
		Open:   l.open,
		Begin:  l.begin,
		End:    l.end,
		Settle: process.With(l.settle),
		Close:  l.close,
	}, nil
}

type loader struct {
	config Config
	group  *group
	began  counts
}

func (l *loader) open(json.RawMessage) (any, error) {
	start := map[Way]func(context.Context, *group, Config) error{Direct: openDirect, Naive: openNaive, Sluice: openSluice}[l.config.Way]
	if l.config.Unread {
		start = openUnread
	}
	ctx, cancel := context.WithTimeout(l.group.ctx, openTimeout)
	defer cancel()
	began := time.Now()
	if start == nil {
		return nil, fmt.Errorf("there is no way %q", l.config.Way)
	}
	if err := start(l.group.ctx, l.group, l.config); err != nil {
		return nil, err
	}
	if l.config.Unread {
		return time.Since(began), nil
	}
	if err := l.group.meter.await(ctx); err != nil {
		return nil, fmt.Errorf("%d of %d watches have no event: %w", l.group.meter.waiting.Load(), len(l.config.Watches), err)
	}
	return time.Since(began), nil
}

func (l *loader) begin(json.RawMessage) (any, error) {
	m := l.group.meter
	m.latency.reset()
	l.began = m.count()
	return nil, m.failure()
}

func (l *loader) end(json.RawMessage) (any, error) {
	m := l.group.meter
	now := m.count()
	q := m.latency.quantiles(0.5, 0.99, 1)
	return Measured{
		Seconds: now.at.Sub(l.began.at).Seconds(), Events: now.measured - l.began.measured, HeavyEvents: now.heavy - l.began.heavy,
		P50: q[0], P99: q[1], Max: q[2],
	}, m.failure()
}

func (l *loader) settle(sent map[string]uint64) (any, error) {
	m := l.group.meter
	missing := m.settle(l.group.ctx, sent)
	f := m.faults()
	f.Missing = missing
	return f, m.failure()
}

func (l *loader) close(json.RawMessage) (any, error) {
	l.group.close()
	return nil, nil
}

// group is what runs for the watches. close ends it and waits for it.
type group struct {
	ctx    context.Context
	cancel context.CancelFunc
	meter  *meter

	running sync.WaitGroup
	closers []func()
}

func newGroup(ctx context.Context, m *meter) *group {
	g := &group{meter: m}
	g.ctx, g.cancel = context.WithCancel(ctx)
	return g
}

// watch runs f, which returns when ctx ends. That it returns before is the end of a watch.
func (g *group) watch(f func() error) {
	g.running.Go(func() {
		if err := f(); g.ctx.Err() == nil {
			g.meter.fail(errors.Join(errors.New("a watch has ended"), err))
		}
	})
}

// later calls f when all watches have ended.
func (g *group) later(f func()) { g.closers = append(g.closers, f) }

func (g *group) close() {
	g.cancel()
	for _, f := range g.closers {
		f()
	}
	g.running.Wait()
}
