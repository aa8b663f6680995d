package tracing

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/sluice-gateway/sluice/internal/tracing/tracetest"
)

// within bounds what a test waits for; it only ever ends one that has failed.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, c Config) *Provider {
	t.Helper()
	p, err := New(within(t), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func shutdown(t *testing.T, p *Provider) {
	t.Helper()
	if err := p.Shutdown(within(t)); err != nil {
		t.Error(err)
	}
}

func TestSpansReachTheCollector(t *testing.T) {
	c := tracetest.New(t)
	p := start(t, Config{Endpoint: c.Endpoint(), Insecure: true, SampleRatio: 1, Version: "v1.2.3"})
	_, span := p.TracerProvider().Tracer("test").Start(t.Context(), "work")
	span.SetAttributes(attribute.String("long", strings.Repeat("x", 10_000)))
	span.End()
	shutdown(t, p)
	spans := c.Spans()
	if len(spans) != 1 || spans[0].GetName() != "work" {
		t.Fatalf("the collector has %v", spans)
	}
	if n := len(spans[0].GetAttributes()[0].GetValue().GetStringValue()); n != 256 {
		t.Errorf("an attribute has %d bytes", n)
	}
	sender := c.Batches()[0].GetResourceSpans()[0].GetResource().String()
	for _, want := range []string{"service.name", "sluice", "service.version", "v1.2.3", "service.instance.id"} {
		if !strings.Contains(sender, want) {
			t.Errorf("the sender says %s, without %q", sender, want)
		}
	}
	for _, secretive := range []string{"process.", "host.", os.Args[0]} {
		if strings.Contains(sender, secretive) {
			t.Errorf("the sender says %s, with %q", sender, secretive)
		}
	}
}

// handshakes are a server's side of TLS that says how each handshake ended.
type handshakes struct {
	credentials.TransportCredentials
	ended chan error
}

// ServerHandshake implements credentials.TransportCredentials.
func (h handshakes) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, info, err := h.TransportCredentials.ServerHandshake(nc)
	select {
	case h.ended <- err:
	default:
	}
	return secure, info, err
}

func TestTheCollectorIsVerified(t *testing.T) {
	own := httptest.NewUnstartedServer(nil) // for its certificate, which is its own authority
	own.StartTLS()
	defer own.Close()
	config := &tls.Config{Certificates: own.TLS.Certificates, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	h := handshakes{credentials.NewTLS(config), make(chan error, 1)}
	c := tracetest.New(t, grpc.Creds(h))
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	send := func(c Config) *Provider {
		p := start(t, c)
		_, span := p.TracerProvider().Tracer("test").Start(t.Context(), "work")
		span.End()
		return p
	}
	shutdown(t, send(Config{Endpoint: c.Endpoint(), CAFile: ca, SampleRatio: 1}))
	if err := <-h.ended; err != nil || len(c.Spans()) != 1 {
		t.Errorf("a collector that is trusted: %v, and %d spans came", err, len(c.Spans()))
	}
	p := send(Config{Endpoint: c.Endpoint(), SampleRatio: 1})
	ctx, cancel := context.WithCancel(within(t))
	flushed := make(chan error, 1)
	go func() { flushed <- p.sdk.ForceFlush(ctx) }() // ends with ctx at the latest
	if err := <-h.ended; err == nil {
		t.Error("the certificate of a stranger is accepted")
	}
	cancel()
	if err := <-flushed; !errors.Is(err, context.Canceled) {
		t.Errorf("ForceFlush returned %v", err)
	}
	if err := p.Shutdown(ctx); !errors.Is(err, context.Canceled) || len(c.Spans()) != 1 {
		t.Errorf("Shutdown returned %v, and %d spans came", err, len(c.Spans()))
	}
}

func TestAConfigurationThatCannotBeRightIsRefused(t *testing.T) {
	notPEM := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(notPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero value is refused: %v", err)
	}
	for want, c := range map[string]Config{
		"no endpoint":          {},
		"not host:port":        {Endpoint: "collector"},
		"there is none":        {Insecure: true},
		"leave one out":        {Endpoint: "c:4317", Insecure: true, CAFile: "x"},
		"is -0.1":              {Endpoint: "c:4317", SampleRatio: -0.1},
		"is 1.1":               {Endpoint: "c:4317", SampleRatio: 1.1},
		"is NaN":               {Endpoint: "c:4317", SampleRatio: math.NaN()},
		"read ca_file":         {Endpoint: "c:4317", CAFile: notPEM + ".not"},
		"holds no certificate": {Endpoint: "c:4317", CAFile: notPEM},
	} {
		p, err := New(within(t), c, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%+v is accepted", c)
			shutdown(t, p)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}

// A trace is kept or not as a whole: by its caller's decision, by that of the trace it is linked to, and only then by the ratio.
func TestWhatIsKept(t *testing.T) {
	remote := func(flags trace.TraceFlags) trace.SpanContext {
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: true})
	}
	kept, dropped := remote(trace.FlagsSampled), remote(0)
	for _, test := range []struct {
		name   string
		ratio  float64
		parent trace.SpanContext
		link   trace.SpanContext
		want   bool
	}{
		{name: "none of the roots", ratio: 0},
		{name: "every root", ratio: 1, want: true},
		{name: "the caller keeps it", ratio: 0, parent: kept, want: true},
		{name: "the caller drops it", ratio: 1, parent: dropped},
		{name: "linked to a kept one", ratio: 0, link: kept, want: true},
		{name: "linked to a dropped one", ratio: 0, link: dropped},
		{name: "linked to a dropped one, by the ratio", ratio: 1, link: dropped, want: true},
		{name: "the caller decides before the link", ratio: 1, parent: dropped, link: kept},
	} {
		c := tracetest.New(t)
		p := start(t, Config{Endpoint: c.Endpoint(), Insecure: true, SampleRatio: test.ratio})
		var options []trace.SpanStartOption
		if test.link.IsValid() {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: test.link}))
		}
		_, span := p.TracerProvider().Tracer("test").Start(trace.ContextWithSpanContext(t.Context(), test.parent), "work", options...)
		span.End()
		shutdown(t, p)
		if got := len(c.Spans()) == 1; got != test.want {
			t.Errorf("%s: kept is %v", test.name, got)
		}
	}
}

