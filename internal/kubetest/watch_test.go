package kubetest

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestWebSocketWatchNeedsAnOrigin(t *testing.T) {
	c := serve(t, Options{})
	for origin, want := range map[string]int{
		"": 403, "null": 403, "nonsense": 403,
		"http://localhost": 101, "https://console.example": 101,
	} {
		header := http.Header{}
		if origin != "" {
			header.Set("Origin", origin)
		}
		_, resp, err := c.dial(configMaps+"?watch=1", header)
		if resp == nil {
			t.Fatalf("origin %q: %v", origin, err)
		}
		body, err := io.ReadAll(resp.Body)
		c.must(err)
		if resp.StatusCode != want || len(body) > 0 {
			t.Errorf("origin %q: %d %q, want %d and nothing", origin, resp.StatusCode, body, want)
		}
	}
}

func TestHandshakeRefusalsAreBare(t *testing.T) {
	c := serve(t, Options{})
	const proper = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	for name, tc := range map[string]struct{ header, want string }{
		"no origin":        {"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a\r\n", "HTTP/1.1 403 Forbidden\r\n\r\n"},
		"two subprotocols": {"Origin: http://a\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a\r\nSec-WebSocket-Protocol: a, b\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"},
		"no key":           {"Origin: http://a\r\nSec-WebSocket-Version: 13\r\n", "HTTP/1.1 400 Bad Request\r\n\r\nmissing or bad challenge"},
		"old version":      {"Origin: http://a\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: a\r\n", "HTTP/1.1 400 Bad Request\r\nSec-WebSocket-Version: 13\r\n\r\nmissing or bad WebSocket Version"},
	} {
		if got := c.raw("GET " + configMaps + "?watch=1 HTTP/1.1\r\n" + proper + tc.header + "\r\n"); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestHandshakeIsAnswered(t *testing.T) {
	c := serve(t, Options{})
	conn, resp, err := c.dial(configMaps+"?watch=1", nil, "anything.example")
	c.must(err)
	if conn.Subprotocol() != "anything.example" || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("subprotocol %q, header %v", conn.Subprotocol(), resp.Header)
	}
	conn, _, err = c.dial(configMaps+"?watch=1", nil)
	c.must(err)
	if conn.Subprotocol() != "" {
		t.Errorf("subprotocol %q though none was offered", conn.Subprotocol())
	}
}

func TestEventIsATextFrameWithANewline(t *testing.T) {
	c := serve(t, Options{})
	conn := c.watch("resourceVersion=" + c.version())
	c.apply(configMap("a", "<1>", "app=x"))
	kind, message, err := conn.ReadMessage()
	c.must(err)
	const head = `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"creationTimestamp":"`
	const tail = `"},"data":{"value":"\u003c1\u003e"}}}` + "\n"
	if kind != websocket.TextMessage || !strings.HasPrefix(string(message), head) || !strings.HasSuffix(string(message), tail) {
		t.Errorf("type %d %q", kind, message)
	}
}

func TestWatchBeginsWithWhatExists(t *testing.T) {
	for _, query := range []string{"", "resourceVersion=0", "sendInitialEvents=true&resourceVersionMatch=NotOlderThan"} {
		t.Run(query, func(t *testing.T) {
			c := serve(t, Options{}, configMap("b", "1"), configMap("a", "1"))
			c.apply(configMap("b", "2"))
			conn := c.watch(query)
			c.want(conn, "ADDED", "a")
			c.want(conn, "ADDED", "b")
			c.apply(configMap("c", "1"))
			c.want(conn, "ADDED", "c") // and no bookmark before it, for none was allowed
		})
	}
}

func TestInitialEventsEndWithAMarkedBookmark(t *testing.T) {
	for _, query := range []string{"", "resourceVersion=0", "sendInitialEvents=1&resourceVersionMatch=NotOlderThan&resourceVersion=2"} {
		c := serve(t, Options{}, configMap("a", "1"))
		conn := c.watch("allowWatchBookmarks=true&" + query)
		c.want(conn, "ADDED", "a")
		_, message, err := conn.ReadMessage()
		c.must(err)
		want := `{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"` +
			c.version() + `","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"
		if string(message) != want {
			t.Errorf("%s, want %s", message, want)
		}
	}
}

func TestWatchWithoutInitialEventsBeginsNow(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	conn := c.watch("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=0&allowWatchBookmarks=1")
	c.apply(configMap("a", "2"))
	c.want(conn, "MODIFIED", "a")
}

func TestWatchResumesWhereItIsTold(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	from := c.version()
	second := c.apply(configMap("a", "2"))
	c.apply(configMap("b", "1"))
	c.must(c.Delete("", "configmaps", "default", "a"))
	conn := c.watch("resourceVersion=" + from)
	if e := c.want(conn, "MODIFIED", "a"); e.version() != second.String("metadata", "resourceVersion") {
		t.Errorf("version %s", e.version())
	}
	c.want(conn, "ADDED", "b")
	if e := c.want(conn, "DELETED", "a"); e.version() != c.version() || e.Object.String("data", "value") != "2" {
		t.Errorf("deleted: %v, now at %s", e.Object, c.version())
	}
}

func TestWatchOfACompactedVersionExpiresInTheStream(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	running := c.watch("resourceVersion=" + c.version())
	c.Compact(c.Version())
	conn := c.watch("resourceVersion=1")
	_, message, err := conn.ReadMessage()
	c.must(err)
	want := `{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",` +
		`"message":"too old resource version: 1 (` + c.version() + `)","reason":"Expired","code":410}}` + "\n"
	if string(message) != want {
		t.Errorf("%s, want %s", message, want)
	}
	c.wantClose(conn, 1000)

	c.apply(configMap("b", "1"))
	c.want(running, "ADDED", "b")
	at := c.watch(fmt.Sprintf("resourceVersion=%d", c.Version()-1)) // exactly at the floor
	c.want(at, "ADDED", "b")
}

func TestHistoryIsBounded(t *testing.T) {
	c := serve(t, Options{History: 3})
	for i := range 5 {
		c.apply(configMap("a", fmt.Sprint(i)))
	}
	conn := c.watch(fmt.Sprintf("resourceVersion=%d", c.Version()-3))
	for range 3 {
		c.next(conn)
	}
	conn = c.watch(fmt.Sprintf("resourceVersion=%d", c.Version()-4))
	if e := c.next(conn); e.Type != "ERROR" {
		t.Errorf("%v", e)
	}
}

func TestWatchOfAFutureVersionIsSilentUntilThen(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "0"))
	conn := c.watch(fmt.Sprintf("allowWatchBookmarks=1&resourceVersion=%d", c.Version()+2))
	for i := range 3 {
		c.apply(configMap("a", fmt.Sprint(i+1)))
	}
	if e := c.want(conn, "MODIFIED", "a"); e.Object.String("data", "value") != "3" {
		t.Errorf("%v", e.Object)
	}
	initial := c.watch("sendInitialEvents=1&resourceVersionMatch=NotOlderThan&resourceVersion=9999")
	if e := c.next(initial); e.Type != "ERROR" || e.Object.String("reason") != "Timeout" {
		t.Errorf("%v", e)
	}
	c.wantClose(initial, 1000)
}

func TestWatchFollowsItsSelector(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "0", "app=x"), configMap("b", "0", "app=y"))
	conn := c.watch("labelSelector=app%3Dx")
	c.want(conn, "ADDED", "a")
	c.apply(configMap("b", "1", "app=x"))
	c.want(conn, "ADDED", "b")
	c.apply(configMap("a", "2", "app=y"))
	if e := c.want(conn, "DELETED", "a"); e.version() != c.version() || e.Object.String("data", "value") != "0" {
		t.Errorf("an object that left: %v, now at %s", e.Object, c.version())
	}
	c.apply(configMap("a", "3", "app=y"))
	c.must(c.Delete("", "configmaps", "default", "a"))
	c.apply(configMap("b", "2", "app=x"))
	c.want(conn, "MODIFIED", "b")

	named := c.watch("fieldSelector=metadata.name%3Da&resourceVersion=" + c.version())
	c.apply(configMap("b", "3", "app=x"))
	c.apply(configMap("a", "4"))
	c.want(named, "ADDED", "a")
}

