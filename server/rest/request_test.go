package rest_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-gateway/sluice/gen/openapi"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// T-A11: a token in a URL is in every log on its way.
func TestT_A11_ACredentialInAURLIsRefusedAndNotRepeated(t *testing.T) {
	d := open(t, kubetest.Options{})
	token := d.Token("alice")
	for _, path := range []string{"/v1/clusters", watchPods, "/openapi.json", "/v1/nothing"} {
		for _, name := range []string{"token", "access_token", "Access_Token", "authorization", "acc%65ss_token"} {
			res, body := d.do(http.MethodGet, path+"?"+name+"="+token, "")
			d.refused(res, body)
			if res.StatusCode != http.StatusBadRequest || strings.Contains(body, token) {
				t.Errorf("%s?%s: %d %s", path, name, res.StatusCode, body)
			}
		}
	}
	if strings.Contains(d.Log.String()+d.Audit.String(), token) {
		t.Error("the token is in the log")
	}
	if n := len(d.calls.all()); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}

// T-C17: headers that become metadata. Of three hundred names the four arrive, and nothing that grpc-gateway makes of others.
func TestT_C17_OnlyFourHeadersArrive(t *testing.T) {
	d := open(t, kubetest.Options{})
	hostile := []string{
		"Grpc-Metadata-Authorization", "Grpc-Metadata-Sluice-Caller", "Grpcgateway-Authorization", "X-Forwarded-For", "X-Forwarded-Host",
		"X-Forwarded-Proto", "Forwarded", "X-Real-Ip", "Impersonate-User", "Impersonate-Group", "Cookie", "Grpc-Timeout", "X-Http-Method-Override",
		"X-Remote-User", "Sluice-Caller", "Grpc-Encoding", "Grpc-Tags-Bin", "Proxy-Authorization", "Referer", "Origin", "From", "Via",
	}
	for i := len(hostile); i < 296; i++ {
		hostile = append(hostile, fmt.Sprintf("X-Extra-%d", i))
	}
	all := func(r *http.Request) {
		for _, name := range hostile {
			r.Header.Set(name, "GET")
		}
		r.Header.Set("X-Request-ID", "mine")
		r.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		r.Header.Set("Sluice-Cluster-Authorization", "Bearer other")
	}
	if res, body := d.do(http.MethodGet, "/v1/clusters", "", all); res.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	d.send(d.request(http.MethodGet, watchPods, "", all))
	d.do(http.MethodPost, "/v1/clusters/dev/access", `{}`, all)
	calls := d.calls.all()
	if len(calls) != 3 {
		t.Fatalf("%d calls", len(calls))
	}
	for _, c := range calls {
		var names []string
		for name, values := range c.md {
			names = append(names, name)
			if len(values) != 1 {
				t.Errorf("%s: %s has %d values", c.method, name, len(values))
			}
		}
		slices.Sort(names)
		if want := []string{"authorization", "sluice-cluster-authorization", "traceparent", "x-request-id"}; !slices.Equal(names, want) {
			t.Errorf("%s was called with %v", c.method, names)
		}
		if c.md.Get("x-request-id")[0] != "mine" || !strings.HasPrefix(c.md.Get("authorization")[0], "Bearer ey") {
			t.Errorf("%s: other values than were sent", c.method)
		}
	}
}

// T-C16: JSON that is nested deeply, or that a lenient reader would take for something else.
func TestT_C16_ABodyIsOneStrictJSONValue(t *testing.T) {
	d := open(t, kubetest.Options{})
	deep := func(open, shut string) string { return strings.Repeat(open, 5000) + strings.Repeat(shut, 5000) }
	for name, c := range map[string]struct {
		body string
		http int
		says string
	}{
		"unknown field":     {`{"watch":{"version":"v1","resource":"pods","bogus":1}}`, 400, `"bogus"`},
		"twice":             {`{"watch":{"version":"v1","version":"v2"}}`, 400, "version"},
		"two of a oneof":    {`{"watch":{},"logs":{}}`, 400, "oneof"},
		"two values":        {`{} {}`, 400, "more than one"},
		"no JSON":           {`watch`, 400, "body"},
		"cut":               {`{"watch":{"version":`, 400, "body"},
		"deep arrays":       {deep("[", "]"), 400, "body"},
		"deep in a field":   {`{"watch":{"name":` + deep("[", "]") + `}}`, 400, "body"},
		"deep objects":      {deep(`{"watch":`, "}"), 400, "body"},
		"not UTF-8":         {"{\"watch\":{\"name\":\"\xff\"}}", 400, "UTF-8"},
		"wrong type":        {`{"watch":{"changesOnly":"maybe"}}`, 400, "changesOnly"},
		"longer than 1 MiB": {`{"watch":{"name":"` + strings.Repeat("a", bodyBytes) + `"}}`, 413, "web.body_bytes"},
	} {
		res, body := d.do(http.MethodPost, "/v1/clusters/dev/access", c.body)
		d.refused(res, body)
		if res.StatusCode != c.http || !strings.Contains(body, strings.ReplaceAll(c.says, `"`, `\"`)) {
			t.Errorf("%s: %d %.300s", name, res.StatusCode, body)
		}
	}
	if n := len(d.calls.all()); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}

