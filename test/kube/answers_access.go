package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Where access is asked about.
const (
	accessPath  = "/apis/authorization.k8s.io/v1/"
	subjectPath = "/apis/authentication.k8s.io/v1/"
	rolesPath   = "/apis/rbac.authorization.k8s.io/v1/"

	ownAccess = accessPath + "selfsubjectaccessreviews"
	access    = accessPath + "subjectaccessreviews"
	ownRules  = accessPath + "selfsubjectrulesreviews"
)

// caller is a service account that a row has for itself.
type caller struct {
	*asker

	name, token string
}

// caller makes an account that may do no more than everybody.
func (a *asker) caller(name string) caller {
	a.Helper()
	c := caller{asker: a, name: name}
	path := a.accounts()
	a.create(path, fmt.Sprintf(`{"metadata":{"name":%q}}`, name))
	c.token = c.request("{}")
	return c
}

func (a *asker) accounts() string { return "/api/v1/namespaces/" + a.Namespace + "/serviceaccounts" }

// request is a token of the account, as spec says.
func (c caller) request(spec string) string {
	c.Helper()
	answer := c.admin(http.MethodPost, c.accounts()+"/"+c.name+"/token", `{"spec":`+spec+`}`)
	var made struct{ Status struct{ Token string } }
	c.must(json.Unmarshal(answer.body, &made))
	if answer.code != http.StatusCreated || made.Status.Token == "" {
		c.Fatalf("a token for %s: %d %s", c.name, answer.code, answer.body)
	}
	return made.Status.Token
}

func (c caller) user() string { return serviceAccountUser(c.Namespace, c.name) }

// subject is the account in a binding.
func (c caller) subject() string {
	return fmt.Sprintf(`{"kind":"ServiceAccount","name":%q,"namespace":%q}`, c.name, c.Namespace)
}

// admin asks as the administrator.
func (a *asker) admin(method, path, body string) got {
	a.Helper()
	return a.send(method, path, body, bearer(a.Tokens.Admin))
}

// create makes an object and deletes it with the row.
func (a *asker) create(path, body string) {
	a.Helper()
	var named struct{ Metadata struct{ Name string } }
	a.must(json.Unmarshal([]byte(body), &named))
	if answer := a.admin(http.MethodPost, path, body); answer.code != http.StatusCreated {
		a.Fatalf("POST %s: %d %s", path, answer.code, answer.body)
	}
	a.Cleanup(func() { a.remove(path + "/" + named.Metadata.Name) })
}

// remove deletes an object, unless the row has.
func (a *asker) remove(path string) {
	a.Helper()
	request, err := http.NewRequest(http.MethodDelete, a.URL+path, nil) // without the context of the row, which may be over
	a.must(err)
	request.Header = bearer(a.Tokens.Admin)
	response, err := (&http.Client{Transport: a.transport, Timeout: answerTimeout}).Do(request)
	a.must(err)
	response.Body.Close()
	if response.StatusCode != http.StatusOK && response.StatusCode != http.StatusNotFound {
		a.Errorf("DELETE %s: %d", path, response.StatusCode)
	}
}

// grant binds a new role with the rules to the subject, in the namespace of the
// row. The API server may take a moment to go by it; see [asker.await].
func (a *asker) grant(name, rules, subject string) {
	a.Helper()
	in := rolesPath + "namespaces/" + a.Namespace + "/"
	a.create(in+"roles", fmt.Sprintf(`{"metadata":{"name":%q},"rules":%s}`, name, rules))
	a.bind(in+"rolebindings", name, "Role", name, subject)
}

// grantEverywhere is grant for the cluster.
func (a *asker) grantEverywhere(name, rules, subject string) {
	a.Helper()
	a.create(rolesPath+"clusterroles", fmt.Sprintf(`{"metadata":{"name":%q},"rules":%s}`, name, rules))
	a.bind(rolesPath+"clusterrolebindings", name, "ClusterRole", name, subject)
}