func TestWatchSeesItsNamespaceOnly(t *testing.T) {
	c := serve(t, Options{})
	conn := c.watch("resourceVersion=" + c.version())
	everywhere, _, err := c.dial("/api/v1/configmaps?watch=1&resourceVersion="+c.version(), nil)
	c.must(err)
	other := configMap("a", "1")
	other.metadata()["namespace"] = "kube-system"
	c.apply(other)
	c.apply(configMap("b", "1"))
	c.want(conn, "ADDED", "b")
	c.want(everywhere, "ADDED", "a")
	c.want(everywhere, "ADDED", "b")
}

func TestPlainWatchSendsALinePerEvent(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	for _, query := range []string{"", "resourceVersion=1", "resourceVersion=0&allowWatchBookmarks=1"} {
		lines, stop := c.lines(query)
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if e := decodeEvent(t, lines.Bytes()); query != "resourceVersion=1" && (e.Type != "ADDED" || e.name() != "a") {
			t.Errorf("%s: %v", query, e)
		}
		stop()
	}
	c.await(func(n Counts) bool { return n.Live == 0 })
	c.Compact(c.Version())
	lines, stop := c.lines("resourceVersion=1")
	defer stop()
	if !lines.Scan() || decodeEvent(t, lines.Bytes()).Type != "ERROR" || lines.Scan() || lines.Err() != nil {
		t.Errorf("no single ERROR, but %q and %v", lines.Bytes(), lines.Err())
	}
}

