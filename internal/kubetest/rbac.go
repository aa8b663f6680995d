package kubetest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// rbacGroup is the API group of roles and bindings.
const rbacGroup = "rbac.authorization.k8s.io"

// Rule is a rule of a role: rbac.authorization.k8s.io/v1 PolicyRule. "*" stands
// for all.
type Rule struct {
	Verbs           []string `json:"verbs"`
	APIGroups       []string `json:"apiGroups,omitempty"`
	Resources       []string `json:"resources,omitempty"` // "pods", "pods/exec", "*/exec"
	ResourceNames   []string `json:"resourceNames,omitempty"`
	NonResourceURLs []string `json:"nonResourceURLs,omitempty"` // a "*" at the end stands for any rest
}

// Subject is whom a binding is for: rbac.authorization.k8s.io/v1 Subject.
type Subject struct {
	Kind      string `json:"kind"` // User, Group or ServiceAccount
	APIGroup  string `json:"apiGroup,omitempty"`
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"` // of a ServiceAccount
}

// UserSubject is the user of this name.
func UserSubject(name string) Subject { return Subject{Kind: "User", APIGroup: rbacGroup, Name: name} }

// GroupSubject is who is in the group.
func GroupSubject(name string) Subject {
	return Subject{Kind: "Group", APIGroup: rbacGroup, Name: name}
}

// ServiceAccountSubject is a service account.
func ServiceAccountSubject(namespace, name string) Subject {
	return Subject{Kind: "ServiceAccount", Name: name, Namespace: namespace}
}

// Grant gives the rules to the subjects: in the namespace by a Role and a
// RoleBinding, or everywhere by a ClusterRole and a ClusterRoleBinding if that is
// empty. Both have the name, and are replaced if they exist. It counts where
// [Options.RBAC] is set. The errors are of type [*Status].
func (s *Server) Grant(namespace, name string, rules []Rule, to ...Subject) error {
	role, binding := "Role", "RoleBinding"
	meta := map[string]any{"name": name, "namespace": namespace}
	if namespace == "" {
		role, binding, meta = "ClusterRole", "ClusterRoleBinding", map[string]any{"name": name}
	}
	const version = rbacGroup + "/v1"
	if _, err := s.Apply(Object{"apiVersion": version, "kind": role, "metadata": meta, "rules": rules}); err != nil {
		return err
	}
	_, err := s.Apply(Object{
		"apiVersion": version, "kind": binding, "metadata": meta, "subjects": to,
		"roleRef": map[string]any{"apiGroup": rbacGroup, "kind": role, "name": name},
	})
	return err
}

// Revoke deletes the binding of a [Server.Grant]; the role stays. The errors are
// of type [*Status].
func (s *Server) Revoke(namespace, name string) error {
	resource := "rolebindings"
	if namespace == "" {
		resource = "clusterrolebindings"
	}
	return s.Delete(rbacGroup, resource, namespace, name)
}

// allRules allow everything.
var allRules = []Rule{
	{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}},
	{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}},
}

// grantDefaults makes the roles and bindings without which nobody could look
// around, as every API server does with RBAC.
func (s *Server) grantDefaults() error {
	discovery := []Rule{{Verbs: []string{"get"}, NonResourceURLs: []string{
		"/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/",
	}}}
	self := []Rule{
		{Verbs: []string{"create"}, APIGroups: []string{authorizationGroup}, Resources: []string{"selfsubjectaccessreviews", "selfsubjectrulesreviews"}},
		{Verbs: []string{"create"}, APIGroups: []string{authenticationGroup}, Resources: []string{"selfsubjectreviews"}},
	}
	public := []Rule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz", "/livez", "/readyz", "/version", "/version/"}}}
	for _, grant := range []struct {
		name  string
		rules []Rule
		to    []Subject
	}{
		{"cluster-admin", allRules, []Subject{GroupSubject(privilegedGroup)}},
		{"system:discovery", discovery, []Subject{GroupSubject(authenticatedGroup)}},
		{"system:basic-user", self, []Subject{GroupSubject(authenticatedGroup)}},
		{"system:public-info-viewer", public, []Subject{GroupSubject(authenticatedGroup), GroupSubject(unauthenticatedGroup)}},
	} {
		if err := s.Grant("", grant.name, grant.rules, grant.to...); err != nil {
			return fmt.Errorf("grant %s: %w", grant.name, err)
		}
	}
	return nil
}

