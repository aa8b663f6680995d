package rest

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

var (
	errNoPath = status.New(codes.NotFound, sluicev1.Reason_REASON_NOT_IMPLEMENTED, "there is no such path; /openapi.json names all")
	// By HTTP/1.0 a log that was cut off looks whole, and some proxies speak it to those behind them.
	errNoEnd    = invalid("over HTTP/1.0 nobody can tell the end of a log from a cut; use HTTP/1.1 or HTTP/2, or Accept: application/x-ndjson")
	errNoMethod = status.New(codes.Unimplemented, sluicev1.Reason_REASON_NOT_IMPLEMENTED, "the path has other methods; Allow names them")
)

// invalid makes the error for a request that says something wrong.
func invalid(format string, args ...any) *status.Error {
	return status.New(codes.InvalidArgument, sluicev1.Reason_REASON_UNSPECIFIED, format, args...)
}

// newUnary makes the part that grpc-gateway plays: all but which headers pass, what JSON looks like and how errors are said.
func newUnary() *runtime.ServeMux {
	return runtime.NewServeMux(
		runtime.WithIncomingHeaderMatcher(incoming), runtime.WithOutgoingHeaderMatcher(outgoing),
		runtime.WithOutgoingTrailerMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newAnswers()),
		runtime.WithErrorHandler(func(ctx context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
			if md, ok := runtime.ServerMetadataFromContext(ctx); ok {
				answerWith(w, md.HeaderMD)
			}
			fail(w, r, err)
		}),
		runtime.WithDisablePathLengthFallback(), runtime.WithDisableHTTPMethodOverride(),
	)
}

// answerWith copies what metadata may say to the headers of the answer.
func answerWith(w http.ResponseWriter, md map[string][]string) {
	for name, values := range md {
		if h, ok := outgoing(name); ok {
			w.Header()[h] = values
		}
	}
}

// fail answers with why a call failed.
func fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody reads it
	}
	e := status.From(err)
	refuse(w, status.HTTP(e.Code), e)
}

// refuse answers with an error, as the one JSON form that REST has: sluice.v1.Status.
func refuse(w http.ResponseWriter, code int, err error) {
	e := status.From(err)
	h := w.Header()
	h.Set("Content-Type", jsonType)
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64((e.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	b, err := compact(e.Proto())
	if err != nil { // the text of another's error was not UTF-8
		b = []byte(`{"code":13,"message":"the error cannot be written as JSON"}`)
	}
	w.WriteHeader(code)
	_, _ = w.Write(append(b, '\n')) //nolint:gosec // it is JSON, and says so; a client that has left is told nothing
}