func TestWatchListCanBeSwitchedOff(t *testing.T) {
	c := serve(t, Options{WithoutWatchList: true}, configMap("a", "1"))
	const path = configMaps + "?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan"
	const want = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"ListOptions.meta.k8s.io \"\" is invalid: ` +
		`sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled","reason":"Invalid",` +
		`"details":{"group":"meta.k8s.io","kind":"ListOptions","causes":[{"reason":"FieldValueForbidden","message":"Forbidden: ` +
		`sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled","field":"sendInitialEvents"}]},"code":422}` + "\n"
	if code, body := c.get(path); code != http.StatusUnprocessableEntity || body != want {
		t.Errorf("%d %s, want %s", code, body, want)
	}
	_, resp, err := c.dial(path, nil)
	if err == nil || resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("over WebSocket: %v %v", resp, err)
	}
	conn := c.watch("allowWatchBookmarks=true") // the old way of watching from nowhere
	c.want(conn, "ADDED", "a")
	c.apply(configMap("a", "2"))
	c.want(conn, "MODIFIED", "a")
}

func TestMalformedVersionIsA500(t *testing.T) {
	c := serve(t, Options{})
	const want = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"resourceVersion: Invalid value: \"x\": ` +
		`strconv.ParseUint: parsing \"x\": invalid syntax","code":500}` + "\n"
	if code, body := c.get(configMaps + "?watch=1&resourceVersion=x"); code != http.StatusInternalServerError || body != want {
		t.Errorf("%d %s", code, body)
	}
	if _, resp, err := c.dial(configMaps+"?watch=1&resourceVersion=x", nil); err == nil || resp.StatusCode != http.StatusInternalServerError {
		t.Errorf("over WebSocket: %v %v", resp, err)
	}
}

func TestPingAndCloseAreAnswered(t *testing.T) {
	c := serve(t, Options{})
	conn := c.watch("resourceVersion=" + c.version())
	var pongs []string
	conn.SetPongHandler(func(data string) error { pongs = append(pongs, data); return nil })
	c.must(conn.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("ignored", 20_000))))
	c.must(conn.WriteControl(websocket.PingMessage, []byte("hello"), time.Now().Add(patience)))
	c.must(conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(patience)))
	c.wantClose(conn, 1000)
	if !slices.Equal(pongs, []string{"hello"}) {
		t.Errorf("pongs %q", pongs)
	}
	c.await(func(n Counts) bool { return n.Live == 0 })
}

