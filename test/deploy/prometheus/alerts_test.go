package prometheus

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
)

// cases is, for each alert, what makes it fire and what does not. The series are scraped once a minute; what is judged is the last minute.
var cases = map[string]struct{ fires, quiet [][]string }{
	"SluiceAbsent": {
		fires: [][]string{{`up{job="other"} 1x20`}, {`sluice_build_info{instance="a"} 1x10 _x15`}},
		quiet: [][]string{
			{`sluice_build_info{instance="a"} 1x20`},
			{`sluice_build_info{instance="a"} 1x10 _x8`}, // Prometheus looks five minutes back; the rest is not long
		},
	},
	"SluicePanicked": {
		fires: [][]string{{`sluice_panics_total{instance="a"} 0x10 1x5`}},
		quiet: [][]string{{`sluice_panics_total{instance="a"} 0x30`}, {`sluice_panics_total{instance="a"} 0x10 1x30`}},
	},
	"SluiceIssuerUnavailable": {
		fires: [][]string{{`sluice_calls_refused_total{instance="a", reason="ISSUER_UNAVAILABLE"} 0x10 1+1x15`}},
		quiet: [][]string{
			{`sluice_calls_refused_total{instance="a", reason="INVALID_TOKEN"} 0+10x30`},
			{`sluice_calls_refused_total{instance="a", reason="ISSUER_UNAVAILABLE"} 0x20 1x3`}, // once
		},
	},
	"SluiceClusterUnreachable": {
		fires: [][]string{
			dials("0+1x30", "0+2x30"),
			{`sluice_upstream_dials_total{instance="a", cluster="c", code="Unavailable"} 0+1x30`},
		},
		quiet: [][]string{
			dials("0+3x30", "0+2x30"),
			dials("0x30", "0x30"), // nobody dials
			{`sluice_upstream_dials_total{instance="a", cluster="c", code="PermissionDenied"} 0+5x30`},
		},
	},
	"SluiceDialsQueue": {
		fires: [][]string{limited("limits.cluster_dials", 64, `sluice_upstream_dials{instance="a", cluster="c"} 65x20`,
			`sluice_upstream_dials{instance="a", cluster="other"} 1x20`)},
		quiet: [][]string{limited("limits.cluster_dials", 64, `sluice_upstream_dials{instance="a", cluster="c"} 64x20`)},
	},
	"SluiceResyncs": {
		fires: [][]string{resyncs("0+2x60", "20x60")},
		quiet: [][]string{
			resyncs("0x10 500x60", "1000x70"), // all watches once, as after an upgrade of the API server
			resyncs("0+1x60", "20x60"),
			resyncs("0+0.5x70", "1x70"), // few
		},
	},
	"SluiceHeldBytesHigh": {
		fires: [][]string{limited("limits.held_bytes", 1000, `sluice_held_bytes{instance="a"} 850x20`)},
		quiet: [][]string{
			limited("limits.held_bytes", 1000, `sluice_held_bytes{instance="a"} 750x20`),
			limited("limits.held_bytes", 1000, `sluice_held_bytes{instance="a"} 0x20 950x5`), // a burst
		},
	},
	"SluiceSessionsNearLimit": {
		fires: [][]string{limited("limits.sessions", 100, `sluice_sessions{instance="a"} 90x20`)},
		quiet: [][]string{limited("limits.sessions", 100, `sluice_sessions{instance="a"} 80x20`)},
	},
	"SluiceChannelsNearLimit": {
		fires: [][]string{limited("limits.channels", 100, `sluice_channels{instance="a", kind="watch"} 50x20`, `sluice_channels{instance="a", kind="logs"} 40x20`)},
		quiet: [][]string{limited("limits.channels", 100, `sluice_channels{instance="a", kind="watch"} 50x20`, `sluice_channels{instance="b", kind="watch"} 40x20`)},
	},
	"SluiceFilesNearLimit": {
		fires: [][]string{{`process_open_fds{instance="a", job="s"} 90x20`, `process_max_fds{instance="a", job="s"} 100x20`, `sluice_build_info{instance="a", job="s"} 1x20`}},
		quiet: [][]string{
			{`process_open_fds{instance="a", job="s"} 70x20`, `process_max_fds{instance="a", job="s"} 100x20`, `sluice_build_info{instance="a", job="s"} 1x20`},
			{`process_open_fds{instance="a", job="s"} 90x20`, `process_max_fds{instance="a", job="s"} 100x20`}, // another program
		},
	},
	"SluiceMemoryHigh": {
		fires: [][]string{{`process_resident_memory_bytes{instance="a", job="s"} 120x20`, `go_gc_gomemlimit_bytes{instance="a", job="s"} 100x20`, `sluice_build_info{instance="a", job="s"} 1x20`}},
		quiet: [][]string{
			{`process_resident_memory_bytes{instance="a", job="s"} 105x20`, `go_gc_gomemlimit_bytes{instance="a", job="s"} 100x20`, `sluice_build_info{instance="a", job="s"} 1x20`},
			{`process_resident_memory_bytes{instance="a", job="s"} 120x20`, `go_gc_gomemlimit_bytes{instance="a", job="s"} 9.2e18x20`, `sluice_build_info{instance="a", job="s"} 1x20`},
		},
	},
	"SluiceCertificateExpires": {
		fires: [][]string{{`sluice_certificate_expiry_timestamp_seconds{instance="a"} 604000x90`}},
		quiet: [][]string{
			{`sluice_certificate_expiry_timestamp_seconds{instance="a"} 700000x90`},
			{`sluice_certificate_expiry_timestamp_seconds{instance="a"} 604000x30 9000000x60`}, // it was renewed
		},
	},
	"SluiceDrainsLong": {
		fires: [][]string{{`sluice_draining{instance="a"} 0x5 1x20`}},
		quiet: [][]string{{`sluice_draining{instance="a"} 0x30`}, {`sluice_draining{instance="a"} 0x20 1x3`}},
	},
}

