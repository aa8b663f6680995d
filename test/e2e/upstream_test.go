package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/kube"
)

// unwanted is metadata that an API server would obey, or that a proxy on the way would, beside what browsers and tools send.
var unwanted = map[string]string{
	"x-custom": "mine", "cookie": "session=1", "proxy-authorization": "Basic YTpi", "x-request-id": "mine",
	"impersonate-user": "system:admin", "impersonate-group": "system:masters", "impersonate-uid": "0", "impersonate-extra-scopes": "all",
	"x-remote-user": "system:admin", "x-remote-group": "system:masters", "x-remote-extra-scopes": "all",
	"x-forwarded-for": "10.0.0.1", "x-forwarded-host": "elsewhere", "x-forwarded-proto": "http", "forwarded": "for=10.0.0.1", "x-real-ip": "10.0.0.1",
	"origin": "https://elsewhere", "referer": "https://elsewhere", "accept-language": "de", "x-http-method-override": "DELETE",
	"audit-id": "mine", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "sec-websocket-protocol": "v4.channel.k8s.io",
	"x-stream-protocol-version": "v4.channel.k8s.io", "if-none-match": "*", "range": "bytes=0-1", "expect": "100-continue",
}

// TestUpstreamSeesExactlyTheCallersToken: whatever a caller sends beside the token, by whatever door, the API server is sent the token as it
// came and a fixed set of headers of the gateway's own.
func TestUpstreamSeesExactlyTheCallersToken(t *testing.T) {
	s := newSetup(t)
	token := s.token()
	s.neverTells(token)
	ctx, cancel := context.WithCancel(within(t, 30*time.Second))
	defer cancel()
	md := metadata.New(unwanted)
	md.Set("authorization", "bearer  "+token) // a scheme and space of the caller's own
	ctx = metadata.NewOutgoingContext(ctx, md)
	conn := s.Conn()
	gateway, clusters := sluicev1.NewGatewayServiceClient(conn), sluicev1.NewClusterServiceClient(conn)

	watch, err := gateway.Watch(ctx, &sluicev1.WatchRequest{Cluster: upstream, Watch: &sluicev1.WatchTarget{Version: "v1", Resource: "pods", ChangesOnly: true}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	link, err := gateway.Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	open := &sluicev1.Open{Cluster: upstream, Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{
		Watch: &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps", Namespace: kube.Namespace, LabelSelector: "a=b", FieldSelector: "metadata.name=c"},
	}}}
	if err := link.Send(&sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{{Channel: 1, Frame: &sluicev1.ClientFrame_Open{Open: open}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := link.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := clusters.ListResources(ctx, &sluicev1.ListResourcesRequest{Cluster: upstream}); err != nil {
		t.Fatal(err)
	}

	// The watch of pods follows its question for a version; both must have been asked.
	if err := s.api.Await(ctx, func(all []kube.Request) bool { return upgrades(all) == 2 }); err != nil {
		t.Fatal(err)
	}
	for _, r := range s.api.Requests() {
		checkRequest(t, s, &r, token)
	}
	if n := len(s.api.Requests()); n < 4 {
		t.Errorf("%d requests were recorded: the check would accept anything", n)
	}
}

func upgrades(all []kube.Request) (n int) {
	for _, r := range all {
		if r.Status == http.StatusSwitchingProtocols {
			n++
		}
	}
	return n
}

// checkRequest compares a request's whole header.
func checkRequest(t *testing.T, s *setup, r *kube.Request, token string) {
	t.Helper()
	where := fmt.Sprintf("%s %s?%s", r.Method, r.Path, r.RawQuery)
	want := http.Header{"Authorization": {"Bearer " + token}, "User-Agent": {"sluice/test"}, "Origin": {s.api.URL()}, "Accept": {"application/json, */*"}}
	switch {
	case r.Status == http.StatusSwitchingProtocols:
		want["Connection"], want["Upgrade"], want["Sec-Websocket-Version"] = []string{"Upgrade"}, []string{"websocket"}, []string{"13"}
		want["Sec-Websocket-Key"] = r.Header["Sec-Websocket-Key"] // random
		if len(r.Header["Sec-Websocket-Key"]) != 1 {
			t.Errorf("%s: %d keys", where, len(r.Header["Sec-Websocket-Key"]))
		}
	case !strings.Contains(r.RawQuery, "limit="): // discovery, whose headers are client-go's
		want["Accept"] = r.Header["Accept"]
		delete(want, "Origin")
	}
	if r.Method != http.MethodGet || r.Host != s.api.Addr() {
		t.Errorf("%s of host %q", where, r.Host)
	}
	got := r.Header.Clone()
	delete(got, "Connection")
	if c := r.Header["Connection"]; r.Status == http.StatusSwitchingProtocols || !slices.Equal(c, []string{"close"}) { // one request, one TCP connection
		got["Connection"] = c
	}
	for name := range got {
		if !maps.EqualFunc(http.Header{name: got[name]}, http.Header{name: want[name]}, slices.Equal) {
			t.Errorf("%s: header %s is %q, want %q", where, name, got[name], want[name])
		}
	}
	for name := range want {
		if got[name] == nil {
			t.Errorf("%s: header %s is missing, want %q", where, name, want[name])
		}
	}
}