func TestSlowWatchIsEndedAndHoldsNobodyUp(t *testing.T) {
	c := serve(t, Options{WatchQueue: 4, History: 4})
	c.watch("resourceVersion=" + c.version()) // which nobody reads
	c.await(func(n Counts) bool { return n.Live == 1 })
	quick := c.watch("resourceVersion=" + c.version())
	c.await(func(n Counts) bool { return n.Live == 2 })
	big := strings.Repeat("x", 256<<10)
	for i := 0; c.Counts().Live == 2; i++ {
		if c.ctx.Err() != nil {
			t.Fatal("a watch that is not read lives on")
		}
		c.apply(configMap("a", fmt.Sprint(i, big)))
		c.next(quick)
	}
	c.apply(configMap("b", "1"))
	c.want(quick, "ADDED", "b")
}

func TestWatchesEndAndBreakOnDemand(t *testing.T) {
	c := serve(t, Options{})
	conn := c.watch("")
	c.await(func(n Counts) bool { return n.Live == 1 })
	c.EndWatches()
	c.wantClose(conn, 1000)
	c.await(func(n Counts) bool { return n.Live == 0 })

	conn = c.watch("")
	c.await(func(n Counts) bool { return n.Live == 1 })
	c.ResetWatches()
	var closed *websocket.CloseError
	if _, _, err := conn.ReadMessage(); err == nil || errors.As(err, &closed) && closed.Code != 1006 || isTimeout(err) {
		t.Errorf("a reset looks like %v", err)
	}
}

func TestPlainWatchEndsAndBreaksOnDemand(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	for want, cut := range map[bool]func(){true: c.EndWatches, false: c.ResetWatches} {
		lines, stop := c.lines("")
		lines.Scan()
		cut()
		if lines.Scan() || (lines.Err() == nil) != want {
			t.Errorf("clean %v: ended with %v", want, lines.Err())
		}
		stop()
	}
	if code, _ := c.get(configMaps); code != 200 {
		t.Errorf("the next request: %d", code)
	}
}

func TestCloseEndsWatchesAndRefusesMore(t *testing.T) {
	c := serve(t, Options{})
	conn := c.watch("")
	c.await(func(n Counts) bool { return n.Live == 1 })
	closed := make(chan error, 1)
	go func() { closed <- c.Close() }()
	c.wantClose(conn, 1000)
	conn.Close()
	c.must(<-closed)
	if _, _, err := c.dial(configMaps+"?watch=1", nil); err == nil {
		t.Error("it still serves")
	}
	for k, table := range c.store.tables {
		if len(table.watchers) > 0 {
			t.Errorf("%s are still watched", k.Resource)
		}
	}
}

// people authenticates tokens that are names, except those of mallory.
func people(_ context.Context, token string) (User, error) {
	if token == "mallory" {
		return User{}, errors.New("not her")
	}
	return User{Name: "oidc:" + token}, nil
}