func (a *asker) bind(path, name, kind, role, subject string) {
	a.Helper()
	a.create(path, fmt.Sprintf(
		`{"metadata":{"name":%q},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":%q,"name":%q},"subjects":[%s]}`,
		name, kind, role, subject))
}

// await asks until the answer is as wanted. What was written of permissions and
// accounts counts a moment later.
func (a *asker) await(what string, ask func() got, wanted func(got) bool) {
	a.Helper()
	again := time.NewTicker(reviewInterval)
	defer again.Stop()
	for {
		answer := ask()
		if wanted(answer) {
			return
		}
		select {
		case <-again.C:
		case <-a.ctx.Done():
			a.Fatalf("%s: still %d %s", what, answer.code, answer.body)
		}
	}
}

// reviewed is what AccessAnswers reads of a review of access.
type reviewed struct {
	metav1.TypeMeta `json:",inline"`

	Spec   json.RawMessage
	Status json.RawMessage
}

// review asks what the caller may do, as attributes, in JSON, say.
func (c caller) review(attributes string) string {
	c.Helper()
	return c.reviewed(c.token, ownAccess, `{"resourceAttributes":`+attributes+`}`)
}

// reviewed is the status of a review.
func (a *asker) reviewed(token, path, spec string) string {
	a.Helper()
	answer := a.send(http.MethodPost, path, `{"spec":`+spec+`}`, bearer(token))
	var r reviewed
	a.must(json.Unmarshal(answer.body, &r))
	if answer.code != http.StatusCreated || answer.header.Get("Content-Type") != "application/json" {
		a.Fatalf("POST %s: %d %s", path, answer.code, answer.body)
	}
	return string(r.Status)
}

// wantReview asks until the caller's review says so.
func (c caller) wantReview(attributes, status string) {
	c.Helper()
	c.await(attributes, func() got { return got{body: []byte(c.review(attributes))} },
		func(g got) bool { return string(g.body) == status })
}

func allowedBecause(reason string) string {
	text, err := json.Marshal(reason)
	if err != nil {
		panic(err) // a string always has an encoding
	}
	return `{"allowed":true,"reason":` + string(text) + `}`
}

const notAllowed = `{"allowed":false}`

func accessAnswers() []answer {
	rows := []answer{
		{"discovery knows the reviews, which can only be created", discoversReviews},
		{"a review says what it was asked and no", reviewRepeats},
		{"a Role that allows it is the reason", reviewByRole},
		{"a ClusterRole that allows it is the reason", reviewByClusterRole},
		{"a ClusterRole bound in a namespace counts there", reviewByClusterRoleInNamespace},
		{"a user and a group are subjects too", reviewBySubjects},
		{"a rule may be for some names", reviewOfNames},
		{"a subresource is another resource", reviewOfSubresources},
		{"a star is everything", reviewOfStars},
		{"paths are reviewed too", reviewOfPaths},
		{"a role that does not exist is the reason of a no", reviewOfMissingRoles},
		{"what was given can be taken", reviewAfterRevocation},
		{"the review of another asks for a permission", reviewOfOthers},
		{"the group system:masters needs no reason", reviewOfMasters},
		{"the review of a namespace knows its namespace", reviewInNamespace},
		{"the rules of the caller", reviewOfRules},
	}
	for _, r := range reviewRefusals {
		rows = append(rows, answer{r.name, func(a *asker) {
			c := a.caller("refused-review")
			method := http.MethodPost
			if r.method != "" {
				method = r.method
			}
			token := c.token
			if r.admin {
				token = a.Tokens.Admin
			}
			refusal := refusal{code: r.code, reason: r.reason}
			answer := a.send(method, strings.ReplaceAll(r.path, "NAMESPACE", a.Namespace), r.body, bearer(token))
			refusal.check(a, answer)
			if got := a.status(answer).Message; r.message != "" && got != strings.ReplaceAll(r.message, "NAMESPACE", a.Namespace) {
				a.Errorf("message %q", got)
			}
		}})
	}
	return rows
}

const (
	exactlyOne = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
	someUser   = `spec.user: Invalid value: "": at least one of user or group must be specified`
)

