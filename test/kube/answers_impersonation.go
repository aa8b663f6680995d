package kube

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var impersonationAnswers = []answer{
	{"who is impersonated is who asks", impersonatesWhole},
	{"without groups there are those that everybody has", impersonatesBare},
	{"what the impersonated may not do is refused in their name", refusesImpersonated},
	{"a handshake is impersonated too", impersonatesHandshake},
	{"an empty user impersonates nobody", impersonatesNobody},
	{"groups, uid and extra need a user", refusesWithoutUser},
	{"who may not impersonate is told the newest way", refusesImpersonation},
	{"each part of an identity is a permission", impersonatesInParts},
	{"a service account is a permission in its namespace", impersonatesAccounts},
	{"impersonation can be for some requests only", impersonatesConstrained},
}

// as is a header that impersonates; parts are pairs of name and value.
func as(token string, parts ...string) http.Header {
	header := bearer(token)
	for i := 0; i < len(parts); i += 2 {
		header.Add("Impersonate-"+parts[i], parts[i+1])
	}
	return header
}

func (a *asker) pods() string { return "/api/v1/namespaces/" + a.Namespace + "/pods" }

func impersonatesWhole(a *asker) {
	got := a.whoami(as(a.Tokens.Admin,
		"User", "mallory", "Group", "g1", "Group", "g2", "Uid", "77", "Extra-Scopes", "read", "Extra-scopes", "write", "Extra-Acme.Example%2fProject", "p"))
	want := subjectInfo{"mallory", "77", []string{"g1", "g2", "system:authenticated"}, map[string][]string{"scopes": {"read", "write"}, "acme.example/project": {"p"}}}
	if !reflect.DeepEqual(got, want) {
		a.Errorf("%+v, want %+v", got, want)
	}
	if got := a.whoami(as(a.Tokens.Admin, "User", "first", "User", "second")); got.Username != "first" {
		a.Errorf("of two users %+v", got)
	}
}

func impersonatesBare(a *asker) {
	for user, groups := range map[string][]string{
		"mallory": {"system:authenticated"},
		"system:serviceaccount:" + a.Namespace + ":default": {"system:serviceaccounts", "system:serviceaccounts:" + a.Namespace, "system:authenticated"},
	} {
		if got := a.whoami(as(a.Tokens.Admin, "User", user)); got.Username != user || !reflect.DeepEqual(got.Groups, groups) || got.UID != "" || len(got.Extra) > 0 {
			a.Errorf("%s is %+v", user, got)
		}
	}
	for _, header := range []http.Header{as(a.Tokens.Admin, "User", "system:anonymous"), as(a.Tokens.Admin, "User", "mallory", "Group", "system:unauthenticated")} {
		if answer := a.send(http.MethodPost, ownSubject, "{}", header); answer.code != forbidden {
			a.Errorf("%v may ask who they are: %d %s", header, answer.code, answer.body)
		}
	}
	got := a.whoami(as(a.Tokens.Admin, "User", "system:serviceaccount:"+a.Namespace+":default", "Group", "g"))
	if !reflect.DeepEqual(got.Groups, []string{"g", "system:authenticated"}) {
		a.Errorf("an account with a group named is %+v", got)
	}
}

// wantRefused asks and checks the text of the refusal.
func (a *asker) wantRefused(path string, header http.Header, message string) {
	a.Helper()
	answer := a.send(http.MethodGet, path, "", header)
	refusal{code: forbidden, reason: metav1.StatusReasonForbidden}.check(a, answer)
	if got := a.status(answer).Message; got != message {
		a.Errorf("GET %s: %q, want %q", path, got, message)
	}
}

func (a *asker) cannotList(user string) string {
	return fmt.Sprintf(`pods is forbidden: User %q cannot list resource "pods" in API group "" in the namespace %q`, user, a.Namespace)
}

func refusesImpersonated(a *asker) {
	a.wantRefused(a.pods(), as(a.Tokens.Admin, "User", "mallory"), a.cannotList("mallory"))
}

func impersonatesHandshake(a *asker) {
	a.grant("of-heidi", rules(one("", "pods", "list,watch")), `{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"heidi"}`)
	list := func() got { return a.send(http.MethodGet, a.pods(), "", as(a.Tokens.Admin, "User", "heidi")) }
	a.await("a list by heidi", list, func(g got) bool { return g.code == http.StatusOK })
	for user, code := range map[string]int{"heidi": http.StatusSwitchingProtocols, "ivan": forbidden} {
		say := handshake{token: a.Tokens.Admin, origin: a.URL, header: as("", "User", user)}
		_, answer := a.dial(say, a.pods()+"?watch=1")
		if answer.code != code {
			a.Errorf("a watch as %s: %d %s", user, answer.code, answer.body)
		}
	}
}

func impersonatesNobody(a *asker) {
	c := a.caller("nobody-else")
	if got := a.whoami(as(c.token, "User", "")); got.Username != c.user() {
		a.Errorf("%+v", got)
	}
}

func refusesWithoutUser(a *asker) {
	const none = " without impersonating a user name"
	for _, row := range []struct {
		header  http.Header
		message string
	}{
		{as(a.Tokens.Admin, "Group", "g"), `requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)}` + none},
		{as(a.Tokens.Admin, "Uid", "7"), `requested &user.DefaultInfo{Name:"", UID:"7", Groups:[]string(nil), Extra:map[string][]string(nil)}` + none},
		{as(a.Tokens.Admin, "Extra-Foo", "x"), `requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string(nil), Extra:map[string][]string{"foo":[]string{"x"}}}` + none},
	} {
		answer := a.send(http.MethodGet, "/version", "", row.header)
		refusal{code: badRequest, reason: reasonBadRequest}.check(a, answer)
		if got := a.status(answer).Message; got != row.message {
			a.Errorf("%q, want %q", got, row.message)
		}
	}
}

