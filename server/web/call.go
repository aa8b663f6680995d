package web

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// call serves one RPC, or refuses it. Where errors travel in the answer of a call, so does the refusal, with 200: clients of gRPC-Web, and of
// Connect's streams, take any other code of HTTP for all there is to know, and show neither the code of gRPC nor the Status.
func (h *Handler) call(w http.ResponseWriter, r *http.Request, m *method) *refusal {
	k := kindOf(r.Header)
	f := h.carry(w, r, m, k)
	if f != nil && r.Method == http.MethodPost && (k.protocol == grpcWeb || k.protocol == connectStream) {
		f.code = http.StatusOK
	}
	return f
}

// carry makes what was asked a request of gRPC with one message, and hands what grpc-go answers to an answer.
func (h *Handler) carry(w http.ResponseWriter, r *http.Request, m *method, k kind) *refusal {
	if f := speaks(r, m, k); f != nil {
		return f
	}
	timeout, err := timeoutOf(r.Header, k)
	if err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	body, f := h.readBody(w, r)
	if f != nil {
		return f
	}
	out := newAnswer(w, m, k)
	message, err := request(body, r.Header, m, k, h.config.BodyBytes)
	if err != nil {
		out.end(err.GRPCStatus(), nil)
		return nil
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	to := &responder{header: http.Header{}, out: out, giveUp: cancel}
	h.grpc.ServeHTTP(to, h.inner(r.WithContext(ctx), m, message, timeout))
	to.end()
	return nil
}

// speaks refuses what this port does not speak, before a body is read.
func speaks(r *http.Request, m *method, k kind) *refusal {
	refused := func(code int, text string) *refusal {
		return refuse(code, status.New(codes.Unimplemented, sluicev1.Reason_REASON_NOT_IMPLEMENTED, "%s", text))
	}
	switch {
	case r.Method != http.MethodPost:
		return refused(http.StatusMethodNotAllowed, "a method is called with POST")
	case r.URL.RawQuery != "":
		return refuse(http.StatusBadRequest, status.Violation("a method's URL has no query"))
	case k.protocol == unknown || k.protocol == nativeGRPC:
		return refused(http.StatusUnsupportedMediaType,
			"this port speaks gRPC-Web (application/grpc-web+proto) and Connect (application/json, application/proto, "+
				"application/connect+json, application/connect+proto); gRPC itself has a port of its own")
	case k.json && m.request == nil:
		return refused(http.StatusUnsupportedMediaType, "the messages of this service are not described: call it with protobuf")
	case m.clientStream:
		return refused(http.StatusNotImplemented, "a method to which the client streams is called on the gRPC port")
	case (k.protocol == connectUnary) == m.serverStream && k.protocol != grpcWeb:
		return refused(http.StatusUnsupportedMediaType, "Connect calls methods that stream with "+
			"application/connect+json or application/connect+proto, and no others")
	case !atMostOne(r.Header, "Connect-Protocol-Version", "1"):
		return refuse(http.StatusBadRequest, status.Violation("connect-protocol-version must be 1"))
	}
	return nil
}

// atMostOne says whether a header is absent, or there once with the value.
func atMostOne(h http.Header, name, value string) bool {
	values := h[name]
	return len(values) == 0 || (len(values) == 1 && values[0] == value)
}

// units are those of gRPC's timeouts, hours to nanoseconds.
var units = []string{"H", "M", "S", "m", "u", "n"}

// timeoutOf is the call's time as gRPC writes it, "" without one.
func timeoutOf(h http.Header, k kind) (string, *status.Error) {
	name, unit := "Connect-Timeout-Ms", "m"
	if k.protocol == grpcWeb {
		name, unit = "Grpc-Timeout", ""
	}
	values := h[name]
	if len(values) == 0 {
		return "", nil
	}
	digits := values[0]
	if k.protocol == grpcWeb && digits != "" {
		digits, unit = digits[:len(digits)-1], digits[len(digits)-1:]
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if len(values) > 1 || err != nil || len(digits) > 10 || !slices.Contains(units, unit) {
		return "", status.Violation("%s is malformed", lower(name))
	}
	if len(digits) > 8 && unit == "m" { // gRPC has eight digits, Connect ten
		n, unit = n/1000, "S"
	}
	return strconv.FormatUint(min(n, 99_999_999), 10) + unit, nil
}

// encodingOf are the headers that name the compression of messages.
var encodingOf = map[protocol]string{grpcWeb: "Grpc-Encoding", connectStream: "Connect-Content-Encoding", connectUnary: "Content-Encoding"}

// request is the message that a body holds, encoded as protobuf.
func request(body []byte, h http.Header, m *method, k kind, limit int) ([]byte, *status.Error) {
	encoding := h.Get(encodingOf[k.protocol])
	if err := knownEncoding(encoding); err != nil {
		return nil, err
	}
	if k.protocol != connectUnary {
		message, flags, err := open(body)
		switch {
		case err != nil:
			return nil, err
		case flags&compressed == 0:
			encoding = ""
		case encoding == "" || encoding == "identity":
			return nil, status.New(codes.Internal, sluicev1.Reason_REASON_PROTOCOL_VIOLATION, "the message is compressed, and no header says how")
		}
		body = message
	}
	message, err := decompress(body, encoding, limit)
	if err != nil || !k.json {
		return message, err
	}
	return fromJSON(message, m.request)
}

// inner is the request that grpc-go gets. Its header is built from nothing: what is forwarded, and what gRPC consists of.
func (h *Handler) inner(r *http.Request, m *method, message []byte, timeout string) *http.Request {
	e := envelope(0, len(message))
	out := r.WithContext(r.Context())
	out.Proto, out.ProtoMajor, out.ProtoMinor = "HTTP/2", 2, 0 // what ServeHTTP wants to see
	out.URL = &url.URL{Path: m.path}
	out.Body, out.ContentLength = io.NopCloser(io.MultiReader(bytes.NewReader(e[:]), bytes.NewReader(message))), int64(len(e)+len(message))
	out.Header = http.Header{"Content-Type": {"application/grpc+proto"}, "Te": {"trailers"}}
	for _, name := range h.forwarded {
		if values, ok := r.Header[name]; ok {
			out.Header[name] = values
		}
	}
	if timeout != "" {
		out.Header.Set("Grpc-Timeout", timeout)
	}
	return out
}