// reviewRefusals are reviews that are not answered.
var reviewRefusals = []struct {
	name, method, path, body string
	admin                    bool
	code                     int
	reason                   metav1.StatusReason
	message                  string
}{
	{
		name: "a review of nothing", path: ownAccess, body: `{"spec":{}}`,
		code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid,
		message: `.authorization.k8s.io "" is invalid: spec: Invalid value: null: ` + exactlyOne,
	},
	{
		name: "a review of two things", path: ownAccess,
		body: `{"spec":{"resourceAttributes":{"verb":"get"},"nonResourceAttributes":{"path":"/x","verb":"get"}}}`,
		code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid,
		message: `.authorization.k8s.io "" is invalid: spec: Invalid value: {"Path":"/x","Verb":"get"}: ` + exactlyOne,
	},
	{
		name: "a review of nobody", path: access, body: `{"spec":{"resourceAttributes":{"verb":"get"}}}`, admin: true,
		code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid,
		message: `.authorization.k8s.io "" is invalid: ` + someUser,
	},
	{
		name: "a review of nobody and nothing", path: access, body: `{"spec":{}}`, admin: true,
		code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid,
		message: `.authorization.k8s.io "" is invalid: [spec: Invalid value: null: ` + exactlyOne + `, ` + someUser + `]`,
	},
	{
		name: "a review of another namespace than its own", path: accessPath + "namespaces/NAMESPACE/localsubjectaccessreviews",
		body: `{"spec":{"user":"x","resourceAttributes":{"verb":"get","namespace":"other"}}}`, admin: true,
		code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid,
		message: `.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: Invalid value: "other": must match metadata.namespace`,
	},
	{
		name: "a review without a body", path: ownAccess, code: badRequest, reason: reasonBadRequest,
		message: "the object provided is unrecognized (must be of type SelfSubjectAccessReview): couldn't get version/kind; " +
			"json parse error: unexpected end of JSON input (<empty>)",
	},
	{name: "a review that is another kind", path: ownAccess, body: `{"kind":"Pod","apiVersion":"v1"}`, code: badRequest, reason: reasonBadRequest},
	{name: "rules without a namespace", path: ownRules, body: `{"spec":{}}`, code: badRequest, reason: reasonBadRequest, message: "no namespace on request"},
	{name: "a list of reviews", method: http.MethodGet, path: ownAccess, admin: true, code: http.StatusMethodNotAllowed, reason: metav1.StatusReasonMethodNotAllowed},
	{name: "a review of a name", method: http.MethodGet, path: ownAccess + "/x", admin: true, code: notFound, reason: reasonNotFound},
	{
		name: "a review of everywhere in a namespace", path: accessPath + "namespaces/NAMESPACE/selfsubjectaccessreviews",
		body: `{"spec":{"resourceAttributes":{"verb":"get"}}}`, admin: true, code: notFound, reason: reasonNotFound,
	},
	{
		name: "a review of another by who may not", path: access, body: `{"spec":{"user":"x","resourceAttributes":{"verb":"get"}}}`,
		code: forbidden, reason: metav1.StatusReasonForbidden,
		message: `subjectaccessreviews.authorization.k8s.io is forbidden: User "system:serviceaccount:NAMESPACE:refused-review" ` +
			`cannot create resource "subjectaccessreviews" in API group "authorization.k8s.io" at the cluster scope`,
	},
}

func discoversReviews(a *asker) {
	for path, want := range map[string][]string{
		"/apis/authorization.k8s.io/v1":  {"localsubjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"},
		"/apis/authentication.k8s.io/v1": {"selfsubjectreviews", "tokenreviews"},
	} {
		var list metav1.APIResourceList
		a.must(json.Unmarshal(a.get(a.Tokens.Admin, path).body, &list))
		var names []string
		for _, r := range list.APIResources {
			names = append(names, r.Name)
			if !slices.Equal(r.Verbs, []string{"create"}) || r.Namespaced != strings.HasPrefix(r.Name, "local") || r.Name != r.SingularName+"s" {
				a.Errorf("%s: %+v", path, r)
			}
		}
		if !slices.Equal(names, want) {
			a.Errorf("%s lists %v", path, names)
		}
	}
}

