package kube

import (
	"net/url"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var discoveryAnswers = []answer{
	{"the core group has version v1", discoversCore},
	{"every other group has versions, one preferred", discoversGroups},
	{"a group version lists its resources", discoversResources},
	{"the version of the server", tellsVersion},
}

func discoversCore(a *asker) {
	var versions metav1.APIVersions
	a.getInto("/api", &versions)
	if versions.Kind != "APIVersions" || !slices.Contains(versions.Versions, "v1") {
		a.Errorf("/api: %+v", versions)
	}
}

func discoversGroups(a *asker) {
	var groups metav1.APIGroupList
	a.getInto("/apis", &groups)
	if groups.Kind != "APIGroupList" || groups.APIVersion != "v1" {
		a.Errorf("/apis is a %s %s", groups.APIVersion, groups.Kind)
	}
	for _, group := range groups.Groups {
		if group.Name == "" || !slices.Contains(group.Versions, group.PreferredVersion) {
			a.Errorf("/apis: %+v", group)
		}
		for _, version := range group.Versions {
			if version.GroupVersion != group.Name+"/"+version.Version {
				a.Errorf("/apis: %q holds %+v", group.Name, version)
			}
		}
	}
}

func discoversResources(a *asker) {
	var list metav1.APIResourceList
	a.getInto("/api/v1", &list)
	if list.Kind != "APIResourceList" || list.GroupVersion != "v1" {
		a.Errorf("/api/v1 is a %s of %q", list.Kind, list.GroupVersion)
	}
	at := slices.IndexFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Name == a.Resource })
	if at < 0 {
		a.Fatalf("/api/v1 does not list %s", a.Resource)
	}
	resource := list.APIResources[at]
	if !resource.Namespaced || strings.ToLower(resource.Kind) != resource.SingularName ||
		resource.SingularName+"s" != resource.Name {
		a.Errorf("/api/v1: %+v", resource)
	}
	for _, verb := range []string{"get", "list", "watch"} {
		if !slices.Contains(resource.Verbs, verb) {
			a.Errorf("%s cannot be asked to %s: %v", a.Resource, verb, resource.Verbs)
		}
	}
}

func tellsVersion(a *asker) {
	var version struct{ Major, Minor, GitVersion string }
	a.getInto("/version", &version)
	if want := "v" + version.Major + "." + version.Minor + "."; version.Major == "" ||
		!strings.HasPrefix(version.GitVersion, want) {
		a.Errorf("/version: %+v", version)
	}
}

var listAnswers = []answer{
	{"a list has a kind and a resourceVersion, its items have no kind", listsKinds},
	{"a limit splits a list into pages of one resourceVersion", listsInPages},
	{"a field selector picks by name", listsSelected},
	{"an object in a list is what a get gives", getsWhatIsListed},
}

// object is what Answers reads of an object.
type object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
}

// objectList is a list of them.
type objectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []object `json:"items"`
}

func (l objectList) names() []string {
	var names []string
	for _, item := range l.Items {
		names = append(names, item.Name)
	}
	return names
}

// list asks for the collection with the query.
func (a *asker) list(q string) objectList {
	a.Helper()
	var list objectList
	a.getInto(a.collection()+"?"+q, &list)
	return list
}

// now is the resourceVersion of the collection at this moment.
func (a *asker) now() string {
	a.Helper()
	return a.list("").ResourceVersion
}

func listsKinds(a *asker) {
	a.put("list-kinds", "1")
	defer a.delete("list-kinds")
	list := a.list("")
	if !strings.HasSuffix(list.Kind, "List") || list.APIVersion != "v1" || list.ResourceVersion == "" {
		a.Errorf("%+v %+v", list.TypeMeta, list.ListMeta)
	}
	for _, item := range list.Items {
		if item.TypeMeta != (metav1.TypeMeta{}) || item.Name == "" || item.UID == "" || item.ResourceVersion == "" {
			a.Errorf("an item: %+v", item)
		}
	}
}

func listsInPages(a *asker) {
	deleteAll := a.putAll("page-1", "page-2", "page-3")
	defer deleteAll()
	all := a.list("")
	first := a.list("limit=2")
	rest := int64(len(all.Items)) - 2
	if len(first.Items) != 2 || first.Continue == "" || first.RemainingItemCount == nil || *first.RemainingItemCount != rest {
		a.Fatalf("of %d items the first page has %d: %+v", len(all.Items), len(first.Items), first.ListMeta)
	}
	a.put("page-4", "later") // is in no page of this list
	defer a.delete("page-4")
	second := a.list("limit=500&continue=" + url.QueryEscape(first.Continue))
	if second.Continue != "" || second.ResourceVersion != first.ResourceVersion {
		a.Errorf("the last page: %+v, the first: %+v", second.ListMeta, first.ListMeta)
	}
	if got := append(first.names(), second.names()...); !slices.Equal(got, all.names()) {
		a.Errorf("the pages hold %v, the list %v", got, all.names())
	}
}

func listsSelected(a *asker) {
	deleteAll := a.putAll("selected", "selected-not")
	defer deleteAll()
	if got := a.list("fieldSelector=metadata.name%3Dselected").names(); !slices.Equal(got, []string{"selected"}) {
		a.Errorf("listed %v", got)
	}
}

func getsWhatIsListed(a *asker) {
	a.put("got", "1")
	defer a.delete("got")
	var single object
	a.getInto(a.collection()+"/got", &single)
	if single.Kind == "" || single.APIVersion != "v1" {
		a.Errorf("a single object is a %+v", single.TypeMeta)
	}
	listed := a.list("fieldSelector=metadata.name%3Dgot").Items[0]
	if listed.UID != single.UID || listed.ResourceVersion != single.ResourceVersion || listed.Namespace != a.Namespace {
		a.Errorf("listed %+v, got %+v", listed.ObjectMeta, single.ObjectMeta)
	}
}
