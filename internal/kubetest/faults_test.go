package kubetest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
)

func TestFaultsRefuseUpgrades(t *testing.T) {
	c := serve(t, Options{})
	for name, tc := range map[string]struct {
		action Action
		code   int
		check  func(*http.Response) bool
	}{
		"401":                 {Respond(401, nil, "no"), 401, nil},
		"503":                 {Respond(503, nil, ""), 503, nil},
		"429":                 {TooManyRequests(7), 429, func(r *http.Response) bool { return r.Header.Get("Retry-After") == "7" }},
		"redirect":            {Respond(301, http.Header{"location": {"https://elsewhere.example/"}}, ""), 301, func(r *http.Response) bool { return r.Header.Get("Location") != "" }},
		"200 instead of 101":  {Respond(200, http.Header{"Content-Type": {"application/json"}}, "{}"), 200, nil},
		"101 without headers": {BareSwitch(), 101, func(r *http.Response) bool { return r.Header.Get("Upgrade") == "" }},
	} {
		remove := c.Faults.Add(Fault{Match: WebSockets, Action: tc.action})
		_, resp, err := c.dial(configMaps+"?watch=1", nil)
		if !errors.Is(err, websocket.ErrBadHandshake) || resp.StatusCode != tc.code || tc.check != nil && !tc.check(resp) {
			t.Errorf("%s: %v %v", name, err, resp)
		}
		remove()
	}
	if c.Faults.Struck() != 0 {
		t.Error("removed faults still count")
	}
	c.watch("")
}

func TestFaultsStrikeWhomTheyAreMeantFor(t *testing.T) {
	c := serve(t, Options{})
	c.Faults.Add(Fault{Match: All(Path(configMaps), Lists), Skip: 1, Times: 2, Action: Respond(503, nil, "")})
	var codes []int
	for range 5 {
		code, _ := c.get(configMaps)
		codes = append(codes, code)
		if code, _ := c.get("/api/v1/pods"); code != 200 {
			t.Errorf("another path: %d", code)
		}
	}
	if want := []int{200, 503, 503, 200, 200}; !equal(codes, want) || c.Faults.Struck() != 2 {
		t.Errorf("%v, want %v; struck %d", codes, want, c.Faults.Struck())
	}
	c.Faults.Add(Fault{Action: Respond(500, nil, "")})
	c.Faults.Clear()
	if code, _ := c.get(configMaps); code != 200 {
		t.Errorf("after Clear: %d", code)
	}
}

func equal(a, b []int) bool {
	for i := range a {
		if len(a) != len(b) || a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestFaultsEndWatches(t *testing.T) {
	closed := func(code int) func(error) bool {
		return func(err error) bool { return websocket.IsCloseError(err, code) }
	}
	broken := func(err error) bool { return !isTimeout(err) && !websocket.IsCloseError(err, 1000) }
	for name, tc := range map[string]struct {
		action Action
		events int
		ended  func(error) bool
	}{
		"at once":           {EndAfter(0), 0, closed(1000)},
		"after two":         {EndAfter(2), 2, closed(1000)},
		"with another code": {CloseAfter(1, 1011), 1, closed(1011)},
		"in mid-frame":      {CutAfter(1), 1, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) || broken(err) }},
		"with a reset":      {ResetAfter(2), 2, broken},
		"reset at once":     {ResetAfter(0), 0, broken},
		"2^63 bytes":        {HugeFrame(1), 1, broken},
		"masked":            {MaskedFrame(1), 1, broken},
		"reserved bits":     {ReservedBits(0), 0, broken},
	} {
		t.Run(name, func(t *testing.T) {
			c := serve(t, Options{}, configMap("a", "1"), configMap("b", "1"), configMap("c", "1"))
			c.Faults.Add(Fault{Match: Watches, Action: tc.action})
			conn := c.watch("")
			for range tc.events {
				if e := c.next(conn); e.Type != "ADDED" {
					t.Fatalf("%v", e)
				}
			}
			if _, message, err := conn.ReadMessage(); err == nil || !tc.ended(err) {
				t.Errorf("%v after %q", err, message)
			}
			conn.Close()
			c.await(func(n Counts) bool { return n.Live == 0 })
		})
	}
}

func TestFaultsEndPlainWatches(t *testing.T) {
	for clean, action := range map[bool]Action{true: EndAfter(1), false: CutAfter(1)} {
		c := serve(t, Options{}, configMap("a", "1"), configMap("b", "1"))
		c.Faults.Add(Fault{Match: Watches, Action: action})
		lines, stop := c.lines("")
		n := 0
		for lines.Scan() && strings.HasSuffix(lines.Text(), "}") {
			n++
		}
		if n != 1 || (lines.Err() == nil) != clean {
			t.Errorf("clean %v: %d events, then %v", clean, n, lines.Err())
		}
		stop()
	}
}

func TestFaultsInvalidText(t *testing.T) {
	c := serve(t, Options{})
	c.Faults.Add(Fault{Match: Watches, Action: InvalidText(0)})
	kind, message, err := c.watch("").ReadMessage()
	c.must(err)
	if kind != websocket.TextMessage || utf8.Valid(message) {
		t.Errorf("type %d %q", kind, message)
	}
}

func TestFaultsStall(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"), configMap("b", "1"))
	c.Faults.Add(Fault{Match: Watches, Action: StallAfter(1)})
	conn := c.watch("")
	c.want(conn, "ADDED", "a")
	c.must(conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(patience)))
	ponged := make(chan struct{})
	conn.SetPongHandler(func(string) error { close(ponged); return nil })
	read := make(chan error, 1)
	go func() { _, _, err := conn.ReadMessage(); read <- err }()
	select {
	case <-ponged: // it lives, and says nothing
	case err := <-read:
		t.Errorf("read %v", err)
	case <-c.ctx.Done():
		t.Error("no pong")
	}
	conn.Close()
	if err := <-read; err == nil {
		t.Error("a second event after the stall")
	}
}

