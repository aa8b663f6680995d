package server_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// ancestry are the names of a span and of those above it.
func ancestry(spans []*otlp.Span, s *otlp.Span) (all []string) {
	for s != nil {
		all = append(all, s.GetName())
		i := slices.IndexFunc(spans, func(o *otlp.Span) bool { return string(o.GetSpanId()) == string(s.GetParentSpanId()) })
		if i < 0 {
			break
		}
		s = spans[i]
	}
	return all
}

// traceparents are what the API server was told, by the kind of request.
func (r *traced) traceparents() map[string][]string {
	all := map[string][]string{}
	for _, q := range r.Kube.Requests() {
		all[q.Attributes.Verb] = append(all[q.Attributes.Verb], q.Header.Values("Traceparent")...)
	}
	return all
}

// A Watch is one trace, from its caller to the request that the API server gets, and its spans end while it runs.
func TestAWatchIsOneTraceFromItsCallerToTheAPIServer(t *testing.T) {
	r := newTraced(t, 0, rig.Options{})
	ctx := metadata.AppendToOutgoingContext(r.As(within(t), "alice"), "traceparent", callersWord)
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Watch(ctx, &sluicev1.WatchRequest{Watch: pods()})
	if err != nil {
		t.Fatal(err)
	}
	for synced := false; !synced; {
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		synced = res.GetState().GetKind() == sluicev1.ChannelState_KIND_RESYNC_END
	}
	told := r.traceparents()["watch"]
	spans := r.spans()
	dial := named(t, spans, "watch")
	if got, want := ancestry(spans, dial), []string{"watch", "open watch", "sluice.v1.GatewayService/Watch"}; !slices.Equal(got, want) {
		t.Errorf("the request is of %v, want %v", got, want)
	}
	for _, s := range spans {
		if fmt.Sprintf("%x", s.GetTraceId()) != callersTrace {
			t.Errorf("%s is of another trace", s.GetName())
		}
	}
	if want := fmt.Sprintf("00-%s-%x-01", callersTrace, dial.GetSpanId()); len(told) != 1 || told[0] != want {
		t.Errorf("the API server was told %q, want %q", told, want)
	}
	if a := attributes(dial); a["server.address"] != "127.0.0.1" || a["http.response.status_code"] != "101" || a["k8s.cluster.name"] != rig.Cluster ||
		dial.GetKind() != otlp.Span_SPAN_KIND_CLIENT {
		t.Errorf("the request's span has %v", a)
	}
	open := named(t, spans, "open watch")
	if a := attributes(open); a["sluice.channel.kind"] != "watch" || a["sluice.watch.resource"] != "pods" || a["sluice.session.id"] == "" ||
		!strings.Contains(r.Audit.String(), a["sluice.request.id"]) {
		t.Errorf("the opening's span has %v", a)
	}
	if a := attributes(named(t, spans, "sluice.v1.GatewayService/Watch")); a["rpc.response.status_code"] != "" {
		t.Errorf("the call's span lasted as long as the call: %v", a)
	}
}

// A session outlives its call: its channels have traces of their own, linked to it, and are kept with it.
func TestAChannelOfASessionIsLinkedToItsCall(t *testing.T) {
	r := newTraced(t, 0, rig.Options{})
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(r.As(within(t), "alice"), "traceparent", callersWord))
	defer cancel()
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := &call{t: t, stream: stream, cancel: cancel}
	c.hello(nil)
	c.send(openFrame(1, 1, watching()))
	c.until(listed(1))
	lost := watching()
	lost.Cluster = "nowhere"
	c.send(openFrame(2, 1, lost))
	if err := c.closed(2); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	cancel()
	spans := r.spans()
	connect := named(t, spans, "sluice.v1.GatewayService/Connect")
	traces := map[string]bool{}
	for _, s := range spans {
		traces[string(s.GetTraceId())] = true
		if s.GetName() != "open watch" {
			continue
		}
		if l := s.GetLinks(); len(s.GetParentSpanId()) != 0 || len(l) != 1 || string(l[0].GetSpanId()) != string(connect.GetSpanId()) {
			t.Errorf("%v is not linked to the call alone", s)
		}
		if a := attributes(s); a["k8s.cluster.name"] == "nowhere" && a["rpc.response.status_code"] != "NOT_FOUND" {
			t.Errorf("the refused opening has %v", a)
		}
	}
	if len(traces) != 3 {
		t.Errorf("%d traces, want the caller's and one for each channel: %v", len(traces), names(spans))
	}
}

// What a watch asks for after it was opened is in the trace of its opening, and what an API server answers is in the spans, as a number.
func TestReconnectsAreInTheTrace(t *testing.T) {
	r := newTraced(t, 1, rig.Options{})
	r.Kube.Faults.Add(kubetest.Fault{Match: kubetest.Watches, Times: 1, Action: kubetest.Respond(503, nil, "canary of the API server")})
	c := connect(t, r.Rig, "alice")
	c.send(openFrame(1, 0, watching()))
	c.until(listed(1))
	r.Kube.EndWatches()
	if err := r.Kube.Await(within(t), func(n kubetest.Counts) bool { return n.Watches >= 3 && n.Live == 1 }); err != nil {
		t.Fatal(err)
	}
	apply(t, r.Rig, "p", "after the reconnect")
	c.until(func(f *sluicev1.ServerFrame) bool { return f.GetData() != nil })
	c.cancel()
	spans := r.spans()
	open := named(t, spans, "open watch")
	if e := open.GetEvents(); len(e) != 1 || e[0].GetName() != "reconnecting" {
		t.Errorf("the opening's events: %v", e)
	}
	var answers []string
	for _, s := range spans {
		if s.GetName() == "watch" && string(s.GetParentSpanId()) == string(open.GetSpanId()) {
			answers = append(answers, attributes(s)["http.response.status_code"])
		}
	}
	if len(answers) < 3 || answers[0] != "503" || answers[1] != "101" || answers[2] != "101" {
		t.Errorf("the requests of the opening were answered %v", answers)
	}
}

// T-A10: nothing that proves who somebody is, and nothing that an API server says, is in any span.
func TestT_A10_SpansHoldNoSecret(t *testing.T) {
	r := newTraced(t, 1, rig.Options{})
	token := r.Token("alice-canary")
	plain := http.Header{"Content-Type": {"text/plain"}}
	r.Kube.Faults.Add(kubetest.Fault{Match: kubetest.Watches, Times: 1, Action: kubetest.Respond(403, plain, "canary-answer")})
	ctx := metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+token, "tracestate", "v=canary", "baggage", "s=canary",
		"cookie", "canary", "sluice-cluster-authorization", "Bearer canary")
	gateway := sluicev1.NewGatewayServiceClient(r.Conn())
	target := pods()
	target.LabelSelector = "canary=selector"
	for range 2 { // the first is refused by the API server
		watch, err := gateway.Watch(ctx, &sluicev1.WatchRequest{Watch: target})
		if err != nil {
			t.Fatal(err)
		}
		_, err = watch.Recv()
		if err != nil && (status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "canary-answer")) {
			t.Fatal(err)
		}
	}
	spans := r.spans()
	if len(spans) != 6 {
		t.Errorf("%d spans: %v", len(spans), names(spans))
	}
	for _, s := range spans {
		said := s.String()
		for _, secret := range append(strings.Split(token, "."), "canary") {
			if strings.Contains(said, secret) {
				t.Errorf("a span holds %.20q: %s", secret, said)
			}
		}
	}
}
