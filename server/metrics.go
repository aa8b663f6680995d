package server

import (
	"strings"
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// metrics is what the admin port tells Prometheus of what happens; replica is what it tells of how things are. No label holds what a caller
// chose: kinds, codes, reasons and states are words of the protocol, and clusters those of the configuration. All of it is safe for
// concurrent use. deploy/prometheus/metrics.txt lists every metric and is checked against a gateway that ran.
type metrics struct {
	registry *prometheus.Registry
	rpc      *grpcprom.ServerMetrics

	sessions prometheus.Gauge
	ended    *prometheus.CounterVec // reason
	resumes  *prometheus.CounterVec // result

	channels *prometheus.GaugeVec   // kind
	opened   *prometheus.CounterVec // kind
	closed   *prometheus.CounterVec // kind, code
	states   *prometheus.CounterVec // kind, state
	unopened *prometheus.CounterVec // reason
	flows    *flows                 // kind, direction

	dials   *prometheus.CounterVec   // cluster, code
	dialing *prometheus.GaugeVec     // cluster
	dialed  *prometheus.HistogramVec // cluster

	refused *prometheus.CounterVec // reason
	panics  prometheus.Counter
}

func newMetrics(held func() int) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		rpc:      grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram()),
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "sluice_sessions", Help: "Sessions, attached or detached.",
		}),
		ended:    counters("sluice_sessions_ended_total", "Sessions that ended, by reason.", "reason"),
		resumes:  counters("sluice_session_resumes_total", "Attempts to resume a session, by result.", "result"),
		channels: gauges("sluice_channels", "Open channels.", "kind"),
		opened:   counters("sluice_channels_opened_total", "Channels that clients opened.", "kind"),
		closed:   counters("sluice_channels_closed_total", "Channels that ended, by the code they ended with.", "kind", "code"),
		states:   counters("sluice_channel_states_total", "What befell open channels: lost upstreams, resyncs, gaps.", "kind", "state"),
		unopened: counters("sluice_channels_refused_total", "Channels that ended before their upstream stood, by reason.", "reason"),
		flows:    newFlows(),
		dials:    counters("sluice_upstream_dials_total", "WebSockets dialled to API servers, by the code of the answer.", "cluster", "code"),
		dialing:  gauges("sluice_upstream_dials", "Dials that are under way or wait for their turn.", "cluster"),
		dialed: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sluice_upstream_dial_seconds", Help: "Time from the wish to dial to the API server's answer, whatever it was.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"cluster"}),
		refused: counters("sluice_calls_refused_total", "Calls without an accepted credential, by reason.", "reason"),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_panics_total", Help: "Panics that ended one call or channel. Anything but 0 is a bug.",
		}),
	}
	heldBytes := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "sluice_held_bytes", Help: "Bytes that channels hold to be sent or acknowledged.",
	}, func() float64 { return float64(held()) })
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.rpc,
		m.sessions, m.ended, m.resumes, m.channels, m.opened, m.closed, m.states, m.unopened, m.flows,
		m.dials, m.dialing, m.dialed, m.refused, m.panics, heldBytes)
	m.begin()
	return m
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

// Results of a resume.
const (
	resumed         = "resumed"
	resumeNotFound  = "not_found" // the client gets a new session
	resumeForbidden = "refused"
)

// kinds are those of channels, as kindOf names them.
var kinds = []string{"watch", "logs", "exec", "attach", "port-forward"}

// begin makes the series that can be known from the beginning: what has not happened yet is 0 and not unknown, so that the first time is a
// rise that an alert can see.
func (m *metrics) begin() {
	for number := range sluicev1.Reason_name {
		reason := status.ReasonName(sluicev1.Reason(number))
		for _, v := range []*prometheus.CounterVec{m.ended, m.unopened, m.refused} {
			v.WithLabelValues(reason)
		}
	}
	for _, result := range []string{resumed, resumeNotFound, resumeForbidden} {
		m.resumes.WithLabelValues(result)
	}
	for _, kind := range kinds {
		m.channels.WithLabelValues(kind)
		m.opened.WithLabelValues(kind)
		m.closed.WithLabelValues(kind, codes.OK.String())
		for number := range sluicev1.ChannelState_Kind_name {
			m.states.WithLabelValues(kind, stateName(sluicev1.ChannelState_Kind(number)))
		}
	}
}

// serve makes the series of the configured clusters.
func (m *metrics) serve(clusters []string) {
	for _, name := range clusters {
		m.dialing.WithLabelValues(name)
		m.dials.WithLabelValues(name, codes.OK.String())
		m.dialed.WithLabelValues(name)
	}
}

// stateName is a state as a label: "RESYNC_BEGIN".
func stateName(k sluicev1.ChannelState_Kind) string { return strings.TrimPrefix(k.String(), "KIND_") }

// resumption counts an attempt to resume a session: found says whether there was one.
func (m *metrics) resumption(found bool, err error) {
	result := resumeNotFound
	switch {
	case err != nil:
		result = resumeForbidden
	case found:
		result = resumed
	}
	m.resumes.WithLabelValues(result).Inc()
}

// sessionEnded counts a session that is over.
func (m *metrics) sessionEnded(err *status.Error) {
	var reason sluicev1.Reason
	if err != nil {
		reason = err.Reason
	}
	m.ended.WithLabelValues(status.ReasonName(reason)).Inc()
}

// channelOpened counts a channel that a client opened. Its bytes are counted from now on, as they flow.
func (m *metrics) channelOpened(kind string, c *mux.Channel) {
	m.opened.WithLabelValues(kind).Inc()
	m.channels.WithLabelValues(kind).Inc()
	m.flows.add(kind, c)
}

// channelState counts what befell an open channel.
func (m *metrics) channelState(kind string, s *sluicev1.ChannelState) {
	m.states.WithLabelValues(kind, stateName(s.GetKind())).Inc()
}

// channelClosed counts the end of what channelOpened counted. stood says whether its upstream ever did.
func (m *metrics) channelClosed(kind string, c *mux.Channel, stood bool, err *status.Error) {
	code := codes.OK
	if err != nil {
		code = err.Code
	}
	m.channels.WithLabelValues(kind).Dec()
	m.closed.WithLabelValues(kind, code.String()).Inc()
	m.flows.remove(c)
	if !stood && err != nil && code != codes.Canceled {
		m.openRefused(err)
	}
}

// openRefused counts a channel that never came to be.
func (m *metrics) openRefused(err *status.Error) {
	m.unopened.WithLabelValues(status.ReasonName(err.Reason)).Inc()
}

// dial counts a dial to a cluster; done is called with how it ended.
func (m *metrics) dial(cluster string) (done func(error)) {
	began := time.Now()
	m.dialing.WithLabelValues(cluster).Inc()
	return func(err error) {
		code := codes.OK
		if err != nil {
			code = status.From(err).Code
		}
		m.dialing.WithLabelValues(cluster).Dec()
		m.dials.WithLabelValues(cluster, code.String()).Inc()
		m.dialed.WithLabelValues(cluster).Observe(time.Since(began).Seconds())
	}
}
