package kubetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// list is what a test reads of a list.
type list struct {
	Metadata struct {
		ResourceVersion    string `json:"resourceVersion"`
		Continue           string `json:"continue"`
		RemainingItemCount *int   `json:"remainingItemCount"`
	} `json:"metadata"`
	Items []Object `json:"items"`
}

func (l list) names() []string {
	out := []string{}
	for _, o := range l.Items {
		out = append(out, o.String("metadata", "namespace")+"/"+o.String("metadata", "name"))
	}
	return out
}

func (c *client) list(path string) list {
	c.Helper()
	code, body := c.get(path)
	if code != http.StatusOK {
		c.Fatalf("%s: %d %s", path, code, body)
	}
	var l list
	c.must(json.Unmarshal([]byte(body), &l))
	return l
}

func TestListShape(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	_, single := c.get(configMaps + "/a")
	object := strings.TrimSuffix(strings.TrimPrefix(single, `{"kind":"ConfigMap","apiVersion":"v1",`), "\n")
	want := `{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"` + c.version() + `"},"items":[{` + object + "]}\n"
	if _, got := c.get(configMaps); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, got := c.get("/api/v1/namespaces/no-such/pods"); got != `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"`+c.version()+`"},"items":[]}`+"\n" {
		t.Errorf("an empty list: %s", got)
	}
}