// binding is a RoleBinding or a ClusterRoleBinding.
type binding struct {
	kind      string
	namespace string
	name      string

	Subjects []Subject `json:"subjects"`
	RoleRef  struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"roleRef"`
}

// decideByRoles looks for a rule that allows it. What the bindings name and
// nobody has made is the reason of a refusal.
func (s *Server) decideByRoles(user User, a Attributes) decision {
	var missing []error
	for from, rules := range s.rulesFor(user, a.Namespace, &missing) {
		if slices.ContainsFunc(rules, func(r Rule) bool { return r.allows(a) }) {
			return decision{allowed: true, reason: "RBAC: allowed by " + from}
		}
	}
	if len(missing) > 0 {
		return decision{reason: "rbac: RBAC: " + aggregate(missing)}
	}
	return decision{}
}

// rulesFor yields the rules that a user has in a namespace, or everywhere if that
// is empty, with the binding that gives them in the API server's words: those
// of the cluster first. It adds to missing what is bound and does not exist.
func (s *Server) rulesFor(user User, namespace string, missing *[]error) iter.Seq2[string, []Rule] {
	return func(yield func(string, []Rule) bool) {
		for _, b := range s.bindings(namespace) {
			subject := slices.IndexFunc(b.Subjects, func(x Subject) bool { return x.is(user, b.namespace) })
			if subject < 0 {
				continue
			}
			rules, err := s.roleRules(b)
			if err != nil {
				*missing = append(*missing, err)
				continue
			}
			if !yield(b.describe(b.Subjects[subject]), rules) {
				return
			}
		}
	}
}

// bindings are those of the cluster and, unless it is empty, of the namespace.
func (s *Server) bindings(namespace string) []binding {
	out := s.bindingsOf("clusterrolebindings", "")
	if namespace != "" {
		out = append(out, s.bindingsOf("rolebindings", namespace)...)
	}
	return out
}

func (s *Server) bindingsOf(resource, namespace string) (out []binding) {
	k := s.kind(rbacGroup, resource)
	all, _, _ := s.store.snapshot(k, 0)
	for _, r := range all {
		if r.namespace != namespace {
			continue
		}
		b := binding{kind: k.Kind, namespace: r.namespace, name: r.name}
		if err := json.Unmarshal(r.encoded, &b); err != nil {
			s.options.Logger.Error("binding is not understood and gives nothing", "kind", k.Kind, "name", r.path, "err", err)
			continue
		}
		out = append(out, b)
	}
	return out
}

// roleRules are the rules of the role that a binding refers to.
func (s *Server) roleRules(b binding) ([]Rule, error) {
	k, at := s.kind(rbacGroup, "clusterroles"), key{name: b.RoleRef.Name}
	if b.RoleRef.Kind == "Role" {
		k, at = s.kind(rbacGroup, "roles"), key{b.namespace, b.RoleRef.Name}
	}
	r, err := s.store.get(k, at)
	if err != nil {
		return nil, fmt.Errorf("%s.%s %q not found", k.singular(), rbacGroup, b.RoleRef.Name)
	}
	var role struct {
		Rules []Rule `json:"rules"`
	}
	if err := json.Unmarshal(r.encoded, &role); err != nil {
		return nil, fmt.Errorf("read %s %q: %w", k.qualified(), r.path, err)
	}
	return role.Rules, nil
}

// describe names a binding and the subject that the user is, in the API server's
// words, with the namespace after the name.
func (b binding) describe(to Subject) string {
	name, subject := b.name, to.Name
	if b.namespace != "" {
		name += "/" + b.namespace
	}
	if to.Kind == "ServiceAccount" {
		subject += "/" + cmp.Or(to.Namespace, b.namespace)
	}
	return fmt.Sprintf("%s %q of %s %q to %s %q", b.kind, name, b.RoleRef.Kind, b.RoleRef.Name, to.Kind, subject)
}

// is says whether a binding of the namespace means the user by x.
func (x Subject) is(user User, namespace string) bool {
	switch x.Kind {
	case "User":
		return user.Name == x.Name
	case "Group":
		return slices.Contains(user.Groups, x.Name)
	case "ServiceAccount":
		in := cmp.Or(x.Namespace, namespace)
		return in != "" && user.Name == accountUserPrefix+in+":"+x.Name
	default:
		return false
	}
}

// allows says whether a rule covers a request.
func (r Rule) allows(a Attributes) bool {
	if !slices.Contains(r.Verbs, "*") && !slices.Contains(r.Verbs, a.Verb) {
		return false
	}
	if a.Resource == "" {
		return slices.ContainsFunc(r.NonResourceURLs, func(url string) bool { return urlCovers(url, a.Path) })
	}
	return (slices.Contains(r.APIGroups, "*") || slices.Contains(r.APIGroups, a.Group)) &&
		slices.ContainsFunc(r.Resources, func(resource string) bool { return resourceCovers(resource, a) }) &&
		(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, a.Name))
}

func urlCovers(url, path string) bool {
	prefix, open := strings.CutSuffix(url, "*")
	return url == path || open && strings.HasPrefix(path, strings.TrimRight(prefix, "*"))
}

func resourceCovers(resource string, a Attributes) bool {
	asked := a.Resource
	if a.Subresource != "" {
		asked += "/" + a.Subresource
	}
	return resource == "*" || resource == asked || a.Subresource != "" && resource == "*/"+a.Subresource
}

// aggregate prints several errors as the API server does, each text once.
func aggregate(errs []error) string {
	var texts []string
	for _, err := range errs {
		if !slices.Contains(texts, err.Error()) {
			texts = append(texts, err.Error())
		}
	}
	if len(texts) == 1 {
		return texts[0]
	}
	return "[" + strings.Join(texts, ", ") + "]"
}
