package web

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/sluice-gateway/sluice/internal/status"
)

// answer writes one call's answer in a protocol. Its methods are called by one goroutine: begin, if anything was said at all, then the
// messages, then end, once.
type answer interface {
	// begin takes the metadata before the first message, in the form of HTTP.
	begin(metadata http.Header)
	// message writes one message, encoded as protobuf, and sees to it that it leaves now.
	message(m []byte) error
	// end says how the call ended, with the metadata after the last message.
	end(s *grpcstatus.Status, metadata http.Header)
}

func newAnswer(w http.ResponseWriter, m *method, k kind) answer {
	to := writer{w: w, method: m, kind: k}
	switch k.protocol {
	case grpcWeb:
		return &grpcWebAnswer{to}
	case connectStream:
		return &connectStreamAnswer{to}
	default:
		return &connectUnaryAnswer{writer: to}
	}
}

// writer is what the answers share: a response that begins with the first byte and is flushed after each message.
type writer struct {
	w      http.ResponseWriter
	method *method
	kind   kind
	wrote  bool
}

func (w *writer) begin(metadata http.Header) { w.add("", metadata) }

// add adds fields to the header, beside those that are there: what the guard has said stays.
func (w *writer) add(prefix string, fields http.Header) {
	h := w.w.Header()
	for name, values := range fields {
		if _, said := h[prefix+name]; !said {
			h[prefix+name] = values
		}
	}
}

func (w *writer) writeHeader() {
	if !w.wrote {
		w.wrote = true
		w.w.Header().Set("Content-Type", w.kind.contentType())
		w.w.Header().Set("X-Accel-Buffering", "no") // a proxy in front must not collect what is meant for now
		w.w.WriteHeader(http.StatusOK)
	}
}

// encoded is a message in the response's codec.
func (w *writer) encoded(m []byte) ([]byte, error) {
	if !w.kind.json {
		return m, nil
	}
	return toJSON(m, w.method.answer)
}

// enveloped writes b in an envelope and flushes it.
func (w *writer) enveloped(flags byte, b []byte) error {
	w.writeHeader()
	e := envelope(flags, len(b))
	if _, err := w.w.Write(e[:]); err != nil {
		return err
	}
	if _, err := w.w.Write(b); err != nil { //nolint:gosec // messages in envelopes, under a content type that says so
		return err
	}
	return http.NewResponseController(w.w).Flush()
}

// grpcWebAnswer is gRPC's messages, and its trailers as a last one (PROTOCOL-WEB).
type grpcWebAnswer struct{ writer }

func (a *grpcWebAnswer) message(m []byte) error { return a.enveloped(0, m) }

func (a *grpcWebAnswer) end(s *grpcstatus.Status, metadata http.Header) {
	fields := grpcFields(s)
	for name, values := range metadata {
		fields[lower(name)] = values
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		for _, value := range fields[name] {
			b.WriteString(name + ": " + value + "\r\n")
		}
	}
	_ = a.enveloped(grpcTrailers, []byte(b.String())) // a client that has left is told nothing
}

// connectStreamAnswer is messages, and a last one that says how the stream ended.
type connectStreamAnswer struct{ writer }

func (a *connectStreamAnswer) message(m []byte) error {
	b, err := a.encoded(m)
	if err != nil {
		return err
	}
	return a.enveloped(0, b)
}

func (a *connectStreamAnswer) end(s *grpcstatus.Status, metadata http.Header) {
	end := struct {
		Error    *connectError `json:"error,omitempty"`
		Metadata http.Header   `json:"metadata,omitempty"`
	}{Metadata: metadata}
	if s.Code() != codes.OK {
		end.Error = newConnectError(s)
	}
	_ = a.enveloped(connectEnd, asJSON(end)) // a client that has left is told nothing
}

// connectUnaryAnswer is one message, or an error with a code of HTTP, so it waits for the end.
type connectUnaryAnswer struct {
	writer
	held []byte
}

func (a *connectUnaryAnswer) message(m []byte) error {
	b, err := a.encoded(m)
	a.held = append(a.held, b...)
	return err
}

func (a *connectUnaryAnswer) end(s *grpcstatus.Status, metadata http.Header) {
	a.add("Trailer-", metadata)
	if s.Code() != codes.OK {
		if after := status.From(s.Err()).RetryAfter; after > 0 {
			a.w.Header().Set("Retry-After", strconv.FormatInt(int64((after+time.Second-1)/time.Second), 10))
		}
		writeJSON(a.w, status.HTTP(s.Code()), asJSON(newConnectError(s)))
		return
	}
	a.w.Header().Set("Content-Length", strconv.Itoa(len(a.held)))
	a.writeHeader()
	_, _ = a.w.Write(a.held) //nolint:gosec // it is a message, and says so; a client that has left is told nothing
}

// connectError is a status as Connect writes it: the code by its name, and the details encoded, beside which they are shown for people.
type connectError struct {
	Code    string          `json:"code"`
	Message string          `json:"message,omitempty"`
	Details []connectDetail `json:"details,omitempty"`
}

// connectDetail is a detail of an error.
type connectDetail struct {
	Type  string          `json:"type"`
	Value string          `json:"value"`
	Debug json.RawMessage `json:"debug,omitempty"`
}

func newConnectError(s *grpcstatus.Status) *connectError {
	e := &connectError{Code: connectCode(s.Code()), Message: s.Message()}
	for _, d := range s.Proto().GetDetails() {
		out := connectDetail{Type: d.GetTypeUrl()[strings.LastIndexByte(d.GetTypeUrl(), '/')+1:], Value: base64.RawStdEncoding.EncodeToString(d.GetValue())}
		if m, err := d.UnmarshalNew(); err == nil {
			if b, err := protojson.Marshal(m); err == nil {
				out.Debug = b
			}
		}
		e.Details = append(e.Details, out)
	}
	return e
}

// asJSON is v, one of our own structs of strings, as JSON.
func asJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		return []byte(`{"code":"internal"}`)
	}
	return b
}

// connectCode is a code's name in Connect: the canonical one in lower case.
func connectCode(c codes.Code) string {
	if name, ok := connectCodes[c]; ok {
		return name
	}
	return "unknown"
}

var connectCodes = map[codes.Code]string{
	codes.Canceled: "canceled", codes.Unknown: "unknown", codes.InvalidArgument: "invalid_argument",
	codes.DeadlineExceeded: "deadline_exceeded", codes.NotFound: "not_found", codes.AlreadyExists: "already_exists",
	codes.PermissionDenied: "permission_denied", codes.ResourceExhausted: "resource_exhausted",
	codes.FailedPrecondition: "failed_precondition", codes.Aborted: "aborted", codes.OutOfRange: "out_of_range",
	codes.Unimplemented: "unimplemented", codes.Internal: "internal", codes.Unavailable: "unavailable", codes.DataLoss: "data_loss",
	codes.Unauthenticated: "unauthenticated",
}
