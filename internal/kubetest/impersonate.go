package kubetest

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// The headers that ask for somebody else's rights.
const (
	impersonateUser        = "Impersonate-User"
	impersonateUID         = "Impersonate-Uid"
	impersonateGroup       = "Impersonate-Group"
	impersonateExtraPrefix = "Impersonate-Extra-"
)

// impersonation is a way in which one user may stand for another. Since 1.36 an
// API server tries those of KEP-5284 before the one there always was.
type impersonation struct {
	// mode is in the verbs of a constrained way: "impersonate-on:MODE:VERB" for
	// what is asked and "impersonate:MODE" for who is meant. Empty for the old way.
	mode string
	fits func(wanted User) bool
}

// impersonations are the ways in the order they are tried in. That of a node's
// own service account is not among them: nothing here is bound to a node.
var impersonations = []impersonation{
	{mode: "arbitrary-node", fits: func(u User) bool { _, ok := nodeOf(u.Name); return ok && u.bare() }},
	{mode: "serviceaccount", fits: func(u User) bool { _, _, ok := accountOf(u.Name); return ok && u.bare() }},
	{mode: "user-info", fits: func(u User) bool {
		_, node := nodeOf(u.Name)
		_, _, account := accountOf(u.Name)
		return !node && !account
	}},
	{fits: func(User) bool { return true }},
}

func (u User) bare() bool { return u.UID == "" && len(u.Groups) == 0 && len(u.Extra) == 0 }

// nodeOf is the node whose kubelet the user name is.
func nodeOf(user string) (string, bool) {
	name, ok := strings.CutPrefix(user, "system:node:")
	return name, ok && validName(name)
}

// impersonate is who a request is to be taken from: its user, or the one whom
// its headers name if the user may impersonate that one in one of the ways. The
// refusal of the way that comes first is told: the one in which the user last
// succeeded, else the first that fits.
func (s *Server) impersonate(c *call) (User, error) {
	wanted, err := wantedUser(c.r.Header)
	if err != nil || wanted.Name == "" {
		return c.user, err
	}
	var refusal error
	for _, way := range s.waysOf(c.user.Name) {
		if !impersonations[way].fits(wanted) {
			continue
		}
		err := s.tryImpersonation(c, impersonations[way], wanted)
		if err == nil {
			s.succeeded(c.user.Name, way)
			return impersonations[way].complete(wanted), nil
		}
		if refusal == nil {
			refusal = err
		}
	}
	return User{}, refusal
}

// waysOf are the ways in the order that they are tried in for a user.
func (s *Server) waysOf(user string) []int {
	s.mu.Lock()
	last, known := s.ways[user]
	s.mu.Unlock()
	var order []int
	if known {
		order = append(order, last)
	}
	for i := range impersonations {
		if !known || i != last {
			order = append(order, i)
		}
	}
	return order
}

// remembered bounds for how many users the way is kept in which they succeeded.
const remembered = 10_000

func (s *Server) succeeded(user string, way int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ways) >= remembered {
		clear(s.ways)
	}
	s.ways[user] = way
}

// wantedUser takes the headers that impersonate out of a request. Without a
// name there is nobody to impersonate.
func wantedUser(h http.Header) (User, error) {
	wanted := User{Name: h.Get(impersonateUser), UID: h.Get(impersonateUID), Groups: slices.Clone(h[impersonateGroup])}
	for name, values := range h {
		encoded, ok := strings.CutPrefix(name, impersonateExtraPrefix)
		if !ok {
			continue
		}
		if wanted.Extra == nil {
			wanted.Extra = map[string][]string{}
		}
		key := strings.ToLower(encoded)
		if decoded, err := url.PathUnescape(key); err == nil {
			key = decoded
		}
		wanted.Extra[key] = append(wanted.Extra[key], values...)
	}
	if wanted.Name == "" && !wanted.bare() {
		return User{}, badRequest("requested &user.DefaultInfo{Name:%q, UID:%q, Groups:%#v, Extra:%#v} without impersonating a user name",
			wanted.Name, wanted.UID, wanted.Groups, wanted.Extra)
	}
	maps.DeleteFunc(h, func(name string, _ []string) bool {
		return name == impersonateUser || name == impersonateUID || name == impersonateGroup || strings.HasPrefix(name, impersonateExtraPrefix)
	})
	return wanted, nil
}

// tryImpersonation asks for every permission that one way needs.
func (s *Server) tryImpersonation(c *call, way impersonation, wanted User) error {
	if way.mode != "" {
		on := c.attributes
		on.Verb = "impersonate-on:" + way.mode + ":" + on.Verb
		if err := s.permit(c.user, on); err != nil {
			return err
		}
	}
	for _, a := range way.needs(wanted) {
		err := way.taboo(c.user, a, wanted.Groups)
		if err == nil {
			err = s.permit(c.user, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// taboo refuses groups that the constrained ways never give.
func (i impersonation) taboo(user User, a Attributes, groups []string) error {
	switch {
	case i.mode == "" || a.Resource != "groups":
		return nil
	case slices.Contains(groups, ""):
		a.Name = ""
		return forbidden(user, a, "impersonating the empty string group is not allowed")
	case slices.Contains(groups, privilegedGroup):
		a.Name = privilegedGroup
		return forbidden(user, a, "impersonating the system:masters group is not allowed")
	}
	return nil
}

// needs is what a user must be allowed to stand for wanted, in the order in
// which it is asked.
func (i impersonation) needs(wanted User) []Attributes {
	who := i.attributes("users", wanted.Name)
	if node, ok := nodeOf(wanted.Name); ok && i.mode != "" {
		who.Resource, who.Name = "nodes", node
	} else if namespace, name, ok := accountOf(wanted.Name); ok {
		who.Resource, who.Namespace, who.Name = "serviceaccounts", namespace, name
	}
	all := []Attributes{who}
	if wanted.UID != "" {
		all = append(all, i.attributes("uids", wanted.UID))
	}
	for _, group := range wanted.Groups {
		all = append(all, i.attributes("groups", group))
	}
	for _, key := range slices.Sorted(maps.Keys(wanted.Extra)) {
		for _, value := range wanted.Extra[key] {
			a := i.attributes("userextras", value)
			a.Subresource = key
			all = append(all, a)
		}
	}
	return all
}

// attributes are those of one thing that is impersonated. Users and groups are
// in the core group in the old way, all else in that of authentication.
func (i impersonation) attributes(resource, name string) Attributes {
	a := Attributes{Verb: "impersonate:" + i.mode, Group: authenticationGroup, Version: "v1", Resource: resource, Name: name}
	if i.mode == "" {
		a.Verb = "impersonate"
		if resource == "users" || resource == "groups" {
			a.Group = ""
		}
	}
	return a
}

// complete adds the groups that nobody needs to name.
func (i impersonation) complete(u User) User {
	if namespace, _, ok := accountOf(u.Name); ok && len(u.Groups) == 0 {
		u.Groups = accountGroups(namespace)
	}
	if _, ok := nodeOf(u.Name); ok && i.mode != "" {
		u.Groups = []string{"system:nodes"}
	}
	if u.Name == anonymousUser && !slices.Contains(u.Groups, unauthenticatedGroup) {
		u.Groups = append(slices.Clip(u.Groups), unauthenticatedGroup)
	}
	return u.authenticated()
}
