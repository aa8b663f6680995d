package kubetest

import "slices"

// decision is what the authorizers say about a request.
type decision struct {
	allowed bool
	reason  string // in the API server's words; often none
}

// authorize decides whether the user may do it. [Options.Authorizer] and
// [Options.RBAC] must both agree where they are set.
func (s *Server) authorize(user User, a Attributes) decision {
	if s.options.Authorizer != nil && !s.options.Authorizer(user, a) {
		return decision{}
	}
	if !s.options.RBAC || slices.Contains(user.Groups, privilegedGroup) {
		return decision{allowed: true}
	}
	return s.decideByRoles(user, a)
}

// permit refuses a request that its user may not make.
func (s *Server) permit(user User, a Attributes) error {
	if d := s.authorize(user, a); !d.allowed {
		return forbidden(user, a, d.reason)
	}
	return nil
}

// mayCreate asks for the second permission that connecting to a pod needs
// since 1.35: create, beside the get that a GET is. The API server's refusal is
// empty where the authorizer gives no reason.
func (s *Server) mayCreate(c *call) error {
	a := c.attributes
	if a.Verb == "create" {
		return nil
	}
	a.Verb = "create"
	if d := s.authorize(c.user, a); !d.allowed {
		return forbiddenBecause(a, d.reason)
	}
	return nil
}
