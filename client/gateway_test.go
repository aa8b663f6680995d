package client_test

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/link"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
	"github.com/sluice-gateway/sluice/test/rig"
)

// script is what a scripted gateway does with a channel. It ends with Finish.
type script func(ch *served, o *sluicev1.Open)

// gateway is a gateway whose upstreams are scripts: real sessions over real links, without a cluster. What becomes of a channel can so be
// chosen to the byte.
type gateway struct {
	sluicev1.UnimplementedGatewayServiceServer

	// Immutable after newGateway.
	script script
	cfg    mux.Config
	lis    net.Listener
	grpc   *grpc.Server
	raw    func(sluicev1.GatewayService_ConnectServer) error // in place of sessions; nil for none

	opens   atomic.Int64 // channels that were opened
	running sync.WaitGroup

	mu       sync.Mutex
	sessions map[string]*mux.Session // Guarded by mu.
	lost     []*mux.Session          // Guarded by mu.
	draining bool                    // Guarded by mu.
	deaf     bool                    // new links are not answered. Guarded by mu.
}

// certificate is all gateways', on a server that has ended.
var certificate = sync.OnceValue(func() *httptest.Server {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	s.Close()
	s.TLS.NextProtos = []string{"h2"}
	return s
})

func newGateway(t testing.TB, cfg mux.Config, s script, raw ...func(sluicev1.GatewayService_ConnectServer) error) *gateway {
	t.Helper()
	g := &gateway{script: s, cfg: cfg, sessions: map[string]*mux.Session{}}
	for _, f := range raw {
		g.raw = f
	}
	var lc net.ListenConfig
	lis, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.lis = lis
	g.grpc = grpc.NewServer(grpc.ForceServerCodecV2(link.NewCodec()),
		grpc.Creds(credentials.NewTLS(certificate().TLS)))
	sluicev1.RegisterGatewayServiceServer(g.grpc, g)
	g.running.Go(func() { _ = g.grpc.Serve(lis) }) // ends with kill
	t.Cleanup(g.kill)
	return g
}

// kill ends the gateway as SIGKILL does: no session hears of it.
func (g *gateway) kill() {
	g.grpc.Stop()
	for _, ses := range g.all() {
		ses.End(nil)
	}
	g.running.Wait()
}

func (g *gateway) all() []*mux.Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := slices.Clone(g.lost)
	for _, ses := range g.sessions {
		all = append(all, ses)
	}
	return all
}

// forget loses all sessions, as another gateway of the same address has none of them.
func (g *gateway) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lost = slices.AppendSeq(g.lost, maps.Values(g.sessions))
	g.sessions = map[string]*mux.Session{}
}

// drainOnce tells those there are to move, and takes new ones nevertheless.
func (g *gateway) drainOnce() {
	for _, ses := range g.all() {
		ses.Drain(&sluicev1.Drain{Deadline: timestamppb.New(time.Now().Add(time.Hour)), ReconnectAfter: durationpb.New(0)})
	}
}

// drain takes no new sessions, and tells those there are.
func (g *gateway) drain() {
	g.mu.Lock()
	g.draining = true
	g.mu.Unlock()
	g.drainOnce()
}

// Connect implements sluicev1.GatewayServiceServer.
func (g *gateway) Connect(stream grpc.BidiStreamingServer[sluicev1.ConnectRequest, sluicev1.ConnectResponse]) error {
	if g.raw != nil {
		return g.raw(stream)
	}
	ctx := stream.Context()
	l := link.NewStream(stream)
	first, err := mux.Greet(ctx, l)
	if err != nil {
		return err
	}
	ses, err := g.session(first.Hello())
	if err != nil {
		return err
	}
	if ses == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	if err := ses.ServeServer(ctx, l, first); err != nil {
		return status.From(err)
	}
	return nil
}

// session is the one that hello resumes, or a new one; nil when the gateway is deaf.
func (g *gateway) session(hello *sluicev1.Hello) (*mux.Session, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deaf {
		return nil, nil
	}
	if ses := g.sessions[hello.GetResume().GetSession()]; ses != nil && ses.Proves(hello.GetResume()) {
		return ses, nil
	}
	if g.draining {
		return nil, status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "draining").WithResumable(true)
	}
	ses := mux.NewServer(g.cfg, false, g)
	id := rand.Text()
	ses.Identify(id, []byte(rand.Text()))
	g.sessions[id] = ses
	return ses, nil
}

// ended waits until a session has.
func (g *gateway) ended(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	g.mu.Lock()
	ses := g.sessions[id]
	g.mu.Unlock()
	select {
	case <-ses.Done():
	case <-ctx.Done():
		t.Fatalf("session %s lives on", id)
	}
}

// Accept implements mux.Acceptor.
func (g *gateway) Accept(c *mux.Channel, o *sluicev1.Open) {
	g.opens.Add(1)
	g.running.Go(func() { g.script(&served{c}, o) })
}

// served is a channel as a script sees it.
type served struct{ *mux.Channel }

// next is what the client sends next; ok is false once the channel is over, which is finished then.
func (ch *served) next() (mux.Event, bool) {
	ev, err := ch.Next(ch.Context())
	if err != nil {
		ch.Finish(status.From(context.Cause(ch.Context())), nil, true)
		return ev, false
	}
	return ev, true
}

// send sends bytes, as fast as the client takes them; false once the channel is over.
func (ch *served) send(stream sluicev1.Stream, cursor string, b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), ch.MaxPiece())
		if err := ch.AwaitCredit(ch.Context(), n+mux.FrameCost); err != nil {
			ch.Finish(status.From(context.Cause(ch.Context())), nil, true)
			return false
		}
		p := data.Piece{Bytes: b[:n], Stream: stream}
		if n == len(b) {
			p.Cursor = cursor
		}
		if ch.Offer([]data.Piece{p}) == 1 {
			b = b[n:]
		}
	}
	return true
}

func (ch *served) exit(code int32) { ch.Finish(nil, &sluicev1.Exit{Code: code}, false) }

// client is a client of the gateways, through a relay when one is given.
func (g *gateway) client(t testing.TB, addr string, change ...func(*client.Config)) *client.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(certificate().Certificate())
	cfg := client.Config{
		Address: addr, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Token: client.StaticToken("t"), Name: "test",
		MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := client.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	return c
}

func (g *gateway) addr() string { return g.lis.Addr().String() }

// relayed is a gateway behind a relay, with a client of it.
func relayed(t *testing.T, cfg mux.Config, s script, change ...func(*client.Config)) (*gateway, *rig.Relay, *client.Client) {
	t.Helper()
	g := newGateway(t, cfg, s)
	relay := rig.NewRelay(t, g.addr())
	c := g.client(t, relay.Addr(), change...)
	return g, relay, c
}

// refuse is a script that closes every channel with a status of the API server.
func refuse(ch *served, _ *sluicev1.Open) {
	e := status.New(codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED, "%s", fmt.Sprintf("pods %q not found", "p"))
	e.HTTPCode = 404
	ch.Finish(e, nil, false)
}
