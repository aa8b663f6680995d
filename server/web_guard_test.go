package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

const (
	console = "https://console.example" // a page that may call
	evil    = "https://evil.example"
)

// guarded is a rig whose web port lets console in, and is called by name as well.
func guarded(t *testing.T) *rig.Rig {
	t.Helper()
	return rig.New(t, rig.Options{Change: func(c *server.Config) {
		c.Web.Origins, c.Web.Hosts = []string{console}, []string{"gateway.example"}
	}})
}

// asks are requests that reach a method when nothing forbids them: one of each door of the web port.
func asks(t *testing.T, r *rig.Rig) map[string]func() *http.Request {
	t.Helper()
	out := map[string]func() *http.Request{}
	add := func(name, method, path, contentType string, body []byte) {
		out[name] = func() *http.Request {
			req, err := http.NewRequestWithContext(within(t), method, r.WebURL(path), strings.NewReader(string(body)))
			if err != nil {
				t.Fatal(err)
			}
			if contentType != "" {
				req.Header.Set("Content-Type", contentType)
			}
			req.Header.Set("Authorization", "Bearer "+r.Token("alice"))
			return req
		}
	}
	for _, s := range speeches {
		list, err := s.encode(&sluicev1.ListClustersRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if s.web() {
			list = enveloped(list)
		}
		add(s.name, http.MethodPost, listPath, s.unary, list)
	}
	add("REST", http.MethodGet, "/v1/clusters", "", nil)
	return out
}

// started is how many calls the methods of all services have been given.
func started(r *rig.Rig) string {
	_, metrics := r.Admin("/metrics")
	return strings.Join(regexp.MustCompile(`(?m)^grpc_server_started_total.*\n`).FindAllString(metrics, -1), "")
}

// answered is what a request is answered with.
func answered(t *testing.T, c *http.Client, req *http.Request) (int, http.Header, string) {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(b)
}

// bothVersions runs a test with a client of each version of HTTP.
func bothVersions(t *testing.T, r *rig.Rig, test func(*testing.T, *http.Client)) {
	t.Run("HTTP/2", func(t *testing.T) { test(t, r.Web()) })
	t.Run("HTTP/1.1", func(t *testing.T) { test(t, r.WebHTTP1()) })
}

// The requests that the tests of the guard change are answered when they are not changed.
func TestAsksAreAnsweredAsTheyAre(t *testing.T) {
	r := guarded(t)
	bothVersions(t, r, func(t *testing.T, c *http.Client) {
		for door, ask := range asks(t, r) {
			code, h, b := answered(t, c, ask())
			if code != http.StatusOK || !strings.Contains(b, rig.Cluster) {
				t.Errorf("%s: %d %q", door, code, b)
			}
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store", "Vary": "Origin",
			} {
				if got := h.Get(name); got != want {
					t.Errorf("%s: %s is %q", door, name, got)
				}
			}
		}
	})
}

// T-J4: a page of another name, whose DNS now leads to the gateway, is of the same origin as what it asks; its name gives it away.
func TestT_J4_ReboundNamesAreMisdirected(t *testing.T) {
	r := guarded(t)
	before := started(r)
	bothVersions(t, r, func(t *testing.T, c *http.Client) {
		for door, ask := range asks(t, r) {
			for _, host := range []string{"evil.example", "evil.example:8444", "gateway.example.", "gateway.example.evil.example", "localhost", "10.0.0.1"} {
				req := ask()
				req.Host = host
				req.Header.Set("Origin", "https://"+host)
				req.Header.Set("Sec-Fetch-Site", "same-origin")
				if code, _, b := answered(t, c, req); code != http.StatusMisdirectedRequest {
					t.Errorf("%s called %s: %d %s", door, host, code, b)
				}
			}
		}
	})
	if after := started(r); after != before {
		t.Errorf("methods were called: %s", after)
	}
	for _, host := range []string{"gateway.example", "gateway.example:443", r.Server.WebAddr().String()} {
		req := asks(t, r)["REST"]()
		req.Host = host
		if code, _, b := answered(t, r.Web(), req); code != http.StatusOK {
			t.Errorf("called %s: %d %s", host, code, b)
		}
	}
}

