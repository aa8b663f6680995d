package kubetest

import (
	"encoding/json"
	"net/http"
	"runtime"
	"slices"
	"strings"
)

// gitVersion is the release whose answers are imitated, marked as an imitation.
const gitVersion = "v1.37.2+embedded"

// apiVersions is metav1.APIVersions, the answer of /api.
type apiVersions struct {
	Kind     string          `json:"kind"`
	Versions []string        `json:"versions"`
	Servers  []serverAddress `json:"serverAddressByClientCIDRs"`
}

type serverAddress struct {
	ClientCIDR    string `json:"clientCIDR"`
	ServerAddress string `json:"serverAddress"`
}

// apiGroup is metav1.APIGroup. Kind and APIVersion are empty inside a list.
type apiGroup struct {
	Kind       string         `json:"kind,omitempty"`
	APIVersion string         `json:"apiVersion,omitempty"`
	Name       string         `json:"name"`
	Versions   []groupVersion `json:"versions"`
	Preferred  groupVersion   `json:"preferredVersion"`
}

type groupVersion struct {
	GroupVersion string `json:"groupVersion"`
	Version      string `json:"version"`
}

// apiGroupList is metav1.APIGroupList, the answer of /apis.
type apiGroupList struct {
	Kind       string     `json:"kind"`
	APIVersion string     `json:"apiVersion"`
	Groups     []apiGroup `json:"groups"`
}

// apiResourceList is metav1.APIResourceList, the answer of /api/v1 and its like.
type apiResourceList struct {
	Kind         string        `json:"kind"`
	APIVersion   string        `json:"apiVersion,omitempty"`
	GroupVersion string        `json:"groupVersion"`
	Resources    []apiResource `json:"resources"`
}

type apiResource struct {
	Name         string   `json:"name"`
	SingularName string   `json:"singularName"`
	Namespaced   bool     `json:"namespaced"`
	Kind         string   `json:"kind"`
	Verbs        []string `json:"verbs"`
	ShortNames   []string `json:"shortNames,omitempty"`
	Categories   []string `json:"categories,omitempty"`
}

// versionInfo is version.Info of apimachinery, the answer of /version.
type versionInfo struct {
	Major      string `json:"major"`
	Minor      string `json:"minor"`
	GitVersion string `json:"gitVersion"`
	GitCommit  string `json:"gitCommit"`
	TreeState  string `json:"gitTreeState"`
	BuildDate  string `json:"buildDate"`
	GoVersion  string `json:"goVersion"`
	Compiler   string `json:"compiler"`
	Platform   string `json:"platform"`
}

// serveDiscovery answers the paths that are no resource. Discovery is the
// plain kind: clients that ask for the aggregated one accept this too.
func (s *Server) serveDiscovery(c *call) error {
	path := strings.TrimSuffix(c.r.URL.Path, "/")
	document := s.document(path, c.r)
	if document == nil {
		http.NotFound(c.w, c.r)
		return nil
	}
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		return methodNotAllowed()
	}
	if !acceptsJSON(c.r) {
		return notAcceptable()
	}
	body, err := json.Marshal(document)
	if err != nil {
		return err
	}
	writeJSON(c.w, c.r, http.StatusOK, body)
	return nil
}

// document is what a discovery path shows; nil if there is no such path.
func (s *Server) document(path string, r *http.Request) any {
	switch path {
	case "/api":
		return apiVersions{
			Kind: "APIVersions", Versions: []string{"v1"},
			Servers: []serverAddress{{"0.0.0.0/0", r.Host}},
		}
	case "/apis":
		return apiGroupList{Kind: "APIGroupList", APIVersion: "v1", Groups: s.catalog.groups()}
	case "/version":
		return versionInfo{
			Major: "1", Minor: "37", GitVersion: gitVersion, TreeState: "clean", BuildDate: "1970-01-01T00:00:00Z",
			GoVersion: runtime.Version(), Compiler: runtime.Compiler, Platform: runtime.GOOS + "/" + runtime.GOARCH,
		}
	}
	if version, ok := strings.CutPrefix(path, "/api/"); ok && !strings.Contains(version, "/") {
		return s.catalog.resources("", version)
	}
	name, version, ok := strings.Cut(strings.TrimPrefix(path, "/apis/"), "/")
	if strings.HasPrefix(path, "/apis/") && ok {
		return s.catalog.resources(name, version)
	}
	return s.catalog.group(name)
}

func (c *catalog) groups() []apiGroup {
	groups := []apiGroup{}
	for _, k := range c.kinds {
		if k.Group == "" {
			continue
		}
		gv := groupVersion{k.groupVersion(), k.Version}
		i := slices.IndexFunc(groups, func(g apiGroup) bool { return g.Name == k.Group })
		switch {
		case i < 0:
			groups = append(groups, apiGroup{Name: k.Group, Versions: []groupVersion{gv}, Preferred: gv})
		case !slices.Contains(groups[i].Versions, gv):
			groups[i].Versions = append(groups[i].Versions, gv)
		}
	}
	return groups
}

// group is one group; an untyped nil if it is not served.
func (c *catalog) group(name string) any {
	for _, g := range c.groups() {
		if g.Name == name {
			g.Kind, g.APIVersion = "APIGroup", "v1"
			return g
		}
	}
	return nil
}

// resources are the kinds of one group and version; an untyped nil if there are none.
func (c *catalog) resources(group, version string) any {
	list := apiResourceList{Kind: "APIResourceList"}
	if group != "" {
		list.APIVersion = "v1"
	}
	for _, k := range c.kinds {
		if k.Group != group || k.Version != version {
			continue
		}
		list.GroupVersion = k.groupVersion()
		list.Resources = append(list.Resources, apiResource{
			Name: k.Resource, SingularName: k.singular(), Namespaced: k.Namespaced, Kind: k.Kind,
			Verbs: k.verbs(), ShortNames: k.ShortNames, Categories: k.Categories,
		})
	}
	if list.Resources == nil {
		return nil
	}
	return list
}
