package bridge

import (
	"net/url"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

func watchOf(t *sluicev1.WatchTarget) *sluicev1.Target {
	return &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: t}}
}

// pods is the target of most tests.
func pods() *sluicev1.WatchTarget {
	return &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps", Namespace: "default"}
}

func TestValidateNamesTheField(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*sluicev1.WatchTarget)
		field  string
	}{
		"as it is":                 {func(*sluicev1.WatchTarget) {}, ""},
		"group":                    {func(w *sluicev1.WatchTarget) { w.Group = "stable.example.com" }, ""},
		"name of RBAC":             {func(w *sluicev1.WatchTarget) { w.Name = "system:node-proxier" }, ""},
		"all namespaces":           {func(w *sluicev1.WatchTarget) { w.Namespace = "" }, ""},
		"group with a slash":       {func(w *sluicev1.WatchTarget) { w.Group = "apps/v1" }, "watch.group"},
		"group in capitals":        {func(w *sluicev1.WatchTarget) { w.Group = "Apps" }, "watch.group"},
		"group of dots":            {func(w *sluicev1.WatchTarget) { w.Group = ".." }, "watch.group"},
		"no version":               {func(w *sluicev1.WatchTarget) { w.Version = "" }, "watch.version"},
		"version of dots":          {func(w *sluicev1.WatchTarget) { w.Version = ".." }, "watch.version"},
		"no resource":              {func(w *sluicev1.WatchTarget) { w.Resource = "" }, "watch.resource"},
		"subresource":              {func(w *sluicev1.WatchTarget) { w.Resource = "pods/exec" }, "watch.resource"},
		"escaped slash":            {func(w *sluicev1.WatchTarget) { w.Resource = "pods%2fexec" }, "watch.resource"},
		"query":                    {func(w *sluicev1.WatchTarget) { w.Resource = "pods?x=1" }, "watch.resource"},
		"subresource of namespace": {func(w *sluicev1.WatchTarget) { w.Resource = "finalize" }, "watch.resource"},
		"verb of old":              {func(w *sluicev1.WatchTarget) { w.Resource = "proxy" }, "watch.resource"},
		"namespace of dots":        {func(w *sluicev1.WatchTarget) { w.Namespace = ".." }, "watch.namespace"},
		"namespace with NUL":       {func(w *sluicev1.WatchTarget) { w.Namespace = "a\x00" }, "watch.namespace"},
		"long namespace":           {func(w *sluicev1.WatchTarget) { w.Namespace = strings.Repeat("a", 64) }, "watch.namespace"},
		"name of dots":             {func(w *sluicev1.WatchTarget) { w.Name = ".." }, "watch.name"},
		"name with a slash":        {func(w *sluicev1.WatchTarget) { w.Name = "a/exec" }, "watch.name"},
		"name with a percent":      {func(w *sluicev1.WatchTarget) { w.Name = "a%2fexec" }, "watch.name"},
		"long name":                {func(w *sluicev1.WatchTarget) { w.Name = strings.Repeat("a", 254) }, "watch.name"},
		"long label selector":      {func(w *sluicev1.WatchTarget) { w.LabelSelector = strings.Repeat("a", 4097) }, "watch.label_selector"},
		"newline in a selector":    {func(w *sluicev1.WatchTarget) { w.FieldSelector = "a=b\n" }, "watch.field_selector"},
	} {
		w := pods()
		c.change(w)
		err := Validate(watchOf(w))
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if status.Code(err) != codes.InvalidArgument || status.Reason(err) != sluicev1.Reason_REASON_INVALID_TARGET ||
			!strings.HasPrefix(status.From(err).Message, c.field+": ") {
			t.Errorf("%s: %v, want an invalid %s", name, err, c.field)
		}
	}
}

func TestNameJoinsTheFieldSelector(t *testing.T) {
	w := pods()
	w.Name, w.FieldSelector, w.LabelSelector = "a,b=c", "spec.nodeName=n;1", "app in (a, b)"
	q, err := url.ParseQuery(selection(w).Encode())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := q.Get("fieldSelector"), `metadata.name=a\,b\=c,spec.nodeName=n;1`; got != want {
		t.Errorf("fieldSelector %q, want %q", got, want)
	}
	if got := q.Get("labelSelector"); got != w.LabelSelector {
		t.Errorf("labelSelector %q", got)
	}
}