func reviewRepeats(a *asker) {
	c := a.caller("asks")
	spec := `{"resourceAttributes":{"namespace":"n","verb":"list","group":"g","version":"v9","resource":"things","subresource":"s","name":"x"}}`
	answer := a.send(http.MethodPost, ownAccess, `{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1","spec":`+spec+`}`, bearer(c.token))
	var r reviewed
	a.must(json.Unmarshal(answer.body, &r))
	if answer.code != http.StatusCreated || r.Kind != "SelfSubjectAccessReview" || r.APIVersion != "authorization.k8s.io/v1" {
		a.Errorf("%d %s", answer.code, answer.body)
	}
	if string(r.Spec) != spec || string(r.Status) != notAllowed {
		a.Errorf("%s", answer.body)
	}
	of := `{"user":"root","groups":["system:masters"],` + strings.TrimPrefix(spec, "{") // as in the review of another
	answer = a.send(http.MethodPost, ownAccess, `{"spec":`+of+`}`, bearer(c.token))
	a.must(json.Unmarshal(answer.body, &r))
	if answer.code != http.StatusCreated || string(r.Spec) != spec || string(r.Status) != notAllowed {
		a.Errorf("of another: %d %s", answer.code, answer.body)
	}
}

// one is a rule in JSON.
func one(group, resources, verbs string, names ...string) string {
	list := func(text string) string { return `["` + strings.ReplaceAll(text, ",", `","`) + `"]` }
	rule := fmt.Sprintf(`{"apiGroups":[%q],"resources":%s,"verbs":%s`, group, list(resources), list(verbs))
	if len(names) > 0 {
		rule += `,"resourceNames":` + list(strings.Join(names, ","))
	}
	return rule + `}`
}

// rules is a list of them.
func rules(all ...string) string { return "[" + strings.Join(all, ",") + "]" }

// in are attributes within the namespace of the row; extra is more of them.
func (a *asker) in(verb, resource, extra string) string {
	return fmt.Sprintf(`{"namespace":%q,"verb":%q,"resource":%q%s}`, a.Namespace, verb, resource, extra)
}

func (c caller) byRoleBinding(name string) string {
	return allowedBecause(fmt.Sprintf(`RBAC: allowed by RoleBinding "%s/%s" of Role %q to ServiceAccount "%s/%s"`, name, c.Namespace, name, c.name, c.Namespace))
}

func reviewByRole(a *asker) {
	c := a.caller("by-role")
	a.grant("lists-pods", rules(one("", "pods", "list")), c.subject())
	c.wantReview(a.in("list", "pods", ""), c.byRoleBinding("lists-pods"))
	for _, no := range []string{
		a.in("get", "pods", ""), a.in("list", "secrets", ""), a.in("list", "pods", `,"group":"apps"`),
		a.in("list", "pods", `,"subresource":"log"`), `{"verb":"list","resource":"pods"}`, `{"verb":"list","resource":"pods","namespace":"other"}`,
	} {
		if got := c.review(no); got != notAllowed {
			a.Errorf("%s: %s", no, got)
		}
	}
	if got, want := c.review(a.in("list", "pods", `,"version":"v9","name":"x"`)), c.byRoleBinding("lists-pods"); got != want {
		a.Errorf("another version: %s", got)
	}
}

func reviewByClusterRole(a *asker) {
	c := a.caller("by-cluster-role")
	a.grantEverywhere("answers-lists-nodes", rules(one("", "nodes,pods", "list")), c.subject())
	want := allowedBecause(fmt.Sprintf(
		`RBAC: allowed by ClusterRoleBinding "answers-lists-nodes" of ClusterRole "answers-lists-nodes" to ServiceAccount "%s/%s"`, c.name, c.Namespace))
	c.wantReview(`{"verb":"list","resource":"nodes"}`, want)
	if got := c.review(a.in("list", "pods", "")); got != want {
		a.Errorf("in a namespace: %s", got)
	}
}

