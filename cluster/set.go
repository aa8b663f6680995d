package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Set is the clusters behind the gateway. It is immutable and safe for concurrent use.
type Set struct {
	byName map[string]*endpoint
	names  []string // sorted
}

// New makes a set. It dials nothing. All that is wrong is reported at once. userAgent is what API servers see.
func New(configs []Config, userAgent string, timeouts Timeouts) (*Set, error) {
	s := &Set{byName: map[string]*endpoint{}}
	var errs []error
	if len(configs) == 0 {
		errs = append(errs, errors.New("no clusters"))
	}
	for _, c := range configs {
		if err := c.validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		if s.byName[c.Name] != nil {
			errs = append(errs, fmt.Errorf("cluster %q: two clusters have this name", c.Name))
			continue
		}
		e, err := newEndpoint(c, userAgent, timeouts.withDefaults())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.byName[c.Name] = e
		s.names = append(s.names, c.Name)
	}
	slices.Sort(s.names)
	return s, errors.Join(errs...)
}

// Names are the clusters' names, sorted.
func (s *Set) Names() []string { return slices.Clone(s.names) }

// List is the clusters that a principal's credential may be used for, sorted by name.
func (s *Set) List(p *auth.Principal) []*sluicev1.Cluster {
	var out []*sluicev1.Cluster
	for _, name := range s.names {
		if e := s.byName[name]; e.accepts(p) == nil {
			out = append(out, &sluicev1.Cluster{Name: name, Credential: e.cfg.Credential})
		}
	}
	return out
}

// Resolve is the upstream of a cluster for a principal. It dials nothing. The name may be empty when there is one cluster. The error is a
// status.Error: NOT_FOUND UNKNOWN_CLUSTER, INVALID_ARGUMENT without a name, PERMISSION_DENIED CREDENTIAL_NOT_ACCEPTED.
func (s *Set) Resolve(name string, p *auth.Principal) (*Upstream, error) {
	if name == "" && len(s.names) == 1 {
		name = s.names[0]
	}
	e := s.byName[name]
	switch {
	case p == nil:
		return nil, status.Unauthenticated(sluicev1.Reason_REASON_MISSING_CREDENTIAL, "a cluster needs a principal")
	case name == "":
		return nil, status.New(codes.InvalidArgument, sluicev1.Reason_REASON_UNKNOWN_CLUSTER, "name one of the clusters: %s", s.known(p))
	case e == nil:
		return nil, status.New(codes.NotFound, sluicev1.Reason_REASON_UNKNOWN_CLUSTER, "no cluster is called %q; there are: %s", cut(name), s.known(p))
	}
	if err := e.accepts(p); err != nil {
		return nil, err
	}
	return &Upstream{endpoint: e, principal: p}, nil
}

// maxKnown is how many names an error tells.
const maxKnown = 20

// known lists the names that the principal may use, for people.
func (s *Set) known(p *auth.Principal) string {
	var names []string
	for _, c := range s.List(p) {
		if len(names) == maxKnown {
			names = append(names, "…")
			break
		}
		names = append(names, c.GetName())
	}
	if len(names) == 0 {
		return "none that accepts this credential"
	}
	return strings.Join(names, ", ")
}

func cut(s string) string {
	if len(s) > maxName {
		return s[:maxName] + "…"
	}
	return s
}

// Close ends what is kept between requests.
func (s *Set) Close() {
	for _, e := range s.byName {
		e.close()
	}
}

// accepts says whether a principal's credential may be used for the cluster.
func (e *endpoint) accepts(p *auth.Principal) error {
	c := &e.cfg
	if c.Credential == sluicev1.Credential_CREDENTIAL_KUBECONFIG {
		if c.AnySubject || slices.Contains(c.Subjects, p.Username) {
			return nil
		}
		return notAccepted(c.Name, "its credential may be used by listed subjects only")
	}
	switch {
	case p.Credential().IsZero():
		return notAccepted(c.Name, "it needs a token that can be passed on")
	case len(c.Issuers) > 0 && !slices.Contains(c.Issuers, p.Issuer):
		return notAccepted(c.Name, "it takes tokens of other issuers")
	case len(c.Audiences) > 0 && !slices.ContainsFunc(p.Audiences, func(a string) bool { return slices.Contains(c.Audiences, a) }):
		return notAccepted(c.Name, "it takes tokens for other audiences")
	}
	return nil
}

func notAccepted(name, why string) *status.Error {
	return status.New(codes.PermissionDenied, sluicev1.Reason_REASON_CREDENTIAL_NOT_ACCEPTED,
		"cluster %q does not accept this credential: %s", name, why)
}
