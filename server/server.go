package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/sluice-gateway/sluice/bridge"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/link"
	"github.com/sluice-gateway/sluice/internal/ready"
	"github.com/sluice-gateway/sluice/mux"
)

// Server is one replica of the gateway.
type Server struct {
	sluicev1.UnimplementedGatewayServiceServer
	sluicev1.UnimplementedClusterServiceServer
	sluicev1.UnimplementedSessionServiceServer

	// Immutable after New.
	cfg      Config
	log      *slog.Logger
	audit    *slog.Logger
	grpc     *grpc.Server
	health   *health.Server
	rules    map[string]access
	metrics  *metrics
	spans    *spans
	budget   *mux.Budget
	loops    *ready.Loops // nil where the system has none
	bridge   *bridge.Options
	clusters *dialers
	sessions *sessions
	grpcLis  net.Listener
	adminLis net.Listener
	web      *webDoor        // nil without a web port
	draining context.Context // ends when the drain begins
	drainNow context.CancelFunc
	ending   context.Context // ends with the drain
	endNow   context.CancelFunc

	channels atomic.Int64
	running  sync.WaitGroup // watchers of sessions
}

// New makes a server that listens but does not serve yet. All that is wrong with c is reported at once.
func New(c Config) (*Server, error) {
	c.Limits = c.Limits.withDefaults()
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	s := &Server{cfg: c, log: orDefault(c.Log), audit: orDefault(c.Audit), health: health.NewServer()}
	s.spans = newSpans(c.Tracer)
	s.budget = mux.NewBudget(c.Limits.HeldBytes, nil)
	s.metrics = newMetrics(s.budget.Held)
	s.clusters = newDialers(c.Clusters, c.Limits.ClusterDials, s.metrics, s.spans)
	s.sessions = newSessions(s)
	s.draining, s.drainNow = context.WithCancel(context.Background())
	s.ending, s.endNow = context.WithCancel(context.Background())
	s.metrics.registry.MustRegister(newReplica(s))
	s.metrics.serve(c.Clusters.Names())
	s.grpc = grpc.NewServer(s.options()...)
	s.register()
	var err error
	if s.rules, err = rules(s.grpc, s.registerOthers()); err != nil {
		return nil, err
	}
	s.metrics.rpc.InitializeMetrics(s.grpc)
	if err := s.wait(); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		s.endWait()
		return nil, err
	}
	return s, nil
}

// wait makes what channels share: the loops that wait for their upstreams, and the watches of the pods that they lead into.
func (s *Server) wait() (err error) {
	s.loops, err = ready.New(runtime.GOMAXPROCS(0))
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("wait for upstreams: %w", err)
	}
	o := s.cfg.Bridge
	o.Loops, o.Pods = s.loops, bridge.NewPods()
	s.bridge = bridge.WithDefaults(o)
	return nil
}

// endWait ends what wait has made, the watches before the loops that wait for them. No channel is left.
func (s *Server) endWait() {
	s.bridge.Pods.Close()
	if s.loops != nil {
		s.loops.Close()
	}
}

func orDefault(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.Default()
	}
	return l
}

// Times of the transport.
const (
	handshakeWithin = 5 * time.Second
	keepaliveTime   = 30 * time.Second
	keepaliveWithin = 20 * time.Second
	keepaliveLeast  = 10 * time.Second // clients that ping more often are cut off
)

// The windows of HTTP/2: what a connection may hold that is not read yet. A session's link is read without a pause, and its channels have windows
// of their own. They are of a fixed size, since grpc-go's estimate of the right one costs a ping with every acknowledgement of a client.
const (
	streamWindow = 1 << 20
	connWindow   = 2 << 20
)

func (s *Server) options() []grpc.ServerOption {
	l := s.cfg.Limits
	return []grpc.ServerOption{
		grpc.Creds(link.Credentials(credentials.NewTLS(s.cfg.TLS), 0)),
		grpc.WriteBufferSize(link.WriteBuffer),
		grpc.InitialWindowSize(streamWindow),
		grpc.InitialConnWindowSize(connWindow),
		grpc.ForceServerCodecV2(link.NewCodec()),
		grpc.MaxRecvMsgSize(2 * mux.MaxBatch),
		grpc.MaxHeaderListSize(uint32(l.HeaderBytes)),
		grpc.MaxConcurrentStreams(uint32(l.Streams)),
		grpc.ConnectionTimeout(handshakeWithin),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveTime, Timeout: keepaliveWithin}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveLeast, PermitWithoutStream: true}),
		grpc.WaitForHandlers(true),
		grpc.ChainUnaryInterceptor(s.metrics.rpc.UnaryServerInterceptor(), s.unary),
		grpc.ChainStreamInterceptor(s.metrics.rpc.StreamServerInterceptor(), s.stream),
	}
}

func (s *Server) register() {
	sluicev1.RegisterGatewayServiceServer(s.grpc, s)
	sluicev1.RegisterClusterServiceServer(s.grpc, s)
	sluicev1.RegisterSessionServiceServer(s.grpc, s)
	healthv1.RegisterHealthServer(s.grpc, s.health)
	if s.cfg.Reflection {
		reflection.Register(s.grpc)
	}
}

func (s *Server) listen() (err error) {
	var lc net.ListenConfig
	if s.grpcLis, err = lc.Listen(context.Background(), "tcp", s.cfg.GRPCAddr); err != nil {
		return fmt.Errorf("listen for gRPC: %w", err)
	}
	if s.adminLis, err = lc.Listen(context.Background(), "tcp", s.cfg.AdminAddr); err != nil {
		return errors.Join(fmt.Errorf("listen for metrics and health: %w", err), s.grpcLis.Close())
	}
	if s.web, err = s.newWebDoor(); err != nil {
		return errors.Join(err, s.grpcLis.Close(), s.adminLis.Close())
	}
	return nil
}

// GRPCAddr is where gRPC listens.
func (s *Server) GRPCAddr() net.Addr { return s.grpcLis.Addr() }

// AdminAddr is where metrics, health and profiles listen.
func (s *Server) AdminAddr() net.Addr { return s.adminLis.Addr() }

// Serve serves until ctx ends, then drains: new sessions are refused, clients are told to go elsewhere, and what is left after
// Config.DrainTimeout is ended. When Serve returns, no goroutine of the server is left.
func (s *Server) Serve(ctx context.Context) error {
	failed := make(chan error, 3)
	admin := s.adminServer()
	if s.web != nil {
		s.log.Info("serving the web", "web_addr", s.WebAddr().String())
	}
	s.log.Info("serving", "grpc_addr", s.GRPCAddr().String(), "admin_addr", s.AdminAddr().String(), "version", s.cfg.Version)
	s.health.SetServingStatus("", healthv1.HealthCheckResponse_SERVING) // before anybody can ask
	var serving sync.WaitGroup
	serving.Go(func() { failed <- s.serveAdmin(admin) })
	serving.Go(func() { failed <- s.grpc.Serve(s.grpcLis) })
	if s.web != nil {
		serving.Go(func() { failed <- s.web.serve() })
	}
	var err error
	select {
	case <-ctx.Done():
		s.drain()
	case err = <-failed:
	}
	s.stop()
	err = errors.Join(err, admin.Close())
	serving.Wait()
	return err
}
