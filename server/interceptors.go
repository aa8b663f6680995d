package server

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime/debug"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// access is who may call a method.
type access uint8

const (
	undeclared access = iota // nobody; and a server with such a method does not start
	authenticated
	public
)

// accessOf is who may call a service's methods. It is looked up by registered method, never by what a path looks like.
var accessOf = map[string]access{
	sluicev1.GatewayService_ServiceDesc.ServiceName: authenticated,
	sluicev1.ClusterService_ServiceDesc.ServiceName: authenticated,
	sluicev1.SessionService_ServiceDesc.ServiceName: authenticated,
	healthv1.Health_ServiceDesc.ServiceName:         public,
	"grpc.reflection.v1.ServerReflection":           public,
	"grpc.reflection.v1alpha.ServerReflection":      public,
}

// rules is the access of every method that g serves, others being that of services that are not Sluice's own; an error names those without one.
func rules(g *grpc.Server, others map[string]access) (map[string]access, error) {
	out := map[string]access{}
	for service, info := range g.GetServiceInfo() {
		a, other := others[service]
		if !other {
			a = accessOf[service]
		}
		if a == undeclared {
			return nil, fmt.Errorf("service %s has no declared access", service)
		}
		for _, m := range info.Methods {
			out["/"+service+"/"+m.Name] = a
		}
	}
	return out, nil
}

// requestIDKey is the context key of a call's request id.
type requestIDKey struct{}

func requestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// enter gives the call its request id and its principal, or refuses it.
func (s *Server) enter(ctx context.Context, method string) (context.Context, error) {
	ctx = context.WithValue(ctx, requestIDKey{}, newRequestID(ctx))
	switch s.rules[method] {
	case public:
		return ctx, nil
	case authenticated:
	default:
		return nil, status.New(codes.Unimplemented, sluicev1.Reason_REASON_NOT_IMPLEMENTED, "no such method")
	}
	p, err := s.authenticate(ctx)
	if err != nil {
		e := status.From(err)
		s.metrics.refused.WithLabelValues(status.ReasonName(e.Reason)).Inc()
		s.log.Info("call refused", "request_id", requestID(ctx), "method", method, "code", e.Code.String(),
			"reason", status.ReasonName(e.Reason), "error", e.Error())
		return nil, e
	}
	return s.spans.call(auth.NewContext(ctx, p), method), nil
}

// authenticate is the one way in: every call of every service passes here.
func (s *Server) authenticate(ctx context.Context) (*auth.Principal, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	credential, err := auth.Bearer(md.Get("authorization"))
	if err != nil {
		return nil, err
	}
	return s.cfg.Authenticator.Authenticate(ctx, credential)
}

// newRequestID is the caller's x-request-id, if it is short and plain, or a new one.
func newRequestID(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if ids := md.Get("x-request-id"); len(ids) == 1 && plainID(ids[0]) {
		return ids[0]
	}
	return rand.Text()
}

func plainID(s string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
	return s != "" && len(s) <= 64 && strings.Trim(s, allowed) == ""
}

// unary is the interceptor of unary calls.
func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	ctx, err = s.enter(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(ctx, info.FullMethod, r)
		}
		s.spans.called(ctx, err)
	}()
	return handler(ctx, req)
}

// stream is the interceptor of streaming calls.
func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx, err := s.enter(ss.Context(), info.FullMethod)
	if err != nil {
		return err
	}
	defer func() {
		if r := recover(); r != nil {
			err = s.panicked(ctx, info.FullMethod, r)
		}
		s.spans.called(ctx, err)
	}()
	if s.rules[info.FullMethod] == public { // no session's end ends it
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(s.ending, cancel)
		defer stop()
	}
	return handler(srv, &entered{ss, ctx})
}

// entered is a stream with the context of enter.
type entered struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (e *entered) Context() context.Context { return e.ctx }

// panicked makes a panic the end of one call.
func (s *Server) panicked(ctx context.Context, method string, r any) error {
	s.metrics.panics.Inc()
	s.log.Error("a call panicked", "request_id", requestID(ctx), "method", method, "panic", r, "stack", string(debug.Stack()))
	return status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED,
		"internal error; request id %s finds it in the gateway's log", requestID(ctx))
}
