package rest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server/rest"
)

// sink takes one call and refuses it: the far end of a connection, for what is decoded before it.
type sink struct {
	args proto.Message
	md   metadata.MD
}

var errSunk = status.Limit("fuzz", "sunk")

func (s *sink) Invoke(ctx context.Context, _ string, args, _ any, _ ...grpc.CallOption) error {
	s.md, _ = metadata.FromOutgoingContext(ctx)
	s.args, _ = args.(proto.Message)
	return errSunk
}

func (s *sink) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	s.md, _ = metadata.FromOutgoingContext(ctx)
	return &sinkStream{to: s}, nil
}

type sinkStream struct {
	grpc.ClientStream
	to *sink
}

func (s *sinkStream) SendMsg(m any) error {
	s.to.args, _ = m.(proto.Message)
	return errSunk
}

// sunk is REST that calls a sink.
func sunk(f *testing.F) (http.Handler, *sink) {
	f.Helper()
	var s sink
	h, err := rest.New(&s)
	if err != nil {
		f.Fatal(err)
	}
	return h, &s
}

// serve has a request answered. The sink then has the call that it became, if any.
func serve(t *testing.T, h http.Handler, s *sink, r *http.Request) *httptest.ResponseRecorder {
	t.Helper()
	*s = sink{}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != http.StatusOK { // the document
		var e sluicev1.Status
		if err := protojson.Unmarshal(rec.Body.Bytes(), &e); err != nil || e.GetCode() == 0 {
			t.Errorf("%d answers no Status: %q", rec.Code, rec.Body)
		}
	}
	if called := rec.Code == http.StatusTooManyRequests; called != (s.args != nil) {
		t.Errorf("%d after the call %v", rec.Code, s.args)
	}
	return rec
}

// FuzzRESTQuery: what the query and the path say is what the call says, or there is no call.
func FuzzRESTQuery(f *testing.F) {
	for _, seed := range []string{
		"/v1/clusters", "/v1/clusters/dev/resources", "/v1/clusters/dev/watch/v1/pods?namespace=shop&labelSelector=a%3Db",
		"/v1/clusters/dev/watch/v1/pods?namespace=a&namespace=b", "/v1/clusters/dev/watch/v1/pods?changesOnly=maybe",
		"/v1/clusters/dev/logs/shop/a?sinceTime=2026-11-23T10:00:00Z&since=1s&tailLines=-1", "/v1/clusters/%2e%2e/resources", "/v1/sessions/a:revoke",
		"/v1/clusters/dev/watch/v1/pods?watch.namespace=x", "/v1/clusters/dev/watch/v1/pods?token=x", "/openapi.json", "/v1/clusters/dev/watch/v1/pods?a;b",
	} {
		f.Add(seed)
	}
	h, s := sunk(f)
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			return // net/http answers it
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.URL = u
		rec := serve(t, h, s, r)
		if rec.Code >= http.StatusInternalServerError {
			t.Errorf("%q answers %d %q", target, rec.Code, rec.Body)
		}
		if s.args == nil {
			return
		}
		if len(s.md) != 0 {
			t.Errorf("metadata from nowhere: %v", s.md)
		}
		checkSaid(t, u, s.args)
	})
}

// checkSaid checks that a request for a watch says what its URL does.
func checkSaid(t *testing.T, u *url.URL, args proto.Message) {
	t.Helper()
	watch, ok := args.(*sluicev1.WatchRequest)
	if !ok {
		return
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		t.Errorf("a malformed query was called: %q", u.RawQuery)
	}
	w := watch.GetWatch()
	if path := "/v1/clusters/" + watch.GetCluster() + "/watch/" + w.GetVersion() + "/" + w.GetResource(); path != u.EscapedPath() {
		t.Errorf("%q called %q", u.EscapedPath(), path)
	}
	said := map[string]string{
		"group": w.GetGroup(), "namespace": w.GetNamespace(), "name": w.GetName(), "labelSelector": w.GetLabelSelector(),
		"fieldSelector": w.GetFieldSelector(), "cursor": watch.GetCursor(),
	}
	for name, values := range query {
		got, text := said[name]
		if len(values) != 1 || !utf8.ValidString(values[0]) || (text && got != values[0]) || (!text && name != "changesOnly") {
			t.Errorf("%s=%q called %q", name, values, got)
		}
	}
	for name, got := range said {
		if got != query.Get(name) {
			t.Errorf("%s is %q, not %q", name, got, query.Get(name))
		}
	}
}

// FuzzRESTBody: a body is a target in strict JSON, or there is no call.
func FuzzRESTBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, ``, `{"watch":{"version":"v1","resource":"pods"}}`, `{"exec":{"command":["sh"]},"watch":{}}`, `{"bogus":1}`, `{} {}`, `null`, `[]`,
		strings.Repeat(`{"watch":`, 50), `{"logs":{"since":"1s","tailLines":"5"}}`, "{\"watch\":{\"name\":\"\xff\"}}",
	} {
		f.Add([]byte(seed))
	}
	h, s := sunk(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/clusters/dev/access", strings.NewReader(string(body)))
		r.Header.Set("Content-Type", "application/json")
		rec := serve(t, h, s, r)
		var want sluicev1.Target
		err := protojson.Unmarshal(body, &want) // whole, as no stream is read
		if s.args == nil {
			if err == nil && len(body) > 0 {
				t.Errorf("%q was refused: %d %q", body, rec.Code, rec.Body)
			}
			return
		}
		got, ok := s.args.(*sluicev1.CheckAccessRequest)
		if !ok || got.GetCluster() != "dev" {
			t.Fatalf("called with %v", s.args)
		}
		if text := strings.TrimSpace(string(body)); text == "" || text == "null" { // no target, which the service judges
			return
		}
		if err != nil || !proto.Equal(got.GetTarget(), &want) {
			t.Errorf("%q called with %v; strictly it is %v, %v", body, got, &want, err)
		}
	})
}