// A collector that takes connections and says nothing: spans are dropped, their makers never wait, and Shutdown gives up when it must.
func TestACollectorThatHangsHoldsUpNobody(t *testing.T) {
	var lc net.ListenConfig
	lis, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	p := start(t, Config{Endpoint: lis.Addr().String(), Insecure: true, SampleRatio: 1})
	tracer := p.TracerProvider().Tracer("test")
	for range 5 * queued { // a queue that blocked would block for ever
		_, span := tracer.Start(t.Context(), "work")
		span.End()
	}
	ctx, cancel := context.WithCancel(within(t))
	cancel()
	ended := make(chan error, 1)
	go func() { ended <- p.Shutdown(ctx) }() // that it leaves no goroutine, TestMain says
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Shutdown returned %v", err)
		}
	case <-time.After(sendWithin): // what waits takes several times as long to be given up by itself
		t.Errorf("Shutdown waits for the collector, and then returns %v", <-ended)
	}
}

func TestLostSpansAreToldOnceAMinute(t *testing.T) {
	var log strings.Builder
	var now time.Time
	c := complaints{log: slog.New(slog.NewJSONHandler(&log, nil)), every: time.Minute, now: func() time.Time { return now }}
	away := status.Error(codes.Unavailable, "away")
	for second := range 119 {
		now = time.Unix(int64(second), 0)
		c.note(away, 10)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"errors":1,"spans":10`) || !strings.Contains(lines[1], `"errors":60,"spans":600`) {
		t.Errorf("told: %s", log.String())
	}
}

// What the collector refuses is told to the log and to nobody else, and the next batch is tried.
func TestRefusedSpansAreTold(t *testing.T) {
	c := tracetest.New(t)
	c.Fail(status.Error(codes.InvalidArgument, "no room")) // final: not tried again
	var log strings.Builder
	p, err := New(within(t), Config{Endpoint: c.Endpoint(), Insecure: true, SampleRatio: 1}, slog.New(slog.NewJSONHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	tracer := p.TracerProvider().Tracer("test")
	_, span := tracer.Start(t.Context(), "refused")
	span.End()
	if err := p.sdk.ForceFlush(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitFailed(within(t), 1); err != nil {
		t.Fatal(err)
	}
	c.Fail(nil)
	_, span = tracer.Start(t.Context(), "taken")
	span.End()
	shutdown(t, p)
	if err := c.Await(within(t), func(s []*otlp.Span) bool { return len(s) == 1 && s[0].GetName() == "taken" }); err != nil {
		t.Errorf("the collector has %v", c.Spans())
	}
	if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "no room") || !strings.Contains(got, `"spans":1`) {
		t.Errorf("the log says %s", got)
	}
}
