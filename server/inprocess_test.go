package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/server/rest"
	"github.com/sluice-gateway/sluice/test/rig"
)

// witness is an authenticator that keeps from where the calls it judges came.
type witness struct {
	auth.Authenticator

	mu    sync.Mutex
	peers []*peer.Peer  // guarded by mu
	mds   []metadata.MD // guarded by mu
}

func (w *witness) Authenticate(ctx context.Context, credential auth.Secret) (*auth.Principal, error) {
	p, _ := peer.FromContext(ctx)
	md, _ := metadata.FromIncomingContext(ctx)
	w.mu.Lock()
	w.peers, w.mds = append(w.peers, p), append(w.mds, md)
	w.mu.Unlock()
	return w.Authenticator.Authenticate(ctx, credential)
}

// last is the call that was judged last.
func (w *witness) last(t *testing.T) (*peer.Peer, metadata.MD) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.peers) == 0 {
		t.Fatal("nothing was judged")
	}
	return w.peers[len(w.peers)-1], w.mds[len(w.mds)-1]
}

// overREST is REST over the link in memory of a gateway, behind TLS.
func overREST(t *testing.T) (*rig.Rig, *witness, server.InProcess, *httptest.Server) {
	t.Helper()
	w := &witness{}
	r := rig.New(t, rig.Options{Limits: server.Limits{PrincipalSessions: 1000}, Change: func(c *server.Config) { w.Authenticator, c.Authenticator = c.Authenticator, w }})
	p := server.LinkInMemory(t, r.Server)
	h, err := rest.New(p)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(p.From(h))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return r, w, p, s
}

// get sends a request of alice's.
func get(t *testing.T, r *rig.Rig, s *httptest.Server, path string, headers http.Header) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), http.MethodGet, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, headers)
	req.Header.Set("Authorization", "Bearer "+r.Token("alice"))
	res, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() }) // a stream that was read as far as the test needs
	return res
}

func TestACallByTheLinkInMemoryHasThePeerOfItsRequest(t *testing.T) {
	r, w, p, s := overREST(t)
	for _, path := range []string{"/v1/clusters", "/v1/clusters/dev/watch/v1/pods"} {
		if res := get(t, r, s, path, nil); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", path, res.StatusCode)
		}
		from, md := w.last(t)
		info, tls := from.AuthInfo.(credentials.TLSInfo)
		if !strings.HasPrefix(from.Addr.String(), "127.0.0.1:") || from.LocalAddr.String() != s.Listener.Addr().String() || !tls || info.State.Version == 0 {
			t.Errorf("%s came from %v", path, from)
		}
		if len(md.Get(p.Key)) != 0 {
			t.Errorf("%s: the mark went on to the service: %v", path, md)
		}
	}
}

// A caller who knows the key and a mark, by whatever door, is still who it is.
func TestNobodyCanClaimToBeAnotherPeer(t *testing.T) {
	r, w, p, s := overREST(t)
	conn := sluicev1.NewClusterServiceClient(r.Conn())
	ctx := metadata.AppendToOutgoingContext(r.As(within(t), "alice"), p.Key, "1.2.3.4:5", "x-forwarded-for", "1.2.3.4")
	if _, err := conn.ListClusters(ctx, &sluicev1.ListClustersRequest{}); err != nil {
		t.Fatal(err)
	}
	if from, _ := w.last(t); !strings.HasPrefix(from.Addr.String(), "127.0.0.1:") {
		t.Errorf("by the gRPC port came %v", from)
	}
	clients := sluicev1.NewClusterServiceClient(p)
	p.From(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		ctx := metadata.AppendToOutgoingContext(r.As(req.Context(), "alice"), p.Key, "guess")
		if _, err := clients.ListClusters(ctx, &sluicev1.ListClustersRequest{}); err != nil {
			t.Errorf("a guess beside the mark: %v", err)
		}
	})).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(within(t), http.MethodGet, "/", nil))
	if from, _ := w.last(t); from.Addr.String() != "192.0.2.1:1234" { // httptest's
		t.Errorf("beside a guess came %v", from)
	}
	for _, name := range []string{p.Key, "Grpc-Metadata-" + p.Key, "Grpcgateway-" + p.Key, "X-Forwarded-For"} {
		headers := http.Header{http.CanonicalHeaderKey(name): {"1.2.3.4:5"}}
		if res := get(t, r, s, "/v1/clusters", headers); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", name, res.StatusCode)
		}
		from, md := w.last(t)
		if !strings.HasPrefix(from.Addr.String(), "127.0.0.1:") || strings.Contains(md.String(), "1.2.3.4") {
			t.Errorf("by %s came %v with %v", name, from, md)
		}
	}
}