// HL-D5: every origin was let in. Here a page of another origin reaches no method by any door, whatever it sends along, and is not told anything.
func TestHL_D5_PagesOfOtherOriginsReachNothing(t *testing.T) {
	r := guarded(t)
	own := "https://" + r.Server.WebAddr().String()
	before := started(r)
	bothVersions(t, r, func(t *testing.T, c *http.Client) {
		for door, ask := range asks(t, r) {
			for _, origin := range []string{
				evil, "null", "", "https://console.example.evil.example", "https://console.example:443", "https://console.example@evil.example",
				"https://CONSOLE.example", "http://console.example", strings.Replace(own, "https", "http", 1), own + ".", own + "1",
			} {
				req := ask()
				req.Header["Origin"] = []string{origin}
				req.AddCookie(&http.Cookie{Name: "session", Value: "alice"})
				code, h, b := answered(t, c, req)
				if code != http.StatusForbidden || h.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s from %q: %d %v %s", door, origin, code, h, b)
				}
			}
		}
	})
	if after := started(r); after != before {
		t.Errorf("methods were called: %s", after)
	}
	for door, ask := range asks(t, r) {
		for _, origin := range []string{console, own} {
			req := ask()
			req.Header.Set("Origin", origin)
			if code, h, b := answered(t, r.Web(), req); code != http.StatusOK || (h.Get("Access-Control-Allow-Origin") == origin) != (origin == console) {
				t.Errorf("%s from %q: %d %v %s", door, origin, code, h, b)
			}
		}
	}
}

