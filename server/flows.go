package server

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-gateway/sluice/mux"
)

// flows counts the bytes of all channels. Those of an open channel are read when somebody asks, since nothing is done for metrics where bytes
// flow; those of one that has ended are added up. It implements prometheus.Collector.
type flows struct {
	desc *prometheus.Desc

	// Guards everything below, and a channel's step from one to the other: its bytes are never missing and never there twice, because a
	// counter does not fall.
	mu    sync.Mutex
	open  map[*mux.Channel]string // its kind
	ended map[string]*flow        // by kind
}

// flow is payload bytes from clients and to them.
type flow struct{ in, out uint64 }

func newFlows() *flows {
	f := &flows{
		desc: prometheus.NewDesc("sluice_channel_bytes_total", "Payload bytes of channels, in from clients and out to them.",
			[]string{"kind", "direction"}, nil),
		open: map[*mux.Channel]string{}, ended: map[string]*flow{},
	}
	for _, kind := range kinds {
		f.ended[kind] = &flow{}
	}
	return f
}

func (f *flows) add(kind string, c *mux.Channel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open[c] = kind
}

func (f *flows) remove(c *mux.Channel) {
	f.mu.Lock()
	defer f.mu.Unlock()
	kind, ok := f.open[c]
	if !ok {
		return
	}
	delete(f.open, c)
	count(f.ended, kind, c)
}

// count adds a channel's bytes to those of its kind.
func count(to map[string]*flow, kind string, c *mux.Channel) {
	if to[kind] == nil {
		to[kind] = &flow{}
	}
	in, out := c.Bytes()
	to[kind].in += in
	to[kind].out += out
}

// Describe implements prometheus.Collector.
func (f *flows) Describe(ch chan<- *prometheus.Desc) { ch <- f.desc }

// Collect implements prometheus.Collector.
func (f *flows) Collect(ch chan<- prometheus.Metric) {
	for kind, n := range f.now() {
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, float64(n.in), kind, "in")
		ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, float64(n.out), kind, "out")
	}
}

// now is the bytes by kind, of channels that have ended and of those that are open.
func (f *flows) now() map[string]*flow {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := make(map[string]*flow, len(f.ended))
	for kind, n := range f.ended {
		both := *n
		sum[kind] = &both
	}
	for c, kind := range f.open {
		count(sum, kind, c)
	}
	return sum
}