func reviewByClusterRoleInNamespace(a *asker) {
	c := a.caller("by-both")
	a.create(rolesPath+"clusterroles", `{"metadata":{"name":"answers-gets-pods"},"rules":`+rules(one("", "pods", "get"))+`}`)
	a.bind(rolesPath+"namespaces/"+a.Namespace+"/rolebindings", "here", "ClusterRole", "answers-gets-pods",
		fmt.Sprintf(`{"kind":"ServiceAccount","name":%q}`, c.name))
	c.wantReview(a.in("get", "pods", ""), allowedBecause(fmt.Sprintf(
		`RBAC: allowed by RoleBinding "here/%s" of ClusterRole "answers-gets-pods" to ServiceAccount "%s/%s"`, a.Namespace, c.name, a.Namespace)))
	if got := c.review(`{"verb":"get","resource":"pods"}`); got != notAllowed {
		a.Errorf("everywhere: %s", got)
	}
}

func reviewBySubjects(a *asker) {
	c := a.caller("by-subject")
	group := "system:serviceaccounts:" + a.Namespace
	a.grant("of-user", rules(one("", "pods", "get")), fmt.Sprintf(`{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":%q}`, c.user()))
	a.grant("of-group", rules(one("", "pods", "list")), fmt.Sprintf(`{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":%q}`, group))
	c.wantReview(a.in("get", "pods", ""), allowedBecause(fmt.Sprintf(
		`RBAC: allowed by RoleBinding "of-user/%s" of Role "of-user" to User %q`, a.Namespace, c.user())))
	c.wantReview(a.in("list", "pods", ""), allowedBecause(fmt.Sprintf(
		`RBAC: allowed by RoleBinding "of-group/%s" of Role "of-group" to Group %q`, a.Namespace, group)))
}

func reviewOfNames(a *asker) {
	c := a.caller("by-name")
	a.grant("one-pod", rules(one("", "pods", "get,list,create", "this")), c.subject())
	c.wantReview(a.in("get", "pods", `,"name":"this"`), c.byRoleBinding("one-pod"))
	for _, no := range []string{a.in("get", "pods", `,"name":"that"`), a.in("list", "pods", ""), a.in("create", "pods", "")} {
		if got := c.review(no); got != notAllowed {
			a.Errorf("%s: %s", no, got)
		}
	}
}

func reviewOfSubresources(a *asker) {
	c := a.caller("by-subresource")
	a.grant("logs", rules(one("", "pods/log,*/scale", "get")), c.subject())
	c.wantReview(a.in("get", "pods", `,"subresource":"log"`), c.byRoleBinding("logs"))
	for _, yes := range []string{a.in("get", "pods/log", ""), a.in("get", "anything", `,"subresource":"scale"`)} {
		if got := c.review(yes); got != c.byRoleBinding("logs") {
			a.Errorf("%s: %s", yes, got)
		}
	}
	for _, no := range []string{a.in("get", "pods", ""), a.in("get", "pods", `,"subresource":"exec"`)} {
		if got := c.review(no); got != notAllowed {
			a.Errorf("%s: %s", no, got)
		}
	}
}

func reviewOfStars(a *asker) {
	c := a.caller("by-star")
	a.grant("stars", rules(one("*", "*", "*")), c.subject())
	for _, yes := range []string{
		a.in("get", "pods", ""), a.in("create", "pods", `,"subresource":"exec"`), a.in("invent", "things", `,"group":"g.example"`), a.in("*", "*", `,"group":"*"`),
	} {
		c.wantReview(yes, c.byRoleBinding("stars"))
	}
	plain := a.caller("by-no-star")
	a.grant("no-stars", rules(one("", "pods", "get,list,watch")), plain.subject())
	plain.wantReview(a.in("get", "pods", ""), plain.byRoleBinding("no-stars"))
	if got := plain.review(a.in("*", "pods", "")); got != notAllowed {
		a.Errorf("every verb: %s", got)
	}
}

