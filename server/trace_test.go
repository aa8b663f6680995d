package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/tracing"
	"github.com/sluice-gateway/sluice/internal/tracing/tracetest"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// traced is a rig whose spans are kept: of a part of the traces that begin there, and of all that callers keep.
type traced struct {
	*rig.Rig
	t         *testing.T
	provider  *tracing.Provider
	collector *tracetest.Collector
}

func newTraced(t *testing.T, ratio float64, o rig.Options) *traced {
	t.Helper()
	c := tracetest.New(t)
	p, err := tracing.New(within(t), tracing.Config{Endpoint: c.Endpoint(), Insecure: true, SampleRatio: ratio}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	o.Change = func(c *server.Config) { c.Tracer = p.TracerProvider() }
	o.Kube.Record = true
	return &traced{Rig: rig.New(t, o), t: t, provider: p, collector: c}
}

// spans takes the rig apart and returns all spans that it made.
func (r *traced) spans() []*otlp.Span {
	r.t.Helper()
	r.Stop()
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	defer cancel()
	if err := r.provider.Shutdown(ctx); err != nil {
		r.t.Fatal(err)
	}
	return r.collector.Spans()
}

// named is the only span of a name.
func named(t *testing.T, spans []*otlp.Span, name string) *otlp.Span {
	t.Helper()
	var found []*otlp.Span
	for _, s := range spans {
		if s.GetName() == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans %q among %v", len(found), name, names(spans))
	}
	return found[0]
}

func names(spans []*otlp.Span) (all []string) {
	for _, s := range spans {
		all = append(all, s.GetName())
	}
	return all
}

// attributes are a span's, as text.
func attributes(s *otlp.Span) map[string]string {
	all := map[string]string{}
	for _, a := range s.GetAttributes() {
		all[a.GetKey()] = a.GetValue().GetStringValue()
		if v := a.GetValue().GetIntValue(); v != 0 {
			all[a.GetKey()] = fmt.Sprint(v)
		}
	}
	return all
}

// The trace that callers of these tests have begun, and keep.
const (
	callersTrace = "4bf92f3577b34da6a3ce929d0e0e4736"
	callersSpan  = "00f067aa0ba902b7"
	callersWord  = "00-" + callersTrace + "-" + callersSpan + "-01"
)

func TestACallIsASpanOfItsCallersTrace(t *testing.T) {
	r := newTraced(t, 0, rig.Options{})
	ctx := metadata.AppendToOutgoingContext(r.As(within(t), "alice"), "traceparent", callersWord, "x-request-id", "req-1",
		"tracestate", "vendor=canary", "baggage", "secret=canary")
	clusters := sluicev1.NewClusterServiceClient(r.Conn())
	if _, err := clusters.ListClusters(ctx, &sluicev1.ListClustersRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := clusters.CheckAccess(ctx, &sluicev1.CheckAccessRequest{}); status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	spans := r.spans()
	listed, refused := named(t, spans, "sluice.v1.ClusterService/ListClusters"), named(t, spans, "sluice.v1.ClusterService/CheckAccess")
	for _, s := range []*otlp.Span{listed, refused} {
		if fmt.Sprintf("%x", s.GetTraceId()) != callersTrace || fmt.Sprintf("%x", s.GetParentSpanId()) != callersSpan ||
			s.GetKind() != otlp.Span_SPAN_KIND_SERVER {
			t.Errorf("%s is not of the caller's trace: %v", s.GetName(), s)
		}
	}
	a, b := attributes(listed), attributes(refused)
	if a["rpc.system.name"] != "grpc" || a["rpc.method"] != listed.GetName() || a["rpc.response.status_code"] != "OK" || a["sluice.request.id"] != "req-1" {
		t.Errorf("the call's span has %v", a)
	}
	if b["rpc.response.status_code"] != "UNIMPLEMENTED" || refused.GetStatus().GetCode() != otlp.Status_STATUS_CODE_ERROR ||
		listed.GetStatus().GetCode() != otlp.Status_STATUS_CODE_UNSET {
		t.Errorf("the refused call's span has %v, %v", b, refused.GetStatus())
	}
}

// Who has no accepted credential makes no spans, whatever its traceparent says; nor does a traceparent that is no good.
func TestWhoMakesNoSpans(t *testing.T) {
	r := newTraced(t, 0, rig.Options{})
	call := func(ctx context.Context, traceparent ...string) error {
		md, _ := metadata.FromOutgoingContext(ctx)
		md = metadata.Join(md, metadata.MD{"traceparent": traceparent})
		_, err := sluicev1.NewClusterServiceClient(r.Conn()).ListClusters(metadata.NewOutgoingContext(ctx, md), &sluicev1.ListClustersRequest{})
		return err
	}
	alice := r.As(within(t), "alice")
	if err := call(within(t), callersWord); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
	for _, said := range [][]string{
		nil,
		{callersWord, callersWord},
		{"00-" + callersTrace + "-" + callersSpan + "-00"},
		{"garbage"},
		{""},
		{"00-00000000000000000000000000000000-" + callersSpan + "-01"},
		{"ff-" + callersTrace + "-" + callersSpan + "-01"},
		{strings.Repeat(callersWord, 50)},
	} {
		if err := call(alice, said...); err != nil {
			t.Errorf("%q: %v", said, err)
		}
	}
	if spans := r.spans(); len(spans) != 0 {
		t.Errorf("there are spans: %v", names(spans))
	}
}