func TestFaultsReframe(t *testing.T) {
	c := serve(t, Options{}, configMap("a", strings.Repeat("é", 300)))
	plain, _ := c.watchOnce(t)
	for name, actions := range map[string][]Action{
		"fragments":            {Fragment(7)},
		"pings":                {Pings()},
		"a byte at a time":     {Drip()},
		"all of it together":   {Fragment(100), Pings(), Drip()},
		"fragments of a frame": {Fragment(100_000)},
	} {
		for _, a := range actions {
			c.Faults.Add(Fault{Match: Watches, Action: a})
		}
		message, pings := c.watchOnce(t)
		if message != plain {
			t.Errorf("%s: %q, want %q", name, message, plain)
		}
		if strings.Contains(name, "pings") != (pings > 0) && name != "all of it together" {
			t.Errorf("%s: %d pings", name, pings)
		}
		c.Faults.Clear()
	}
}

func (c *client) watchOnce(t *testing.T) (message string, pings int) {
	conn := c.watch("")
	answer := conn.PingHandler()
	conn.SetPingHandler(func(data string) error { pings++; return answer(data) })
	_, data, err := conn.ReadMessage()
	c.must(err)
	return string(data), pings
}

func TestFaultsDripBodies(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	_, want := c.get(configMaps)
	c.Faults.Add(Fault{Action: Drip()})
	if _, got := c.get(configMaps); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// tryGet is a get that may fail, for a goroutine.
func (c *client) tryGet(ctx context.Context, path string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL()+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

func TestFaultsNeverAnswer(t *testing.T) {
	c := serve(t, Options{})
	c.Faults.Add(Fault{Match: Watches, Action: Silence()})
	ctx, cancel := context.WithCancel(c.ctx)
	failed := make(chan error, 1)
	go func() { failed <- c.tryGet(ctx, configMaps+"?watch=1") }()
	c.await(func(n Counts) bool { return n.Watches == 1 })
	cancel()
	if err := <-failed; err == nil {
		t.Error("answered")
	}
}

func TestAcceptSilently(t *testing.T) {
	c := serve(t, Options{})
	c.AcceptSilently(true)
	ctx, cancel := context.WithCancel(c.ctx)
	failed := make(chan error, 1)
	go func() { failed <- c.tryGet(ctx, "/version") }()
	c.await(func(n Counts) bool { return n.Dials == 1 })
	cancel()
	if err := <-failed; err == nil || c.Counts().Requests != 0 {
		t.Errorf("%v with %+v", err, c.Counts())
	}
	c.AcceptSilently(false)
	if code, _ := c.get("/version"); code != 200 {
		t.Errorf("%d", code)
	}
}

func TestHoldList(t *testing.T) {
	c := serve(t, Options{})
	release := c.Faults.HoldList()
	answered := make(chan error, 1)
	go func() { answered <- c.tryGet(c.ctx, configMaps) }()
	c.await(func(n Counts) bool { return n.Lists == 1 })
	c.watch("") // others are served
	select {
	case err := <-answered:
		t.Errorf("answered while held: %v", err)
	default:
	}
	release()
	if err := <-answered; err != nil {
		t.Errorf("after release: %v", err)
	}
}

func TestRequestsAreRecordedIfWanted(t *testing.T) {
	c := serve(t, Options{Record: true})
	_, _, err := c.dial(configMaps+"?watch=1", http.Header{"Origin": {"http://a"}, "Authorization": {"Bearer secret"}})
	c.must(err)
	got := c.Requests()
	if len(got) != 1 || got[0].Header.Get("Authorization") != "Bearer secret" || !got[0].WebSocket || got[0].Attributes.Resource != "configmaps" {
		t.Errorf("%+v", got)
	}
	c = serve(t, Options{})
	c.get("/version", "Authorization", "Bearer secret")
	if got := c.Requests(); len(got) != 0 || c.Counts().Requests != 1 {
		t.Errorf("recorded %+v of %+v", got, c.Counts())
	}
}

func TestGiantObjects(t *testing.T) {
	c := serve(t, Options{})
	value := strings.Repeat("0123456789abcdef", 4<<20/16)
	conn := c.watch("resourceVersion=" + c.version())
	c.apply(configMap("a", value))
	if e := c.want(conn, "ADDED", "a"); e.Object.String("data", "value") != value {
		t.Error("not what was applied")
	}
	if code, body := c.get(configMaps + "/a"); code != 200 || len(body) < len(value) {
		t.Errorf("%d with %d bytes", code, len(body))
	}
}

func TestSeverAndListenAgain(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	addr, ca, version := c.Addr(), string(c.CAPEM()), c.version()
	conn := c.watch("resourceVersion=" + version)
	c.await(func(n Counts) bool { return n.Live == 1 })
	c.Sever()
	if _, _, err := conn.ReadMessage(); err == nil || isTimeout(err) || websocket.IsCloseError(err, 1000) {
		t.Errorf("read %v", err)
	}
	if _, _, err := c.dial(configMaps+"?watch=1", nil); err == nil {
		t.Error("it still listens")
	}
	c.apply(configMap("a", "2"))
	c.must(c.Listen(t.Context(), addr))
	if c.Addr() != addr || string(c.CAPEM()) != ca {
		t.Error("it came back as another")
	}
	c.want(c.watch("resourceVersion="+version), "MODIFIED", "a")
	if err := c.Listen(t.Context(), ""); err == nil {
		t.Error("it listens twice")
	}
}
