package web

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

const (
	checkPath = "/grpc.health.v1.Health/Check"
	watchPath = "/grpc.health.v1.Health/Watch"
)

// port is a web port in front of a server of gRPC that tells what reaches it.
type port struct {
	*httptest.Server
	t      *testing.T
	health *health.Server
	log    bytes.Buffer // to be read when the port is closed

	mu    sync.Mutex
	calls []arrival
	// Called with each call, before its handler.
	on func(context.Context) error
}

// arrival is what a call's handler can know of its caller.
type arrival struct {
	method   string
	metadata metadata.MD
	peer     *peer.Peer
	timeout  time.Duration // 0 without one
}

func newPort(t *testing.T, c Config, change ...func(*Handler)) *port {
	t.Helper()
	p := &port{t: t, health: health.NewServer()}
	g := grpc.NewServer(grpc.UnaryInterceptor(p.unary), grpc.StreamInterceptor(p.stream))
	healthv1.RegisterHealthServer(g, p.health)
	sluicev1.RegisterGatewayServiceServer(g, sluicev1.UnimplementedGatewayServiceServer{})
	reflection.Register(g)
	cert := certificateFor(t, []string{"gateway.example"}, net.IPv4(127, 0, 0, 1))
	h, err := New(c, Behind{
		GRPC: g, Services: []string{"grpc.health.v1.Health", "sluice.v1.GatewayService"}, TLS: shows(cert), Log: slog.New(slog.NewTextHandler(&p.log, nil)),
		REST: http.HandlerFunc(p.rest),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(h)
	}
	p.Server = httptest.NewUnstartedServer(h)
	p.EnableHTTP2 = true
	p.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	p.StartTLS()
	t.Cleanup(func() {
		p.health.Shutdown()
		p.CloseClientConnections()
		p.Close()
		g.Stop()
	})
	return p
}

func (p *port) arrived(ctx context.Context, method string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	from, _ := peer.FromContext(ctx)
	a := arrival{method: method, metadata: md, peer: from}
	if until, ok := ctx.Deadline(); ok {
		a.timeout = time.Until(until)
	}
	p.mu.Lock()
	p.calls = append(p.calls, a)
	on := p.on
	p.mu.Unlock()
	if on != nil {
		return on(ctx)
	}
	return nil
}

func (p *port) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := p.arrived(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (p *port) stream(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if err := p.arrived(s.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(srv, s)
}

// rest tells what reaches REST.
func (p *port) rest(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	_ = p.arrived(r.Context(), r.URL.Path)
	_ = json.NewEncoder(w).Encode(map[string]any{"header": r.Header, "body": len(body), "err": err != nil})
}

// taken are the calls that have arrived.
func (p *port) taken() []arrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// post sends a request and reads the answer.
func (p *port) post(path, contentType string, body []byte, fields ...string) (*http.Response, []byte) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.URL+path, bytes.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	return p.send(req)
}

func (p *port) send(req *http.Request) (*http.Response, []byte) {
	p.t.Helper()
	res, err := p.Client().Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		p.t.Fatal(err)
	}
	return res, b
}

// T-C17: of 300 headers, those arrive that are on the list, and no other.
func TestT_C17_OnlyTheListedHeadersArrive(t *testing.T) {
	p := newPort(t, Config{Headers: 400, Forward: []string{"x-embedder"}})
	fields := []string{
		"Authorization", "Bearer a", "Sluice-Cluster-Authorization", "Bearer b", "X-Request-Id", "c", "Traceparent", "d", "X-Embedder", "e",
		"Cookie", "session=1", "X-Forwarded-For", "10.0.0.1", "X-Forwarded-User", "admin", "X-Forwarded-Uri", "/healthz", "Forwarded", "for=10.0.0.1",
		"X-Real-Ip", "10.0.0.1", "Impersonate-User", "admin", "Impersonate-Group", "system:masters", "Impersonate-Extra-Scopes", "all",
		"Grpc-Metadata-Authorization", "Bearer x", "Grpc-Metadata-X-Request-Id", "y", "X-Remote-User", "admin", "X-Request_Id", "z", "X_Request_Id", "z",
		"Grpc-Tags-Bin", "AAAA", "Grpc-Trace-Bin", "AAAA", "X-Secret-Bin", "AAAA", "Proxy-Authorization", "Basic x", "Authorization-", "x",
		"Sluice-Caller-Peer", "10.0.0.1", "X-Authorization", "Bearer x", "Tracestate", "t=1", "Baggage", "a=b", "Origin-Agent-Cluster", "?1",
		"Content-Language", "de", "Referer", "https://evil.example", "Early-Data", "1", "Grpc-Accept-Encoding", "gzip", "Grpc-Previous-Rpc-Attempts", "9",
	}
	for i := range 300 - len(fields)/2 {
		fields = append(fields, fmt.Sprintf("X-Header-%d", i), "x")
	}
	want := []string{":authority", "authorization", "content-type", "sluice-cluster-authorization", "traceparent", "x-embedder", "x-request-id"}
	for _, contentType := range []string{"application/grpc-web+proto", "application/proto", "application/json"} {
		body := map[string][]byte{"application/grpc-web+proto": message(nil), "application/json": []byte("{}")}[contentType]
		if res, b := p.post(checkPath, contentType, body, fields...); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", contentType, res.StatusCode, b)
		}
		calls := p.taken()
		md := calls[len(calls)-1].metadata
		var names []string
		for name := range md {
			names = append(names, name)
		}
		slices.Sort(names)
		if !slices.Equal(names, want) {
			t.Errorf("%s: %d arrive: %q, want %q", contentType, len(names), names, want)
		}
		if got := md.Get("authorization"); !slices.Equal(got, []string{"Bearer a"}) {
			t.Errorf("%s: authorization is %q", contentType, got)
		}
	}
	_, b := p.post("/v1/anything", "application/json", []byte("{}"), fields...)
	var got struct{ Header http.Header }
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for name := range got.Header {
		if !slices.Contains(forwarded, name) && name != "Content-Type" && name != "X-Embedder" {
			t.Errorf("%s arrives at REST", name)
		}
	}
	if len(got.Header) != 6 {
		t.Errorf("%d headers arrive at REST: %v", len(got.Header), got.Header)
	}
}

