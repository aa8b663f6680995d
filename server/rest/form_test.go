package rest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

func logState(kind sluicev1.ChannelState_Kind, why *status.Error) *sluicev1.LogsResponse {
	s := &sluicev1.ChannelState{Kind: kind}
	if why != nil {
		s.Status = why.Proto()
	}
	return &sluicev1.LogsResponse{State: s}
}

// A log as text is its bytes and nothing else, whatever they are; what became of the upstream is left out as long as nothing is missing.
func TestALogAsTextIsItsBytes(t *testing.T) {
	lost := status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "lost")
	var got []byte
	for _, r := range []*sluicev1.LogsResponse{
		{Text: "a\nb"},
		logState(sluicev1.ChannelState_KIND_RECONNECTING, lost), logState(sluicev1.ChannelState_KIND_CONNECTED, nil),
		{Text: "c\n", Cursor: "x"},
		{Binary: []byte("\xff\x00\r\n")},
		{Cursor: "y"},
		logState(sluicev1.ChannelState_KIND_RESTARTED, nil),
		{Text: "☃"},
	} {
		b, err := logText{}.response(r)
		if err != nil {
			t.Fatalf("%v: %v", r, err)
		}
		got = append(got, b...)
	}
	if want := "a\nbc\n\xff\x00\r\n☃"; string(got) != want {
		t.Errorf("came %q, want %q", got, want)
	}
	missed := status.New(codes.DataLoss, sluicev1.Reason_REASON_DATA_LOSS, "lines were missed")
	for _, tc := range []struct {
		r    response
		want string
	}{
		{logState(sluicev1.ChannelState_KIND_GAP, missed), "lines were missed"},
		{logState(sluicev1.ChannelState_KIND_GAP, nil), "missing"},
		{logState(99, nil), "missing"}, // of a later version: who knows
		{&sluicev1.WatchResponse{Event: "{}"}, "no part of a log"},
	} {
		if b, err := (logText{}).response(tc.r); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v is %q, %v", tc.r, b, err)
		}
	}
}

// TestALogAsTextEndsCleanlyOnlyWhenItIsWhole, over both versions of HTTP.
func TestALogAsTextEndsCleanlyOnlyWhenItIsWhole(t *testing.T) {
	lost := status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "lost")
	for _, c := range []struct {
		name  string
		after error
		says  []response
		whole bool
	}{
		{"whole", io.EOF, []response{&sluicev1.LogsResponse{Text: "line\n"}}, true},
		{"an error", lost, []response{&sluicev1.LogsResponse{Text: "line\n"}}, false},
		{"a gap", io.EOF, []response{&sluicev1.LogsResponse{Text: "line\n"}, logState(sluicev1.ChannelState_KIND_GAP, lost)}, false},
		{"an error that is no JSON", errors.New("\xff"), []response{&sluicev1.LogsResponse{Text: "line\n"}}, false},
	} {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			out := newWriter(w, plainText)
			defer out.end()
			for _, m := range c.says {
				if err := out.response(m); err != nil {
					out.fail(r, err)
					return
				}
			}
			if !errors.Is(c.after, io.EOF) {
				out.fail(r, c.after)
			}
		})
		for _, http2 := range []bool{false, true} {
			s := httptest.NewUnstartedServer(h)
			s.EnableHTTP2 = http2
			s.StartTLS()
			res, err := s.Client().Get(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			_ = res.Body.Close() // it was read to its end
			if string(b) != "line\n" || (err == nil) != c.whole || (res.ProtoMajor == 2) != http2 || res.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%s, %s: %q, %v, %v", c.name, res.Proto, b, err, res.Header)
			}
			s.Close()
		}
	}
}

// What is missing before the first byte of a log is an ordinary answer.
func TestAGapAtTheBeginningIsAnOrdinaryAnswer(t *testing.T) {
	rec := httptest.NewRecorder()
	out := newWriter(rec, plainText)
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	out.fail(r, out.response(logState(sluicev1.ChannelState_KIND_GAP, status.New(codes.DataLoss, sluicev1.Reason_REASON_DATA_LOSS, "rotated"))))
	out.end()
	if rec.Code != http.StatusInternalServerError || rec.Header().Get("Content-Type") != jsonType || !strings.Contains(rec.Body.String(), `"message":"rotated"`) {
		t.Errorf("%d %v %s", rec.Code, rec.Header(), rec.Body)
	}
}

// Over HTTP/1.0 the end of a connection is the end of the answer, and a log that was cut off would look whole.
func TestALogAsTextNeedsMoreThanHTTP10(t *testing.T) {
	h, err := New(nil) // nothing is called
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewTLSServer(h)
	defer s.Close()
	dialer := tls.Dialer{Config: s.Client().Transport.(*http.Transport).TLSClientConfig}
	for _, accept := range []string{"*/*", "text/plain"} {
		conn, err := dialer.DialContext(t.Context(), "tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /v1/clusters/dev/logs/shop/a HTTP/1.0\r\nAccept: "+accept+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusNotAcceptable || !strings.Contains(string(b), "HTTP/1.0") {
			t.Errorf("Accept %s: %d, %s, %v", accept, res.StatusCode, b, err)
		}
		_ = conn.Close() // it was read to its end
	}
}
