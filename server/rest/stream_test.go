package rest_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
)

const watchPods = "/v1/clusters/dev/watch/v1/pods"

func TestAWatchIsAResponseALine(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.apply("shop", "a", "")
	d.apply("shop", "b", "")
	d.apply("other", "c", "")
	res := d.send(d.request(http.MethodGet, watchPods+"?namespace=shop", ""))
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	l := d.lines(res)
	if names, cursor := l.listed(); !slices.Equal(names, []string{"a", "b"}) || cursor == "" {
		t.Fatalf("the list is %v, at %q", names, cursor)
	}
	d.apply("shop", "d", "äöü ☃")
	if r := l.response(); podName(t, r.GetEvent()) != "d" || r.GetCursor() == "" || !strings.Contains(r.GetEvent(), "äöü ☃") {
		t.Fatalf("got %v", r)
	}
}

func TestAWatchContinuesAtItsCursor(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.apply("shop", "a", "")
	_, cursor := d.lines(d.send(d.request(http.MethodGet, watchPods, ""))).listed()
	d.apply("shop", "b", "")
	l := d.lines(d.send(d.request(http.MethodGet, watchPods+"?cursor="+cursor, "")))
	if r := l.response(); podName(t, r.GetEvent()) != "b" {
		t.Errorf("after the cursor came %v", r)
	}
}

// serverSent is one server-sent event.
type serverSent struct{ kind, id, data string }

// sse reads the next event.
func (l *lines) sse() (e serverSent, ok bool) {
	l.t.Helper()
	for {
		line, more := l.next()
		if !more || line == "" {
			return e, more
		}
		name, value, _ := strings.Cut(line, ": ")
		switch name {
		case "event":
			e.kind = value
		case "id":
			e.id = value
		case "data":
			e.data += value
		default:
			l.t.Fatalf("line %q in an event", line)
		}
	}
}

// seen reads events until one with a cursor, and returns the names before it.
func (l *lines) seen() (names []string, cursor string) {
	l.t.Helper()
	for {
		e, ok := l.sse()
		var r sluicev1.WatchResponse
		if err := protojson.Unmarshal([]byte(e.data), &r); !ok || err != nil || e.id != r.GetCursor() {
			l.t.Fatalf("event %+v, %v", e, err)
		}
		if r.GetEvent() != "" {
			names = append(names, podName(l.t, r.GetEvent()))
		}
		if e.id != "" {
			return names, e.id
		}
	}
}

func TestServerSentEventsContinueWhereTheyWere(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.apply("shop", "a", "")
	events := header("Accept", "text/event-stream")
	res := d.send(d.request(http.MethodGet, watchPods, "", events))
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	l := d.lines(res)
	names, first := l.seen()
	if !slices.Equal(names, []string{"a"}) {
		t.Fatalf("the list is %v", names)
	}
	d.apply("shop", "b", "")
	if names, _ = l.seen(); !slices.Equal(names, []string{"b"}) {
		t.Fatalf("then %v", names)
	}
	d.apply("shop", "c", "")
	_, last := l.seen()
	d.apply("shop", "d", "")
	// An EventSource sends the URL it began with, and the last id it has seen.
	again := d.lines(d.send(d.request(http.MethodGet, watchPods+"?cursor="+first, "", events, header("Last-Event-ID", last))))
	if names, _ = again.seen(); !slices.Equal(names, []string{"d"}) {
		t.Errorf("after the last event came %v", names)
	}
	// Lines have no ids: the header of another kind of client means nothing there.
	other := d.lines(d.send(d.request(http.MethodGet, watchPods+"?cursor="+last, "", header("Last-Event-ID", first))))
	if r := other.response(); podName(t, r.GetEvent()) != "d" {
		t.Errorf("lines heeded Last-Event-ID: %v", r)
	}
}

