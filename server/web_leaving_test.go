package server_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// awaitNoUpstream waits until the cluster has no watch of the gateway's.
func awaitNoUpstream(t *testing.T, r *rig.Rig) {
	t.Helper()
	if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 0 }); err != nil {
		t.Fatal("upstreams live on: ", err)
	}
}

// T-J5: a page that is closed frees its watch and the upstream of it, at any moment, however the connection says so.
func TestT_J5_AClosedPageFreesItsUpstream(t *testing.T) {
	r := rig.New(t, rig.Options{})
	for i := range 20 {
		apply(t, r, fmt.Sprintf("p%d", i), strings.Repeat("x", 10<<10))
	}
	s := speeches[0]
	for i := range 30 { // aborts of the call, while the list arrives
		p := openPage(t, r, "alice")
		p.http = []*http.Client{r.Web(), r.WebHTTP1()}[i%2]
		stream := p.stream(within(t), s, watchPath, &sluicev1.WatchRequest{Cluster: rig.Cluster, Watch: pods()})
		if _, err := io.CopyN(io.Discard, stream.res.Body, int64(i)*1000+1); err != nil {
			t.Fatal(err)
		}
		if err := stream.res.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	awaitNoUpstream(t, r)
	relay := rig.NewRelay(t, r.Server.WebAddr().String())
	for _, c := range []*http.Client{r.Web(), r.WebHTTP1()} { // and of the connection
		p := openPage(t, r, "alice")
		p.http = c
		p.stream(within(t), s, watchPath, &sluicev1.WatchRequest{Cluster: rig.Cluster, Watch: pods()},
			func(req *http.Request) { req.URL.Host = relay.Addr() })
	}
	if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 2 }); err != nil {
		t.Fatal(err)
	}
	relay.Cut()
	awaitNoUpstream(t, r)
}

// A page that has vanished without a word frees its watch when it does not answer a ping.
func TestAVanishedPageFreesItsUpstream(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes as long as a ping's answer may")
	}
	t.Parallel()
	r := rig.New(t, rig.Options{})
	cfg := r.ClientTLS()
	cfg.NextProtos = []string{"h2"}
	d := tls.Dialer{Config: cfg}
	conn, err := d.DialContext(within(t), "tcp", r.Server.WebAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the server has closed it
	begin(t, conn, r)
	if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 1 }); err != nil {
		t.Fatal(err)
	}
	longer, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.Kube.Await(longer, func(c kubetest.Counts) bool { return c.Live == 0 }); err != nil {
		t.Fatal("the upstream lives on: ", err)
	}
}

// begin writes a Watch over HTTP/2 and then nothing more, not even what the protocol must be answered with.
func begin(t *testing.T, conn net.Conn, r *rig.Rig) {
	t.Helper()
	body, err := proto.Marshal(&sluicev1.WatchRequest{Cluster: rig.Cluster, Watch: pods()})
	if err != nil {
		t.Fatal(err)
	}
	var header, out bytes.Buffer
	e := hpack.NewEncoder(&header)
	for _, f := range [][2]string{
		{":method", "POST"},
		{":scheme", "https"},
		{":authority", r.Server.WebAddr().String()},
		{":path", watchPath},
		{"content-type", "application/grpc-web+proto"},
		{"authorization", "Bearer " + r.Token("alice")},
	} {
		if err := e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			t.Fatal(err)
		}
	}
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	err = errors.Join(f.WriteSettings(), f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header.Bytes(), EndHeaders: true}),
		f.WriteData(1, true, enveloped(body)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		t.Fatal(err)
	}
}

// The web port drains with the rest: what is told to the other ports' clients is told here, and then everything ends.
func TestTheWebDrains(t *testing.T) {
	r := rig.New(t, rig.Options{Change: func(c *server.Config) { c.DrainTimeout = 10 * time.Second }})
	p := openPage(t, r, "alice")
	s := speeches[0]
	watch := watchWeb(t, p, s)
	health := p.stream(within(t), s, "/grpc.health.v1.Health/Watch", &healthv1.HealthCheckRequest{})
	events := p.do(within(t), "/v1/clusters/"+rig.Cluster+"/watch/v1/pods", "", nil, with("Accept", "text/event-stream"), func(r *http.Request) { r.Method = http.MethodGet })
	if events.StatusCode != http.StatusOK {
		t.Fatalf("REST: %d", events.StatusCode)
	}
	awaitHealth(t, health, healthv1.HealthCheckResponse_SERVING)
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.Stop() }()
	defer func() { <-stopped }()
	awaitHealth(t, health, healthv1.HealthCheckResponse_NOT_SERVING)
	late := p.stream(within(t), s, watchPath, &sluicev1.WatchRequest{Cluster: rig.Cluster, Watch: pods()})
	_, err := late.next()
	if e := status.From(err); e == nil || e.Code != codes.Unavailable || e.Reason != sluicev1.Reason_REASON_DRAINING {
		t.Errorf("a new watch while draining: %v", err)
	}
	_, err = watch.next()
	if e := status.From(err); e == nil || e.Code != codes.Unavailable || e.Reason != sluicev1.Reason_REASON_DRAINING || !e.FromPeer {
		t.Errorf("the watch ended with %v", err)
	}
	b, err := io.ReadAll(events.Body)
	if err != nil || !strings.Contains(string(b), "DRAINING") {
		t.Errorf("the events ended with %.300q, %v", b, err)
	}
	if _, err := health.next(); err == nil {
		t.Error("the call of health goes on")
	}
}

// awaitHealth reads the next message of a call of health.
func awaitHealth(t *testing.T, stream webStream, want healthv1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	b, err := stream.next()
	if err != nil {
		t.Fatal(err)
	}
	var h healthv1.HealthCheckResponse
	if err := proto.Unmarshal(b, &h); err != nil || h.GetStatus() != want {
		t.Fatalf("health is %v, %v, want %v", &h, err, want)
	}
}

// A port that is taken, or a configuration that is wrong, is said by New, which keeps no port open.
func TestWebPortThatCannotBe(t *testing.T) {
	r := rig.New(t, rig.Options{})
	for name, change := range map[string]func(*server.Config){
		"listen for the web": func(c *server.Config) { c.WebAddr = r.Server.WebAddr().String() },
		"web.origins":        func(c *server.Config) { c.Web.Origins = []string{"*"} },
	} {
		var cfg server.Config
		second := rig.New(t, rig.Options{Change: func(c *server.Config) { cfg = *c }})
		cfg.GRPCAddr, cfg.AdminAddr = second.Server.GRPCAddr().String(), second.Server.AdminAddr().String()
		second.Stop()
		cfg.WebAddr = "127.0.0.1:0"
		change(&cfg)
		if _, err := server.New(cfg); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		for _, addr := range []string{cfg.GRPCAddr, cfg.AdminAddr} {
			lis, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatalf("%s: a port is left open: %v", name, err)
			}
			if err := lis.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	none := rig.New(t, rig.Options{Change: func(c *server.Config) { c.WebAddr = "" }})
	if a := none.Server.WebAddr(); a != nil {
		t.Errorf("without a web port, it is at %v", a)
	}
}