func message(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// The peer of a call is that of the HTTP connection, whatever its headers claim.
func TestPeerIsThatOfTheConnection(t *testing.T) {
	p := newPort(t, Config{})
	var local string
	tr := p.Client().Transport.(*http.Transport)
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			local = c.LocalAddr().String()
		}
		return c, err
	}
	p.post(checkPath, "application/proto", nil, "X-Forwarded-For", "10.0.0.1", "Forwarded", "for=10.0.0.1")
	calls := p.taken()
	if len(calls) != 1 || calls[0].peer.Addr.String() != local {
		t.Fatalf("got %+v, want a call from %s", calls, local)
	}
	if info, ok := calls[0].peer.AuthInfo.(credentials.TLSInfo); !ok || info.State.Version < tls.VersionTLS12 {
		t.Errorf("TLS is %+v", calls[0].peer.AuthInfo)
	}
}

func TestTimeouts(t *testing.T) {
	p := newPort(t, Config{})
	for _, c := range []struct {
		contentType, name, value string
		want                     time.Duration // 0 for none, negative for a refusal
	}{
		{"application/proto", "Connect-Timeout-Ms", "5000", 5 * time.Second},
		{"application/proto", "Connect-Timeout-Ms", "9999999999", 9999999 * time.Second},
		{"application/proto", "Connect-Timeout-Ms", "99999999999", -1},
		{"application/proto", "Connect-Timeout-Ms", "", -1},
		{"application/proto", "Connect-Timeout-Ms", "-1", -1},
		{"application/proto", "Connect-Timeout-Ms", "1e3", -1},
		{"application/proto", "Grpc-Timeout", "1S", 0}, // not this protocol's
		{"application/grpc-web", "Grpc-Timeout", "10S", 10 * time.Second},
		{"application/grpc-web", "Grpc-Timeout", "5000m", 5 * time.Second},
		{"application/grpc-web", "Grpc-Timeout", "99999999H", 1<<63 - 1}, // more than a Duration holds
		{"application/grpc-web", "Grpc-Timeout", "10", -1},
		{"application/grpc-web", "Grpc-Timeout", "S", -1},
		{"application/grpc-web", "Grpc-Timeout", "", -1},
		{"application/grpc-web", "Grpc-Timeout", "10 S", -1},
		{"application/grpc-web", "Connect-Timeout-Ms", "1", 0},
	} {
		body := []byte{}
		if strings.Contains(c.contentType, "grpc") {
			body = message(nil)
		}
		before := len(p.taken())
		res, b := p.post(checkPath, c.contentType, body, c.name, c.value)
		calls := p.taken()[before:]
		if c.want < 0 {
			refused := res.StatusCode == http.StatusBadRequest || res.StatusCode == http.StatusOK && refusedInProtocol(t, res.Header, b)
			if len(calls) > 0 || !refused {
				t.Errorf("%s %q: %d %s, %+v", c.name, c.value, res.StatusCode, b, calls)
			}
			continue
		}
		if len(calls) != 1 || calls[0].timeout > c.want || (calls[0].timeout == 0) != (c.want == 0) || (c.want < 1<<62 && calls[0].timeout < c.want-c.want/2) {
			t.Errorf("%s %q: %+v, want %v", c.name, c.value, calls, c.want)
		}
	}
}

