// Package tracetest is a collector of spans for tests: the service of OTLP/gRPC, in process.
package tracetest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector keeps the spans it is sent. It is safe for concurrent use.
type Collector struct {
	collector.UnimplementedTraceServiceServer

	lis net.Listener // Immutable after New.

	mu      sync.Mutex // guards everything below
	batches []*collector.ExportTraceServiceRequest
	changed chan struct{} // closed and replaced with every batch
	fail    error
	failed  int
}

// New makes a collector that listens on loopback, in the clear unless an option says otherwise. It ends with the test.
func New(tb testing.TB, options ...grpc.ServerOption) *Collector {
	tb.Helper()
	var lc net.ListenConfig
	lis, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c := &Collector{lis: lis, changed: make(chan struct{})}
	s := grpc.NewServer(options...)
	collector.RegisterTraceServiceServer(s, c)
	served := make(chan error, 1)
	go func() { served <- s.Serve(lis) }() // ends with Stop
	tb.Cleanup(func() {
		s.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			tb.Errorf("serve the collector: %v", err)
		}
	})
	return c
}

// Endpoint is where the collector listens.
func (c *Collector) Endpoint() string { return c.lis.Addr().String() }

// Export implements the service.
func (c *Collector) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
	if c.fail != nil {
		c.failed++
		return nil, c.fail
	}
	c.batches = append(c.batches, r)
	return &collector.ExportTraceServiceResponse{}, nil
}

// Fail answers every batch with err from now on; nil takes them again.
func (c *Collector) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = err
}

// AwaitFailed waits until n batches were answered with an error.
func (c *Collector) AwaitFailed(ctx context.Context, n int) error {
	return c.await(ctx, func() bool { return c.failed >= n })
}

// Batches is everything that was sent, with what it says of its sender.
func (c *Collector) Batches() []*collector.ExportTraceServiceRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*collector.ExportTraceServiceRequest(nil), c.batches...)
}

// Spans is all spans so far, in the order in which they came.
func (c *Collector) Spans() []*otlp.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.spans()
}

// spans is Spans; mu is held.
func (c *Collector) spans() (all []*otlp.Span) {
	for _, b := range c.batches {
		for _, r := range b.GetResourceSpans() {
			for _, s := range r.GetScopeSpans() {
				all = append(all, s.GetSpans()...)
			}
		}
	}
	return all
}

// Await waits until the spans satisfy ok. It does not make their sender send them.
func (c *Collector) Await(ctx context.Context, ok func([]*otlp.Span) bool) error {
	return c.await(ctx, func() bool { return ok(c.spans()) })
}

func (c *Collector) await(ctx context.Context, ok func() bool) error {
	for {
		c.mu.Lock()
		done, changed := ok(), c.changed
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