// parsed reads a path as the API server does (k8s.io/apiserver/pkg/endpoints/request, RequestInfoFactory).
func parsed(path string) (group, version, namespace, resource string, rest []string) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if parts[0] == "apis" {
		group, parts = parts[1], parts[1:]
	}
	version, parts = parts[1], parts[2:]
	if parts[0] == "watch" || parts[0] == "proxy" {
		return group, version, "", "", parts
	}
	if parts[0] == "namespaces" && len(parts) > 1 {
		namespace = parts[1]
		if len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
			parts = parts[2:]
		}
	}
	return group, version, namespace, parts[0], parts[1:]
}

// TestHL_D27_NoTargetIsAPath and T-B10: in Headlamp the client names path and query, so every path of the API server could be dialled,
// subresources included. A target here is typed; what it is made of cannot leave its place.
func TestHL_D27_NoTargetIsAPath(t *testing.T) {
	for _, evil := range []string{"..", "../..", "%2e%2e", "%2F", "a//b", "pods/web/exec", `a\b`, "a;b", "a\x00b", "a?watch=1", "a#b", "ä", "proxy"} {
		for field, w := range map[string]*sluicev1.WatchTarget{
			"group":     {Group: evil, Version: "v1", Resource: "pods"},
			"version":   {Version: evil, Resource: "pods"},
			"resource":  {Version: "v1", Resource: evil},
			"namespace": {Version: "v1", Resource: "pods", Namespace: evil},
		} {
			if evil == "proxy" && field != "resource" {
				continue // a name like any other there
			}
			if err := Validate(watchOf(w)); status.Reason(err) != sluicev1.Reason_REASON_INVALID_TARGET {
				t.Errorf("%s %q: %v", field, evil, err)
			}
		}
	}
}

// FuzzTargetURL checks that the path of whatever is valid is read back by the API server as exactly the target, and that nothing but the
// parameters of a watch is in the query.
func FuzzTargetURL(f *testing.F) {
	f.Add("", "v1", "pods", "default", "", "", "")
	f.Add("apps", "v1", "deployments", "", "web", "app=web", "metadata.namespace!=a")
	f.Add("..", "v1", "status", "x", "a/b", "%2f", "a&watch=false")
	f.Fuzz(func(t *testing.T, group, version, resource, namespace, name, labels, fields string) {
		w := &sluicev1.WatchTarget{
			Group: group, Version: version, Resource: resource, Namespace: namespace, Name: name, LabelSelector: labels, FieldSelector: fields,
		}
		if Validate(watchOf(w)) != nil {
			return
		}
		u := url.URL{Path: watchPath(w), RawQuery: selection(w).Encode()}
		for _, bad := range []string{"..", "//", "%", "?", "#", ";", `\`} {
			if strings.Contains(u.EscapedPath(), bad) {
				t.Fatalf("path %q holds %q", u.EscapedPath(), bad)
			}
		}
		back, err := url.Parse(u.String())
		if err != nil || back.Path != u.Path || back.EscapedPath() != u.Path {
			t.Fatalf("%q parses to %+v, %v", u.String(), back, err)
		}
		g, v, ns, r, rest := parsed(back.Path)
		// The namespace of namespaces is its name, and so it is written in no other way.
		if g != group || v != version || r != resource || ns != namespace || len(rest) > 0 {
			t.Fatalf("%q is read as %q %q %q %q %q", back.Path, g, v, ns, r, rest)
		}
		q, err := url.ParseQuery(back.RawQuery)
		if err != nil {
			t.Fatal(err)
		}
		for key, values := range q {
			if key != "labelSelector" && key != "fieldSelector" || len(values) != 1 || strings.ContainsFunc(values[0], unicode.IsControl) && !c1(values[0]) {
				t.Fatalf("the query holds %q=%q", key, values)
			}
		}
	})
}

// c1 reports whether the control characters of s are none of ASCII.
func c1(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