// What comes by the link without a mark, or with one that was not given out, is nobody's call: it does not even reach authentication.
func TestTheLinkInMemoryTakesNoCallWithoutAPeer(t *testing.T) {
	r, w, p, _ := overREST(t)
	client := sluicev1.NewClusterServiceClient(p)
	for name, ctx := range map[string]context.Context{
		"no mark":   r.As(within(t), "alice"),
		"a guess":   metadata.AppendToOutgoingContext(r.As(within(t), "alice"), p.Key, "guess"),
		"two marks": metadata.AppendToOutgoingContext(r.As(within(t), "alice"), p.Key, "a", p.Key, "b"),
	} {
		if _, err := client.ListClusters(ctx, &sluicev1.ListClustersRequest{}); status.Code(err) != codes.Internal {
			t.Errorf("%s: %v", name, err)
		}
		watch, err := sluicev1.NewGatewayServiceClient(p).Watch(ctx, &sluicev1.WatchRequest{Watch: pods()})
		if err == nil {
			_, err = watch.Recv()
		}
		if status.Code(err) != codes.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(w.peers) != 0 {
		t.Errorf("%d calls were judged", len(w.peers))
	}
}

func TestAnAnswerOfRESTTellsTheRequestID(t *testing.T) {
	r, w, _, s := overREST(t)
	for _, c := range []struct {
		path string
		code int
	}{
		{"/v1/clusters", http.StatusOK},
		{"/v1/clusters/prod/resources", http.StatusNotFound},
		{"/v1/clusters/dev/watch/v1/pods", http.StatusOK},
		{"/v1/clusters/prod/watch/v1/pods", http.StatusNotFound},
	} {
		for _, sent := range []string{"", "mine-1", "not plain"} {
			res := get(t, r, s, c.path, http.Header{"X-Request-Id": {sent}})
			ids := res.Header.Values("X-Request-ID")
			if res.StatusCode != c.code || len(ids) != 1 || ids[0] == "" || (ids[0] == sent) != (sent == "mine-1") {
				t.Errorf("%s, sent %q: %d %q", c.path, sent, res.StatusCode, ids)
				continue
			}
			if _, md := w.last(t); md.Get("x-request-id")[0] != ids[0] {
				t.Errorf("%s, sent %q: the services know it as %q, the caller as %q", c.path, sent, md.Get("x-request-id"), ids)
			}
		}
	}
	res := get(t, r, s, "/v1/clusters/dev/watch/v1/pods", nil)
	if id := res.Header.Get("X-Request-ID"); !strings.Contains(r.Audit.String(), `"request_id":"`+id+`"`) {
		t.Errorf("the audit does not know %q:\n%s", id, r.Audit)
	}
}

// All callers of REST share one link: neither how many there are nor one who does not read may be felt by the others.
func TestReadersOfRESTDoNotWaitForEachOther(t *testing.T) {
	r, _, _, s := overREST(t)
	const watches = 110 // more than limits.streams, which is for one client's connection
	const listed = 12
	for i := range listed {
		apply(t, r, fmt.Sprintf("p%d", i), strings.Repeat("x", 16<<10))
	}
	// 192 KiB wait for each of those who do not read: more than the windows of a call, and together more than that of the link.
	s.Client().Transport.(*http.Transport).HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 20, MaxReceiveBufferPerStream: 64 << 10}
	var readers []*bufio.Reader
	for range watches {
		res := get(t, r, s, "/v1/clusters/dev/watch/v1/pods", nil)
		if res.StatusCode != http.StatusOK {
			t.Fatal(res.Status)
		}
		readers = append(readers, bufio.NewReaderSize(res.Body, 16))
	}
	if n := listedBy(t, readers[watches-1]); n != listed {
		t.Errorf("the last reader was told %d pods", n)
	}
	res := get(t, r, s, "/v1/clusters", nil)
	if b, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(b), `"dev"`) {
		t.Errorf("clusters: %s, %v", b, err)
	}
	if n := listedBy(t, readers[0]); n != listed { // and who begins to read gets all
		t.Errorf("the first reader was told %d pods", n)
	}
}

// listedBy counts the objects of an initial list, the last if there are several.
func listedBy(t *testing.T, r *bufio.Reader) (n int) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		var res struct {
			Event string
			State struct{ Kind string }
		}
		if err := json.Unmarshal([]byte(line), &res); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case res.State.Kind == "KIND_RESYNC_BEGIN": // the upstream of one who does not read for long is given up, and the list begun anew
			n = 0
		case res.State.Kind == "KIND_RESYNC_END":
			return n
		case res.Event != "":
			n++
		}
	}
}