func reviewOfPaths(a *asker) {
	c := a.caller("by-path")
	a.grantEverywhere("answers-paths", `[{"verbs":["get"],"nonResourceURLs":["/measures","/logs/*"]}]`, c.subject())
	ask := func(verb, path string) string {
		return a.reviewed(c.token, ownAccess, fmt.Sprintf(`{"nonResourceAttributes":{"path":%q,"verb":%q}}`, path, verb))
	}
	want := allowedBecause(fmt.Sprintf(
		`RBAC: allowed by ClusterRoleBinding "answers-paths" of ClusterRole "answers-paths" to ServiceAccount "%s/%s"`, c.name, c.Namespace))
	a.await("paths", func() got { return got{body: []byte(ask("get", "/measures"))} }, func(g got) bool { return string(g.body) == want })
	if got := ask("get", "/logs/kubelet.log"); got != want {
		a.Errorf("below a star: %s", got)
	}
	for _, no := range [][2]string{{"post", "/measures"}, {"get", "/measures/more"}, {"get", "/log"}} {
		if got := ask(no[0], no[1]); got != notAllowed {
			a.Errorf("%s %s: %s", no[0], no[1], got)
		}
	}
}

func reviewOfMissingRoles(a *asker) {
	c := a.caller("bound-to-nothing")
	a.bind(rolesPath+"clusterrolebindings", "answers-to-nothing", "ClusterRole", "answers-nowhere", c.subject())
	a.bind(rolesPath+"namespaces/"+a.Namespace+"/rolebindings", "to-nothing", "Role", "nowhere", c.subject())
	const both = `rbac: RBAC: [clusterrole.rbac.authorization.k8s.io "answers-nowhere" not found, role.rbac.authorization.k8s.io "nowhere" not found]`
	text, err := json.Marshal(both)
	a.must(err)
	c.wantReview(a.in("list", "pods", ""), `{"allowed":false,"reason":`+string(text)+`}`)
	answer := a.get(c.token, "/api/v1/namespaces/"+a.Namespace+"/pods")
	want := fmt.Sprintf(`pods is forbidden: User %q cannot list resource "pods" in API group "" in the namespace %q: %s`, c.user(), a.Namespace, both)
	if status := a.status(answer); answer.code != forbidden || status.Message != want {
		a.Errorf("%d %q, want %q", answer.code, status.Message, want)
	}
}

func reviewAfterRevocation(a *asker) {
	c := a.caller("revoked")
	a.grant("for-a-while", rules(one("", "pods", "list")), c.subject())
	c.wantReview(a.in("list", "pods", ""), c.byRoleBinding("for-a-while"))
	a.remove(rolesPath + "namespaces/" + a.Namespace + "/rolebindings/for-a-while")
	c.wantReview(a.in("list", "pods", ""), notAllowed)
}

func reviewOfOthers(a *asker) {
	c := a.caller("reviewer")
	a.grantEverywhere("answers-reviewer", rules(one("authorization.k8s.io", "subjectaccessreviews", "create")), c.subject())
	a.grant("of-erin", rules(one("", "pods", "get")), `{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"erin"}`)
	ask := func() got {
		return a.send(http.MethodPost, access, `{"spec":{"user":"erin","resourceAttributes":`+a.in("get", "pods", "")+`}}`, bearer(c.token))
	}
	want := allowedBecause(fmt.Sprintf(`RBAC: allowed by RoleBinding "of-erin/%s" of Role "of-erin" to User "erin"`, a.Namespace))
	a.await("a review of erin", ask, func(g got) bool {
		var r reviewed
		return g.code == http.StatusCreated && json.Unmarshal(g.body, &r) == nil && string(r.Status) == want
	})
	if got := a.reviewed(c.token, access, `{"user":"frank","groups":["erin"],"resourceAttributes":`+a.in("get", "pods", "")+`}`); got != notAllowed {
		a.Errorf("of frank: %s", got)
	}
}

func reviewOfMasters(a *asker) {
	spec := `{"user":"anybody","groups":["system:masters"],"uid":"u","extra":{"a":["b"]},"resourceAttributes":{"verb":"anything","resource":"things"}}`
	if got := a.reviewed(a.Tokens.Admin, access, spec); got != `{"allowed":true}` {
		a.Errorf("%s", got)
	}
}

