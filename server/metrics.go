package server

import (
	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics is what the admin port tells Prometheus. No label holds what a caller chose.
type metrics struct {
	registry *prometheus.Registry
	rpc      *grpcprom.ServerMetrics

	sessions prometheus.Gauge
	channels *prometheus.GaugeVec   // kind
	opened   *prometheus.CounterVec // kind
	closed   *prometheus.CounterVec // kind, code
	bytes    *prometheus.CounterVec // kind, direction
	refused  *prometheus.CounterVec // reason
	panics   prometheus.Counter
}

func newMetrics(held func() int) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		rpc:      grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram()),
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_sessions", Help: "Sessions, attached or detached.",
		}),
		channels: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_channels", Help: "Open channels.",
		}, []string{"kind"}),
		opened: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_channels_opened_total", Help: "Channels that clients opened.",
		}, []string{"kind"}),
		closed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_channels_closed_total", Help: "Channels that ended, by the code they ended with.",
		}, []string{"kind", "code"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_channel_bytes_total", Help: "Payload bytes of ended channels, in from clients and out to them.",
		}, []string{"kind", "direction"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_calls_refused_total", Help: "Calls without an accepted credential, by reason.",
		}, []string{"reason"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_panics_total", Help: "Panics that ended one call or channel. Anything but 0 is a bug.",
		}),
	}
	heldBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_held_bytes", Help: "Bytes that channels hold to be sent or acknowledged.",
	}, func() float64 { return float64(held()) })
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.rpc,
		m.sessions, m.channels, m.opened, m.closed, m.bytes, m.refused, m.panics, heldBytes)
	return m
}
