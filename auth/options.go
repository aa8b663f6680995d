package auth

import (
	"log/slog"
	"net/http"
	"time"
)

// Option changes an authenticator, or Revocations, while it is built.
type Option func(*options)

type options struct {
	transport http.RoundTripper
	now       func() time.Time
	logger    *slog.Logger
}

func newOptions(opts []Option) options {
	o := options{now: time.Now, logger: slog.New(slog.DiscardHandler)}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// WithTransport makes NewOIDC reach all issuers through transport, which then
// decides whom to trust: an IssuerConfig with a CA is refused. It must honour
// the context of a request. Nothing else of this package dials, so elsewhere the
// option has no effect.
func WithTransport(transport http.RoundTripper) Option {
	return func(o *options) { o.transport = transport }
}

// WithClock reads the time from now, which must be safe for concurrent use,
// instead of time.Now.
func WithClock(now func() time.Time) Option {
	return func(o *options) { o.now = now }
}

// WithLogger logs what a caller is not told: why keys were not fetched, what an
// API server said of a token, that a file could not be read again. Without it
// nothing is logged.
func WithLogger(logger *slog.Logger) Option {
	return func(o *options) { o.logger = logger }
}
