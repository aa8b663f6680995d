// Package tracing sends spans to a collector by OTLP/gRPC (https://opentelemetry.io/docs/specs/otlp/). It decides where spans go and which
// are kept; which there are, those who make them decide, and they know the API of OpenTelemetry alone.
package tracing
