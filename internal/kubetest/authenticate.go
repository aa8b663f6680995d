package kubetest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// User is who a request is from, as the authenticator found, or who is
// impersonated.
type User struct {
	Name   string
	UID    string
	Groups []string
	Extra  map[string][]string // by key in lower case
}

// Names that the API server itself gives.
const (
	anonymousUser         = "system:anonymous"
	authenticatedGroup    = "system:authenticated"
	unauthenticatedGroup  = "system:unauthenticated"
	privilegedGroup       = "system:masters"
	accountUserPrefix     = "system:serviceaccount:"
	accountsGroup         = "system:serviceaccounts"
	credentialIDExtra     = "authentication.kubernetes.io/credential-id"
	invalidToken          = "invalid bearer token"
	fromCertificatePrefix = "X509SHA256="
	fromTokenPrefix       = "JTI="
)

// authenticate finds out whose a request is: by its client certificate, else by
// its token, which is of a service account or the authenticator's to judge.
func (s *Server) authenticate(r *http.Request) (User, error) {
	if user, ok := s.certified(r); ok {
		return user.authenticated(), nil
	}
	token := bearerToken(r)
	if s.options.Authenticator == nil && !s.accounts.issued(token) {
		return User{Name: anonymousUser, Groups: []string{unauthenticatedGroup}}, nil
	}
	if token == "" {
		return User{}, unauthorized()
	}
	user, _, err := s.identify(r.Context(), token, nil)
	if err != nil {
		s.options.Logger.Debug("authentication failed", "path", r.URL.Path, "err", err)
		return User{}, unauthorized()
	}
	return user, nil
}

// identify finds out whose a token is that was made out to one of the
// audiences, or to the API server if there are none, and to which of them it
// was. The errors are worded as in the API server's TokenReview.
func (s *Server) identify(ctx context.Context, token string, audiences []string) (User, []string, error) {
	if len(audiences) == 0 {
		audiences = []string{apiAudience}
	}
	if s.accounts.issued(token) {
		user, meant, err := s.verifyAccount(token, audiences)
		if err != nil {
			return User{}, nil, fmt.Errorf("[%s, %w]", invalidToken, err)
		}
		return user.authenticated(), meant, nil
	}
	if s.options.Authenticator == nil || !slices.Contains(audiences, apiAudience) {
		return User{}, nil, errors.New(invalidToken)
	}
	user, err := s.options.Authenticator(ctx, token)
	if err != nil {
		return User{}, nil, fmt.Errorf("[%s, %w]", invalidToken, err)
	}
	return user.authenticated(), []string{apiAudience}, nil
}

// authenticated is the user in the group that everybody with a credential is in.
func (u User) authenticated() User {
	if u.Name == anonymousUser || slices.Contains(u.Groups, authenticatedGroup) || slices.Contains(u.Groups, unauthenticatedGroup) {
		return u
	}
	u.Groups = append(slices.Clip(u.Groups), authenticatedGroup)
	return u
}

// certified is whose client certificate a request came with: the common name is
// the user, the organizations are the groups. A certificate that does not verify
// is as good as none.
func (s *Server) certified(r *http.Request) (User, bool) {
	if s.options.ClientCAs == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return User{}, false
	}
	leaf := r.TLS.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: s.options.ClientCAs, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil || leaf.Subject.CommonName == "" {
		s.options.Logger.Debug("client certificate refused", "path", r.URL.Path, "err", err)
		return User{}, false
	}
	sum := sha256.Sum256(leaf.Raw)
	return User{
		Name: leaf.Subject.CommonName, Groups: slices.Clone(leaf.Subject.Organization),
		Extra: map[string][]string{credentialIDExtra: {fromCertificatePrefix + hex.EncodeToString(sum[:])}},
	}, true
}

// accountOf splits the user name of a service account.
func accountOf(user string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(user, accountUserPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && validName(namespace) && validName(name)
}

// accountGroups are what every service account of the namespace is in.
func accountGroups(namespace string) []string {
	return []string{accountsGroup, accountsGroup + ":" + namespace}
}
