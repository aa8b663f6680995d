package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Resources are the resources that the cluster serves, in each group's preferred version. Groups that do not answer are told beside them.
func (u *Upstream) Resources(ctx context.Context) (*sluicev1.ListResourcesResponse, error) {
	client := &http.Client{
		Transport:     transport.NewUserAgentRoundTripper(u.endpoint.userAgent, u),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	d, err := discovery.NewDiscoveryClientForConfigAndClient(&rest.Config{Host: u.endpoint.base.String()}, client)
	if err != nil {
		return nil, fmt.Errorf("cluster %q: discovery: %w", u.Cluster(), err)
	}
	lists, err := d.ServerPreferredResourcesWithContext(ctx)
	var partial *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &partial) {
		return nil, u.discoveryFailed(ctx, err)
	}
	out := &sluicev1.ListResourcesResponse{}
	for _, list := range lists {
		out.Resources = append(out.Resources, resourcesOf(list)...)
	}
	if partial != nil {
		for gv, err := range partial.Groups {
			out.Failures = append(out.Failures, &sluicev1.GroupFailure{
				GroupVersion: gv.String(), Status: status.From(u.discoveryFailed(ctx, err)).Proto(),
			})
		}
		slices.SortFunc(out.Failures, func(a, b *sluicev1.GroupFailure) int {
			return strings.Compare(a.GetGroupVersion(), b.GetGroupVersion())
		})
	}
	return out, nil
}

// discoveryFailed is the error for a request of client-go's, which has made the API server's answer an error of its own.
func (u *Upstream) discoveryFailed(ctx context.Context, err error) error {
	var answered *apierrors.StatusError
	if !errors.As(err, &answered) {
		return u.failed(ctx, err)
	}
	s := answered.Status()
	e := Refusal(u.Cluster(), int(s.Code), http.Header{}, nil)
	e.Kubernetes = StatusOf(&s)
	e.Message += ": " + s.Message
	e.RetryAfter = retryAfter(http.Header{}, e.Kubernetes)
	return e
}

// resourcesOf leaves out subresources, which no watch is for.
func resourcesOf(list *metav1.APIResourceList) []*sluicev1.Resource {
	gv, err := schema.ParseGroupVersion(list.GroupVersion)
	if err != nil {
		return nil
	}
	var out []*sluicev1.Resource
	for i := range list.APIResources {
		r := &list.APIResources[i]
		if strings.Contains(r.Name, "/") {
			continue
		}
		out = append(out, &sluicev1.Resource{
			Group: gv.Group, Version: gv.Version, Resource: r.Name, Singular: r.SingularName, Kind: r.Kind, Namespaced: r.Namespaced,
			Verbs: r.Verbs, ShortNames: r.ShortNames,
		})
	}
	return out
}
