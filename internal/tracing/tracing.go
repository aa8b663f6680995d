package tracing

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/credentials"
)

// Config says where spans go. The zero value sends none: see Enabled.
type Config struct {
	// Endpoint is the collector's host:port. Empty makes no spans.
	Endpoint string
	// Insecure sends spans in the clear, as to a collector beside the gateway. They hold no credential, but
	// names of clusters, namespaces and resources.
	Insecure bool
	// CAFile holds the authorities (PEM) that the collector's certificate may come from; empty is the system's.
	CAFile string
	// SampleRatio is the part of the traces that begin here which is kept, from 0 to 1. A trace that a caller has begun is kept if the caller
	// keeps it.
	SampleRatio float64
	// Version is what the binary calls itself.
	Version string
}

// Enabled reports whether spans are to be made at all.
func (c Config) Enabled() bool { return c.Endpoint != "" }

// Validate reports all that is wrong at once. The zero value is right.
func (c Config) Validate() error {
	var errs []error
	if !c.Enabled() {
		if c.Insecure || c.CAFile != "" {
			errs = append(errs, errors.New("tracing: insecure and ca_file say how to reach an endpoint, but there is none"))
		}
	} else if host, port, err := net.SplitHostPort(c.Endpoint); err != nil || host == "" || port == "" {
		errs = append(errs, fmt.Errorf("tracing: endpoint %q is not host:port", c.Endpoint))
	}
	if c.Insecure && c.CAFile != "" {
		errs = append(errs, errors.New("tracing: insecure uses no ca_file: leave one out"))
	}
	if !(c.SampleRatio >= 0 && c.SampleRatio <= 1) { // a NaN is neither
		errs = append(errs, fmt.Errorf("tracing: sample_ratio is %v, must be between 0 and 1", c.SampleRatio))
	}
	return errors.Join(errs...)
}

// Bounds of what waits for the collector. What is beyond them is dropped: no span ever delays what it tells of.
const (
	queued      = 2048 // spans
	batch       = 512  // spans
	batchWithin = 5 * time.Second
	sendWithin  = 10 * time.Second // one attempt
	retryWithin = time.Minute      // all attempts for one batch
)

// Provider makes tracers whose spans are sent to the collector. It is safe for concurrent use.
type Provider struct {
	// Immutable after New.
	sdk      *sdktrace.TracerProvider
	exporter *exporter
}

// New makes a provider for an enabled configuration. It does not wait for the collector: while that is away, spans are dropped, and log is
// told once a minute at most. It also takes over what OpenTelemetry's library has to say of itself, of which there is one a process.
func New(ctx context.Context, c Config, log *slog.Logger) (*Provider, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if !c.Enabled() {
		return nil, errors.New("tracing: no endpoint")
	}
	secure, err := c.transport()
	if err != nil {
		return nil, err
	}
	otlp, err := otlptracegrpc.New(ctx, secure, otlptracegrpc.WithEndpoint(c.Endpoint), otlptracegrpc.WithTimeout(sendWithin),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: 10 * time.Second, MaxElapsedTime: retryWithin,
		}))
	if err != nil {
		return nil, fmt.Errorf("tracing: make an exporter to %s: %w", c.Endpoint, err)
	}
	e := &exporter{SpanExporter: otlp, complaints: complaints{log: log.With("endpoint", c.Endpoint), every: time.Minute, now: time.Now}}
	otel.SetErrorHandler(&e.complaints)
	sdk := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(e, sdktrace.WithMaxQueueSize(queued), sdktrace.WithMaxExportBatchSize(batch),
			sdktrace.WithBatchTimeout(batchWithin), sdktrace.WithExportTimeout(retryWithin+sendWithin)),
		sdktrace.WithSampler(newSampler(c.SampleRatio)),
		sdktrace.WithResource(resource.NewWithAttributes(semconv.SchemaURL, semconv.ServiceName("sluice"),
			semconv.ServiceVersion(c.Version), semconv.ServiceInstanceID(rand.Text()))),
		sdktrace.WithRawSpanLimits(sdktrace.SpanLimits{
			AttributeValueLengthLimit: 256, AttributeCountLimit: 32, EventCountLimit: 32, LinkCountLimit: 4,
			AttributePerEventCountLimit: 8, AttributePerLinkCountLimit: 8,
		}),
	)
	return &Provider{sdk: sdk, exporter: e}, nil
}

// transport is how the collector is spoken to.
func (c Config) transport() (otlptracegrpc.Option, error) {
	if c.Insecure {
		return otlptracegrpc.WithInsecure(), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("tracing: read ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tracing: ca_file %s holds no certificate", c.CAFile)
		}
	}
	return otlptracegrpc.WithTLSCredentials(credentials.NewTLS(config)), nil
}

// TracerProvider is what makers of spans are given.
func (p *Provider) TracerProvider() trace.TracerProvider { return p.sdk }

// Shutdown sends what waits, until ctx ends; what has not been sent then is dropped. When it returns, no goroutine of the provider is left.
func (p *Provider) Shutdown(ctx context.Context) error {
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { stopped <- p.exporter.Shutdown(ctx) }) // what is being sent fails at once, and all after it
	err := p.sdk.Shutdown(context.WithoutCancel(ctx))
	if !stop() {
		err = errors.Join(err, <-stopped, context.Cause(ctx))
	}
	if err != nil {
		return fmt.Errorf("tracing: send the last spans: %w", err)
	}
	return nil
}
