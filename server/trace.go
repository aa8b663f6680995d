package server

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// spans makes the server's spans (docs/decisions/0014-traces.md). A span tells of work that has an end: a call until it is answered or its
// link stands, a channel until it is open, a request to an API server until it is answered. None lasts as long as a stream does, and nothing
// is done for a message. A span holds no credential and no principal, no text of an error and nothing that an API server said but a number.
//
// A nil *spans makes none, at the price of a comparison. All of it is safe for concurrent use.
type spans struct {
	tracer trace.Tracer // Immutable after newSpans.
}

func newSpans(p trace.TracerProvider) *spans {
	if p == nil {
		return nil
	}
	return &spans{tracer: p.Tracer("github.com/sluice-gateway/sluice/server", trace.WithSchemaURL(semconv.SchemaURL))}
}

// Attributes that OpenTelemetry has no name for.
const (
	sessionKey  = attribute.Key("sluice.session.id")
	requestKey  = attribute.Key("sluice.request.id")
	kindKey     = attribute.Key("sluice.channel.kind")
	channelKey  = attribute.Key("sluice.channel.id")
	resourceKey = attribute.Key("sluice.watch.resource")
	reasonKey   = attribute.Key("sluice.reason")
)

// call begins the span of a call, in the trace that its caller has begun, if any. It is called once the caller is known: who has no accepted
// credential makes no spans.
func (t *spans) call(ctx context.Context, method string) context.Context {
	if t == nil {
		return ctx
	}
	method = strings.TrimPrefix(method, "/")
	ctx, span := t.tracer.Start(callersTrace(ctx), method, trace.WithSpanKind(trace.SpanKindServer))
	if span.IsRecording() {
		span.SetAttributes(semconv.RPCSystemNameGRPC, semconv.RPCMethod(method), requestKey.String(requestID(ctx)))
	}
	return ctx
}

// callersTrace is ctx in the trace that the call's traceparent names (https://www.w3.org/TR/trace-context/#traceparent-header). What is
// malformed, or there twice, is as if it were not there; tracestate and baggage are for others and go no further.
func callersTrace(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	said := md.Get("traceparent")
	if len(said) != 1 {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": said[0]})
}

// called ends the span of a call. For a stream whose link stands that has happened before.
func (t *spans) called(ctx context.Context, err error) {
	if t == nil {
		return
	}
	end(trace.SpanFromContext(ctx), err, semconv.RPCResponseStatusCodeKey)
}

// attached ends the span of a stream's call once it carries a session: what follows is the story of its channels.
func (t *spans) attached(ctx context.Context, session string) {
	if t == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(sessionKey.String(session))
	span.End()
}

// end ends a span with how its work ended: the code under a name of the caller's choice, and the reason.
func end(span trace.Span, err error, code attribute.Key) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	e := status.From(err)
	if e == nil {
		span.SetAttributes(code.String(rpccode.Code_OK.String()))
		return
	}
	span.SetAttributes(code.String(rpccode.Code(e.Code).String()), reasonKey.String(status.ReasonName(e.Reason)), semconv.ErrorTypeKey.String(rpccode.Code(e.Code).String()))
	if serversFault(e.Code) {
		span.SetStatus(otelcodes.Error, "")
	}
}

// serversFault reports the codes that count as errors of who answers with them
// (https://opentelemetry.io/docs/specs/semconv/rpc/grpc/); the others say that the caller asked for the wrong thing.
func serversFault(c codes.Code) bool {
	switch c {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		return true
	}
	return false
}

// opening is the span of a channel's opening, from Open to Opened or to the refusal. A nil *opening is of no trace that is kept.
type opening struct {
	span trace.Span
}

// open begins the span of a channel's opening. In a plain session, which lives as long as its call, it is a child of the call's span; in a
// full one, which may live for days, it begins a trace of its own, linked to the call that began the session.
func (t *spans) open(ctx context.Context, call trace.SpanContext, plain bool, o *sluicev1.Open) (context.Context, *opening) {
	if t == nil {
		return ctx, nil
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindInternal)}
	switch {
	case plain:
		ctx = trace.ContextWithSpanContext(ctx, call)
	case call.IsValid():
		options = append(options, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: call}))
	default:
		options = append(options, trace.WithNewRoot())
	}
	kind := kindOf(o.GetTarget())
	ctx, span := t.tracer.Start(ctx, "open "+kind, options...)
	if !span.IsRecording() {
		return ctx, nil
	}
	span.SetAttributes(kindKey.String(kind), semconv.K8SClusterName(o.GetCluster()))
	if w := o.GetTarget().GetWatch(); w != nil {
		span.SetAttributes(resourceKey.String(w.GetResource()), semconv.K8SNamespaceName(w.GetNamespace()))
	}
	if p, ok := podOf(o.GetTarget()); ok {
		span.SetAttributes(semconv.K8SNamespaceName(p.GetNamespace()), semconv.K8SPodName(p.GetPod()))
	}
	return context.WithValue(ctx, episodeKey{}, &episode{of: span.SpanContext(), last: time.Now()}), &opening{span: span}
}

