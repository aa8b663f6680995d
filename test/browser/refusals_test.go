package browser

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/test/kube"
)

// TestRefusalsArriveWithTheirDetails: what the gateway itself refuses, and what the API server does, in its own words.
func TestRefusalsArriveWithTheirDetails(t *testing.T) {
	s := newSetup(t)
	page := s.page("console.example")
	for _, protocol := range protocols {
		refused := func(change func(*options)) (got end) {
			page.call(nil, "watch", s.watching("pods", speaking(protocol), change))
			page.call(&got, "ended")
			return got
		}

		got := refused(func(o *options) {
			o.Token = s.token(func(c *issuer.Claims) { c.Subject, c.Groups = "carol", []string{kube.Viewers} })
			o.Target.Namespace = "default"
		})
		if got.Code != "PermissionDenied" || got.Reason != "UPSTREAM_REFUSED" || got.HTTPCode != 403 || got.Message == "" {
			t.Errorf("%s: a namespace of others: %v", protocol, got)
		}
		const says = `pods is forbidden: User "oidc:carol" cannot watch resource "pods" in API group "" in the namespace "default"`
		if k := got.Kubernetes; k == nil || k.Status != "Failure" || k.Reason != "Forbidden" || k.Code != 403 || k.Message != says {
			t.Errorf("%s: a namespace of others, in the API server's words: %v", protocol, got)
		}

		if got = refused(func(o *options) { o.Target.Resource = kube.UnknownResource }); got.Code != "NotFound" || got.Reason != "UPSTREAM_REFUSED" ||
			got.HTTPCode != 404 {
			t.Errorf("%s: no such resource: %v", protocol, got)
		}

		got = refused(func(o *options) {
			o.Token = s.token(func(c *issuer.Claims) {
				c.Issued, c.Expiry = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute)
			})
		})
		if got.Code != "Unauthenticated" || got.Reason != "EXPIRED" || got.Kubernetes != nil {
			t.Errorf("%s: an expired token: %v", protocol, got)
		}

		if got = refused(func(o *options) { o.Cluster = "nowhere" }); got.Code != "NotFound" || got.Reason != "UNKNOWN_CLUSTER" {
			t.Errorf("%s: no such cluster: %v", protocol, got)
		}
	}
}
