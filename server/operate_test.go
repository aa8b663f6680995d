package server_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

func TestHealthAndReflectionArePublic(t *testing.T) {
	r := rig.New(t, rig.Options{})
	ctx := within(t)
	h, err := healthv1.NewHealthClient(r.Conn()).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil || h.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	stream, err := reflectionv1.NewServerReflectionClient(r.Conn()).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{ListServices: "*"},
	}); err != nil {
		t.Fatal(err)
	}
	list, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, want := range []string{"sluice.v1.GatewayService", "sluice.v1.ClusterService", "sluice.v1.SessionService"} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("reflection does not know %s: %v", want, names)
		}
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/"} {
		if code, _ := r.Admin(path); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// A drain tells the clients, refuses what is new, and ends what is left at its deadline.
func TestDrain(t *testing.T) {
	r := rig.New(t, rig.Options{Change: func(c *server.Config) { c.DrainTimeout = 10 * time.Second }})
	full, plain := connect(t, r, "alice"), connect(t, r, "alice")
	w := full.hello(nil)
	plain.send(openFrame(1, 0, watching()))
	plain.until(listed(1))
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.Stop() }()
	full.until(func(f *sluicev1.ServerFrame) bool { return f.GetDrain() != nil })
	if code, _ := r.Admin("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("ready while draining: %d", code)
	}
	late := connect(t, r, "bob")
	late.send(openFrame(1, 0, watching()))
	if err := late.end(); err == nil || err.Code != codes.Unavailable || err.Reason != sluicev1.Reason_REASON_DRAINING {
		t.Errorf("a new session while draining: %v", err)
	}
	full.cancel()
	again := connect(t, r, "alice").hello(&sluicev1.Resume{Session: w.GetSession(), Secret: w.GetSecret(), LastLink: w.GetLink()})
	if !again.GetResumed() || again.GetDraining() == nil {
		t.Errorf("a resume while draining: %v", again)
	}
	if err := plain.end(); err == nil || err.Code != codes.Unavailable || err.Reason != sluicev1.Reason_REASON_DRAINING {
		t.Errorf("the plain session ended with %v", err)
	}
	<-stopped
}

// A client moves to another replica before the one that drains has gone, and its watches go on where they were.
func TestDrainMovesWatchesWithoutLoss(t *testing.T) {
	r := rig.New(t, rig.Options{Change: func(c *server.Config) { c.DrainTimeout = 10 * time.Minute }})
	second := r.Replica()
	relay := rig.NewRelay(t, r.Server.GRPCAddr().String())
	w := r.Client("alice", func(c *client.Config) { c.Address = relay.Addr() }).Watch(client.WatchRequest{Target: pods()})
	ctx := within(t)
	awaitList(ctx, t, w)
	apply(t, r, "p", "before")
	relay.Retarget(second.GRPCAddr().String())
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.Stop() }()
	select {
	case <-stopped: // long before its timeout: the client has left by itself
	case <-ctx.Done():
		t.Fatal("the drained replica still has the client's session")
	}
	apply(t, r, "p", "after")
	for _, want := range []string{"before", "after"} {
		ev, err := w.Next(ctx)
		if err != nil || !strings.Contains(string(ev.Raw), want) {
			t.Fatalf("want the event of %q: %s, %v, %v", want, ev.Raw, ev.State, err)
		}
	}
}

// 1 MiB of header is refused by the transport: nothing of ours runs.
func TestHugeHeaderIsRefusedByTheTransport(t *testing.T) {
	r := rig.New(t, rig.Options{})
	conn := r.Conn(grpc.WithMaxHeaderListSize(4 << 20))
	clusters := sluicev1.NewClusterServiceClient(conn)
	if _, err := clusters.ListClusters(r.As(within(t), "alice"), &sluicev1.ListClustersRequest{}); err != nil {
		t.Fatal(err)
	}
	before := r.Log.String() // with what is logged at the beginning: a call was answered
	ctx := metadata.AppendToOutgoingContext(r.As(within(t), "alice"), "x-filler", strings.Repeat("x", 1<<20))
	for range 20 {
		_, err := clusters.ListClusters(ctx, &sluicev1.ListClustersRequest{})
		if err == nil {
			t.Fatal("it was taken")
		}
		if e := status.From(err); e.FromPeer {
			t.Fatalf("our code answered: %v", err)
		}
	}
	if after := r.Log.String(); after != before {
		t.Errorf("our code ran: %s", after[len(before):])
	}
}

func TestCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	first := rig.WriteCertificate(t, dir)
	var buffer rig.Buffer
	cert, err := server.LoadCertificate(dir+"/tls.crt", dir+"/tls.key", buffer.Logger())
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		c, err := cert.TLS().GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		return string(c.Certificate[0])
	}
	if shown() != first {
		t.Fatal("another certificate than the one in the file")
	}
	second := rig.WriteCertificate(t, dir)
	ctx, tick := within(t), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for shown() != second {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the renewed certificate is not shown")
		}
	}
}

// A plain session goes on when its request side has ended, as grpcurl's does at the end of its input.
func TestSPEC_PlainSessionOutlivesItsInput(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c := connect(t, r, "alice")
	c.send(openFrame(1, 0, watching()))
	if err := c.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	c.until(listed(1))
	big := strings.Repeat("x", 10<<10)
	for range 30 { // past 64 KiB without any acknowledgement
		apply(t, r, "p", big+time.Now().String())
	}
	for range 30 {
		c.until(event(1))
	}
	c.cancel()
	for {
		if _, err := c.next(); err != nil {
			if errors.Is(err, io.EOF) || status.Code(err) != codes.Canceled {
				t.Errorf("ended with %v", err)
			}
			return
		}
	}
}

// A batch means nothing but its frames, and one session's end is no other's.
func TestGoodbyeEndsEverythingAtOnce(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c, other := connect(t, r, "alice"), connect(t, r, "alice")
	c.hello(nil)
	other.hello(nil)
	other.send(openFrame(1, 1, watching()))
	other.until(listed(1))
	c.send(openFrame(1, 1, watching()), &sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Goodbye{Goodbye: &sluicev1.Goodbye{}}})
	if err := c.end(); err != nil {
		t.Errorf("ended with %v", err)
	}
	apply(t, r, "p", "1")
	other.until(event(1))
}
