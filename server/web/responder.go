package web

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// responder is the http.ResponseWriter that grpc-go writes to: it takes the messages out of the stream of bytes, and the status out of the
// trailers. grpc-go uses it from the goroutine that called ServeHTTP and no other.
type responder struct {
	header http.Header // what grpc-go says
	out    answer
	giveUp context.CancelFunc
	begun  bool

	code    int    // of HTTP, when it is not 200
	head    []byte // an envelope that has begun
	left    int    // bytes of the message that are to come, once its envelope is complete
	message []byte // the beginning of a message
	err     error  // what came is no stream of messages, or cannot be written any more
}

var _ interface {
	http.ResponseWriter
	http.Flusher
} = (*responder)(nil)

// Header implements http.ResponseWriter.
func (r *responder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *responder) WriteHeader(code int) { r.code = code }

// Flush implements http.Flusher: an answer flushes by itself.
func (*responder) Flush() {}

// Write implements http.ResponseWriter.
func (r *responder) Write(p []byte) (int, error) {
	if r.code > http.StatusOK {
		return len(p), nil // a text for people of what grpc-go did not like
	}
	for rest := p; len(rest) > 0 && r.err == nil; {
		rest = r.take(rest)
	}
	if r.err != nil {
		r.giveUp()
		return 0, r.err
	}
	return len(p), nil
}

// take takes a part of p and returns the rest.
func (r *responder) take(p []byte) []byte {
	if len(r.head) < envelopeBytes {
		n := min(envelopeBytes-len(r.head), len(p))
		r.head = append(r.head, p[:n]...)
		if p = p[n:]; len(r.head) < envelopeBytes {
			return p
		}
		if r.head[0] != 0 {
			r.err = errors.New("grpc-go compressed a message")
			return nil
		}
		if r.left = int(binary.BigEndian.Uint32(r.head[1:])); r.left > 0 {
			return p
		}
	}
	n := min(r.left, len(p))
	r.left -= n
	if r.left > 0 {
		r.message = append(r.message, p[:n]...)
		return p[n:]
	}
	if !r.begun {
		r.begun = true
		r.out.begin(metadataIn(r.header, ""))
	}
	switch {
	case len(r.message) == 0:
		r.err = r.out.message(p[:n]) // it came in one piece
	default:
		r.err = r.out.message(append(r.message, p[:n]...))
	}
	r.head, r.message = r.head[:0], nil
	return p[n:]
}

// end ends the answer with the status that grpc-go left. Without one the client has gone, or the server has stopped.
func (r *responder) end() {
	if !r.begun {
		r.out.begin(metadataIn(r.header, ""))
	}
	r.out.end(r.status(), metadataIn(r.header, http.TrailerPrefix))
}

// metadataIn is what the service said to its caller, in the fields of h whose names begin with prefix; what gRPC consists of is not its.
func metadataIn(h http.Header, prefix string) http.Header {
	out := http.Header{}
	for name, values := range h {
		name, ok := strings.CutPrefix(name, prefix)
		if prefix == "" && strings.HasPrefix(name, http.TrailerPrefix) {
			ok = false
		}
		if name = http.CanonicalHeaderKey(name); ok && !protocols(name) && name != "Trailer" && name != "Date" {
			out[name] = values
		}
	}
	return out
}

func (r *responder) status() *grpcstatus.Status {
	if r.err != nil {
		return errUnwritable.GRPCStatus()
	}
	code, err := strconv.ParseUint(r.header.Get("Grpc-Status"), 10, 32)
	if err != nil {
		return errEnded.GRPCStatus()
	}
	if b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(r.header.Get("Grpc-Status-Details-Bin"), "=")); err == nil && len(b) > 0 {
		var p spb.Status
		if err := proto.Unmarshal(b, &p); err == nil {
			return grpcstatus.FromProto(&p)
		}
	}
	text, err := url.PathUnescape(r.header.Get("Grpc-Message"))
	if err != nil {
		text = r.header.Get("Grpc-Message")
	}
	return grpcstatus.New(codes.Code(code), text)
}

var (
	errEnded      = status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "the server stops")
	errUnwritable = status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "a message of the answer cannot be written")
)