func reviewInNamespace(a *asker) {
	a.grant("of-gail", rules(one("", "pods", "get")), `{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"gail"}`)
	path := accessPath + "namespaces/" + a.Namespace + "/localsubjectaccessreviews"
	want := allowedBecause(fmt.Sprintf(`RBAC: allowed by RoleBinding "of-gail/%s" of Role "of-gail" to User "gail"`, a.Namespace))
	a.await("a review of gail", func() got {
		return got{body: []byte(a.reviewed(a.Tokens.Admin, path, `{"user":"gail","resourceAttributes":`+a.in("get", "pods", "")+`}`))}
	}, func(g got) bool { return string(g.body) == want })
}

func reviewOfRules(a *asker) {
	c := a.caller("has-rules")
	a.grant("rules", rules(one("", "pods", "get,list", "this"), one("apps", "deployments", "watch")), c.subject())
	type rule struct{ Verbs, APIGroups, Resources, ResourceNames []string }
	var status struct {
		ResourceRules    []rule
		NonResourceRules []struct{ Verbs, NonResourceURLs []string }
		Incomplete       bool
		EvaluationError  string
	}
	has := func(want rule) bool {
		return slices.ContainsFunc(status.ResourceRules, func(r rule) bool {
			return slices.Equal(r.Verbs, want.Verbs) && slices.Equal(r.APIGroups, want.APIGroups) && slices.Equal(r.Resources, want.Resources) && slices.Equal(r.ResourceNames, want.ResourceNames)
		})
	}
	a.await("the rules", func() got {
		return got{body: []byte(a.reviewed(c.token, ownRules, fmt.Sprintf(`{"namespace":%q}`, a.Namespace)))}
	}, func(g got) bool {
		a.must(json.Unmarshal(g.body, &status))
		return has(rule{[]string{"get", "list"}, []string{""}, []string{"pods"}, []string{"this"}})
	})
	if !has(rule{[]string{"watch"}, []string{"apps"}, []string{"deployments"}, nil}) ||
		!has(rule{[]string{"create"}, []string{"authentication.k8s.io"}, []string{"selfsubjectreviews"}, nil}) {
		a.Errorf("%+v", status.ResourceRules)
	}
	if status.Incomplete || status.EvaluationError != "" || len(status.NonResourceRules) == 0 {
		a.Errorf("%+v", status)
	}
	var other struct{ ResourceRules []rule }
	a.must(json.Unmarshal([]byte(a.reviewed(c.token, ownRules, `{"namespace":"other"}`)), &other))
	if slices.ContainsFunc(other.ResourceRules, func(r rule) bool { return slices.Contains(r.Resources, "pods") }) {
		a.Errorf("in another namespace: %+v", other)
	}
}

var permissionAnswers = []answer{
	{"a refusal names the user, the verb, the resource and where", refusesByName},
	{"an exec needs get and create", func(a *asker) { connectNeedsBoth(a, "exec") }},
	{"an attachment needs get and create", func(a *asker) { connectNeedsBoth(a, "attach") }},
	{"a port-forward needs get and create", func(a *asker) { connectNeedsBoth(a, "portforward") }},
	{"what is taken is refused from then on", refusesAfterRevocation},
}

