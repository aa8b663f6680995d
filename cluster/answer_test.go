package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

const (
	refusedByServer = sluicev1.Reason_REASON_UPSTREAM_REFUSED
	unreachableNow  = sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE
	protocolBroken  = sluicev1.Reason_REASON_UPSTREAM_PROTOCOL
)

// TestHL_D23_AnswersOfTheAPIServerComeThrough: Headlamp made every refused upgrade "bad handshake", so that nobody could tell 401 from 403,
// 410 or 429, nor when to try again. Both ways of asking tell all of it. (T-E5).
func TestHL_D23_AnswersOfTheAPIServerComeThrough(t *testing.T) {
	forbidden := `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"pods is forbidden","reason":"Forbidden",` +
		`"details":{"kind":"pods","causes":[{"reason":"r","message":"m","field":"f"}]},"code":403}`
	busy := `{"kind":"Status","status":"Failure","reason":"TooManyRequests","details":{"retryAfterSeconds":7},"code":429}`
	cases := []struct {
		name       string
		code       int
		header     [2]string
		body       string
		want       codes.Code
		reason     sluicev1.Reason
		kubernetes string // its reason
		retry      time.Duration
		says       string
	}{
		{name: "400", code: 400, want: codes.InvalidArgument, reason: refusedByServer},
		{name: "401", code: 401, body: `{"kind":"Status","reason":"Unauthorized","code":401}`, want: codes.Unauthenticated, reason: refusedByServer, kubernetes: "Unauthorized"},
		{name: "403", code: 403, body: forbidden, want: codes.PermissionDenied, reason: refusedByServer, kubernetes: "Forbidden", says: "pods is forbidden"},
		{name: "403 bare", code: 403, want: codes.PermissionDenied, reason: refusedByServer},
		{name: "404", code: 404, body: `{"kind":"Status","reason":"NotFound","code":404}`, want: codes.NotFound, reason: refusedByServer, kubernetes: "NotFound"},
		{name: "410", code: 410, body: `{"kind":"Status","reason":"Expired","code":410}`, want: codes.OutOfRange, reason: refusedByServer, kubernetes: "Expired"},
		{name: "429 header", code: 429, header: [2]string{"Retry-After", "3"}, body: busy, want: codes.ResourceExhausted, reason: refusedByServer, kubernetes: "TooManyRequests", retry: 3 * time.Second},
		{name: "429 details", code: 429, body: busy, want: codes.ResourceExhausted, reason: refusedByServer, kubernetes: "TooManyRequests", retry: 7 * time.Second},
		{name: "429 for ever", code: 429, header: [2]string{"Retry-After", "2000000000"}, want: codes.ResourceExhausted, reason: refusedByServer, retry: time.Hour},
		{name: "429 nonsense", code: 429, header: [2]string{"Retry-After", "-3"}, want: codes.ResourceExhausted, reason: refusedByServer},
		{name: "500 text", code: 500, header: [2]string{"Content-Type", "text/plain; charset=utf-8"}, body: "tty and stderr cannot both be true", want: codes.Internal, reason: refusedByServer, says: "cannot both be true"},
		{name: "500 HTML", code: 500, header: [2]string{"Content-Type", "text/html"}, body: "<html>internal.host", want: codes.Internal, reason: refusedByServer},
		{name: "503", code: 503, header: [2]string{"Retry-After", "1"}, want: codes.Unavailable, reason: refusedByServer, retry: time.Second},
		{name: "301", code: 301, header: [2]string{"Location", "https://other.test/"}, want: codes.Unavailable, reason: refusedByServer, says: "redirect"},
		{name: "304", code: 304, want: codes.Unavailable, reason: refusedByServer, says: "redirect"},
		{name: "long", code: 403, body: `{"kind":"Status","reason":"R","message":"` + strings.Repeat("ä", 20_000) + `"}`, want: codes.PermissionDenied, reason: refusedByServer, kubernetes: "R"},
		{name: "echo", code: 403, body: `{"kind":"Status","message":"you sent ` + aliceToken + `"}`, want: codes.PermissionDenied, reason: refusedByServer},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := startAPIServer(t, func(w http.ResponseWriter, _ *http.Request) {
				if c.header[0] != "" {
					w.Header().Set(c.header[0], c.header[1])
				} else {
					w.Header().Set("Content-Type", "application/json")
				}
				w.WriteHeader(c.code)
				_, _ = w.Write([]byte(c.body))
			})
			u := upstreamOf(t, s.passthrough())
			for way, ask := range ways(u) {
				err := ask(t.Context())
				e := status.From(err)
				if e.Code != c.want || e.Reason != c.reason || e.HTTPCode != c.code || e.RetryAfter != c.retry {
					t.Errorf("%s: %v, HTTP %d, retry after %v", way, e, e.HTTPCode, e.RetryAfter)
				}
				if e.Kubernetes.GetReason() != c.kubernetes || !strings.Contains(e.Message, c.says) {
					t.Errorf("%s: %v, message %q", way, e.Kubernetes, e.Message)
				}
				if n := proto.Size(e.Proto()); n > 6<<10 {
					t.Errorf("%s: the status takes %d bytes", way, n)
				}
				if text := fmt.Sprintf("%v %v", err, e.Proto()); strings.Contains(text, aliceToken) || strings.Contains(text, "internal.host") {
					t.Errorf("%s: told %s", way, text)
				}
			}
		})
	}
}