func TestCustomResourcesComeWithSortedKeys(t *testing.T) {
	c := serve(t, Options{Kinds: []Kind{{Group: "shop.example", Version: "v1", Resource: "carts", Kind: "Cart", Namespaced: true}}})
	c.apply(Object{
		"kind": "Cart", "apiVersion": "shop.example/v1", "aaa": 1,
		"metadata": map[string]any{"name": "x", "annotations": map[string]any{"resourceVersion": "7"}, "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
	})
	object := `{"aaa":1,"apiVersion":"shop.example/v1","kind":"Cart","metadata":{"annotations":{"resourceVersion":"7"},"creationTimestamp":"2026-01-01T00:00:00Z","name":"x","namespace":"default","resourceVersion":"` + c.version() + `","uid":"u"}}`
	if _, got := c.get("/apis/shop.example/v1/namespaces/default/carts/x"); got != object+"\n" {
		t.Errorf("%s, want %s", got, object)
	}
	want := `{"apiVersion":"shop.example/v1","items":[` + object + `],"kind":"CartList","metadata":{"resourceVersion":"` + c.version() + `"}}` + "\n"
	if _, got := c.get("/apis/shop.example/v1/carts"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestListSelects(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1", "app=x"), configMap("b", "1", "app=y"))
	other := configMap("c", "1", "app=x")
	other.metadata()["namespace"] = "kube-system"
	c.apply(other)
	for query, want := range map[string]string{
		"/api/v1/configmaps": "default/a default/b kube-system/c",
		configMaps:           "default/a default/b",
		"/api/v1/configmaps?labelSelector=app%3Dx":                                  "default/a kube-system/c",
		"/api/v1/configmaps?fieldSelector=metadata.namespace%3Dkube-system":         "kube-system/c",
		"/api/v1/configmaps?fieldSelector=metadata.name%3Da":                        "default/a",
		"/api/v1/configmaps?fieldSelector=metadata.name!%3Da,metadata.name!%3D%3Db": "default/b kube-system/c",
		configMaps + "?fieldSelector=metadata.name%3Dc":                             "",
	} {
		if got := strings.Join(c.list(query).names(), " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
}

func TestPodsAreSelectedByTheirFields(t *testing.T) {
	p := func(name, node, phase string) Object {
		return Object{"kind": "Pod", "apiVersion": "v1", "metadata": map[string]any{"name": name}, "spec": map[string]any{"nodeName": node}, "status": map[string]any{"phase": phase}}
	}
	c := serve(t, Options{}, p("a", "n1", "Running"), p("b", "n1", "Pending"), p("c", "n2", "Running"))
	got := c.list("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1,status.phase%3DRunning,spec.hostNetwork%3Dfalse").names()
	if !slices.Equal(got, []string{"default/a"}) {
		t.Errorf("%v", got)
	}
}

func TestPagesAreOneSnapshot(t *testing.T) {
	c := serve(t, Options{})
	for i := range 7 {
		c.apply(configMap(fmt.Sprintf("a%d", i), "1"))
	}
	whole := c.list(configMaps)
	page := c.list(configMaps + "?limit=3")
	if n := page.Metadata.RemainingItemCount; n == nil || *n != 4 {
		t.Errorf("remaining %v", n)
	}
	names := page.names()
	for page.Metadata.Continue != "" {
		c.must(c.Delete("", "configmaps", "default", fmt.Sprintf("a%d", len(names)))) // the next one to come
		c.apply(configMap(fmt.Sprintf("b%d", len(names)), "1"))
		page = c.list(configMaps + "?limit=3&continue=" + page.Metadata.Continue)
		if page.Metadata.ResourceVersion != whole.Metadata.ResourceVersion {
			t.Errorf("version %s, want %s", page.Metadata.ResourceVersion, whole.Metadata.ResourceVersion)
		}
		names = append(names, page.names()...)
	}
	if !slices.Equal(names, whole.names()) {
		t.Errorf("%v, want %v", names, whole.names())
	}
	if all := c.list(configMaps + "?limit=2&resourceVersion=0"); len(all.Items) != 7 || all.Metadata.Continue != "" {
		t.Errorf("from the cache: %v", all.names())
	}
	if p := c.list(configMaps + "?limit=1&labelSelector=a%21%3Db"); p.Metadata.RemainingItemCount != nil || p.Metadata.Continue == "" {
		t.Errorf("selected: %+v", p.Metadata)
	}
}

func TestExpiredContinueOffersAnInconsistentOne(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"), configMap("b", "1"))
	page := c.list(configMaps + "?limit=1")
	c.apply(configMap("c", "1"))
	c.Compact(c.Version())
	code, body := c.get(configMaps + "?limit=1&continue=" + page.Metadata.Continue)
	var s Status
	c.must(json.Unmarshal([]byte(body), &s))
	if code != 410 || s.Reason != "Expired" || !strings.HasPrefix(s.Message, "The provided continue parameter is too old to display a consistent list result.") {
		t.Fatalf("%d %s", code, body)
	}
	if rest := c.list(configMaps + "?continue=" + s.Metadata.Continue); !slices.Equal(rest.names(), []string{"default/b", "default/c"}) {
		t.Errorf("the rest: %v", rest.names())
	}
}

func TestListVersions(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	before := c.version()
	c.apply(configMap("b", "1"))
	future := fmt.Sprint(c.Version() + 5)
	for query, want := range map[string]string{
		"resourceVersion=" + before:                                        "200 2",
		"resourceVersion=" + before + "&resourceVersionMatch=Exact":        "200 1",
		"resourceVersion=" + before + "&limit=10":                          "200 1",
		"resourceVersion=" + before + "&resourceVersionMatch=NotOlderThan": "200 2",
		"resourceVersion=" + future:                                        "504 Timeout",
		"resourceVersion=" + future + "&resourceVersionMatch=Exact":        "504 Timeout",
		"resourceVersion=1&resourceVersionMatch=Exact":                     "200 0",
		"resourceVersion=x":                                                "400 BadRequest",
		"resourceVersionMatch=Exact":                                       "422 Invalid",
		"resourceVersion=0&resourceVersionMatch=Exact":                     "422 Invalid",
		"resourceVersion=1&resourceVersionMatch=Sometimes":                 "422 Invalid",
		"sendInitialEvents=true":                                           "422 Invalid",
		"limit=x":                                                          "400 BadRequest",
		"timeoutSeconds=x":                                                 "400 BadRequest",
		"continue=x":                                                       "400 BadRequest",
		"fieldSelector=spec.x%3D1":                                         "400 BadRequest",
		"fieldSelector=nonsense":                                           "400 BadRequest",
		"labelSelector=" + url.QueryEscape("a in b"):                       "400 BadRequest",
		"resourceVersion=5&continue=" + (continueToken{"meta.k8s.io/v1", 5, "default/a\x00"}).encode(): "400 BadRequest",
		"continue=" + (continueToken{"meta.k8s.io/v1", 5, "default/../a"}).encode():                    "400 BadRequest",
		"continue=" + (continueToken{"meta.k8s.io/v1", 0, "default/a"}).encode():                       "400 BadRequest",
		"continue=" + (continueToken{"meta.k8s.io/v1", 5, ""}).encode():                                "400 BadRequest",
		"continue=" + (continueToken{"v2", 5, "default/a"}).encode():                                   "400 BadRequest",
	} {
		code, body := c.get(configMaps + "?" + query)
		var answer struct {
			Reason string   `json:"reason"`
			Items  []Object `json:"items"`
		}
		c.must(json.Unmarshal([]byte(body), &answer))
		got := fmt.Sprint(code, " ", answer.Reason)
		if code == 200 {
			got = fmt.Sprint(code, " ", len(answer.Items))
		}
		if got != want {
			t.Errorf("%s: %s (%s), want %s", query, got, body, want)
		}
	}
	c.Compact(c.Version())
	if code, body := c.get(configMaps + "?resourceVersionMatch=Exact&resourceVersion=" + before); code != 410 || !strings.Contains(body, "The resourceVersion for the provided list is too old.") {
		t.Errorf("compacted: %d %s", code, body)
	}
}

func TestFutureVersionTellsWhenToRetry(t *testing.T) {
	c := serve(t, Options{})
	code, header, body := c.do(http.MethodGet, configMaps+"?resourceVersion=99", "")
	want := `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Timeout: Too large resource version: 99, current: ` + c.version() +
		`","reason":"Timeout","details":{"causes":[{"reason":"ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504}` + "\n"
	if code != 504 || header.Get("Retry-After") != "1" || body != want {
		t.Errorf("%d %v %s, want %s", code, header, body, want)
	}
}

func TestOutputIsIndentedForPeople(t *testing.T) {
	c := serve(t, Options{})
	if _, body := c.get("/version", "User-Agent", "curl/8"); !strings.HasPrefix(body, "{\n  \"major\": \"1\",") {
		t.Errorf("%s", body)
	}
	if _, body := c.get("/version?pretty=false", "User-Agent", "curl/8"); !strings.HasPrefix(body, `{"major":"1",`) {
		t.Errorf("%s", body)
	}
}

func TestDiscovery(t *testing.T) {
	c := serve(t, Options{Kinds: []Kind{{Group: "shop.example", Version: "v1beta1", Resource: "carts", Kind: "Cart"}}})
	group := func(name, version string) string {
		only := `{"groupVersion":"` + name + "/" + version + `","version":"` + version + `"}`
		return `{"name":"` + name + `","versions":[` + only + `],"preferredVersion":` + only + `}`
	}
	for path, want := range map[string]string{
		"/api": `{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"` + c.Addr() + `"}]}`,
		"/apis": `{"kind":"APIGroupList","apiVersion":"v1","groups":[` + strings.Join([]string{
			group("apps", "v1"), group("authentication.k8s.io", "v1"), group("authorization.k8s.io", "v1"),
			group("rbac.authorization.k8s.io", "v1"), group("shop.example", "v1beta1"),
		}, ",") + `]}`,
		"/apis/apps":         `{"kind":"APIGroup","apiVersion":"v1","name":"apps","versions":[{"groupVersion":"apps/v1","version":"v1"}],"preferredVersion":{"groupVersion":"apps/v1","version":"v1"}}`,
		"/apis/apps/v1":      `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"apps/v1","resources":[{"name":"deployments","singularName":"deployment","namespaced":true,"kind":"Deployment","verbs":["create","delete","get","list","patch","update","watch"],"shortNames":["deploy"],"categories":["all"]}]}`,
		"/apis/apps/v1beta1": "404 page not found",
		"/apis/none":         "404 page not found",
		"/api/v2":            "404 page not found",
		"/nonsense":          "404 page not found",
		"/":                  "404 page not found",
		"//api/v1":           "404 page not found",
	} {
		if _, body := c.get(path); strings.TrimSuffix(body, "\n") != want {
			t.Errorf("%s: %s, want %s", path, body, want)
		}
	}
	var core apiResourceList
	_, body := c.get("/api/v1", "Accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")
	c.must(json.Unmarshal([]byte(body), &core))
	var names []string
	for _, r := range core.Resources {
		names = append(names, r.Name)
	}
	if want := []string{"configmaps", "events", "namespaces", "nodes", "pods", "serviceaccounts", "services"}; !slices.Equal(names, want) {
		t.Errorf("%v, want %v", names, want)
	}
}

func TestLabelSelectors(t *testing.T) {
	labels := map[string]string{"app": "web", "tier.example/level": "3", "empty": ""}
	for text, want := range map[string]bool{
		"": true, "app": true, "!app": false, "nope": false, "!nope": true,
		"app=web": true, "app==web": true, "app != web": false, "app=api": false, "nope!=x": true, "nope=": false, "empty=": true,
		"app in (web, api)": true, "app in(api)": false, "app notin (api)": true, "nope notin (x)": true, "nope in (x)": false,
		"tier.example/level>2": true, "tier.example/level<3": false, "app>1": false,
		"app=web,tier.example/level in (3),!nope": true, "app=web,nope": false,
	} {
		qs, err := parseLabels(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := (&selector{labels: qs}).matches(&revision{labels: labels}); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	for _, text := range []string{"a in b", "a in (b", "-a", "a=b c", "a=b/c", "=b", "/a", "a is b", ",", "a=" + strings.Repeat("x", 64)} {
		if qs, err := parseLabels(text); err == nil {
			t.Errorf("%q was read as %+v", text, qs)
		}
	}
}

func FuzzListOptions(f *testing.F) {
	f.Add("watch=1&labelSelector=a in (b,c)&fieldSelector=metadata.name!=x&limit=3")
	f.Add("continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJhIn0&resourceVersion=0")
	pods := newCatalog(nil).resource("", "v1", "pods")
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		o, err := parseListOptions(pods, "", q, true)
		if err != nil {
			_ = asStatus(t, err)
			return
		}
		if o.selector.matches(&revision{}) && len(o.selector.labels) > 0 && o.selector.labels[0].operator == labelExists {
			t.Fatalf("%q selects what has no label", query)
		}
		if _, err := o.page(); err != nil {
			_ = asStatus(t, err)
		}
	})
}
