package prometheus

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"sigs.k8s.io/yaml"
)

// file is a file of the repository.
func file(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// promQL is the language as a Prometheus without feature flags speaks it.
var promQL = parser.NewParser(parser.Options{})

// alerts are the rules, by name.
func alerts(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.Parse(file(t, "deploy/prometheus/alerts.yaml"), false, model.UTF8Validation, promQL, slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatalf("the rules: %v", errs)
	}
	out := map[string]rulefmt.Rule{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			if _, twice := out[r.Alert]; twice || r.Alert == "" {
				t.Errorf("there are two alerts %q, or a rule that is none", r.Alert)
			}
			out[r.Alert] = r
		}
	}
	return out
}

// queries are the dashboard's, by title of the panel.
func queries(t *testing.T) map[string][]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
		Templating struct {
			List []struct{ Type, Definition string }
		}
	}
	if err := json.Unmarshal(file(t, "deploy/grafana/sluice.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks nothing", p.Title)
		}
		for _, target := range p.Targets {
			out[p.Title] = append(out[p.Title], target.Expr)
		}
	}
	for _, v := range dashboard.Templating.List {
		if q, ok := strings.CutPrefix(v.Definition, "label_values("); ok {
			metric, label, _ := strings.Cut(strings.TrimSuffix(q, ")"), ",")
			out["variables"] = append(out["variables"], "count by ("+label+") ("+metric+")")
		}
	}
	return out
}

// variables are what Grafana puts values in the place of.
var variables = strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*")

// metric is one that a gateway has: its labels, and those that Prometheus gives every series.
type metric struct {
	kind   string
	labels []string
}

// metrics is deploy/prometheus/metrics.txt, which is compared with a gateway by package deploy. A histogram is its three series.
func metrics(t *testing.T) map[string]metric {
	t.Helper()
	out := map[string]metric{}
	for line := range strings.SplitSeq(string(file(t, "deploy/prometheus/metrics.txt")), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] == "#" {
			continue
		}
		m := metric{kind: fields[1], labels: []string{"instance", "job"}}
		if len(fields) > 2 {
			m.labels = append(m.labels, strings.Split(fields[2], ",")...)
		}
		if m.kind != "histogram" {
			out[fields[0]] = m
			continue
		}
		out[fields[0]+"_sum"], out[fields[0]+"_count"] = m, m
		m.labels = append(slices.Clone(m.labels), "le")
		out[fields[0]+"_bucket"] = m
	}
	return out
}

// wrong says what an expression asks for that no gateway has.
func wrong(known map[string]metric, expr parser.Expr) (found []string) {
	labels := map[string]bool{}
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		s, ok := n.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		m, ok := known[s.Name]
		if !ok {
			found = append(found, "there is no metric "+s.Name)
			return nil
		}
		for _, l := range m.labels {
			labels[l] = true
		}
		for _, matcher := range s.LabelMatchers {
			if matcher.Name != model.MetricNameLabel && !slices.Contains(m.labels, matcher.Name) {
				found = append(found, s.Name+" has no label "+matcher.Name)
			}
		}
		return nil
	})
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		var named []string
		switch n := n.(type) {
		case *parser.AggregateExpr:
			named = n.Grouping
		case *parser.BinaryExpr:
			if n.VectorMatching != nil {
				named = n.VectorMatching.MatchingLabels
			}
		}
		for _, l := range named {
			if !labels[l] {
				found = append(found, "no metric of it has a label "+l)
			}
		}
		return nil
	})
	return found
}

func TestTheAlertsAskForWhatThereIs(t *testing.T) {
	known := metrics(t)
	for name, rule := range alerts(t) {
		expr, err := promQL.ParseExpr(rule.Expr)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range wrong(known, expr) {
			t.Errorf("%s: %s", name, w)
		}
	}
}

func TestTheDashboardAsksForWhatThereIs(t *testing.T) {
	known := metrics(t)
	for title, all := range queries(t) {
		for _, q := range all {
			expr, err := promQL.ParseExpr(variables.Replace(q))
			if err != nil {
				t.Errorf("%s: %v", title, err)
				continue
			}
			for _, w := range wrong(known, expr) {
				t.Errorf("%s: %s in %s", title, w, q)
			}
		}
	}
}

// TestTheDashboardShowsEveryMetricOfOurs, or the metric is of no use to who operates a gateway.
func TestTheDashboardShowsEveryMetricOfOurs(t *testing.T) {
	var shown strings.Builder
	for _, all := range queries(t) {
		shown.WriteString(strings.Join(all, "\n"))
	}
	for name := range metrics(t) {
		if !strings.HasPrefix(name, "sluice_") || strings.HasSuffix(name, "_sum") || strings.HasSuffix(name, "_count") {
			continue
		}
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(shown.String()) {
			t.Errorf("no panel shows %s", name)
		}
	}
}

func TestWrongQueriesAreFound(t *testing.T) {
	known := metrics(t)
	for _, q := range []string{
		"sluice_session", `sluice_sessions{kind="watch"}`, "sum by (cluster) (sluice_sessions)",
		"sluice_held_bytes / ignoring (limt) sluice_sessions", "histogram_quantile(0.5, sluice_upstream_dial_seconds)",
	} {
		expr, err := promQL.ParseExpr(q)
		if err != nil {
			t.Fatal(err)
		}
		if found := wrong(known, expr); len(found) != 1 {
			t.Errorf("%s: found %q", q, found)
		}
	}
}

// TestEveryAlertHasItsChapter in the guide, a summary, a description and a severity.
func TestEveryAlertHasItsChapter(t *testing.T) {
	guide := string(file(t, "docs/deploying.md"))
	for name, rule := range alerts(t) {
		if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s does not say what is the matter", name)
		}
		if s := rule.Labels["severity"]; s != "warning" && s != "critical" {
			t.Errorf("%s has severity %q", name, s)
		}
		if want := "docs/deploying.md#" + strings.ToLower(name); rule.Annotations["runbook_url"] != want {
			t.Errorf("the runbook of %s is %q, want %q", name, rule.Annotations["runbook_url"], want)
		}
		if !strings.Contains(guide, "\n### "+name+"\n") {
			t.Errorf("docs/deploying.md has no chapter %s", name)
		}
	}
	for _, chapter := range regexp.MustCompile(`(?m)^### (Sluice\w+)$`).FindAllStringSubmatch(guide, -1) {
		if _, ok := alerts(t)[chapter[1]]; !ok {
			t.Errorf("docs/deploying.md has a chapter on %s, which is no alert", chapter[1])
		}
	}
}

// TestThePrometheusRuleIsTheAlerts: the operator's form of them is the same.
func TestThePrometheusRuleIsTheAlerts(t *testing.T) {
	var rule struct {
		Kind string
		Spec any
	}
	var plain any
	for path, into := range map[string]any{"deploy/kubernetes/prometheus-operator/prometheusrule.yaml": &rule, "deploy/prometheus/alerts.yaml": &plain} {
		if err := yaml.Unmarshal(file(t, path), into); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	one, err := json.Marshal(rule.Spec)
	if err != nil {
		t.Fatal(err)
	}
	other, err := json.Marshal(plain)
	if err != nil {
		t.Fatal(err)
	}
	if string(one) != string(other) || rule.Kind != "PrometheusRule" {
		t.Error("prometheusrule.yaml has other rules than alerts.yaml: run deploy/prometheus/rule.sh")
	}
}

// names is the alerts' names in order.
func names(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(maps.Keys(alerts(t)))
}