func TestRefusalsBeforeTheUpgrade(t *testing.T) {
	c := serve(t, Options{Authenticator: people, Authorizer: func(u User, a Attributes) bool { return u.Name == "oidc:alice" }})
	const unauthorized = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}` + "\n"
	forbidden := func(text, details string) string {
		return `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"` + text + `","reason":"Forbidden","details":` + details + `,"code":403}` + "\n"
	}
	for _, tc := range []struct {
		path, token string
		code        int
		body        string
	}{
		{configMaps + "?watch=1", "", 401, unauthorized},
		{configMaps + "?watch=1", "mallory", 401, unauthorized},
		{"/api/v1", "", 401, unauthorized},
		{configMaps + "?watch=1", "bob", 403, forbidden(`configmaps is forbidden: User \"oidc:bob\" cannot watch resource \"configmaps\" in API group \"\" in the namespace \"default\"`, `{"kind":"configmaps"}`)},
		{"/api/v1/pods", "bob", 403, forbidden(`pods is forbidden: User \"oidc:bob\" cannot list resource \"pods\" in API group \"\" at the cluster scope`, `{"kind":"pods"}`)},
		{"/apis/apps/v1/namespaces/shop/deployments/web", "bob", 403, forbidden(`deployments.apps \"web\" is forbidden: User \"oidc:bob\" cannot get resource \"deployments\" in API group \"apps\" in the namespace \"shop\"`, `{"name":"web","group":"apps","kind":"deployments"}`)},
		{"/api/v1/namespaces/x/pods/web/log", "bob", 403, forbidden(`pods \"web\" is forbidden: User \"oidc:bob\" cannot get resource \"pods/log\" in API group \"\" in the namespace \"x\"`, `{"name":"web","kind":"pods"}`)},
		{"/version", "bob", 403, forbidden(`forbidden: User \"oidc:bob\" cannot get path \"/version\"`, `{}`)},
		{"/api/v1/nonsense", "alice", 404, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"the server could not find the requested resource","reason":"NotFound","details":{},"code":404}` + "\n"},
		{"/apis/none.example/v1/things", "alice", 404, "404 page not found\n"},
		{configMaps + "/nope", "alice", 404, `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"configmaps \"nope\" not found","reason":"NotFound","details":{"name":"nope","kind":"configmaps"},"code":404}` + "\n"},
	} {
		header := []string{}
		if tc.token != "" {
			header = []string{"Authorization", "Bearer " + tc.token}
		}
		if code, body := c.get(tc.path, header...); code != tc.code || body != tc.body {
			t.Errorf("%s by %q: %d %s, want %d %s", tc.path, tc.token, code, body, tc.code, tc.body)
		}
		if !strings.Contains(tc.path, "watch") {
			continue
		}
		_, resp, err := c.dial(tc.path, http.Header{"Authorization": {"Bearer " + tc.token}}) // and no Origin, which is looked at later
		if err == nil || resp.StatusCode != tc.code {
			t.Errorf("%s by %q over WebSocket: %v, want %d", tc.path, tc.token, resp, tc.code)
		}
	}
	if code, body := c.get("/readyz"); code != 200 || body != "ok" {
		t.Errorf("/readyz: %d %s", code, body)
	}
}

func TestTokenInASubprotocolNeedsCompany(t *testing.T) {
	c := serve(t, Options{Authenticator: people})
	token := bearerProtocol + base64.RawURLEncoding.EncodeToString([]byte("alice"))
	conn, _, err := c.dial(configMaps+"?watch=1", nil, token, "mine.example")
	c.must(err)
	if conn.Subprotocol() != "mine.example" {
		t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	if _, resp, err := c.dial(configMaps+"?watch=1", nil, token); err == nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("alone: %v %v", resp, err)
	}
}

func TestBinaryEncodingsAreNotAcceptable(t *testing.T) {
	c := serve(t, Options{})
	for accept, want := range map[string]int{
		"application/vnd.kubernetes.protobuf":                  406,
		"application/cbor":                                     406,
		"application/json;as=Table;v=v1;g=meta.k8s.io":         406,
		"application/vnd.kubernetes.protobuf,application/json": 200,
		"application/json;as=Table;v=v1;g=meta.k8s.io,*/*":     200,
		"": 200,
	} {
		if code, body := c.get(configMaps, "Accept", accept); code != want {
			t.Errorf("%s: %d %s, want %d", accept, code, body, want)
		}
	}
	_, resp, err := c.dial(configMaps+"?watch=1", http.Header{"Origin": {"http://a"}, "Accept": {"application/cbor"}})
	if err == nil || resp.StatusCode != http.StatusNotAcceptable {
		t.Errorf("over WebSocket: %v", resp)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0x89, 0x85, 1, 2, 3, 4, 'h', 'e', 'l', 'l', 'o'})
	f.Add([]byte{0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Add([]byte{0x88, 0x80, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		in := strings.NewReader(string(data))
		ws := &webSocket{in: bufio.NewReader(in)}
		for {
			opcode, payload, err := ws.readFrame()
			if err != nil {
				return
			}
			if opcode > 0xf || len(payload) > 125 {
				t.Fatalf("opcode %d with %d bytes", opcode, len(payload))
			}
		}
	})
}