func refusesByName(a *asker) {
	c := a.caller("may-nothing")
	in := "/api/v1/namespaces/" + a.Namespace
	for _, row := range []struct{ path, subject, cannot string }{
		{in + "/pods", "pods", fmt.Sprintf(`list resource "pods" in API group "" in the namespace %q`, a.Namespace)},
		{in + "/pods?watch=1", "pods", fmt.Sprintf(`watch resource "pods" in API group "" in the namespace %q`, a.Namespace)},
		{in + "/pods/x", `pods "x"`, fmt.Sprintf(`get resource "pods" in API group "" in the namespace %q`, a.Namespace)},
		{in + "/pods/x/log", `pods "x"`, fmt.Sprintf(`get resource "pods/log" in API group "" in the namespace %q`, a.Namespace)},
		{in + "/pods/x/exec", `pods "x"`, fmt.Sprintf(`get resource "pods/exec" in API group "" in the namespace %q`, a.Namespace)},
		{"/api/v1/nodes", "nodes", `list resource "nodes" in API group "" at the cluster scope`},
		{"/apis/apps/v1/deployments", "deployments.apps", `list resource "deployments" in API group "apps" at the cluster scope`},
		{"/measures", "", `get path "/measures"`},
	} {
		answer := a.get(c.token, row.path)
		want := strings.TrimPrefix(row.subject+" is forbidden", " is ") + fmt.Sprintf(": User %q cannot %s", c.user(), row.cannot)
		if got := a.status(answer).Message; answer.code != forbidden || got != want {
			a.Errorf("GET %s: %d %q, want %q", row.path, answer.code, got, want)
		}
	}
}

// connectNeedsBoth pins that the second of the permissions is refused without a
// word about what is missing.
func connectNeedsBoth(a *asker, subresource string) {
	path := "/api/v1/namespaces/" + a.Namespace + "/pods/nobody/" + subresource
	c := a.caller("connects-" + subresource)
	cannotGet := fmt.Sprintf(`pods "nobody" is forbidden: User %q cannot get resource "pods/%s" in API group "" in the namespace %q`, c.user(), subresource, a.Namespace)
	connect := func() got {
		_, answer := a.dial(handshake{token: c.token, protocols: []string{channelsV5}}, path+"?command=true&stdout=true")
		return answer
	}
	says := func(code int, message string) func(got) bool {
		return func(g got) bool { return g.code == code && a.status(g).Message == message }
	}
	a.grant("creates-"+subresource, rules(one("", "pods/"+subresource, "create")), c.subject())
	c.wantReview(a.in("create", "pods", `,"subresource":"`+subresource+`"`), c.byRoleBinding("creates-"+subresource))
	if answer := connect(); !says(forbidden, cannotGet)(answer) {
		a.Errorf("with create alone: %d %s, want %s", answer.code, answer.body, cannotGet)
	}
	a.grant("gets-"+subresource, rules(one("", "pods/"+subresource, "get")), c.subject())
	a.await("get and create", connect, says(notFound, `pods "nobody" not found`))
	a.remove(rolesPath + "namespaces/" + a.Namespace + "/rolebindings/creates-" + subresource)
	a.await("get alone", connect, says(forbidden, `pods "nobody" is forbidden: `))
}

func refusesAfterRevocation(a *asker) {
	c := a.caller("for-a-time")
	path := "/api/v1/namespaces/" + a.Namespace + "/pods"
	a.grant("may-list", rules(one("", "pods", "list,watch")), c.subject())
	list := func() got { return a.get(c.token, path+"?limit=1") }
	a.await("a list that is allowed", list, func(g got) bool { return g.code == http.StatusOK })
	socket, _ := a.dial(handshake{token: c.token, origin: a.URL}, path+"?watch=1&resourceVersion="+a.version(c.token, path))
	if socket == nil {
		a.Fatal("a watch that is allowed is refused")
	}
	a.remove(rolesPath + "namespaces/" + a.Namespace + "/rolebindings/may-list")
	a.await("a list that is not allowed any more", list, func(g got) bool { return g.code == forbidden })
	pong := errors.New("pong")
	socket.SetPongHandler(func(string) error { return pong })
	a.must(socket.WriteControl(websocket.PingMessage, nil, time.Now().Add(answerTimeout)))
	if _, _, err := socket.ReadMessage(); err != pong { //nolint:errorlint // it is the handler's own, as it is
		a.Errorf("a watch from before: %v, want it to go on", err)
	}
}

// version is the resourceVersion of a collection.
func (a *asker) version(token, path string) string {
	a.Helper()
	var list metav1.PartialObjectMetadataList
	a.must(json.Unmarshal(a.get(token, path+"?limit=1").body, &list))
	return list.ResourceVersion
}