// A page of another site can post a form without asking, but not JSON.
func TestABodyMustSayThatItIsJSON(t *testing.T) {
	d := open(t, kubetest.Options{})
	for _, kind := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data; boundary=x", ";"} {
		res, body := d.do(http.MethodPost, "/v1/clusters/dev/access", `{}`, header("Content-Type", kind))
		d.refused(res, body)
		if res.StatusCode != http.StatusUnsupportedMediaType {
			t.Errorf("%q: %d", kind, res.StatusCode)
		}
	}
	res, _ := d.do(http.MethodPost, "/v1/clusters/dev/access", `{}`, header("Content-Type", "application/json; charset=utf-8"))
	if res.StatusCode == http.StatusUnsupportedMediaType || len(d.calls.all()) != 1 {
		t.Errorf("JSON: %d", res.StatusCode)
	}
}

func TestWhatAQueryDoesNotHaveIsRefusedByName(t *testing.T) {
	d := open(t, kubetest.Options{})
	for query, says := range map[string]string{
		"namespce=shop":                 `"namespce"; there are: changesOnly, cursor, fieldSelector, group, labelSelector, name, namespace`,
		"label_selector=a":              `"label_selector"`,
		"watch.namespace=shop":          `"watch.namespace"`,
		"watch.version=v2":              `"watch.version"`,
		"version=v2":                    `"version"`,
		"cluster=prod":                  `"cluster"`,
		"Namespace=shop":                `"Namespace"`,
		"namespace[a]=shop":             `"namespace[a]"`,
		"namespace=shop&namespace=shop": "namespace is given 2 times",
		"namespace=shop&n%61mespace=b":  "namespace is given 2 times",
		"changesOnly=maybe":             "changesOnly has a value",
		"namespace=%ff":                 "namespace is not valid UTF-8",
		"namespace=shop;name=a":         "malformed",
		"namespace=%zz":                 "malformed",
		"=x":                            `unknown query parameter ""`,
		strings.Repeat("x", 1000) + "=": `"` + strings.Repeat("x", 64) + `";`,
	} {
		res, body := d.do(http.MethodGet, watchPods+"?"+query, "")
		s := d.refused(res, body)
		if res.StatusCode != http.StatusBadRequest || !strings.Contains(s.GetMessage(), says) {
			t.Errorf("%s: %d %s", query, res.StatusCode, body)
		}
	}
	if res, body := d.do(http.MethodGet, "/v1/clusters?a=b", ""); res.StatusCode != http.StatusBadRequest || !strings.Contains(body, "there are: none") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if n := len(d.calls.all()); n != 0 {
		t.Errorf("%d calls were made", n)
	}
}

