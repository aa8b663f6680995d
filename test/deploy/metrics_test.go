package deploy

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/rig"
)

// scrape is what Prometheus gets from a gateway: by series, without the value.
func scrape(t *testing.T, r *rig.Rig) (series []string, metrics map[string]metric) {
	t.Helper()
	code, body := r.Admin("/metrics")
	if code != http.StatusOK {
		t.Fatalf("/metrics: %d\n%s", code, body)
	}
	metrics = map[string]metric{}
	for line := range strings.SplitSeq(strings.TrimSpace(body), "\n") {
		if kind, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(kind, " ")
			metrics[name] = metric{kind: kind, labels: map[string]bool{}}
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		s := line[:strings.LastIndexByte(line, ' ')]
		series = append(series, s)
		addLabels(metrics, s)
	}
	return series, metrics
}

// metric is what the list says of one.
type metric struct {
	kind   string
	labels map[string]bool
}

func (m metric) String() string {
	return strings.TrimSpace(m.kind + " " + strings.Join(slices.Sorted(maps.Keys(m.labels)), ","))
}

// addLabels notes the labels of a series. Our label values hold neither quotes nor commas.
func addLabels(metrics map[string]metric, series string) {
	name, labels, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
	if _, ok := metrics[name]; !ok { // of a histogram
		name = name[:strings.LastIndexByte(name, '_')]
	}
	for pair := range strings.SplitSeq(labels, ",") {
		if label, _, ok := strings.Cut(pair, "="); ok && label != "le" {
			metrics[name].labels[label] = true
		}
	}
}

// listed is deploy/prometheus/metrics.txt: by name, type and labels.
func listed(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSpace(string(text(t, "deploy/prometheus/metrics.txt"))), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		out[name] = strings.Join(strings.Fields(rest), " ")
	}
	return out
}

// ours says whether the list names the metric. Those of the Go runtime are of the Go version, but for what the alerts ask for.
func ours(name string) bool {
	return strings.HasPrefix(name, "sluice_") || strings.HasPrefix(name, "grpc_") || strings.HasPrefix(name, "process_") ||
		name == "go_gc_gomemlimit_bytes" || name == "go_goroutines"
}

// TestTheMetricsAreThoseThatAreListed, by name, type and labels: the alerts and the dashboard are held to the list.
func TestTheMetricsAreThoseThatAreListed(t *testing.T) {
	r := rig.New(t, rig.Options{})
	traffic(t, r)
	_, metrics := scrape(t, r)
	there := map[string]string{}
	for name, m := range metrics {
		if ours(name) {
			there[name] = m.String()
		}
	}
	list := listed(t)
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if list[name] != there[name] {
			t.Errorf("a gateway has %s %s, the list has it as %q", name, there[name], list[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if there[name] == "" {
			t.Errorf("the list has %s, a gateway that ran does not", name)
		}
	}
}

// traffic makes something of everything: a watch, a refusal, a call of each kind.
func traffic(t *testing.T, r *rig.Rig) {
	t.Helper()
	ctx := within(t)
	if _, err := r.Kube.Apply(rig.Pod("default", "web", "")); err != nil {
		t.Fatal(err)
	}
	w := r.Client("alice").Watch(client.WatchRequest{Cluster: rig.Cluster, Target: &sluicev1.WatchTarget{Version: "v1", Resource: "pods"}})
	defer w.Close()
	if _, err := w.Next(ctx); err != nil {
		t.Fatal(err)
	}
	clusters := sluicev1.NewClusterServiceClient(r.Conn())
	if _, err := clusters.ListClusters(r.As(ctx, "alice"), &sluicev1.ListClustersRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := clusters.ListClusters(ctx, &sluicev1.ListClustersRequest{}); err == nil {
		t.Error("a call without a credential succeeded")
	}
	one(ctx, t, r, rig.Cluster, "nosuchthings")
}

// TestTheMetricsFollowAWatch through its life: they are those of the gateway's own paths, not only of the list.
func TestTheMetricsFollowAWatch(t *testing.T) {
	r := rig.New(t, rig.Options{})
	ctx := within(t)
	if _, err := r.Kube.Apply(rig.Pod("default", "web", "")); err != nil {
		t.Fatal(err)
	}
	c := r.Client("alice")
	w := c.Watch(client.WatchRequest{Cluster: rig.Cluster, Target: &sluicev1.WatchTarget{Version: "v1", Resource: "pods"}})
	if _, err := w.Next(ctx); err != nil {
		t.Fatal(err)
	}
	awaitMetrics(ctx, t, r, `sluice_sessions 1`, `sluice_channels{kind="watch"} 1`, `sluice_channel_bytes_total{direction="out",kind="watch"} [1-9].*`,
		`sluice_upstream_dials_total{cluster="dev",code="OK"} 1`, `sluice_upstream_dials{cluster="dev"} 0`)
	r.Kube.EndWatches()
	awaitMetrics(ctx, t, r, `sluice_upstream_dials_total{cluster="dev",code="OK"} 2`)
	one(ctx, t, r, rig.Cluster, "nosuchthings")
	one(ctx, t, r, "nowhere", "pods")
	awaitMetrics(ctx, t, r, `sluice_channels_refused_total{reason="UPSTREAM_REFUSED"} 1`, `sluice_channels_refused_total{reason="UNKNOWN_CLUSTER"} 1`,
		`sluice_upstream_dials_total{cluster="dev",code="NotFound"} 1`)
	r.Kube.Compact(r.Kube.Version())
	r.Kube.ResetWatches()
	awaitMetrics(ctx, t, r, `sluice_channel_states_total{kind="watch",state="RECONNECTING"} [1-9]`)
	w.Close()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	awaitMetrics(ctx, t, r, `sluice_sessions 0`, `sluice_channels{kind="watch"} 0`, `sluice_channels_closed_total{code="NotFound",kind="watch"} [12]`,
		`sluice_channel_bytes_total{direction="out",kind="watch"} [1-9].*`, `sluice_sessions_ended_total{reason="[A-Z_]+"} [1-9]`)
}

// awaitMetrics waits until the scrape has all the lines, whose values are regular expressions.
func awaitMetrics(ctx context.Context, t *testing.T, r *rig.Rig, lines ...string) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	braces := strings.NewReplacer("{", `\{`, "}", `\}`)
	for {
		_, body := r.Admin("/metrics")
		missing := slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
			return regexp.MustCompile("(?m)^" + braces.Replace(l) + "$").MatchString(body)
		})
		if len(missing) == 0 {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("the scrape never has %q:\n%s", missing, body)
		}
	}
}

