package tracing

import (
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// newSampler keeps what belongs to a trace that is kept, as a child or by a link, and a part of the traces that begin here.
func newSampler(ratio float64) sdktrace.Sampler {
	return sdktrace.ParentBased(rootSampler{sdktrace.TraceIDRatioBased(ratio)})
}

// rootSampler decides for spans without a parent. The trace that such a span is linked to has its story's beginning: half of a story is of
// no use.
type rootSampler struct{ others sdktrace.Sampler }

// ShouldSample implements sdktrace.Sampler.
func (s rootSampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	for _, l := range p.Links {
		if l.SpanContext.IsSampled() {
			return sdktrace.SamplingResult{
				Decision: sdktrace.RecordAndSample, Tracestate: trace.SpanContextFromContext(p.ParentContext).TraceState(),
			}
		}
	}
	return s.others.ShouldSample(p)
}

// Description implements sdktrace.Sampler.
func (s rootSampler) Description() string { return "LinkSampled{" + s.others.Description() + "}" }