// dials are good and bad dials of one cluster.
func dials(good, bad string) []string {
	return []string{
		`sluice_upstream_dials_total{instance="a", cluster="c", code="OK"} ` + good,
		`sluice_upstream_dials_total{instance="a", cluster="c", code="Unavailable"} ` + bad,
	}
}

// limited are series beside a limit of the replicas a and b.
func limited(limit string, value int, all ...string) []string {
	for _, instance := range []string{"a", "b"} {
		all = append(all, fmt.Sprintf("sluice_limit{instance=%q, limit=%q} %dx20", instance, limit, value))
	}
	return all
}

// resyncs are resyncs of one replica, and its channels.
func resyncs(n, channels string) []string {
	return []string{
		`sluice_channel_states_total{instance="a", kind="watch", state="RESYNC_BEGIN"} ` + n,
		`sluice_channels{instance="a", kind="watch"} ` + channels,
	}
}

// firing says whether the alert fires at the last scrape: its expression has had a result for as long as it says, with the same labels.
func firing(t *testing.T, rule rulefmt.Rule, notation []string) bool {
	t.Helper()
	all, scrapes := scraped(t, notation...)
	end := time.Unix(0, 0).Add(time.Duration(scrapes-1) * interval)
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: promQL})
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Errorf("close the engine: %v", err)
		}
	})
	var pending []labels.Labels // since the first of the evaluations that count
	for at := end.Add(-time.Duration(rule.For)); !at.After(end); at = at.Add(interval) {
		q, err := engine.NewInstantQuery(t.Context(), all, nil, rule.Expr, at)
		if err != nil {
			t.Fatal(err)
		}
		result := q.Exec(t.Context())
		vector, err := result.Vector()
		if err != nil {
			t.Fatal(err)
		}
		var now []labels.Labels
		for _, s := range vector {
			now = append(now, s.Metric)
		}
		q.Close()
		if at.Equal(end.Add(-time.Duration(rule.For))) {
			pending = now
		}
		pending = slices.DeleteFunc(pending, func(l labels.Labels) bool {
			return !slices.ContainsFunc(now, func(n labels.Labels) bool { return labels.Equal(l, n) })
		})
	}
	return len(pending) > 0
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	all := alerts(t)
	for _, name := range names(t) {
		c := cases[name]
		if len(c.fires) == 0 || len(c.quiet) == 0 {
			t.Errorf("no case makes %s fire, or none keeps it quiet", name)
		}
		for _, notation := range c.fires {
			if !firing(t, all[name], notation) {
				t.Errorf("%s keeps quiet with\n%q", name, notation)
			}
		}
		for _, notation := range c.quiet {
			if firing(t, all[name], notation) {
				t.Errorf("%s fires with\n%q", name, notation)
			}
		}
	}
	for name := range cases {
		if all[name].Alert == "" {
			t.Errorf("there is no alert %s", name)
		}
	}
}
