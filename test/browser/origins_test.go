package browser

import (
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

// watchPath is the path of a watch in gRPC-Web and Connect, restPath that of one in REST.
const (
	watchPath = "/sluice.v1.GatewayService/Watch"
	restPath  = "/v1/clusters/kube/watch/v1/pods"
)

// reached is what has come past the guard of the web port, and how much that did not.
type reached struct {
	calls, audited, dialled int
	refused                 int
}

func (s *setup) reached() reached {
	return reached{
		calls:   int(s.metric("grpc_server_started_total")),
		audited: strings.Count(s.Audit.String(), "\n"),
		dialled: len(s.api.Requests()) + s.Kube.Counts().Requests,
		refused: strings.Count(s.Log.String(), `"msg":"web request refused"`),
	}
}

// attempt is something that a page does to reach the gateway.
type attempt struct {
	name      string
	function  string // of the page
	arguments []any
	learns    string // what the page does at the most
}

// attempts are what a page can do without the gateway's leave. All of them can be sent: what they must not do is arrive.
func (s *setup) attempts(gateway string) []attempt {
	type header map[string]string
	token := "Bearer " + s.token()
	rpc, rest := gateway+watchPath, gateway+restPath
	message := `{"cluster":"kube","watch":{"version":"v1","resource":"pods"}}`
	return []attempt{
		{"gRPC-Web with a token", "call", []any{rpc, "POST", header{
			"authorization": token, "content-type": "application/grpc-web+proto", "x-grpc-web": "1",
		}, "\x00\x00\x00\x00\x00"}, "blocked"},
		{"Connect with a token", "call", []any{rpc, "POST", header{
			"authorization": token, "content-type": "application/connect+json", "connect-protocol-version": "1",
		}, message}, "blocked"},
		{"REST with a token", "call", []any{rest, "GET", header{"authorization": token}}, "blocked"},
		{"REST without a preflight", "call", []any{rest, "GET", header{}}, "blocked"},
		{"a post without a preflight", "call", []any{rpc, "POST", header{"content-type": "text/plain"}, message}, "blocked"},
		{"a token, from no origin", "callFromNowhere", []any{rest, "GET", header{"authorization": token}}, "blocked"},
		{"no preflight, from no origin", "callFromNowhere", []any{rest, "GET", header{}}, "blocked"},
		{"fetch without CORS", "postText", []any{rpc, message}, "opaque"},
		{"a form", "postForm", []any{rpc, "application/x-www-form-urlencoded"}, "load"},
		{"a form of text", "postForm", []any{rpc, "text/plain"}, "load"},
		{"a form of parts", "postForm", []any{gateway + "/v1/sessions:revoke", "multipart/form-data"}, "load"},
		{"an EventSource", "eventSource", []any{rest}, "error"},
		{"a WebSocket", "webSocket", []any{strings.Replace(rpc, "https:", "wss:", 1)}, "error"},
		{"an image", "element", []any{"img", rest}, "error"},
		{"a script", "element", []any{"script", rest}, "error"},
	}
}

// TestT_J1_APageOfAnotherOriginReachesNothing whatever it tries, while one of a listed origin may call.
func TestT_J1_APageOfAnotherOriginReachesNothing(t *testing.T) {
	s := newSetup(t)
	s.createPod("listed", note)
	t.Cleanup(func() { s.deletePod("listed") })

	none := s.reached()
	page := s.page("evil.example")
	for _, a := range s.attempts(s.gateway()) {
		s.isRefused(page, a)
	}
	for _, host := range []string{"evil.example", "console.example.evil.example", "evil-console.example"} {
		s.cannotWatch(s.page(host), s.gateway())
	}
	if got := s.reached(); got.calls != none.calls || got.audited != none.audited || got.dialled != none.dialled {
		t.Errorf("of pages that may not call %+v arrived, beside %+v before", got, none)
	}

	none = s.reached()
	page = s.page("console.example")
	page.call(nil, "watch", s.watching("pods"))
	s.shows(page, cells{kube.Namespace, "listed", note})
	if got := s.reached(); got.calls != none.calls+1 || got.audited <= none.audited || got.dialled != none.dialled+1 || got.refused != none.refused {
		t.Errorf("of a page that may call %+v arrived, beside %+v before", got, none)
	}
}

// TestT_J4_AReboundNameReachesNothing: the attacker's name leads to the gateway once the attacker's page is loaded, which makes page and
// gateway one origin.
func TestT_J4_AReboundNameReachesNothing(t *testing.T) {
	s := newSetup(t)
	relay := rig.NewRelay(t, s.pages.Listener.Addr().String())
	_, port, _ := strings.Cut(relay.Addr(), ":")
	rebound := "https://evil.example:" + port
	page := s.open(s.context(), rebound+"/index.html")
	relay.Retarget(s.Server.WebAddr().String())
	relay.Cut() // what is open still leads to the page's server

	none := s.reached()
	for _, a := range s.attempts(rebound) {
		if a.function == "call" || a.function == "postText" {
			a.learns = "421" // the browser has no reason to hide the answer from a page of the same origin
		}
		s.isRefused(page, a)
	}
	s.cannotWatch(page, rebound)
	if got := s.reached(); got.calls != none.calls || got.audited != none.audited || got.dialled != none.dialled {
		t.Errorf("of a page with a rebound name %+v arrived, beside %+v before", got, none)
	}
}

// isRefused makes an attempt, which the port is to refuse by itself.
func (s *setup) isRefused(page *tab, a attempt) {
	s.t.Helper()
	before := s.reached()
	var learns string
	page.call(&learns, a.function, a.arguments...)
	after := s.reached()
	if after.refused == before.refused {
		s.t.Errorf("%s was never sent, or not refused: the test shows nothing", a.name)
	}
	if after.calls != before.calls {
		s.t.Errorf("%s was served", a.name)
	}
	if learns != a.learns {
		s.t.Errorf("%s: the page learned %q, want %q", a.name, learns, a.learns)
	}
}

// cannotWatch makes a page call the gateway with a good token as a page does that may.
func (s *setup) cannotWatch(page *tab, gateway string) {
	s.t.Helper()
	for _, protocol := range protocols {
		before := s.reached()
		page.call(nil, "watch", s.watching("pods", speaking(protocol), func(o *options) { o.Gateway = gateway }))
		var end end
		page.call(&end, "ended")
		after := s.reached()
		if after.refused == before.refused || after.calls != before.calls || end.Code == "OK" {
			s.t.Errorf("%s: %d calls were served, and the watch ended with %v", protocol, after.calls-before.calls, end)
		}
	}
}
