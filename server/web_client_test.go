package server_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// page is what a web page does, written by hand: requests with exactly the headers that it says.
type page struct {
	t      *testing.T
	r      *rig.Rig
	http   *http.Client
	header http.Header // of each request
}

// openPage is a page of user, over HTTP/2; "" for nobody's.
func openPage(t *testing.T, r *rig.Rig, user string) *page {
	p := &page{t: t, r: r, http: r.Web(), header: http.Header{}}
	if user != "" {
		p.header.Set("Authorization", "Bearer "+r.Token(user))
	}
	return p
}

// do sends a request and fails the test when nothing answers. change may alter it.
func (p *page) do(ctx context.Context, path, contentType string, body []byte, change ...func(*http.Request)) *http.Response {
	p.t.Helper()
	res, err := p.try(ctx, path, contentType, body, change...)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = res.Body.Close() }) // of an answer that the test has done with
	return res
}

func (p *page) try(ctx context.Context, path, contentType string, body []byte, change ...func(*http.Request)) (*http.Response, error) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.r.WebURL(path), bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header = p.header.Clone()
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for _, f := range change {
		f(req)
	}
	return p.http.Do(req)
}

// with sets a header of a request.
func with(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

// stream is an answer of messages in envelopes.
type webStream struct {
	res *http.Response
	web bool // gRPC-Web; otherwise Connect
}

// next is the next message, or how the stream ended: io.EOF for well.
func (s webStream) next() ([]byte, error) {
	var e [5]byte
	if _, err := io.ReadFull(s.res.Body, e[:]); err != nil {
		return nil, fmt.Errorf("the answer ended without its end: %w", err)
	}
	b := make([]byte, binary.BigEndian.Uint32(e[1:]))
	if _, err := io.ReadFull(s.res.Body, b); err != nil {
		return nil, fmt.Errorf("the answer ended within a message: %w", err)
	}
	switch e[0] {
	case 0:
		return b, nil
	case 1 << 7:
		return nil, s.rest(grpcWebEnd(string(b)))
	case 1 << 1:
		return nil, s.rest(connectEnd(b))
	default:
		return nil, fmt.Errorf("flags %x", e[0])
	}
}

// rest is err, if nothing follows.
func (s webStream) rest(err error) error {
	b, readErr := io.ReadAll(s.res.Body)
	if readErr != nil {
		return fmt.Errorf("after the end: %w", readErr)
	}
	if len(b) > 0 {
		return fmt.Errorf("after the end came %q", b)
	}
	return err
}

// grpcWebEnd is the error in the trailers of gRPC-Web.
func grpcWebEnd(trailers string) error {
	fields := http.Header{}
	for line := range strings.SplitSeq(strings.TrimSuffix(trailers, "\r\n"), "\r\n") {
		name, value, ok := strings.Cut(line, ": ")
		if !ok || name != strings.ToLower(name) {
			return fmt.Errorf("a trailer is %q", line)
		}
		fields.Set(name, value)
	}
	return grpcError(fields)
}

// grpcError is the error in the fields that gRPC has for it.
func grpcError(fields http.Header) error {
	code, err := strconv.ParseUint(fields.Get("Grpc-Status"), 10, 32)
	if err != nil {
		return fmt.Errorf("no status in %v", fields)
	}
	if code == 0 {
		return io.EOF
	}
	message, err := url.PathUnescape(fields.Get("Grpc-Message"))
	if err != nil {
		return err
	}
	details, err := base64.RawStdEncoding.DecodeString(fields.Get("Grpc-Status-Details-Bin"))
	if err != nil {
		return err
	}
	var p spb.Status
	if err := proto.Unmarshal(details, &p); err != nil {
		return err
	}
	if len(details) > 0 && (p.GetCode() != int32(code) || p.GetMessage() != message) {
		return fmt.Errorf("the details say %v, the trailers %d %q", &p, code, message)
	}
	if len(details) == 0 {
		return grpcstatus.Error(codes.Code(code), message)
	}
	return grpcstatus.FromProto(&p).Err()
}

// connectJSON is an error as Connect writes it.
type connectJSON struct {
	Code    string
	Message string
	Details []struct {
		Type, Value string
		Debug       json.RawMessage
	}
}

// connectNames are the codes by Connect's names.
var connectNames = map[string]codes.Code{
	"canceled": codes.Canceled, "unknown": codes.Unknown, "invalid_argument": codes.InvalidArgument, "not_found": codes.NotFound,
	"permission_denied": codes.PermissionDenied, "resource_exhausted": codes.ResourceExhausted, "unimplemented": codes.Unimplemented,
	"internal": codes.Internal, "unavailable": codes.Unavailable, "unauthenticated": codes.Unauthenticated,
	"deadline_exceeded": codes.DeadlineExceeded, "out_of_range": codes.OutOfRange, "failed_precondition": codes.FailedPrecondition,
}

func (e connectJSON) err() error {
	code, ok := connectNames[e.Code]
	if !ok {
		return fmt.Errorf("the code is %q", e.Code)
	}
	p := &spb.Status{Code: int32(code), Message: e.Message}
	for _, d := range e.Details {
		b, err := base64.RawStdEncoding.DecodeString(d.Value)
		if err != nil {
			return err
		}
		p.Details = append(p.Details, anyOf(d.Type, b))
	}
	return grpcstatus.FromProto(p).Err()
}

func connectEnd(b []byte) error {
	var end struct{ Error *connectJSON }
	if err := json.Unmarshal(b, &end); err != nil {
		return err
	}
	if end.Error == nil {
		return io.EOF
	}
	return end.Error.err()
}

// unaryEnd is the error of an answer to a unary call of Connect, and its body.
func unaryEnd(res *http.Response) ([]byte, error) {
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode == http.StatusOK {
		return b, err
	}
	var e connectJSON
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("%d: %s: %w", res.StatusCode, b, err)
	}
	if err := e.err(); status.HTTP(status.Code(err)) != res.StatusCode {
		return nil, fmt.Errorf("HTTP says %d, the body %w", res.StatusCode, err)
	} else {
		return nil, err
	}
}

