package rest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/server/rest"
	"github.com/sluice-gateway/sluice/test/rig"
)

// within bounds what a test waits for; it only ever ends one that has failed.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// bodyBytes is the longest body that the tests' door lets through.
const bodyBytes = 1 << 20

// door is REST in front of a gateway, as a web port has it.
type door struct {
	*rig.Rig
	t      *testing.T
	server *httptest.Server
	calls  *recorder
}

// open opens REST in front of a gateway whose cluster has the namespaces shop and other.
func open(t *testing.T, o kubetest.Options) *door {
	t.Helper()
	r := rig.New(t, rig.Options{Kube: o})
	for _, name := range []string{"shop", "other"} {
		if _, err := r.Kube.Apply(kubetest.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}); err != nil {
			t.Fatal(err)
		}
	}
	calls := &recorder{ClientConnInterface: r.Conn()}
	h, err := rest.New(calls)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.MaxBytesHandler(h, bodyBytes))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return &door{Rig: r, t: t, server: s, calls: calls}
}

// recorder keeps the metadata of the calls that pass it.
type recorder struct {
	grpc.ClientConnInterface

	mu    sync.Mutex
	calls []recorded // guarded by mu
}

// recorded is one call.
type recorded struct {
	method string
	md     metadata.MD
	args   any
}

func (c *recorder) add(ctx context.Context, method string, args any) {
	md, _ := metadata.FromOutgoingContext(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, recorded{method, md, args})
}

// all is what was called.
func (c *recorder) all() []recorded {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]recorded(nil), c.calls...)
}

func (c *recorder) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	c.add(ctx, method, args)
	return c.ClientConnInterface.Invoke(ctx, method, args, reply, opts...)
}

func (c *recorder) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := c.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &recordedStream{s, c, ctx, method}, nil
}

type recordedStream struct {
	grpc.ClientStream
	to     *recorder
	ctx    context.Context
	method string
}

func (s *recordedStream) SendMsg(m any) error {
	s.to.add(s.ctx, s.method, m)
	return s.ClientStream.SendMsg(m)
}

// request makes one of alice's; change may make it another's.
func (d *door) request(method, path, body string, change ...func(*http.Request)) *http.Request {
	d.t.Helper()
	r, err := http.NewRequestWithContext(within(d.t), method, d.server.URL+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+d.Token("alice"))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range change {
		f(r)
	}
	return r
}

// header sets a header of a request.
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// send sends a request and returns what was answered; the body is to be read by the caller and is closed by the test's end.
func (d *door) send(r *http.Request) *http.Response {
	d.t.Helper()
	res, err := d.server.Client().Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = res.Body.Close() }) // a stream that was read as far as the test needs
	return res
}

// do sends a request and reads the whole answer.
func (d *door) do(method, path, body string, change ...func(*http.Request)) (*http.Response, string) {
	d.t.Helper()
	res := d.send(d.request(method, path, body, change...))
	b, err := io.ReadAll(res.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return res, string(b)
}

// refused is the error that an answer is.
func (d *door) refused(res *http.Response, body string) *sluicev1.Status {
	d.t.Helper()
	var s sluicev1.Status
	if res.Header.Get("Content-Type") != "application/json" {
		d.t.Errorf("an error is %q: %s", res.Header.Get("Content-Type"), body)
	}
	if err := protojson.Unmarshal([]byte(body), &s); err != nil || s.GetCode() == 0 {
		d.t.Errorf("%d answers no Status: %v: %s", res.StatusCode, err, body)
	}
	return &s
}

func (d *door) apply(namespace, name, note string) {
	d.t.Helper()
	if _, err := d.Kube.Apply(rig.Pod(namespace, name, note)); err != nil {
		d.t.Fatal(err)
	}
}

// run runs pods of the embedded cluster's, by their names.
func (d *door) run(names ...string) {
	d.t.Helper()
	for _, p := range kubetest.FixturePods() {
		if !slices.Contains(names, p.Name) {
			continue
		}
		if err := d.Kube.RunPod(p); err != nil {
			d.t.Fatal(err)
		}
	}
}

// lines reads lines of a stream.
type lines struct {
	t *testing.T
	r *bufio.Reader
}

func (d *door) lines(res *http.Response) *lines { return &lines{d.t, bufio.NewReader(res.Body)} }

// next is the next line, without its end; ok is false after the last.
func (l *lines) next() (line string, ok bool) {
	l.t.Helper()
	s, err := l.r.ReadString('\n')
	if err == io.EOF && s == "" {
		return "", false
	}
	if err != nil {
		l.t.Fatalf("after %q: %v", s, err)
	}
	return strings.TrimSuffix(s, "\n"), true
}

// response is the next line as one of a watch.
func (l *lines) response() *sluicev1.WatchResponse {
	l.t.Helper()
	line, ok := l.next()
	var r sluicev1.WatchResponse
	if err := protojson.Unmarshal([]byte(line), &r); !ok || err != nil {
		l.t.Fatalf("no response: %q, %v", line, err)
	}
	return &r
}

// listed reads to the end of the initial list and returns the names in it, and the cursor there.
func (l *lines) listed() (names []string, cursor string) {
	l.t.Helper()
	for {
		r := l.response()
		if r.GetState().GetKind() == sluicev1.ChannelState_KIND_RESYNC_END {
			return names, r.GetCursor()
		}
		if r.GetEvent() != "" {
			names = append(names, podName(l.t, r.GetEvent()))
		}
	}
}

// podName is the name of the object of an event.
func podName(t *testing.T, event string) string {
	t.Helper()
	var ev struct {
		Object struct{ Metadata struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(event), &ev); err != nil {
		t.Fatalf("%q: %v", event, err)
	}
	return ev.Object.Metadata.Name
}

// caFile has the certificate of the gateway, which is its own authority.
func (d *door) caFile() string {
	d.t.Helper()
	dialer := tls.Dialer{Config: d.ClientTLS()}
	conn, err := dialer.DialContext(within(d.t), "tcp", d.Server.WebAddr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	shown := conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
	if err := conn.Close(); err != nil {
		d.t.Fatal(err)
	}
	file := filepath.Join(d.t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: shown.Raw}), 0o600); err != nil {
		d.t.Fatal(err)
	}
	return file
}