// T-J1: what a page can make a browser send without asking: forms, images, navigations, event streams, WebSockets.
func TestT_J1_NothingIsCalledAcrossSites(t *testing.T) {
	r := guarded(t)
	before := started(r)
	watch := "/v1/clusters/" + rig.Cluster + "/watch/v1/pods"
	for name, c := range map[string]struct {
		method, path, contentType, body string
		fields                          map[string]string
	}{
		"form":            {"POST", listPath, "application/x-www-form-urlencoded", "a=b", map[string]string{"Origin": evil, "Sec-Fetch-Site": "cross-site"}},
		"form, plain":     {"POST", listPath, "text/plain", "{}", map[string]string{"Origin": evil}},
		"form, old":       {"POST", listPath, "text/plain", "{}", nil}, // a browser that sends neither
		"form, multipart": {"POST", listPath, "multipart/form-data; boundary=x", "--x--", nil},
		"no-cors":         {"POST", listPath, "text/plain", "{}", map[string]string{"Origin": evil, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}},
		"image":           {"GET", "/v1/clusters", "", "", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "image"}},
		"script":          {"GET", "/openapi.json", "", "", map[string]string{"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "script"}},
		"navigation":      {"GET", watch, "", "", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}},
		"EventSource":     {"GET", watch, "", "", map[string]string{"Origin": evil, "Accept": "text/event-stream", "Sec-Fetch-Site": "cross-site"}},
		"WebSocket": {"GET", listPath, "", "", map[string]string{
			"Origin": evil, "Connection": "Upgrade", "Upgrade": "websocket",
			"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
		}},
		"beacon": {"POST", "/v1/sessions:revoke", "text/plain", "{}", map[string]string{"Origin": evil, "Sec-Fetch-Site": "cross-site"}},
	} {
		req, err := http.NewRequestWithContext(within(t), c.method, r.WebURL(c.path), strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		if c.contentType != "" {
			req.Header.Set("Content-Type", c.contentType)
		}
		for field, value := range c.fields {
			req.Header.Set(field, value)
		}
		req.AddCookie(&http.Cookie{Name: "token", Value: r.Token("alice")})
		want := http.StatusForbidden
		if c.fields == nil {
			want = http.StatusUnsupportedMediaType
		}
		if code, _, b := answered(t, r.WebHTTP1(), req); code != want {
			t.Errorf("%s: %d %s, want %d", name, code, b, want)
		}
	}
	if after := started(r); after != before {
		t.Errorf("methods were called: %s", after)
	}
}

// T-J2: a preflight lets listed pages call with a token that they have, and no page with one that the browser has.
func TestT_J2_Preflights(t *testing.T) {
	r := guarded(t)
	bothVersions(t, r, func(t *testing.T, c *http.Client) {
		for _, path := range []string{watchPath, "/v1/clusters", "/nothing"} {
			for _, origin := range []string{console, evil} {
				req, err := http.NewRequestWithContext(within(t), http.MethodOptions, r.WebURL(path), http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Origin", origin)
				req.Header.Set("Sec-Fetch-Site", "cross-site")
				req.Header.Set("Access-Control-Request-Method", "POST")
				req.Header.Set("Access-Control-Request-Headers", "authorization,content-type")
				code, h, b := answered(t, c, req)
				allowed := fmt.Sprintf("%d %v %v %q %v %s", code, h["Access-Control-Allow-Origin"], h["Access-Control-Allow-Credentials"], h.Get("Access-Control-Max-Age"),
					strings.Contains(h.Get("Access-Control-Allow-Headers"), "authorization"), h.Get("Vary"))
				want := "204 [" + console + "] [] \"600\" true Origin"
				if origin == evil {
					want = `403 [] [] "" false Origin`
				}
				if allowed != want {
					t.Errorf("%s from %s: %s %s, want %s", path, origin, allowed, b, want)
				}
			}
		}
	})
}

// T-A11: a credential in a URL is refused by every door and kept by none.
func TestT_A11_NoCredentialInAURL(t *testing.T) {
	r := guarded(t)
	before := started(r)
	for door, ask := range asks(t, r) {
		for _, name := range []string{"token", "access_token", "ACCESS_TOKEN", "authorization", "%74oken", "a.token"} {
			token := r.Token("mallory")
			req := ask()
			req.Header.Del("Authorization")
			req.URL.RawQuery = name + "=" + token
			code, h, b := answered(t, r.Web(), req)
			said := b
			if door == "gRPC-Web" {
				said = h.Get("Grpc-Message")
			}
			if code != http.StatusBadRequest || !strings.Contains(said, "regard this one as leaked") {
				t.Errorf("%s, %s: %d %q", door, name, code, said)
			}
			if _, metrics := r.Admin("/metrics"); strings.Contains(b+r.Log.String()+r.Audit.String()+metrics, token[len(token)-40:]) {
				t.Errorf("%s, %s: the token is kept", door, name)
			}
		}
	}
	raw := "GET https://alice:" + r.Token("mallory") + "@" + r.Server.WebAddr().String() + "/v1/clusters HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	if answer := spoken(t, r, raw); !strings.HasPrefix(answer, "HTTP/1.1 400 ") {
		t.Errorf("a URL with a password: %s", answer)
	}
	if after := started(r); after != before {
		t.Errorf("methods were called: %s", after)
	}
}

// spoken is what the web port answers to bytes of HTTP/1.1.
func spoken(t *testing.T, r *rig.Rig, request string) string {
	t.Helper()
	d := tls.Dialer{Config: r.ClientTLS()}
	conn, err := d.DialContext(within(t), "tcp", r.Server.WebAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // of a connection that the server has ended
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil && len(b) == 0 {
		t.Fatal(err)
	}
	return string(b)
}

// T-A16: what proxies and libraries take for an identity, or for a reason not to ask for one, is none.
func TestT_A16_NoHeaderStandsInForACredential(t *testing.T) {
	r := guarded(t)
	for _, fields := range []map[string]string{
		{"User-Agent": "kube-probe/1.35"},
		{"User-Agent": "GoogleHC/1.0"},
		{"X-Forwarded-Uri": "/healthz"},
		{"X-Original-Url": "/healthz"},
		{"X-Forwarded-User": "alice"},
		{"X-Forwarded-Email": "a@a@example.com"},
		{"X-Remote-User": "alice"},
		{"X-Auth-Request-User": "alice"},
		{"Impersonate-User": "alice", "Impersonate-Group": "system:masters"},
		{"X-Forwarded-For": "127.0.0.1"},
		{"Forwarded": "for=127.0.0.1"},
		{"Grpc-Metadata-Authorization": "TOKEN"},
		{"X-Authorization": "TOKEN"},
		{"Proxy-Authorization": "TOKEN"},
		{"Authorization_": "TOKEN"},
		{"Cookie": "authorization=TOKEN; token=TOKEN"},
		{"Sec-WebSocket-Protocol": "base64url.bearer.authorization.k8s.io.TOKEN"},
		{"Connection": "close", "Upgrade": "TOKEN"},
		{"X-Http-Method-Override": "GET", "X-Forwarded-Access-Token": "TOKEN"},
		{"Sluice-Cluster-Authorization": "TOKEN"},
	} {
		for door, ask := range asks(t, r) {
			req := ask()
			req.Header.Del("Authorization")
			for name, value := range fields {
				req.Header[name] = []string{strings.ReplaceAll(value, "TOKEN", "Bearer "+r.Token("alice"))}
			}
			code, _, b := answered(t, r.WebHTTP1(), req)
			if door == "gRPC-Web" {
				if !strings.Contains(b, "grpc-status: 16\r\n") {
					t.Errorf("%s with %v: %d %q", door, fields, code, b)
				}
			} else if code != http.StatusUnauthorized {
				t.Errorf("%s with %v: %d %q", door, fields, code, b)
			}
		}
	}
}

func TestHeadersAreCounted(t *testing.T) {
	r := guarded(t)
	bothVersions(t, r, func(t *testing.T, c *http.Client) {
		for n, want := range map[int]int{40: http.StatusOK, 70: http.StatusRequestHeaderFieldsTooLarge} {
			req := asks(t, r)["REST"]()
			for i := range n {
				req.Header.Add("X-Many", fmt.Sprint(i))
			}
			if code, _, b := answered(t, c, req); code != want {
				t.Errorf("%d headers: %d %s, want %d", n, code, b, want)
			}
		}
	})
	before := r.Log.String()
	req := asks(t, r)["REST"]()
	req.Header.Set("X-Large", strings.Repeat("x", 64<<10))
	if res, err := r.WebHTTP1().Do(req); err == nil {
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("64 KiB of header: %d", res.StatusCode)
		}
		_ = res.Body.Close() // nothing of it is read
	}
	if after := r.Log.String(); after != before {
		t.Errorf("our code ran: %s", after[len(before):])
	}
}

// What is no HTTP, or HTTP with two meanings, reaches no method.
func TestOddRequestsReachNothing(t *testing.T) {
	r := guarded(t)
	before := started(r)
	host := r.Server.WebAddr().String()
	for name, request := range map[string]string{
		"no host":           "GET /v1/clusters HTTP/1.1\r\nConnection: close\r\n\r\n",
		"two hosts":         "GET /v1/clusters HTTP/1.1\r\nHost: " + host + "\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
		"HTTP/1.0":          "GET /v1/clusters HTTP/1.0\r\n\r\n",
		"another in a URL":  "GET https://evil.example/v1/clusters HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
		"length and chunks": "POST " + listPath + " HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked, identity\r\nConnection: close\r\n\r\n{}",
		"CONNECT":           "CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
		"OPTIONS *":         "OPTIONS * HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n",
		"preface":           "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		answer := spoken(t, r, request)
		res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(answer)), nil)
		if err != nil {
			continue // cut off
		}
		if res.StatusCode < 400 {
			t.Errorf("%s: %s", name, answer)
		}
		_ = res.Body.Close() // of a string
	}
	if after := started(r); after != before {
		t.Errorf("methods were called: %s", after)
	}
}