func TestAnErrorBeforeTheFirstResponseIsAnOrdinaryAnswer(t *testing.T) {
	d := open(t, kubetest.Options{Authorizer: func(_ kubetest.User, a kubetest.Attributes) bool { return a.Namespace != "other" }})
	for _, c := range []struct {
		path   string
		change func(*http.Request)
		http   int
		code   codes.Code
		reason sluicev1.Reason
	}{
		{watchPods + "?namespace=other", nil, 403, codes.PermissionDenied, sluicev1.Reason_REASON_UPSTREAM_REFUSED},
		{"/v1/clusters/prod/watch/v1/pods", nil, 404, codes.NotFound, sluicev1.Reason_REASON_UNKNOWN_CLUSTER},
		{watchPods + "?cursor=nonsense", nil, 400, codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_CURSOR},
		{watchPods + "?name=a/b", nil, 400, codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_TARGET},
		{watchPods, header("Authorization", "Bearer x"), 401, codes.Unauthenticated, sluicev1.Reason_REASON_INVALID_TOKEN},
		{watchPods, func(r *http.Request) { r.Header.Del("Authorization") }, 401, codes.Unauthenticated, sluicev1.Reason_REASON_MISSING_CREDENTIAL},
		{"/v1/clusters/dev/logs/other/a", nil, 403, codes.PermissionDenied, sluicev1.Reason_REASON_UPSTREAM_REFUSED},
		{"/v1/clusters/dev/logs/shop/nobody", nil, 404, codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED},
		{"/v1/clusters/dev/logs/shop/a?tailLines=-1", nil, 400, codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_TARGET},
		{"/v1/clusters/dev/logs/shop/a?tailLines=few", nil, 400, codes.InvalidArgument, sluicev1.Reason_REASON_UNSPECIFIED},
		{"/v1/clusters/dev/logs/shop/a?cursor=nonsense", nil, 400, codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_CURSOR},
	} {
		for _, accept := range []string{"*/*", "text/event-stream"} {
			changes := []func(*http.Request){header("Accept", accept)}
			if c.change != nil {
				changes = append(changes, c.change)
			}
			res, body := d.do(http.MethodGet, c.path, "", changes...)
			s := d.refused(res, body)
			if res.StatusCode != c.http || codes.Code(s.GetCode()) != c.code || s.GetReason() != c.reason {
				t.Errorf("%s: %d %s", c.path, res.StatusCode, body)
			}
			if want := map[bool]string{true: "Bearer"}[c.http == 401]; res.Header.Get("WWW-Authenticate") != want {
				t.Errorf("%s: WWW-Authenticate is %q", c.path, res.Header.Get("WWW-Authenticate"))
			}
			if c.http == 403 && (s.GetKubernetes().GetReason() != "Forbidden" || s.GetHttpCode() != 403) {
				t.Errorf("the API server's own words are missing: %s", body)
			}
		}
	}
}

func TestALaterErrorIsTheLastLineOrEvent(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.apply("shop", "a", "")
	l := d.lines(d.send(d.request(http.MethodGet, watchPods, "")))
	l.listed()
	e := d.lines(d.send(d.request(http.MethodGet, watchPods, "", header("Accept", "text/event-stream"))))
	e.seen()
	d.Stop()

	line, _ := l.next()
	var last struct{ Error json.RawMessage }
	if err := json.Unmarshal([]byte(line), &last); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if end, ok := l.next(); ok {
		t.Errorf("after the error came %q", end)
	}
	ev, _ := e.sse()
	if ev.kind != "error" {
		t.Errorf("the last event is %+v", ev)
	}
	if end, ok := e.next(); ok {
		t.Errorf("after the error came %q", end)
	}
	for _, text := range []string{string(last.Error), ev.data} {
		var s sluicev1.Status
		if err := protojson.Unmarshal([]byte(text), &s); err != nil || s.GetReason() != sluicev1.Reason_REASON_DRAINING || !s.GetResumable() {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestAClientThatLeavesFreesItsUpstream(t *testing.T) {
	d := open(t, kubetest.Options{})
	for _, accept := range []string{"application/x-ndjson", "text/event-stream"} {
		res := d.send(d.request(http.MethodGet, watchPods, "", header("Accept", accept)))
		if _, ok := d.lines(res).next(); !ok {
			t.Fatal("nothing came")
		}
		if err := d.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 1 }); err != nil {
			t.Fatal("no upstream:", err)
		}
		if err := res.Body.Close(); err != nil {
			t.Fatal(err)
		}
		if err := d.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 0 }); err != nil {
			t.Fatalf("%s: the upstream stays: %v", accept, err)
		}
	}
}

func TestTheCallerChoosesTheForm(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.run("talker")
	for _, c := range []struct{ path, accept, want string }{
		{watchPods, "*/*", "application/x-ndjson"},
		{watchPods, "application/*", "application/x-ndjson"},
		{watchPods, "text/event-stream", "text/event-stream"},
		{watchPods, "text/*, */*;q=0.1", "text/event-stream"},
		{watchPods, "application/x-ndjson;q=0.5, text/event-stream;q=0.4", "application/x-ndjson"},
		{watchPods, "application/json", ""},
		{watchPods, "application/x-ndjson;q=0, text/html", ""},
		{watchPods, "*/*, application/x-ndjson;q=0, text/event-stream;q=0", ""},
		{watchPods, "*/*;q=NaN", ""},
		{watchPods, "nonsense/", ""},
		{logOfTalker, "*/*", "text/plain; charset=utf-8"},
		{logOfTalker, "text/plain", "text/plain; charset=utf-8"},
		{logOfTalker, "text/*, application/x-ndjson;q=0.5", "text/plain; charset=utf-8"},
		{logOfTalker, "text/event-stream", "text/event-stream"},
		{logOfTalker, "application/*", "application/x-ndjson"},
		{logOfTalker, "application/json", ""},
		{watchPods, "text/plain", ""},
		{"/v1/clusters", "application/json", "application/json"},
		{"/v1/clusters", "*/*", "application/json"},
		{"/v1/clusters", "text/event-stream", ""},
	} {
		res := d.send(d.request(http.MethodGet, c.path, "", header("Accept", c.accept)))
		got := res.Header.Get("Content-Type")
		if res.StatusCode == http.StatusNotAcceptable {
			got = ""
		}
		if got != c.want {
			t.Errorf("%s, Accept %q: %d %q", c.path, c.accept, res.StatusCode, got)
		}
	}
}
