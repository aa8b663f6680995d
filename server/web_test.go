package server_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/types/known/anypb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

const (
	watchPath = "/sluice.v1.GatewayService/Watch"
	listPath  = "/sluice.v1.ClusterService/ListClusters"
)

func anyOf(name string, b []byte) *anypb.Any {
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + name, Value: b}
}

// everySpeech runs a test in each protocol over each version of HTTP.
func everySpeech(t *testing.T, test func(*testing.T, *rig.Rig, *page, speech)) {
	for _, s := range speeches {
		for _, version := range []string{"HTTP/2", "HTTP/1.1"} {
			t.Run(s.name+" over "+version, func(t *testing.T) {
				r := rig.New(t, rig.Options{})
				p := openPage(t, r, "alice")
				if version == "HTTP/1.1" {
					p.http = r.WebHTTP1()
				}
				test(t, r, p, s)
			})
		}
	}
}

// watchWeb begins a watch and reads the list.
func watchWeb(t *testing.T, p *page, s speech) webStream {
	t.Helper()
	stream := p.stream(within(t), s, watchPath, &sluicev1.WatchRequest{Cluster: rig.Cluster, Watch: pods()})
	for {
		res := nextWatch(t, stream, s)
		if res.GetState().GetKind() == sluicev1.ChannelState_KIND_RESYNC_END {
			return stream
		}
	}
}

func nextWatch(t *testing.T, stream webStream, s speech) *sluicev1.WatchResponse {
	t.Helper()
	b, err := stream.next()
	if err != nil {
		t.Fatal(err)
	}
	var res sluicev1.WatchResponse
	if err := s.decode(b, &res); err != nil {
		t.Fatal(err)
	}
	return &res
}

// Each event leaves at once, and a client that goes away takes its upstream along.
func TestWatchOverTheWeb(t *testing.T) {
	everySpeech(t, func(t *testing.T, r *rig.Rig, p *page, s speech) {
		apply(t, r, "a", "")
		stream := watchWeb(t, p, s)
		if got := stream.res.Header.Get("Content-Type"); got != s.streaming {
			t.Errorf("the content type is %q", got)
		}
		for _, note := range []string{"first", "second ✓", strings.Repeat("long ", 20_000)} {
			apply(t, r, "b", note)
			if res := nextWatch(t, stream, s); !strings.Contains(res.GetEvent(), note) || res.GetCursor() == "" {
				t.Fatalf("want the event with %.20q: %.200v", note, res)
			}
		}
		if err := stream.res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 0 }); err != nil {
			t.Error("the upstream lives on: ", err)
		}
	})
}

func TestUnaryCallOverTheWeb(t *testing.T) {
	everySpeech(t, func(t *testing.T, _ *rig.Rig, p *page, s speech) {
		var list sluicev1.ListClustersResponse
		if err := p.call(within(t), s, listPath, &sluicev1.ListClustersRequest{}, &list); err != nil {
			t.Fatal(err)
		}
		if len(list.GetClusters()) != 1 || list.GetClusters()[0].GetName() != rig.Cluster {
			t.Errorf("got %v", &list)
		}
		var health healthv1.HealthCheckResponse
		p.header.Del("Authorization")
		err := p.call(within(t), s, "/grpc.health.v1.Health/Check", &healthv1.HealthCheckRequest{}, &health)
		if err != nil || health.GetStatus() != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health: %v, %v", &health, err)
		}
	})
}

// What ends a call says so with our Status, before the first message and after it.
func TestErrorsOverTheWebHaveTheirStatus(t *testing.T) {
	everySpeech(t, func(t *testing.T, r *rig.Rig, p *page, s speech) {
		stream := p.stream(within(t), s, watchPath, &sluicev1.WatchRequest{Cluster: "né%\n", Watch: pods()})
		_, err := stream.next()
		if e := status.From(err); e == nil || e.Code != codes.NotFound || e.Reason != sluicev1.Reason_REASON_UNKNOWN_CLUSTER || !e.FromPeer {
			t.Errorf("an unknown cluster: %v", err)
		}
		stream = watchWeb(t, p, s)
		stopped := make(chan struct{})
		go func() { defer close(stopped); r.Stop() }()
		_, err = stream.next()
		if e := status.From(err); e == nil || e.Code != codes.Unavailable || e.Reason != sluicev1.Reason_REASON_DRAINING || !e.FromPeer {
			t.Errorf("the end of the server: %v", err)
		}
		<-stopped
	})
}

// A page that does not read is held for, not read for: its upstream waits, others do not, and nothing is lost when it goes on.
func TestAPageThatDoesNotReadHoldsItsUpstreamBack(t *testing.T) {
	r := rig.New(t, rig.Options{Limits: server.Limits{SessionBytes: 1 << 20}})
	s := speeches[0]
	bothVersions(t, r, func(t *testing.T, c *http.Client) {
		p := openPage(t, r, "alice")
		p.http = c
		stream := watchWeb(t, p, s)
		const events, size = 96, 64 << 10 // six times what a session may hold
		for i := range events {
			apply(t, r, "p", fmt.Sprint(i, strings.Repeat(" ", size)))
		}
		other := watchWeb(t, p, s) // of the same page, while the first waits
		apply(t, r, "q", "unhindered "+t.Name())
		for !strings.Contains(nextWatch(t, other, s).GetEvent(), "unhindered "+t.Name()) {
			continue
		}
		if held := gauge(t, r, "sluice_held_bytes"); held > 1<<20 {
			t.Errorf("%v bytes are held for a page", held)
		}
		for i := range events {
			if res := nextWatch(t, stream, s); !strings.Contains(res.GetEvent(), fmt.Sprintf(`"note":"%d `, i)) {
				t.Fatalf("event %d: %.300s", i, res)
			}
		}
	})
}

// gauge is the value of a metric without labels.
func gauge(t *testing.T, r *rig.Rig, name string) float64 {
	t.Helper()
	_, metrics := r.Admin("/metrics")
	for line := range strings.Lines(metrics) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}

func TestALongMessageIsRefused(t *testing.T) {
	everySpeech(t, func(t *testing.T, r *rig.Rig, p *page, s speech) {
		_, err := p.stream(within(t), s, watchPath, &sluicev1.WatchRequest{Cursor: strings.Repeat("x", 600<<10)}).next()
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("600 KiB: %.300v", err)
		}
		if n := r.Kube.Counts(); n.Dials != 0 {
			t.Errorf("the cluster was dialled %d times", n.Dials)
		}
	})
}