// one is a Watch that is refused, or whose first answer is not waited for.
func one(ctx context.Context, t *testing.T, r *rig.Rig, cluster, resource string, opts ...grpc.CallOption) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Watch(r.As(ctx, "alice"), &sluicev1.WatchRequest{
		Cluster: cluster, Watch: &sluicev1.WatchTarget{Version: "v1", Resource: resource},
	}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil {
		t.Errorf("a watch of %q in %q was not refused", resource, cluster)
	}
}

// TestT_D12_NoCallerMakesASeries: whatever a caller says, in every place where it can say something, the scrape has the series that it had.
func TestT_D12_NoCallerMakesASeries(t *testing.T) {
	r := rig.New(t, rig.Options{})
	traffic(t, r)
	flood(t, r, 1) // each kind of refusal has happened
	before, _ := scrape(t, r)
	flood(t, r, 40)
	after, _ := scrape(t, r)
	if len(before) < 300 {
		t.Errorf("only %d series: the scrape is not whole", len(before))
	}
	for _, s := range after {
		if !slices.Contains(before, s) {
			t.Errorf("a caller made the series %s", s)
		}
	}
}

// flood says n different strings wherever a caller can say one.
func flood(t *testing.T, r *rig.Rig, n int) {
	t.Helper()
	ctx := within(t)
	conn := r.Conn()
	for i := range n {
		hostile := fmt.Sprintf("x%d\"\n{}=,\\é%s", i, strings.Repeat("a", i))
		plain := fmt.Sprintf("x%d", i)
		one(ctx, t, r, plain, "pods")
		one(ctx, t, r, hostile, "pods")
		one(ctx, t, r, rig.Cluster, plain)
		one(ctx, t, r, rig.Cluster, hostile)
		// Methods that there are not, tokens of nobody, and a request id, a client and headers of its own choice.
		said := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+plain, "x-request-id", plain, "user-agent", plain, plain, plain)
		for _, method := range []string{"/" + plain + "/" + plain, "/sluice.v1.GatewayService/" + plain, "/sluice.v1.ClusterService/ListClusters"} {
			if err := conn.Invoke(said, method, &sluicev1.ListClustersRequest{}, &sluicev1.ListClustersResponse{}); err == nil {
				t.Errorf("%s succeeded", method)
			}
		}
		c := r.Client("user-"+plain, func(c *client.Config) { c.Name = `"{}=,` + plain })
		w := c.Watch(client.WatchRequest{Cluster: rig.Cluster, Target: &sluicev1.WatchTarget{Version: "v1", Resource: "pods", Namespace: "default", LabelSelector: "app!=" + plain}})
		if _, err := w.Next(ctx); err != nil {
			t.Fatal(err)
		}
		w.Close()
	}
}