// refusesImpersonation pins that since 1.36 a refusal speaks of the constrained
// ways (KEP-5284), if the user has never succeeded in the old one.
func refusesImpersonation(a *asker) {
	c := a.caller("impersonates-not")
	user := fmt.Sprintf("User %q cannot impersonate-on:", c.user())
	where := fmt.Sprintf(`:list resource "pods" in API group "" in the namespace %q`, a.Namespace)
	a.wantRefused(a.pods(), as(c.token, "User", "mallory"), "pods is forbidden: "+user+"user-info"+where)
	a.wantRefused(a.pods(), as(c.token, "User", "system:serviceaccount:"+a.Namespace+":default"), "pods is forbidden: "+user+"serviceaccount"+where)
	a.wantRefused(a.pods(), as(c.token, "User", "system:node:n"), "pods is forbidden: "+user+"arbitrary-node"+where)
	a.wantRefused("/version", as(c.token, "User", "mallory"), "forbidden: "+user+`user-info:get path "/version"`)
}

func impersonatesInParts(a *asker) {
	c := a.caller("impersonates")
	a.grantEverywhere("answers-impersonates", rules(
		one("", "users", "impersonate", "judy"), one("", "groups", "impersonate", "g1", "g2"),
		one("authentication.k8s.io", "uids", "impersonate", "77"), one("authentication.k8s.io", "userextras/scopes", "impersonate", "read"),
	), c.subject())
	try := func(parts ...string) got { return a.send(http.MethodGet, a.pods(), "", as(c.token, parts...)) }
	a.await("judy", func() got { return try("User", "judy") }, func(g got) bool { return a.status(g).Message == a.cannotList("judy") })
	whole := []string{"User", "judy", "Group", "g1", "Group", "g2", "Uid", "77", "Extra-Scopes", "read"}
	if got := a.whoami(as(c.token, whole...)); got.Username != "judy" || got.UID != "77" {
		a.Errorf("%+v", got)
	}
	const core, other = `""`, `"authentication.k8s.io"`
	for _, row := range []struct {
		parts             []string
		subject, resource string
		group             string
	}{
		{[]string{"User", "ken"}, `users "ken"`, "users", core},
		{[]string{"User", "judy", "Group", "g3"}, `groups "g3"`, "groups", core},
		{[]string{"User", "judy", "Group", "g1", "Group", "system:masters"}, `groups "system:masters"`, "groups", core},
		{[]string{"User", "judy", "Uid", "78"}, `uids.authentication.k8s.io "78"`, "uids", other},
		{[]string{"User", "judy", "Extra-Scopes", "write"}, `userextras.authentication.k8s.io "write"`, "userextras/scopes", other},
		{[]string{"User", "judy", "Extra-Other", "read"}, `userextras.authentication.k8s.io "read"`, "userextras/other", other},
	} {
		a.wantRefused(a.pods(), as(c.token, row.parts...), fmt.Sprintf(
			`%s is forbidden: User %q cannot impersonate resource %q in API group %s at the cluster scope`, row.subject, c.user(), row.resource, row.group))
	}
}

func impersonatesAccounts(a *asker) {
	c := a.caller("impersonates-accounts")
	a.grant("impersonates-default", rules(one("", "serviceaccounts", "impersonate", "default")), c.subject())
	user := "system:serviceaccount:" + a.Namespace + ":default"
	try := func() got { return a.send(http.MethodGet, a.pods(), "", as(c.token, "User", user)) }
	a.await("the account", try, func(g got) bool { return a.status(g).Message == a.cannotList(user) })
	a.wantRefused(a.pods(), as(c.token, "User", strings.TrimSuffix(user, "default")+"other"), fmt.Sprintf(
		`serviceaccounts "other" is forbidden: User %q cannot impersonate resource "serviceaccounts" in API group "" in the namespace %q`, c.user(), a.Namespace))
}

// impersonatesConstrained needs two permissions: for whom, and for what.
func impersonatesConstrained(a *asker) {
	c := a.caller("impersonates-some")
	a.grantEverywhere("answers-for-whom", rules(one("authentication.k8s.io", "users", "impersonate:user-info", "laura")), c.subject())
	a.grant("for-what", rules(one("", "pods", "impersonate-on:user-info:list")), c.subject())
	try := func() got { return a.send(http.MethodGet, a.pods(), "", as(c.token, "User", "laura")) }
	a.await("laura", try, func(g got) bool { return a.status(g).Message == a.cannotList("laura") })
	a.wantRefused(a.pods(), as(c.token, "User", "mike"), fmt.Sprintf(
		`users.authentication.k8s.io "mike" is forbidden: User %q cannot impersonate:user-info resource "users" in API group "authentication.k8s.io" at the cluster scope`, c.user()))
	a.wantRefused(a.pods()+"/x", as(c.token, "User", "laura"), fmt.Sprintf(
		`pods "x" is forbidden: User %q cannot impersonate-on:user-info:get resource "pods" in API group "" in the namespace %q`, c.user(), a.Namespace))
}
