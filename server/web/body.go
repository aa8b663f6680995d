package web

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// bodyWithin is how long a body may take to arrive.
const bodyWithin = 15 * time.Second

// readBody reads a request's body. Every call of this port has one message, and grpc.Server.ServeHTTP would queue what
// comes without a bound; a body that was read to its end also lets net/http notice, with HTTP/1.1, that the client has gone.
func (h *Handler) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	limit := h.config.BodyBytes
	tooLong := refuse(http.StatusRequestEntityTooLarge, status.Limit("web.body_bytes", "the body is longer than %d bytes", limit))
	if r.ContentLength > int64(limit) {
		return nil, tooLong
	}
	deadline := http.NewResponseController(w)
	if err := deadline.SetReadDeadline(time.Now().Add(h.bodyWithin)); err != nil {
		return nil, refuse(http.StatusInternalServerError, status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "bound the body").Wrap(err))
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(limit)))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return nil, tooLong
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, refuse(http.StatusRequestTimeout, status.New(codes.DeadlineExceeded, sluicev1.Reason_REASON_UNSPECIFIED,
			"the body did not arrive within %v", h.bodyWithin))
	case err != nil:
		return nil, refuse(http.StatusBadRequest, status.Violation("the body ended early").Wrap(err))
	}
	if err := deadline.SetReadDeadline(time.Time{}); err != nil {
		return nil, refuse(http.StatusInternalServerError, status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "unbound the body").Wrap(err))
	}
	return body, nil
}

// knownEncoding refuses a compression that the port does not have.
func knownEncoding(encoding string) *status.Error {
	switch encoding {
	case "", "identity", "gzip":
		return nil
	}
	return status.New(codes.Unimplemented, sluicev1.Reason_REASON_NOT_IMPLEMENTED, "the compression must be gzip or identity")
}

// decompress is b without its compression, of at most limit bytes whatever it claims to be.
func decompress(b []byte, encoding string, limit int) ([]byte, *status.Error) {
	if encoding != "gzip" {
		return b, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, status.Violation("the message is not compressed with gzip").Wrap(err)
	}
	out, err := io.ReadAll(io.LimitReader(z, int64(limit)+1))
	if err != nil {
		return nil, status.Violation("the message is not compressed with gzip").Wrap(err)
	}
	if len(out) > limit {
		return nil, status.Limit("web.body_bytes", "the decompressed message is longer than %d bytes", limit)
	}
	return out, nil
}

// newBody is a body that is in memory.
func newBody(b []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
