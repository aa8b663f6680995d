package tracing

import (
	"context"
	"log/slog"
	"sync"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// complaints tells the log what went wrong with spans, once in a while: a collector that is away must not fill the log.
type complaints struct {
	// Immutable.
	log   *slog.Logger
	every time.Duration
	now   func() time.Time

	mu     sync.Mutex // guards everything below
	told   time.Time
	unsaid int // errors since
	lost   int // spans since
}

// Handle implements otel.ErrorHandler.
func (c *complaints) Handle(err error) { c.note(err, 0) }

// note counts an error and the spans it cost, and tells of both unless it has just told of others.
func (c *complaints) note(err error, lost int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unsaid++
	c.lost += lost
	now := c.now()
	if !c.told.IsZero() && now.Sub(c.told) < c.every {
		return
	}
	c.log.Warn("spans are lost on their way to the collector", "error", err, "errors", c.unsaid, "spans", c.lost)
	c.told, c.unsaid, c.lost = now, 0, 0
}

// exporter is an exporter whose failures are told by complaints, and by nobody else.
type exporter struct {
	sdktrace.SpanExporter
	complaints complaints
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.complaints.note(err, len(spans))
	}
	return nil
}
