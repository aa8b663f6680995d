package server

import (
	"crypto/tls"
	"crypto/x509"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// replica tells Prometheus how the replica is at the moment of the scrape: its limits, what is detached, its certificate, its version. It
// implements prometheus.Collector.
type replica struct {
	// Immutable after newReplica.
	server                                        *Server
	build, limit, draining, detached, certificate *prometheus.Desc
}

func newReplica(s *Server) *replica {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &replica{
		server:   s,
		build:    desc("sluice_build_info", "1; the labels say what the binary is.", "version", "goversion"),
		limit:    desc("sluice_limit", "The replica's limits, by the name that a refusal has in Status.limit.", "limit"),
		draining: desc("sluice_draining", "1 when the replica lets its sessions go and takes no new ones."),
		detached: desc("sluice_sessions_detached", "Sessions without a link: clients that are away and may come back."),
		certificate: desc("sluice_certificate_expiry_timestamp_seconds",
			"When the certificate that is shown to clients, or one of its intermediates, expires."),
	}
}

// Describe implements prometheus.Collector.
func (r *replica) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{r.build, r.limit, r.draining, r.detached, r.certificate} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (r *replica) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(r.build, 1, r.server.cfg.Version, runtime.Version())
	for name, v := range r.server.cfg.Limits.ofReplica() {
		gauge(r.limit, float64(v), name)
	}
	draining := 0.0
	if r.server.draining.Err() != nil {
		draining = 1
	}
	gauge(r.draining, draining)
	gauge(r.detached, float64(r.server.sessions.away()))
	if t := expiry(r.server.cfg.TLS); !t.IsZero() {
		gauge(r.certificate, float64(t.Unix()))
	}
}

// ofReplica is the limits of all sessions together, by name.
func (l Limits) ofReplica() map[string]int {
	return map[string]int{
		"limits.sessions": l.Sessions, "limits.channels": l.Channels, "limits.held_bytes": l.HeldBytes, "limits.cluster_dials": l.ClusterDials,
	}
}

// expiry is when the first of the certificates that c shows expires; zero if that cannot be told.
func expiry(c *tls.Config) (first time.Time) {
	shown := c.Certificates
	if c.GetCertificate != nil {
		if current, err := c.GetCertificate(&tls.ClientHelloInfo{}); err == nil && current != nil {
			shown = []tls.Certificate{*current}
		}
	}
	if len(shown) == 0 {
		return time.Time{}
	}
	for _, der := range shown[0].Certificate {
		if one, err := x509.ParseCertificate(der); err == nil && (first.IsZero() || one.NotAfter.Before(first)) {
			first = one.NotAfter
		}
	}
	return first
}

// away is how many sessions have no link.
func (ss *sessions) away() (n int) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for ses := range ss.all {
		if ses.links == 0 {
			n++
		}
	}
	return n
}