// What is no call of this port is refused before a body is read, in the protocol that the request is in.
func TestWhatIsNotSpokenIsRefused(t *testing.T) {
	p := newPort(t, Config{})
	const connectPath = "/sluice.v1.GatewayService/Connect"
	for _, c := range []struct {
		method, path, contentType string
		code                      int
	}{
		{"POST", checkPath, "application/grpc", 415},
		{"POST", checkPath, "application/grpc+proto", 415},
		{"POST", checkPath, "application/grpc-web-text", 415},
		{"POST", checkPath, "application/grpc-web+json", 415},
		{"POST", checkPath, "", 415},
		{"POST", checkPath, "text/plain", 415},
		{"POST", checkPath, "application/x-www-form-urlencoded", 415},
		{"POST", checkPath, "multipart/form-data; boundary=x", 415},
		{"POST", checkPath, "application/json; charset=latin1", 415},
		{"POST", checkPath, "application/connect+proto", 200},
		{"POST", watchPath, "application/json", 415},
		{"POST", watchPath, "application/proto", 415},
		{"POST", connectPath, "application/grpc-web+proto", 200},
		{"POST", connectPath, "application/connect+json", 200},
		{"POST", connectPath, "application/proto", 501},
		{"POST", connectPath, "application/grpc", 415},
		{"GET", checkPath, "", 405},
		{"GET", checkPath + "?connect=v1&encoding=json&message=%7B%7D", "", 405},
		{"GET", checkPath, "application/json", 405},
		{"PUT", checkPath, "application/json", 405},
		{"HEAD", checkPath, "", 405},
		{"OPTIONS", checkPath, "", 405},
		{"TRACE", checkPath, "", 405},
		{"POST", checkPath + "?x=1", "application/json", 400},
		{"POST", checkPath + "/", "application/json", 404},
		{"POST", "/" + checkPath, "application/json", 404},
		{"POST", "/grpc.health.v1.Health%2FCheck", "application/json", 404},
		{"POST", "/grpc.health.v1.Health/%43heck", "application/json", 404},
		{"POST", "/x/.." + checkPath, "application/json", 404},
		{"POST", strings.ToLower(checkPath), "application/json", 404},
		{"POST", "/grpc.health.v1.Health/Nope", "application/grpc-web", 404},
		{"POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "application/grpc-web", 404},
		{"POST", "/sluice.v1.ClusterService/ListClusters", "application/grpc-web", 404}, // not offered by this port
		{"GET", "/", "", 404},
		{"GET", "/v1", "", 404},
		{"GET", "/V1/x", "", 404},
		{"GET", "/metrics", "", 404},
		{"GET", "/openapi.json/", "", 404},
	} {
		body, _ := io.Pipe() // a body that never comes
		req, err := http.NewRequestWithContext(t.Context(), c.method, p.URL+c.path, body)
		if err != nil {
			t.Fatal(err)
		}
		if c.method == http.MethodHead || c.method == http.MethodTrace || c.method == http.MethodGet {
			req.Body = nil
		}
		if c.contentType != "" {
			req.Header.Set("Content-Type", c.contentType)
		}
		res, b := p.send(req)
		if res.StatusCode != c.code {
			t.Errorf("%s %s as %q: %d %s, want %d", c.method, c.path, c.contentType, res.StatusCode, b, c.code)
		}
		switch k := kindOf(req.Header); {
		case c.method == http.MethodHead:
		case c.code == http.StatusOK:
			if !refusedInProtocol(t, res.Header, b) {
				t.Errorf("%s as %q: %v %q tells no error", c.path, c.contentType, res.Header, b)
			}
		case k.protocol == grpcWeb:
			if res.Header.Get("Grpc-Status") == "" || res.Header.Get("Grpc-Status-Details-Bin") == "" {
				t.Errorf("%s as %q: no status in %v", c.path, c.contentType, res.Header)
			}
		default:
			var said struct {
				Code    any
				Message string
			}
			if err := json.Unmarshal(b, &said); err != nil || said.Code == nil || said.Message == "" {
				t.Errorf("%s as %q: %s, %v", c.path, c.contentType, b, err)
			}
		}
	}
	if calls := p.taken(); len(calls) > 0 {
		t.Errorf("%d calls arrived: %+v", len(calls), calls)
	}
}

// refusedInProtocol reports an answer of 200 that tells an error where its protocol has one, for the clients that look nowhere else.
func refusedInProtocol(t *testing.T, h http.Header, b []byte) bool {
	t.Helper()
	if h.Get("Content-Type") == contentGRPCWeb {
		return h.Get("Grpc-Status") != "" && h.Get("Grpc-Status") != "0"
	}
	var end struct {
		Error struct{ Code, Message string }
	}
	if len(b) < 5 || b[0] != 2 || json.Unmarshal(b[5:], &end) != nil {
		return false
	}
	return end.Error.Code != "" && end.Error.Message != ""
}

// zipped is b, compressed.
func zipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// T-C9: a small body that is a large one after decompression, in each protocol; and one that is not.
func TestT_C9_DecompressionIsBounded(t *testing.T) {
	p := newPort(t, Config{BodyBytes: 64 << 10})
	in := func(b []byte) []byte {
		return append(append([]byte{compressed}, binary.BigEndian.AppendUint32(nil, uint32(len(b)))...), b...)
	}
	service, err := proto.Marshal(&healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	name := []byte(strings.Repeat("a", 4<<20))
	large := append(append([]byte{1<<3 | 2}, binary.AppendUvarint(nil, uint64(len(name)))...), name...)
	bomb := zipped(t, large)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := decompress(bomb, "gzip", 64<<10); err == nil || err.Limit != "web.body_bytes" {
		t.Errorf("a bomb: %v", err)
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("to refuse a bomb took %d bytes", took)
	}
	for _, c := range []struct {
		path, contentType, header string
		frame                     func([]byte) []byte
	}{
		{checkPath, "application/grpc-web", "Grpc-Encoding", in},
		{checkPath, "application/proto", "Content-Encoding", func(b []byte) []byte { return b }},
		{watchPath, "application/connect+proto", "Connect-Content-Encoding", in},
	} {
		before := len(p.taken())
		_, b := p.post(c.path, c.contentType, c.frame(bomb), c.header, "gzip")
		if len(p.taken()) != before || !bytes.Contains(b, []byte("web.body_bytes")) && !bytes.Contains(b, []byte("grpc-status: 8")) {
			t.Errorf("%s: a bomb: %.300q, %d calls", c.contentType, b, len(p.taken())-before)
		}
		for _, encoding := range []string{"br", "zstd", "deflate", "gzip, gzip", "x-gzip"} {
			if _, b := p.post(c.path, c.contentType, c.frame(zipped(t, service)), c.header, encoding); len(p.taken()) != before {
				t.Errorf("%s: %s: %.300q", c.contentType, encoding, b)
			}
		}
		for what, broken := range map[string][]byte{"not compressed": []byte("abcdefghijklmnopqrstuvwxyz"), "cut off": zipped(t, large[:1000])[:20]} {
			if _, b := p.post(c.path, c.contentType, c.frame(broken), c.header, "gzip"); len(p.taken()) != before {
				t.Errorf("%s: %s: %.300q", c.contentType, what, b)
			}
		}
		if c.path == checkPath {
			if _, b := p.post(c.path, c.contentType, c.frame(zipped(t, service)), c.header, "gzip"); len(p.taken()) != before+1 {
				t.Errorf("%s: a small one: %.300q", c.contentType, b)
			}
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	p := newPort(t, Config{BodyBytes: 4 << 10})
	for _, path := range []string{checkPath, "/v1/x"} {
		for what, body := range map[string]io.Reader{"declared": bytes.NewReader(make([]byte, 5<<10)), "streamed": io.LimitReader(endless{}, 5<<10), "endless": endless{}} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+path, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			res, b := p.send(req)
			if res.StatusCode != http.StatusRequestEntityTooLarge || !bytes.Contains(b, []byte("web.body_bytes")) && !bytes.Contains(b, []byte("4096 bytes")) {
				t.Errorf("%s, %s: %d %s", path, what, res.StatusCode, b)
			}
		}
	}
	if calls := p.taken(); len(calls) > 0 {
		t.Errorf("%d calls arrived", len(calls))
	}
	if res, _ := p.post("/v1/x", "application/json", make([]byte, 4<<10)); res.StatusCode != http.StatusOK {
		t.Errorf("a body of the limit's length: %d", res.StatusCode)
	}
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestMalformedMessages(t *testing.T) {
	p := newPort(t, Config{})
	for name, body := range map[string][]byte{
		"empty": {}, "half an envelope": {0, 0, 0}, "no message": {0, 0, 0, 0, 5}, "too short": {0, 0, 0, 0, 5, 1, 2}, "more": append(message(nil), 0),
		"two": append(message(nil), message(nil)...), "flags": {4, 0, 0, 0, 0}, "a trailer": {grpcTrailers, 0, 0, 0, 0}, "an end": {connectEnd, 0, 0, 0, 0},
		"4 GiB": {0, 255, 255, 255, 255}, "compressed without a name": {compressed, 0, 0, 0, 0},
	} {
		for path, contentType := range map[string]string{checkPath: "application/grpc-web+proto", watchPath: "application/connect+proto"} {
			_, b := p.post(path, contentType, body)
			code, word := "3", "invalid_argument"
			switch name {
			case "empty", "more", "two":
				code, word = "12", "unimplemented"
			case "compressed without a name":
				code, word = "13", "internal"
			}
			if !bytes.Contains(b, []byte("grpc-status: "+code+"\r\n")) && !bytes.Contains(b, []byte(`"`+word+`"`)) {
				t.Errorf("%s as %s: %q", name, contentType, b)
			}
		}
	}
	if calls := p.taken(); len(calls) > 0 {
		t.Errorf("%d calls arrived", len(calls))
	}
	if _, b := p.post(checkPath, "application/proto", []byte{0xff}); !bytes.Contains(b, []byte(`"internal"`)) { // grpc-go's own words
		t.Errorf("no protobuf: %s", b)
	}
}

// T-C16: a field that there is not, depth and garbage are refused, and no value of the body is repeated.
func TestT_C16_JSON(t *testing.T) {
	p := newPort(t, Config{})
	for body, want := range map[string]string{
		``:                                 `no JSON`,
		`{`:                                `no JSON, at byte 1`,
		`{"service":"s3cret"`:              `no JSON, at byte 19`,
		`{"service":"s3cret"}}`:            `no JSON, at byte 21`,
		`{"service":"s3cret",}`:            `no JSON, at byte 21`,
		`[]`:                               `not of its type`,
		`"s3cret"`:                         `not of its type`,
		`{"service":["s3cret"]}`:           `not of its type`,
		`{"service":"a","service":"b"}`:    `twice`,
		`{"bogus":"s3cret"}`:               `no field \"bogus\"`,
		`{"service":"s3cret","Service":1}`: `no field \"Service\"`,
		strings.Repeat(`[`, 1<<19):         `no JSON`,
		strings.Repeat(`{"a":`, 100_000):   `no JSON`,
		`{"` + strings.Repeat("x", 1000) + `":1}`: `no field`,
	} {
		_, b := p.post(checkPath, "application/json", []byte(body))
		var e struct{ Code, Message string }
		if err := json.Unmarshal(b, &e); err != nil || e.Code != "invalid_argument" || !bytes.Contains(b, []byte(want)) || len(e.Message) > 300 {
			t.Errorf("%.60s: %s, want %q", body, b, want)
		}
		if bytes.Contains(b, []byte("s3cret")) {
			t.Errorf("%.60s: a value is repeated: %s", body, b)
		}
	}
	target := `{"watch":{"resource":"pods","nope":1}}`
	_, b := p.post("/sluice.v1.GatewayService/Watch", "application/connect+json", message([]byte(target)))
	if !bytes.Contains(b, []byte(`no field \"watch.nope\"`)) {
		t.Errorf("%s: %s", target, b)
	}
	deep := strings.Repeat(`{"struct_value":{"fields":{"a":`, 40) + "{}" + strings.Repeat("}}}", 40)
	_, b = p.post("/sluice.v1.GatewayService/Watch", "application/connect+json", message([]byte(`{"watch":`+deep+`}`)))
	if !bytes.Contains(b, []byte(`invalid_argument`)) {
		t.Errorf("deep: %s", b)
	}
	if calls := p.taken(); len(calls) > 0 {
		t.Errorf("%d calls arrived", len(calls))
	}
}

// What a service says beside its messages reaches the caller, before and after them, and cannot undo what the guard says.
func TestMetadataOfAnswers(t *testing.T) {
	p := newPort(t, Config{})
	p.on = func(ctx context.Context) error {
		if err := grpc.SetHeader(ctx, metadata.Pairs("x-early", "1", "x-early", "2", "x-early-bin", "\x00\xff", "cache-control", "public", "access-control-allow-origin", "*", "grpc-x", "1")); err != nil {
			return err
		}
		return grpc.SetTrailer(ctx, metadata.Pairs("x-late", "3", "x-late-bin", "\x01"))
	}
	res, b := p.post(checkPath, "application/grpc-web", message(nil))
	if !slices.Equal(res.Header["X-Early"], []string{"1", "2"}) || res.Header.Get("X-Early-Bin") != "AP8" || !bytes.Contains(b, []byte("x-late: 3\r\nx-late-bin: AQ\r\n")) {
		t.Errorf("gRPC-Web: %v %q", res.Header, b)
	}
	res, _ = p.post(checkPath, "application/proto", nil)
	if res.Header.Get("X-Early") != "1" || res.Header.Get("Trailer-X-Late") != "3" || res.Header.Get("Trailer-X-Late-Bin") != "AQ" {
		t.Errorf("Connect: %v", res.Header)
	}
	if !slices.Equal(res.Header["Cache-Control"], []string{"no-store"}) || res.Header["Access-Control-Allow-Origin"] != nil || res.Header["Grpc-X"] != nil {
		t.Errorf("the guard's words are undone: %v", res.Header)
	}
	p.on = func(ctx context.Context) error {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-late", "3"))
		return grpcstatus.Error(codes.NotFound, "100 % ü\n")
	}
	_, b = p.post(watchPath, "application/connect+proto", message(nil))
	if want := `{"error":{"code":"not_found","message":"100 % ü\n"},"metadata":{"X-Late":["3"]}}`; string(b[5:]) != want {
		t.Errorf("Connect, streaming: %s", b)
	}
	_, b = p.post(checkPath, "application/grpc-web", message(nil))
	if want := "grpc-message: 100 %25 %C3%BC%0A\r\ngrpc-status: 5\r\nx-late: 3\r\n"; string(b[5:]) != want {
		t.Errorf("gRPC-Web: %q", b)
	}
}

// A handler that panics cuts its answer off and no other.
func TestPanicEndsOneRequest(t *testing.T) {
	p := newPort(t, Config{})
	p.on = func(ctx context.Context) error { panic("on purpose") }
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+"/v1/x", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := p.Client().Do(req); err == nil {
		t.Errorf("answered %v", res)
	}
	p.mu.Lock()
	p.on = nil
	p.mu.Unlock()
	if res, b := p.post(checkPath, "application/proto", nil); res.StatusCode != http.StatusOK {
		t.Errorf("then: %d %s", res.StatusCode, b)
	}
	p.Close()
	if !strings.Contains(p.log.String(), "on purpose") {
		t.Errorf("the log is %s", &p.log)
	}
}

// The answer is the same whatever pieces grpc-go writes it in.
func FuzzResponder(f *testing.F) {
	f.Add(append(message([]byte("abc")), message(nil)...), uint8(1))
	f.Add([]byte{1, 0, 0, 0, 0}, uint8(3))
	f.Add([]byte{0, 255, 255, 255, 255, 1}, uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		whole, pieces := &collected{}, &collected{}
		one := &responder{header: http.Header{}, out: whole, giveUp: func() {}}
		_, oneErr := one.Write(b)
		many := &responder{header: http.Header{}, out: pieces, giveUp: func() {}}
		var manyErr error
		for piece := range slices.Chunk(b, int(size)+1) {
			if _, manyErr = many.Write(piece); manyErr != nil {
				break
			}
		}
		if (oneErr == nil) != (manyErr == nil) || !slices.EqualFunc(whole.messages, pieces.messages, bytes.Equal) {
			t.Errorf("in one: %q, %v; in pieces: %q, %v", whole.messages, oneErr, pieces.messages, manyErr)
		}
		var again []byte
		for _, m := range whole.messages {
			again = append(again, message(m)...)
		}
		if !bytes.HasPrefix(b, again) {
			t.Errorf("%q became %q", b, whole.messages)
		}
	})
}

// collected keeps the messages of an answer.
type collected struct{ messages [][]byte }

func (*collected) begin(http.Header) {}
func (c *collected) message(m []byte) error {
	c.messages = append(c.messages, bytes.Clone(m))
	return nil
}
func (*collected) end(*grpcstatus.Status, http.Header) {}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"watch":{"resource":"pods"}}`), uint8(connectUnary), true, "")
	f.Add(message([]byte{10, 1, 'a'}), uint8(grpcWeb), false, "gzip")
	f.Add([]byte{1, 0, 0, 0, 1, 31}, uint8(connectStream), false, "gzip")
	request0, answer := messagesOf("sluice.v1.GatewayService", "Watch")
	m := &method{request: request0, answer: answer}
	f.Fuzz(func(t *testing.T, body []byte, p uint8, asJSON bool, encoding string) {
		k := kind{protocol(p%3) + grpcWeb, asJSON && protocol(p%3)+grpcWeb != grpcWeb}
		h := http.Header{"Content-Encoding": {encoding}, "Grpc-Encoding": {encoding}, "Connect-Content-Encoding": {encoding}}
		const limit = 1 << 12
		out, err := request(body, h, m, k, limit)
		switch {
		case err != nil && (err.Code == codes.OK || err.Message == "" || len(err.Message) > 400):
			t.Errorf("refused with %v", err)
		case err == nil && !k.json && len(out) > max(limit, len(body)):
			t.Errorf("%d bytes became %d", len(body), len(out))
		case err == nil && k.json:
			if e := proto.Unmarshal(out, m.request.New().Interface()); e != nil {
				t.Errorf("%q became no message: %v", body, e)
			}
		}
	})
}
