package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/test/bufconn"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/link"
	"github.com/sluice-gateway/sluice/internal/status"
)

// inProcess is the link in memory by which doors of HTTP call the services: a client of gRPC and a server of its own, with the interceptors of
// the gRPC port. The link would hide who calls, so each call carries a mark, under a key that is drawn at start and known to nobody else; the
// interceptors trade it for the peer of the HTTP request. No other server reads that key.
type inProcess struct {
	// Immutable after newInProcess.
	server *grpc.Server
	lis    *bufconn.Listener
	conn   *grpc.ClientConn
	key    string

	callers sync.Map // mark -> *peer.Peer, of calls on their way
}

var _ grpc.ClientConnInterface = (*inProcess)(nil)

// What the link in memory may hold: of one call that is not read, of all that are on their way, and of its bytes.
const (
	inProcessWindow = 64 << 10
	inProcessShared = 1 << 20
	inProcessBuffer = 256 << 10
)

// newInProcess makes the link to the services of s; serve must run for calls to be answered.
func (s *Server) newInProcess() (*inProcess, error) {
	p := &inProcess{lis: bufconn.Listen(inProcessBuffer), key: "sluice-caller-" + strings.ToLower(rand.Text())}
	p.server = grpc.NewServer(
		grpc.ForceServerCodecV2(link.NewCodec()), grpc.WaitForHandlers(true),
		grpc.StaticStreamWindowSize(inProcessWindow), grpc.StaticConnWindowSize(inProcessShared),
		grpc.ChainUnaryInterceptor(p.unary, s.metrics.rpc.UnaryServerInterceptor(), s.unary),
		grpc.ChainStreamInterceptor(p.stream, s.metrics.rpc.StreamServerInterceptor(), s.stream),
	)
	sluicev1.RegisterGatewayServiceServer(p.server, s)
	sluicev1.RegisterClusterServiceServer(p.server, s)
	sluicev1.RegisterSessionServiceServer(p.server, s)
	var err error
	p.conn, err = grpc.NewClient("passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.lis.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // it leaves no process
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(), grpc.WithIdleTimeout(0),
		// A reader that is slow holds its window and holds up no other: grpc-go gives back the shared one whether a call is read or not.
		grpc.WithStaticStreamWindowSize(inProcessWindow), grpc.WithStaticConnWindowSize(inProcessShared),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)), // the services bound what they say
	)
	if err != nil {
		return nil, fmt.Errorf("link in memory: %w", err)
	}
	return p, nil
}

// serve answers calls until stop.
func (p *inProcess) serve() error {
	if err := p.server.Serve(p.lis); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// stop ends the calls that are left and waits for them.
func (p *inProcess) stop() {
	_ = p.conn.Close() // its only error is that it is closed
	p.server.Stop()
}

// callerKey is the context key of the peer of an HTTP request.
type callerKey struct{}

// from is next, with calls by the link that are made in its requests' contexts telling the requests' peers.
func (p *inProcess) from(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, peerOf(r))))
	})
}

// peerOf is the peer of a request, as grpc-go tells those of its own port.
func peerOf(r *http.Request) *peer.Peer {
	p := &peer.Peer{Addr: &net.TCPAddr{}}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		p.Addr = net.TCPAddrFromAddrPort(a)
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		p.LocalAddr = local
	}
	if r.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{State: *r.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	}
	return p
}

// Invoke implements grpc.ClientConnInterface.
func (p *inProcess) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	ctx, done := p.mark(ctx)
	defer done()
	return p.conn.Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface. Its context must end.
func (p *inProcess) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, done := p.mark(ctx)
	context.AfterFunc(ctx, done)
	return p.conn.NewStream(ctx, desc, method, opts...)
}

// mark gives a call a mark for the peer that its context tells; done is to follow. A call without one is refused at the other end.
func (p *inProcess) mark(ctx context.Context) (_ context.Context, done func()) {
	caller, ok := ctx.Value(callerKey{}).(*peer.Peer)
	if !ok {
		return ctx, func() {}
	}
	mark := rand.Text()
	p.callers.Store(mark, caller)
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	md.Set(p.key, mark) // whatever somebody put there is gone
	return metadata.NewOutgoingContext(ctx, md), func() { p.callers.Delete(mark) }
}

// requestIDHeader is the metadata that a call's request id comes in, and is answered in by the link.
const requestIDHeader = "x-request-id"

// arrived trades the mark of a call for its peer, and gives it the request id that its answer tells.
func (p *inProcess) arrived(ctx context.Context) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	marks := md.Get(p.key)
	if len(marks) != 1 {
		return nil, errUnmarked
	}
	caller, ok := p.callers.LoadAndDelete(marks[0])
	if !ok {
		return nil, errUnmarked
	}
	md = md.Copy()
	md.Delete(p.key)
	md.Set(requestIDHeader, newRequestID(ctx)) // enter takes it over
	if err := grpc.SetHeader(ctx, metadata.Pairs(requestIDHeader, md.Get(requestIDHeader)[0])); err != nil {
		return nil, errUnmarked.Wrap(err) // nothing has been answered yet
	}
	return peer.NewContext(metadata.NewIncomingContext(ctx, md), caller.(*peer.Peer)), nil
}

var errUnmarked = status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "a call by the link in memory does not say whose it is")

// unary is the link's own interceptor of unary calls.
func (p *inProcess) unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, err := p.arrived(ctx)
	if err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

// stream is the link's own interceptor of streaming calls.
func (p *inProcess) stream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, err := p.arrived(ss.Context())
	if err != nil {
		return err
	}
	return handler(srv, &entered{ss, ctx})
}
