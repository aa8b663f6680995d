package cluster

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// kubernetesUpstream is alice's upstream of an API server that knows her token or, if not, nobody's.
func kubernetesUpstream(t *testing.T, known bool) *Upstream {
	t.Helper()
	s, err := kubetest.New(kubetest.Options{
		Authenticator: func(_ context.Context, token string) (kubetest.User, error) {
			if !known || token != aliceToken {
				return kubetest.User{}, context.Canceled
			}
			return kubetest.User{Name: "alice"}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	if err := s.Listen(t.Context(), "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	return upstreamOf(t, Config{
		Name: "dev", Server: s.URL(), CA: s.CAPEM(), Credential: passthrough, Audiences: []string{"kubernetes"},
	})
}

// TestResourcesOfACluster asks what speaks as a Kubernetes API server does.
func TestResourcesOfACluster(t *testing.T) {
	got, err := kubernetesUpstream(t, true).Resources(t.Context())
	if err != nil || len(got.GetFailures()) > 0 {
		t.Fatalf("%v, failures %v", err, got.GetFailures())
	}
	for _, r := range got.GetResources() {
		if r.GetResource() == "pods" && r.GetKind() == "Pod" && r.GetVersion() == "v1" && r.GetNamespaced() {
			return
		}
	}
	t.Errorf("no pods among %v", got.GetResources())
}

func TestWatchOfACluster(t *testing.T) {
	c, _, err := kubernetesUpstream(t, true).Dial(t.Context(), "/api/v1/namespaces", watchQuery)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(websocket.CodeNormal)
	b, err := c.Read(websocket.MaxRead, websocket.MaxRead)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if !b.Fragments[0].Text || len(b.Fragments[0].Bytes) == 0 {
		t.Errorf("got %v", b.Fragments)
	}
}

// TestRefusalOfDiscovery: client-go makes an error of its own of what the API server says; the caller is told the same as elsewhere.
func TestRefusalOfDiscovery(t *testing.T) {
	u := kubernetesUpstream(t, false)
	_, err := u.Resources(t.Context())
	for way, err := range map[string]error{"discovery": err, "dial": refuse(t, u)} {
		e := status.From(err)
		if e.Code != codes.Unauthenticated || e.Reason != sluicev1.Reason_REASON_UPSTREAM_REFUSED || e.HTTPCode != 401 || e.Kubernetes.GetReason() != "Unauthorized" {
			t.Errorf("%s: %v, %v", way, e, e.Kubernetes)
		}
	}
}