// ways are both ways of asking.
func ways(u *Upstream) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Dial": func(ctx context.Context) error {
			c, _, err := u.Dial(ctx, watchPath, watchQuery)
			if err == nil {
				c.Close(websocket.CodeNormal)
			}
			return err
		},
		"Get": func(ctx context.Context) error {
			res, err := u.Get(ctx, watchPath, nil)
			if err == nil {
				err = res.Body.Close()
			}
			return err
		},
	}
}

func TestStatusKeepsWhatItCarries(t *testing.T) {
	in := metav1.Status{
		Status: "Failure", Message: "m", Reason: "Invalid", Code: 422,
		Details: &metav1.StatusDetails{
			Name: "n", Group: "g", Kind: "k", UID: "u", RetryAfterSeconds: 9,
			Causes: []metav1.StatusCause{{Type: "ExitCode", Message: "7", Field: "f"}},
		},
	}
	want := &sluicev1.KubernetesStatus{
		Status: "Failure", Message: "m", Reason: "Invalid", Code: 422,
		Details: &sluicev1.KubernetesStatusDetails{
			Name: "n", Group: "g", Kind: "k", Uid: "u", RetryAfterSeconds: 9,
			Causes: []*sluicev1.KubernetesStatusCause{{Reason: "ExitCode", Message: "7", Field: "f"}},
		},
	}
	if got := StatusOf(&in); !proto.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	in.Details.Causes = make([]metav1.StatusCause, 1000)
	if got := StatusOf(&in); len(got.GetDetails().GetCauses()) != maxCauses {
		t.Errorf("%d causes", len(got.GetDetails().GetCauses()))
	}
	if got := StatusOf(&metav1.Status{Code: -1, Message: "a\xff"}); got.GetCode() != 0 || got.GetMessage() != "a" {
		t.Errorf("got %v", got)
	}
}

func TestRetryAfterMayBeADate(t *testing.T) {
	h := http.Header{"Retry-After": {time.Now().Add(100 * time.Second).UTC().Format(http.TimeFormat)}}
	if got := retryAfter(h, nil); got < 90*time.Second || got > 100*time.Second {
		t.Errorf("got %v", got)
	}
	h.Set("Retry-After", "Mon, 02 Jan 2006 15:04:05 GMT")
	if got := retryAfter(h, nil); got != 0 {
		t.Errorf("in the past: %v", got)
	}
}

// TestFailuresWithoutAnAnswer is the table of what may happen below HTTP. Messages go to clients and name no address.
func TestFailuresWithoutAnAnswer(t *testing.T) {
	link := func(err error) error { return &url.Error{Op: "Get", URL: "https://10.0.0.1/", Err: &linkError{err}} }
	cases := map[string]struct {
		err    error
		reason sluicev1.Reason
		says   string
	}{
		"refused":     {link(&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, Err: errors.New("connection refused")}), unreachableNow, "reached"},
		"no such":     {link(&net.DNSError{Name: "10.0.0.1"}), unreachableNow, "reached"},
		"slow":        {link(fmt.Errorf("dial 10.0.0.1: %w", context.DeadlineExceeded)), unreachableNow, "in time"},
		"slow read":   {link(&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}), unreachableNow, "in time"},
		"certificate": {link(&tls.CertificateVerificationError{Err: errors.New("for 10.0.0.1")}), unreachableNow, "certificate authority"},
		"broken 101":  {link(&websocket.HandshakeError{StatusCode: 101, Message: "Sec-WebSocket-Accept"}), protocolBroken, "Sec-WebSocket-Accept"},
		"credential":  {errors.New("getting credentials: 10.0.0.1"), unreachableNow, "credential"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			e := failure("dev", c.err)
			if e.Code != codes.Unavailable || e.Reason != c.reason || !strings.Contains(e.Message, c.says) || !strings.Contains(e.Message, `"dev"`) {
				t.Errorf("got %v", e)
			}
			if strings.Contains(e.Message, "10.0.0.1") || !errors.Is(e, c.err) {
				t.Errorf("message %q", e.Message)
			}
		})
	}
}
