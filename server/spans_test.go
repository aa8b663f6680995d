package server

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	sdktest "go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// Without a tracer nothing is allocated for a call, a channel or a request: what it costs is a comparison each.
func TestSpansThatAreNotMadeCostNothing(t *testing.T) {
	none := newSpans(nil)
	ctx, open := t.Context(), &sluicev1.Open{}
	allocs := testing.AllocsPerRun(100, func() {
		call := none.call(ctx, "/sluice.v1.GatewayService/Connect")
		none.attached(call, "session")
		opening, op := none.open(call, trace.SpanContext{}, false, open)
		op.identify("session", "request", 1)
		op.state(nil)
		op.stands()
		asked := none.request(opening, "watch")
		_ = traceparent(asked)
		none.answered(asked, nil, 200, nil)
		op.done(nil)
		none.called(call, nil)
		if asked != ctx {
			t.Error("a context was made")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// somewhere is an API server.
type somewhere struct{}

func (somewhere) Cluster() string { return "c" }
func (somewhere) Host() string    { return "h" }

// A watch of days is told in episodes: requests within a minute of another are of one trace, what follows a quiet time begins the next, with a
// link to the one before.
func TestAQuietTimeEndsATrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		recorder := sdktest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sdktrace.AlwaysSample()))
		made := newSpans(provider)
		ctx, op := made.open(context.Background(), trace.SpanContext{}, false, &sluicev1.Open{})
		ask := func() { made.answered(made.request(ctx, "watch"), somewhere{}, 101, nil) }
		wait := func(d time.Duration) {
			timer := time.NewTimer(d)
			<-timer.C
		}
		op.done(nil)
		ask() // 1, of the opening
		wait(50 * time.Second)
		ask() // 2, the same
		wait(50 * time.Second)
		ask() // 3, the same: a minute of quiet is what counts
		wait(time.Hour)
		ask() // 4, another
		wait(time.Second)
		ask() // 5, of the fourth
		wait(time.Hour)
		ask() // 6, another
		spans := recorder.Ended()
		if len(spans) != 7 {
			t.Fatalf("%d spans", len(spans))
		}
		parent := func(i int) trace.SpanID { return spans[i].Parent().SpanID() }
		id := func(i int) trace.SpanID { return spans[i].SpanContext().SpanID() }
		linked := func(i int) trace.SpanID {
			if len(spans[i].Links()) != 1 {
				return trace.SpanID{}
			}
			return spans[i].Links()[0].SpanContext.SpanID()
		}
		for child, of := range map[int]int{1: 0, 2: 0, 3: 0, 5: 4} {
			if parent(child) != id(of) {
				t.Errorf("request %d is not of span %d", child, of)
			}
		}
		for root, before := range map[int]int{4: 0, 6: 4} {
			if parent(root).IsValid() || linked(root) != id(before) {
				t.Errorf("request %d does not begin a trace linked to span %d", root, before)
			}
		}
		if err := provider.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
