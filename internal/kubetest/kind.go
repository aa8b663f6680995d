package kubetest

import (
	"slices"
	"strings"
)

// Kind describes one resource the server serves, built in or added by
// [Options.Kinds]. It is read-only once given to [New].
type Kind struct {
	// Group is the API group; empty for the core group.
	Group string
	// Version is the only version the resource is served in, such as "v1".
	Version string
	// Resource is the plural name in paths, such as "pods".
	Resource string
	// Singular is the singular name in discovery; the lower-cased Kind if empty.
	Singular string
	// Kind is the name in objects, such as "Pod".
	Kind string
	// ShortNames are what kubectl accepts instead of Resource.
	ShortNames []string
	// Categories are the groups of kinds it belongs to, such as "all".
	Categories []string
	// Namespaced says whether objects live in a namespace.
	Namespaced bool

	// builtin kinds print kind and apiVersion first and leave them out of list
	// items; the others come with sorted keys throughout, as custom resources do.
	builtin bool
	// pathNames says that objects may have every name that fits into a path, such
	// as "system:discovery", and not only those of RFC 1123.
	pathNames bool
	// review answers a create at once; nothing of the kind is stored.
	review func(*Server, *call, *Kind, []byte) (any, error)
	// fields are the field selectors beyond metadata.name and metadata.namespace.
	fields map[string]fieldPath
}

// fieldPath is where a selectable field lies in an object, and what it is
// when it is absent there.
type fieldPath struct {
	path    []string
	initial string
}

// qualified is the resource as Status messages name it, such as "deployments.apps".
func (k *Kind) qualified() string {
	if k.Group == "" {
		return k.Resource
	}
	return k.Resource + "." + k.Group
}

// verbs are what discovery says about the kind.
func (k *Kind) verbs() []string {
	if k.review != nil {
		return []string{"create"}
	}
	return []string{"create", "delete", "get", "list", "patch", "update", "watch"}
}

func (k *Kind) groupVersion() string {
	if k.Group == "" {
		return k.Version
	}
	return k.Group + "/" + k.Version
}

func (k *Kind) singular() string {
	if k.Singular != "" {
		return k.Singular
	}
	return strings.ToLower(k.Kind)
}

// builtinKinds are what every server serves.
func builtinKinds() []*Kind {
	field := func(path ...string) fieldPath { return fieldPath{path: path} }
	return []*Kind{
		{
			Version: "v1", Resource: "namespaces", Kind: "Namespace", ShortNames: []string{"ns"},
			fields: map[string]fieldPath{"status.phase": field("status", "phase")},
		},
		{
			Version: "v1", Resource: "nodes", Kind: "Node", ShortNames: []string{"no"},
			fields: map[string]fieldPath{"spec.unschedulable": {path: []string{"spec", "unschedulable"}, initial: "false"}},
		},
		{
			Version: "v1", Resource: "pods", Kind: "Pod", ShortNames: []string{"po"}, Categories: []string{"all"}, Namespaced: true,
			fields: map[string]fieldPath{
				"spec.nodeName":            field("spec", "nodeName"),
				"spec.restartPolicy":       field("spec", "restartPolicy"),
				"spec.schedulerName":       field("spec", "schedulerName"),
				"spec.serviceAccountName":  field("spec", "serviceAccountName"),
				"spec.hostNetwork":         {path: []string{"spec", "hostNetwork"}, initial: "false"},
				"status.phase":             field("status", "phase"),
				"status.podIP":             field("status", "podIP"),
				"status.nominatedNodeName": field("status", "nominatedNodeName"),
			},
		},
		{Version: "v1", Resource: "configmaps", Kind: "ConfigMap", ShortNames: []string{"cm"}, Namespaced: true},
		{
			Version: "v1", Resource: "services", Kind: "Service", ShortNames: []string{"svc"}, Categories: []string{"all"}, Namespaced: true,
			fields: map[string]fieldPath{"spec.clusterIP": field("spec", "clusterIP"), "spec.type": field("spec", "type")},
		},
		{
			Version: "v1", Resource: "events", Kind: "Event", ShortNames: []string{"ev"}, Namespaced: true,
			fields: map[string]fieldPath{
				"involvedObject.kind":            field("involvedObject", "kind"),
				"involvedObject.namespace":       field("involvedObject", "namespace"),
				"involvedObject.name":            field("involvedObject", "name"),
				"involvedObject.uid":             field("involvedObject", "uid"),
				"involvedObject.apiVersion":      field("involvedObject", "apiVersion"),
				"involvedObject.resourceVersion": field("involvedObject", "resourceVersion"),
				"involvedObject.fieldPath":       field("involvedObject", "fieldPath"),
				"reason":                         field("reason"),
				"reportingComponent":             field("reportingComponent"),
				"source":                         field("source", "component"),
				"type":                           field("type"),
			},
		},
		{
			Group: "apps", Version: "v1", Resource: "deployments", Kind: "Deployment", ShortNames: []string{"deploy"},
			Categories: []string{"all"}, Namespaced: true,
		},
	}
}

// catalog is the set of kinds a server serves. Immutable after newCatalog.
type catalog struct {
	kinds []*Kind // in the order of discovery: by group, then resource
	byGVR map[[3]string]*Kind
	byGVK map[[2]string]*Kind // apiVersion, kind
}

func newCatalog(extra []Kind) *catalog {
	kinds := append(builtinKinds(), accessKinds()...)
	for _, k := range kinds {
		k.builtin = true
	}
	for _, k := range extra {
		k.builtin = false
		kinds = append(kinds, &k)
	}
	slices.SortStableFunc(kinds, func(a, b *Kind) int {
		return strings.Compare(a.Group+"/"+a.Resource, b.Group+"/"+b.Resource)
	})
	c := &catalog{kinds: kinds, byGVR: map[[3]string]*Kind{}, byGVK: map[[2]string]*Kind{}}
	for _, k := range kinds {
		c.byGVR[[3]string{k.Group, k.Version, k.Resource}] = k
		c.byGVK[[2]string{k.groupVersion(), k.Kind}] = k
	}
	return c
}

// resource finds a kind by the parts of its path; nil if it is not served.
func (c *catalog) resource(group, version, resource string) *Kind {
	return c.byGVR[[3]string{group, version, resource}]
}

// object finds a kind by what an object calls itself; nil if it is not served.
func (c *catalog) object(apiVersion, kind string) *Kind {
	return c.byGVK[[2]string{apiVersion, kind}]
}
