package kubetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The API groups of the questions about who somebody is and what they may do.
const (
	authenticationGroup = "authentication.k8s.io"
	authorizationGroup  = "authorization.k8s.io"
)

// accessKinds are the kinds that access is about: accounts, roles and bindings,
// which are stored, and reviews, which are answered.
func accessKinds() []*Kind {
	review := func(group, kind string, f func(*Server, *call, *Kind, []byte) (any, error)) *Kind {
		return &Kind{Group: group, Version: "v1", Resource: strings.ToLower(kind) + "s", Kind: kind, review: f}
	}
	local := review(authorizationGroup, "LocalSubjectAccessReview", (*Server).reviewAccess)
	local.Namespaced = true
	return []*Kind{
		{Version: "v1", Resource: "serviceaccounts", Kind: "ServiceAccount", ShortNames: []string{"sa"}, Namespaced: true},
		{Group: rbacGroup, Version: "v1", Resource: "clusterroles", Kind: "ClusterRole", pathNames: true},
		{Group: rbacGroup, Version: "v1", Resource: "clusterrolebindings", Kind: "ClusterRoleBinding", pathNames: true},
		{Group: rbacGroup, Version: "v1", Resource: "roles", Kind: "Role", Namespaced: true, pathNames: true},
		{Group: rbacGroup, Version: "v1", Resource: "rolebindings", Kind: "RoleBinding", Namespaced: true, pathNames: true},
		review(authorizationGroup, "SelfSubjectAccessReview", (*Server).reviewOwnAccess),
		review(authorizationGroup, "SubjectAccessReview", (*Server).reviewAccess),
		local,
		review(authorizationGroup, "SelfSubjectRulesReview", (*Server).reviewRules),
		review(authenticationGroup, "TokenReview", (*Server).reviewToken),
		review(authenticationGroup, "SelfSubjectReview", (*Server).reviewSelf),
	}
}

// reviewMeta is what a review has for metadata.
type reviewMeta struct {
	Name      string `json:"name,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	UID       string `json:"uid,omitempty"`
	Created   string `json:"creationTimestamp,omitempty"`
}

// reviewHead is how every review begins.
type reviewHead struct {
	Kind       string     `json:"kind"`
	APIVersion string     `json:"apiVersion"`
	Metadata   reviewMeta `json:"metadata"`
}

// serveReview answers a create with the review, filled in.
func (s *Server) serveReview(c *call, k *Kind) error {
	switch {
	case c.attributes.Verb != "create":
		return methodNotAllowed()
	case k.Namespaced && c.attributes.Namespace == "":
		return methodNotAllowed()
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	reviewed, err := k.review(s, c, k, body)
	if err != nil {
		return err
	}
	return answer(c, reviewed)
}

func answer(c *call, created any) error {
	data, err := json.Marshal(created)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	writeJSON(c.w, c.r, http.StatusCreated, data)
	return nil
}

// decodeReview reads what was sent, whose kind may be left out.
func decodeReview(r *http.Request, body []byte, kind, version string, into any) error {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && media != "application/json" {
		return unsupportedMediaType("application/json")
	}
	var head struct{ Kind, APIVersion string }
	if err := json.Unmarshal(body, &head); err != nil {
		text := string(bytes.TrimSpace(body))
		if text == "" {
			text = "<empty>"
		}
		return badRequest("the object provided is unrecognized (must be of type %s): couldn't get version/kind; json parse error: %v (%s)", kind, err, text)
	}
	if head.Kind != "" && head.Kind != kind || head.APIVersion != "" && head.APIVersion != version {
		return badRequest("%s in version %q cannot be handled as a %s: it is another kind", head.Kind, head.APIVersion, kind)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return badRequest("%s in version %q cannot be handled as a %s: %v", kind, version, kind, err)
	}
	return nil
}

// accessReview is the four kinds of authorization.k8s.io/v1 that ask about one
// request, of which only some say who would make it.
type accessReview struct {
	reviewHead

	Spec   accessSpec   `json:"spec"`
	Status accessStatus `json:"status"`
}

type accessSpec struct {
	Resource    *resourceAccess     `json:"resourceAttributes,omitempty"`
	NonResource *nonResourceAccess  `json:"nonResourceAttributes,omitempty"`
	User        string              `json:"user,omitempty"`
	Groups      []string            `json:"groups,omitempty"`
	Extra       map[string][]string `json:"extra,omitempty"`
	UID         string              `json:"uid,omitempty"`
}

// resourceAccess leaves selectors out: no rule here looks at them.
type resourceAccess struct {
	Namespace   string `json:"namespace,omitempty"`
	Verb        string `json:"verb,omitempty"`
	Group       string `json:"group,omitempty"`
	Version     string `json:"version,omitempty"`
	Resource    string `json:"resource,omitempty"`
	Subresource string `json:"subresource,omitempty"`
	Name        string `json:"name,omitempty"`
}

type nonResourceAccess struct {
	Path string `json:"path,omitempty"`
	Verb string `json:"verb,omitempty"`
}

type accessStatus struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason,omitempty"`
}