// identify adds what finds the channel in the audit.
func (op *opening) identify(session, request string, channel uint32) {
	if op != nil {
		op.span.SetAttributes(sessionKey.String(session), requestKey.String(request), channelKey.Int64(int64(channel)))
	}
}

// stands ends the span: the channel is open.
func (op *opening) stands() {
	if op != nil {
		op.span.End()
	}
}

// state notes what befell the channel before it was open: attempts that failed.
func (op *opening) state(s *sluicev1.ChannelState) {
	if op != nil {
		op.span.AddEvent(strings.ToLower(stateName(s.GetKind())), trace.WithAttributes(attribute.Int64("sluice.attempt", int64(s.GetAttempt()))))
	}
}

// done ends the span if the channel never opened.
func (op *opening) done(err error) {
	if op != nil {
		end(op.span, err, semconv.RPCResponseStatusCodeKey)
	}
}

// episodeKey is the context key of a channel's episode.
type episodeKey struct{}

// episode is the trace that a channel's requests to its API server belong to. A watch reconnects for days: what follows a quiet time is
// another story, and gets a trace of its own with a link to the one before.
type episode struct {
	mu   sync.Mutex // guards everything below
	of   trace.SpanContext
	last time.Time // of the last request
}

// quiet is how long a channel must have asked for nothing for its next request to begin another trace. It is longer than the longest wait
// between two attempts (bridge.Options.LastBackoff).
const quiet = time.Minute

// start starts a request's span in the episode that it belongs to.
func (e *episode) start(ctx context.Context, t *spans, name string, now time.Time) (context.Context, trace.Span) {
	e.mu.Lock()
	defer e.mu.Unlock()
	client := trace.WithSpanKind(trace.SpanKindClient)
	another := now.Sub(e.last) > quiet
	e.last = now
	if !another {
		return t.tracer.Start(trace.ContextWithSpanContext(ctx, e.of), name, client) //nolint:spancheck // answered ends it
	}
	ctx, span := t.tracer.Start(ctx, name, client, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: e.of})) //nolint:spancheck // answered ends it
	e.of = span.SpanContext()
	return ctx, span //nolint:spancheck // answered ends it
}

// request begins the span of a request to an API server: of a channel, or of a call that asks one itself. The caller ends it with answered.
func (t *spans) request(ctx context.Context, name string) context.Context {
	if t == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx
	}
	if e, ok := ctx.Value(episodeKey{}).(*episode); ok {
		ctx, _ = e.start(ctx, t, name, time.Now())
		return ctx
	}
	ctx, _ = t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindClient)) //nolint:spancheck // answered ends it
	return ctx
}

// apiServer is who was asked; *cluster.Upstream implements it.
type apiServer interface {
	Cluster() string
	Host() string
}

// answered ends the span of a request with whom it went to and its answer's code; without one, code is 0.
func (t *spans) answered(ctx context.Context, up apiServer, code int, err error) {
	if t == nil {
		return
	}
	span := trace.SpanFromContext(ctx)
	defer span.End()
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(semconv.HTTPRequestMethodGet, semconv.K8SClusterName(up.Cluster()), semconv.ServerAddress(up.Host()))
	e := status.From(err)
	if e != nil && code == 0 {
		code = e.HTTPCode
	}
	if code != 0 {
		span.SetAttributes(semconv.HTTPResponseStatusCode(code))
	}
	if e != nil {
		span.SetAttributes(semconv.ErrorTypeKey.String(rpccode.Code(e.Code).String()), reasonKey.String(status.ReasonName(e.Reason)))
		span.SetStatus(otelcodes.Error, "")
	}
}

// traceparent is what an API server is told of the trace that ctx is in; empty when it is in none that is kept.
func traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	said := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, said)
	return said["traceparent"]
}
