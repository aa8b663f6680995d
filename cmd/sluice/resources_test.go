package main

import (
	"strings"
	"testing"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// served is what a cluster says it serves, in an API server's order.
func served() *sluicev1.ListResourcesResponse {
	watchable := []string{"get", "list", "watch"}
	return &sluicev1.ListResourcesResponse{
		Resources: []*sluicev1.Resource{
			{Version: "v1", Resource: "bindings", Singular: "binding", Kind: "Binding", Namespaced: true, Verbs: []string{"create"}},
			{Version: "v1", Resource: "events", Singular: "event", Kind: "Event", Namespaced: true, Verbs: watchable, ShortNames: []string{"ev"}},
			{Version: "v1", Resource: "nodes", Singular: "node", Kind: "Node", Verbs: watchable, ShortNames: []string{"no"}},
			{Version: "v1", Resource: "pods", Singular: "pod", Kind: "Pod", Namespaced: true, Verbs: watchable, ShortNames: []string{"po"}},
			{Group: "apps", Version: "v1", Resource: "deployments", Singular: "deployment", Kind: "Deployment", Namespaced: true, Verbs: watchable, ShortNames: []string{"deploy"}},
			{Group: "events.k8s.io", Version: "v1", Resource: "events", Singular: "event", Kind: "Event", Namespaced: true, Verbs: watchable, ShortNames: []string{"ev"}},
			{Group: "example.org", Version: "v1", Resource: "crates", Kind: "Crate", Verbs: watchable},
			{Group: "shop.example.org", Version: "v1", Resource: "crates", Kind: "Crate", Verbs: watchable},
			{Group: "v2.example.org", Version: "v1", Resource: "crates", Kind: "Crate", Verbs: watchable},
		},
		Failures: []*sluicev1.GroupFailure{{GroupVersion: "metrics.k8s.io/v1beta1"}},
	}
}

func TestResourcesAreFoundAsKubectlFindsThem(t *testing.T) {
	for text, want := range map[string]string{
		"pods": "/v1/pods", "po": "/v1/pods", "pod": "/v1/pods", "Pod": "/v1/pods", "PODS": "/v1/pods", "pods.": "/v1/pods",
		"pods.v1.":                 "/v1/pods",
		"deploy":                   "apps/v1/deployments",
		"deployments.apps":         "apps/v1/deployments",
		"deploy.apps":              "apps/v1/deployments",
		"deployment.v1.apps":       "apps/v1/deployments",
		"deployments.v1beta1.apps": "apps/v1beta1/deployments",
		"events":                   "/v1/events",
		"ev":                       "/v1/events",
		"events.events.k8s.io":     "events.k8s.io/v1/events",
		"events.v1.events.k8s.io":  "events.k8s.io/v1/events",
		"crates.shop.example.org":  "shop.example.org/v1/crates",
		"crates.v2.example.org":    "v2.example.org/v1/crates",
		"crates.v1.v2.example.org": "v2.example.org/v1/crates",
	} {
		r, err := parseWanted(text).find(served())
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := r.GetGroup() + "/" + r.GetVersion() + "/" + r.GetResource(); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

func TestAResourceThatIsNotFoundSaysWhatThereIs(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"podz", "did you mean pods?"},
		{"deployment.extensions", "did you mean deployments.apps?"},
		{"nothing-like-it", `no resource "nothing-like-it" (these API groups did not answer: metrics.k8s.io/v1beta1)`},
		{"bindings", "bindings cannot be watched; the API server offers create"},
		{"pods.apps", `no resource "pods.apps"`},
		{"", `no resource ""`},
	} {
		_, err := parseWanted(tc.text).find(served())
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q in it", tc.text, err, tc.want)
		}
	}
}

func TestDistanceCountsTypingErrors(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"pods", "pods", 0}, {"podz", "pods", 1}, {"pdos", "pods", 2}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}} {
		if got := distance(tc.a, tc.b); got != tc.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tc.a, tc.b, got, tc.want)
		}
	}
}