// enveloped is a body of one message.
func enveloped(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// speech is a way to write calls and to read their answers.
type speech struct {
	name      string
	unary     string // content types
	streaming string
	json      bool
}

var speeches = []speech{
	{"gRPC-Web", "application/grpc-web+proto", "application/grpc-web+proto", false},
	{"Connect", "application/proto", "application/connect+proto", false},
	{"Connect with JSON", "application/json", "application/connect+json", true},
}

func (s speech) web() bool { return s.name == "gRPC-Web" }

func (s speech) encode(m proto.Message) ([]byte, error) {
	if s.json {
		return protojson.Marshal(m)
	}
	return proto.Marshal(m)
}

func (s speech) decode(b []byte, m proto.Message) error {
	if s.json {
		return protojson.Unmarshal(b, m)
	}
	return proto.Unmarshal(b, m)
}

// call makes a unary call.
func (p *page) call(ctx context.Context, s speech, path string, in, out proto.Message, change ...func(*http.Request)) error {
	p.t.Helper()
	b, err := s.encode(in)
	if err != nil {
		p.t.Fatal(err)
	}
	if s.web() {
		stream := webStream{p.do(ctx, path, s.unary, enveloped(b), change...), true}
		b, err := stream.next()
		if err != nil {
			return err
		}
		if err := s.decode(b, out); err != nil {
			return err
		}
		if _, err = stream.next(); !errors.Is(err, io.EOF) {
			return fmt.Errorf("after the message: %w", err)
		}
		return nil
	}
	b, err = unaryEnd(p.do(ctx, path, s.unary, b, change...))
	if err != nil {
		return err
	}
	return s.decode(b, out)
}

// stream begins a call that streams.
func (p *page) stream(ctx context.Context, s speech, path string, in proto.Message, change ...func(*http.Request)) webStream {
	p.t.Helper()
	b, err := s.encode(in)
	if err != nil {
		p.t.Fatal(err)
	}
	return webStream{p.do(ctx, path, s.streaming, enveloped(b), change...), s.web()}
}