// Reflection is for the gRPC port, even where it is on.
func TestReflectionIsNotOnTheWeb(t *testing.T) {
	r := guarded(t)
	for _, service := range []string{"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"} {
		req := asks(t, r)["gRPC-Web"]()
		req.URL.Path = "/" + service + "/ServerReflectionInfo"
		if code, _, b := answered(t, r.Web(), req); code != http.StatusNotFound {
			t.Errorf("%s: %d %s", service, code, b)
		}
	}
}

// T-A13: every method by every door of the web port refuses every bad credential as the gRPC port does.
func TestT_A13_EveryWebDoorRefusesAlike(t *testing.T) {
	r := rig.New(t, rig.Options{})
	good := r.Token("alice")
	for name, c := range map[string]struct {
		authorization []string
		reason        sluicev1.Reason
	}{
		"none":         {nil, sluicev1.Reason_REASON_MISSING_CREDENTIAL},
		"empty":        {[]string{""}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"two":          {[]string{"Bearer " + good, "Bearer " + good}, sluicev1.Reason_REASON_MULTIPLE_CREDENTIALS},
		"joined":       {[]string{"Bearer " + good + ", Bearer " + good}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"other scheme": {[]string{"Basic YTpi"}, sluicev1.Reason_REASON_INVALID_TOKEN},
		"9 KiB":        {[]string{"Bearer " + strings.Repeat("a", 9<<10)}, sluicev1.Reason_REASON_TOKEN_TOO_LARGE},
		"garbled":      {[]string{"Bearer " + good[:len(good)-4] + "AAAA"}, sluicev1.Reason_REASON_INVALID_TOKEN},
	} {
		for door, err := range webDoors(t, r, c.authorization) {
			if err != fmt.Sprintf("%v %v", codes.Unauthenticated, c.reason) {
				t.Errorf("%s by %s: %s, want UNAUTHENTICATED (%s)", name, door, err, c.reason)
			}
		}
	}
	if n := r.Kube.Counts(); n.Dials != 0 {
		t.Errorf("the cluster was dialled %d times", n.Dials)
	}
}

// webDoors calls every method by every door of the web port, and tells how each refused: by code and reason.
func webDoors(t *testing.T, r *rig.Rig, authorization []string) map[string]string {
	t.Helper()
	out := map[string]string{}
	p := openPage(t, r, "")
	if authorization != nil {
		p.header["Authorization"] = authorization
	}
	for path, streams := range webMethods() {
		for _, s := range speeches {
			out[s.name+" "+path] = p.refusal(within(t), s, path, streams)
		}
	}
	for _, path := range []string{
		"/v1/clusters", "/v1/clusters/dev/resources", "/v1/clusters/dev/watch/v1/pods", "/v1/clusters/dev/logs/default/p", "/v1/sessions", "/v1/sessions/x",
	} {
		out["REST "+path] = p.restRefusal(within(t), path)
	}
	return out
}

// webMethods are the methods of Sluice's services that the port offers, and whether they stream.
func webMethods() map[string]bool {
	out := map[string]bool{}
	for _, d := range []grpc.ServiceDesc{sluicev1.GatewayService_ServiceDesc, sluicev1.ClusterService_ServiceDesc, sluicev1.SessionService_ServiceDesc} {
		for _, m := range d.Methods {
			out["/"+d.ServiceName+"/"+m.MethodName] = false
		}
		for _, m := range d.Streams {
			if !m.ClientStreams {
				out["/"+d.ServiceName+"/"+m.StreamName] = true
			}
		}
	}
	return out
}

// refusal is how a method refuses an empty message.
func (p *page) refusal(ctx context.Context, s speech, path string, streams bool) string {
	p.t.Helper()
	var err error
	if streams {
		_, err = p.stream(ctx, s, path, &emptypb.Empty{}).next()
	} else {
		err = p.call(ctx, s, path, &emptypb.Empty{}, &emptypb.Empty{})
	}
	if err == nil {
		return "it does not refuse"
	}
	e := status.From(err)
	return fmt.Sprintf("%v %v", e.Code, e.Reason)
}

func (p *page) restRefusal(ctx context.Context, path string) string {
	p.t.Helper()
	res := p.do(ctx, path, "", nil, func(r *http.Request) { r.Method = http.MethodGet })
	b, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var s struct {
		Code   uint32
		Reason string
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Sprintf("%d %s", res.StatusCode, b)
	}
	return fmt.Sprintf("%v %v", codes.Code(s.Code), s.Reason)
}