// attributes are what the review asks about.
func (a accessSpec) attributes() Attributes {
	if r := a.Resource; r != nil {
		return Attributes{
			Verb: r.Verb, Group: r.Group, Version: r.Version, Resource: r.Resource, Subresource: r.Subresource, Namespace: r.Namespace, Name: r.Name,
		}
	}
	return Attributes{Verb: a.NonResource.Verb, Path: a.NonResource.Path}
}

// reviewOwnAccess answers SelfSubjectAccessReview.
func (s *Server) reviewOwnAccess(c *call, k *Kind, body []byte) (any, error) {
	review, err := readAccessReview(c, k, body)
	if err != nil {
		return nil, err
	}
	if causes := review.causes(); len(causes) > 0 {
		return nil, invalid(authorizationGroup, "", "", causes...)
	}
	review.Spec = accessSpec{Resource: review.Spec.Resource, NonResource: review.Spec.NonResource}
	return s.decideReview(review, c.user), nil
}

// reviewAccess answers SubjectAccessReview, and LocalSubjectAccessReview, which
// who may do so in one namespace only can ask.
func (s *Server) reviewAccess(c *call, k *Kind, body []byte) (any, error) {
	review, err := readAccessReview(c, k, body)
	if err != nil {
		return nil, err
	}
	causes := review.causes()
	if review.Spec.User == "" && len(review.Spec.Groups) == 0 {
		causes = append(causes, invalidValue("spec.user", "", "at least one of user or group must be specified"))
	}
	if k.Namespaced {
		causes = append(causes, review.localCauses(c.attributes.Namespace)...)
		review.Metadata.Namespace = c.attributes.Namespace
	}
	if len(causes) > 0 {
		return nil, invalid(authorizationGroup, "", "", causes...)
	}
	user := User{Name: review.Spec.User, UID: review.Spec.UID, Groups: review.Spec.Groups, Extra: review.Spec.Extra}
	return s.decideReview(review, user), nil
}

func readAccessReview(c *call, k *Kind, body []byte) (*accessReview, error) {
	review := &accessReview{}
	err := decodeReview(c.r, body, k.Kind, k.groupVersion(), review)
	review.reviewHead = reviewHead{Kind: k.Kind, APIVersion: k.groupVersion()}
	return review, err
}

func (s *Server) decideReview(review *accessReview, user User) *accessReview {
	d := s.authorize(user, review.Spec.attributes())
	review.Status = accessStatus{Allowed: d.allowed, Reason: d.reason}
	return review
}

// causes are what is wrong with any review of access.
func (a *accessReview) causes() []StatusCause {
	if (a.Spec.Resource == nil) != (a.Spec.NonResource == nil) {
		return nil
	}
	value := "null"
	if n := a.Spec.NonResource; n != nil {
		value = fmt.Sprintf(`{"Path":%q,"Verb":%q}`, n.Path, n.Verb)
	}
	return []StatusCause{{
		Reason:  "FieldValueInvalid",
		Message: "Invalid value: " + value + ": exactly one of nonResourceAttributes or resourceAttributes must be specified",
		Field:   "spec",
	}}
}

func (a *accessReview) localCauses(namespace string) (causes []StatusCause) {
	if r := a.Spec.Resource; r != nil && r.Namespace != namespace {
		causes = append(causes, invalidValue("spec.resourceAttributes.namespace", r.Namespace, "must match metadata.namespace"))
	}
	if a.Spec.NonResource != nil {
		causes = append(causes, invalidValue("spec.nonResourceAttributes", "", "disallowed on this kind of request"))
	}
	return causes
}

// rulesReview is SelfSubjectRulesReview. The API server does not repeat its spec.
type rulesReview struct {
	reviewHead

	Spec   struct{}    `json:"spec"`
	Status rulesStatus `json:"status"`
}

type rulesStatus struct {
	Resources       []resourceRule    `json:"resourceRules"`
	NonResources    []nonResourceRule `json:"nonResourceRules"`
	Incomplete      bool              `json:"incomplete"`
	EvaluationError string            `json:"evaluationError,omitempty"`
}