func TestEveryParameterArrivesInItsField(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.send(d.request(http.MethodGet, "/v1/clusters/dev/watch/v1/deployments?group=apps&namespace=shop&name=a&labelSelector=a%3Db,c&fieldSelector=d%21%3De"+
		"&changesOnly=true&cursor=xyz", ""))
	d.send(d.request(http.MethodGet, "/v1/clusters/dev/logs/shop/web-0?container=c&previous=true&follow=true&since=90s"+
		"&sinceTime=2026-11-23T10:00:00Z&tailLines=5&timestamps=true&cursor=xyz", ""))
	d.send(d.request(http.MethodGet, "/v1/clusters/dev/resources", ""))
	d.send(d.request(http.MethodGet, "/v1/sessions/0123", ""))
	d.send(d.request(http.MethodPost, "/v1/clusters/dev/access", `{"exec":{"namespace":"shop","pod":"web-0","command":["sh"]}}`))
	d.send(d.request(http.MethodPost, "/v1/sessions:revoke", `{"tokenId":"t"}`))
	want := []struct {
		text string
		m    proto.Message
	}{
		{`{"cluster":"dev","cursor":"xyz","watch":{"group":"apps","version":"v1","resource":"deployments","namespace":"shop","name":"a",
			"labelSelector":"a=b,c","fieldSelector":"d!=e","changesOnly":true}}`, &sluicev1.WatchRequest{}},
		{`{"cluster":"dev","cursor":"xyz","logs":{"namespace":"shop","pod":"web-0","container":"c","previous":true,"follow":true,"since":"90s",
			"sinceTime":"2026-11-23T10:00:00Z","tailLines":"5","timestamps":true}}`, &sluicev1.LogsRequest{}},
		{`{"cluster":"dev"}`, &sluicev1.ListResourcesRequest{}},
		{`{"session":"0123"}`, &sluicev1.GetSessionRequest{}},
		{`{"cluster":"dev","target":{"exec":{"namespace":"shop","pod":"web-0","command":["sh"]}}}`, &sluicev1.CheckAccessRequest{}},
		{`{"tokenId":"t"}`, &sluicev1.RevokeRequest{}},
	}
	calls := d.calls.all()
	if len(calls) != len(want) {
		t.Fatalf("%d calls", len(calls))
	}
	for i, w := range want {
		if err := protojson.Unmarshal([]byte(w.text), w.m); err != nil {
			t.Fatal(err)
		}
		if got, ok := calls[i].args.(proto.Message); !ok || !proto.Equal(got, w.m) {
			t.Errorf("%s got %v, want %v", calls[i].method, calls[i].args, w.m)
		}
	}
}

func TestAPathHasOneSpellingAndItsMethods(t *testing.T) {
	d := open(t, kubetest.Options{})
	for _, c := range []struct {
		method, path string
		http         int
		allow        string
	}{
		{"GET", "/", 404, ""},
		{"GET", "/v1/", 404, ""},
		{"GET", "/v1/clusters/", 404, ""},
		{"GET", "//v1/clusters", 404, ""},
		{"GET", "/v1/x/../clusters", 404, ""},
		{"GET", "/v1/clusters/dev%2Fresources", 404, ""},
		{"GET", "/v1/clusters/a%2Fb/resources", 404, ""},
		{"GET", "/v1/clusters/%64ev/resources", 404, ""},
		{"GET", "/v1/clusters/dev/watch/v1/pods/a", 404, ""},
		{"GET", "/v1/clusters/dev/watch//pods", 404, ""},
		{"GET", "/V1/clusters", 404, ""},
		{"GET", "/v1/clusters:list", 404, ""},
		{"GET", "/sluice.v1.GatewayService/Watch", 404, ""},
		{"HEAD", "/v1/clusters", 405, "GET"},
		{"HEAD", watchPods, 405, "GET"},
		{"POST", watchPods, 405, "GET"},
		{"GET", "/v1/sessions:revoke", 405, "POST"},
		{"DELETE", "/v1/sessions/0123", 405, "GET"},
		{"POST", "/openapi.json", 405, "GET"},
		{"PROPFIND", "/v1/clusters", 405, "GET"},
	} {
		res, body := d.do(c.method, c.path, "")
		if c.method != http.MethodHead {
			d.refused(res, body)
		}
		if res.StatusCode != c.http || res.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q", c.method, c.path, res.StatusCode, res.Header.Get("Allow"))
		}
	}
	if n := len(d.calls.all()); n != 0 {
		t.Errorf("%d calls were made: %v", n, d.calls.all())
	}
}

func TestAnAnswerSaysItsDefaults(t *testing.T) {
	d := open(t, kubetest.Options{})
	token := d.Token("alice", otherAudience)
	if _, body := d.do(http.MethodGet, "/v1/clusters", "", header("Authorization", "Bearer "+token)); body != `{"clusters":[]}`+"\n" {
		t.Errorf("no clusters are %s", body)
	}
}

func TestTheDocumentIsServed(t *testing.T) {
	d := open(t, kubetest.Options{})
	res, body := d.do(http.MethodGet, "/openapi.json", "")
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "application/json" || body != string(openapi.Document) {
		t.Errorf("%d %v", res.StatusCode, res.Header)
	}
	if res, _ := d.do(http.MethodGet, "/openapi.json?a=b", ""); res.StatusCode != http.StatusBadRequest {
		t.Errorf("with a query: %d", res.StatusCode)
	}
}