type resourceRule struct {
	Verbs         []string `json:"verbs"`
	APIGroups     []string `json:"apiGroups,omitempty"`
	Resources     []string `json:"resources,omitempty"`
	ResourceNames []string `json:"resourceNames,omitempty"`
}

type nonResourceRule struct {
	Verbs           []string `json:"verbs"`
	NonResourceURLs []string `json:"nonResourceURLs,omitempty"`
}

// reviewRules answers SelfSubjectRulesReview. It is incomplete where an
// [Options.Authorizer] decides too, which has no rules to show.
func (s *Server) reviewRules(c *call, k *Kind, body []byte) (any, error) {
	var asked struct {
		Spec struct {
			Namespace string `json:"namespace"`
		} `json:"spec"`
	}
	if err := decodeReview(c.r, body, k.Kind, k.groupVersion(), &asked); err != nil {
		return nil, err
	}
	if asked.Spec.Namespace == "" {
		return nil, badRequest("no namespace on request")
	}
	status := rulesStatus{Resources: []resourceRule{}, NonResources: []nonResourceRule{}, Incomplete: s.options.Authorizer != nil}
	var missing []error
	for _, r := range s.everyRule(c.user, asked.Spec.Namespace, &missing) {
		if len(r.Resources) > 0 {
			status.Resources = append(status.Resources, resourceRule{r.Verbs, r.APIGroups, r.Resources, r.ResourceNames})
		}
		if len(r.NonResourceURLs) > 0 {
			status.NonResources = append(status.NonResources, nonResourceRule{r.Verbs, r.NonResourceURLs})
		}
	}
	if len(missing) > 0 {
		status.EvaluationError = aggregate(missing)
	}
	return &rulesReview{reviewHead: reviewHead{Kind: k.Kind, APIVersion: k.groupVersion()}, Status: status}, nil
}

// everyRule is all that a user may do in a namespace.
func (s *Server) everyRule(user User, namespace string, missing *[]error) (all []Rule) {
	if !s.options.RBAC {
		return allRules
	}
	for _, rules := range s.rulesFor(user, namespace, missing) {
		all = append(all, rules...)
	}
	return all
}

// tokenReview is authentication.k8s.io/v1 TokenReview. As the API server does,
// it repeats the token.
type tokenReview struct {
	reviewHead

	Spec struct {
		Token     string   `json:"token,omitempty"`
		Audiences []string `json:"audiences,omitempty"`
	} `json:"spec"`
	Status tokenStatus `json:"status"`
}

type tokenStatus struct {
	Authenticated bool     `json:"authenticated,omitempty"`
	User          userInfo `json:"user"`
	Audiences     []string `json:"audiences,omitempty"`
	Error         string   `json:"error,omitempty"`
}

type userInfo struct {
	Username string              `json:"username,omitempty"`
	UID      string              `json:"uid,omitempty"`
	Groups   []string            `json:"groups,omitempty"`
	Extra    map[string][]string `json:"extra,omitempty"`
}

func (u User) info() userInfo { return userInfo{u.Name, u.UID, slices.Clone(u.Groups), u.Extra} }

// reviewToken answers TokenReview. A token that is not good is no error of the
// request.
func (s *Server) reviewToken(c *call, k *Kind, body []byte) (any, error) {
	review := &tokenReview{}
	if err := decodeReview(c.r, body, k.Kind, k.groupVersion(), review); err != nil {
		return nil, err
	}
	if review.Spec.Token == "" {
		return nil, badRequest("token is required for TokenReview in authentication")
	}
	review.reviewHead = reviewHead{Kind: k.Kind, APIVersion: k.groupVersion()}
	user, meant, err := s.identify(c.r.Context(), review.Spec.Token, review.Spec.Audiences)
	review.Status = tokenStatus{Authenticated: err == nil, User: user.info(), Audiences: meant}
	if err != nil {
		review.Status.Error = err.Error()
	}
	return review, nil
}

// selfReview is authentication.k8s.io/v1 SelfSubjectReview.
type selfReview struct {
	reviewHead

	Status struct {
		User userInfo `json:"userInfo"`
	} `json:"status"`
}

// reviewSelf answers SelfSubjectReview: who the request is from, as whom it
// counts.
func (s *Server) reviewSelf(c *call, k *Kind, body []byte) (any, error) {
	review := &selfReview{}
	if err := decodeReview(c.r, body, k.Kind, k.groupVersion(), review); err != nil {
		return nil, err
	}
	review.reviewHead = reviewHead{Kind: k.Kind, APIVersion: k.groupVersion(), Metadata: reviewMeta{Created: timestamp(time.Now())}}
	review.Status.User = c.user.info()
	return review, nil
}
