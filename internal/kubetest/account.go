package kubetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// apiAudience is the issuer of the service accounts' tokens, and whom a token is
// made out to that the API server takes.
const apiAudience = "https://kubernetes.default.svc.cluster.local"

// How long a token of a service account may be good for that is asked for over
// HTTP, and how long it is when nobody says.
const (
	shortestToken = 10 * time.Minute
	usualToken    = time.Hour
	longestToken  = 1 << 32 * time.Second
)

// accounts signs the tokens of service accounts. Immutable after newAccounts.
type accounts struct {
	key *ecdsa.PrivateKey
}

func newAccounts() (*accounts, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key of service accounts: %w", err)
	}
	return &accounts{key: key}, nil
}

// accountClaims are what a service account's token says (KEP-1205).
type accountClaims struct {
	Audience  []string `json:"aud"`
	Expiry    int64    `json:"exp"`
	IssuedAt  int64    `json:"iat"`
	Issuer    string   `json:"iss"`
	ID        string   `json:"jti"`
	Private   boundTo  `json:"kubernetes.io"`
	NotBefore int64    `json:"nbf"`
	Subject   string   `json:"sub"`
}

type boundTo struct {
	Namespace string     `json:"namespace"`
	Account   accountRef `json:"serviceaccount"`
}

type accountRef struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// ServiceAccountToken is a token of a service account that exists, made out to
// the audiences, or to the API server if there are none. Unlike over HTTP, it may
// be good for less than 10 minutes: it expires at the whole second. It stops
// counting when the account is deleted. The errors are of type [*Status] where
// the account is at fault.
func (s *Server) ServiceAccountToken(namespace, name string, lifetime time.Duration, audiences ...string) (string, error) {
	account, err := s.store.get(s.kind("", "serviceaccounts"), key{namespace, name})
	if err != nil {
		return "", err
	}
	token, _, err := s.accounts.sign(account, lifetime, audiences)
	return token, err
}

func (a *accounts) sign(account *revision, lifetime time.Duration, audiences []string) (token string, expiry time.Time, err error) {
	if len(audiences) == 0 {
		audiences = []string{apiAudience}
	}
	now := time.Now()
	expiry = now.Add(lifetime)
	payload, err := json.Marshal(accountClaims{
		Audience: audiences, Issuer: apiAudience, ID: newUID(), Subject: accountUserPrefix + account.namespace + ":" + account.name,
		IssuedAt: now.Unix(), NotBefore: now.Unix(), Expiry: expiry.Unix(),
		Private: boundTo{account.namespace, accountRef{account.name, account.uid}},
	})
	if err != nil {
		return "", expiry, fmt.Errorf("encode claims: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: a.key}, nil)
	if err != nil {
		return "", expiry, fmt.Errorf("use the key of service accounts: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", expiry, fmt.Errorf("sign for %s: %w", account.path, err)
	}
	token, err = signed.CompactSerialize()
	return token, expiry, err
}

// issued says whether a token claims to be a service account's.
func (a *accounts) issued(token string) bool {
	claims, _, err := readAccountToken(token)
	return err == nil && claims.Issuer == apiAudience
}

func readAccountToken(token string) (claims accountClaims, signed *jose.JSONWebSignature, err error) {
	if signed, err = jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256}); err != nil {
		return claims, nil, err
	}
	err = json.Unmarshal(signed.UnsafePayloadWithoutVerification(), &claims)
	return claims, signed, err
}

// verifyAccount is the service account of a token, and which of the audiences it
// is made out to. The errors are worded as the API server's.
func (s *Server) verifyAccount(token string, audiences []string) (User, []string, error) {
	claims, signed, err := readAccountToken(token)
	if err != nil {
		return User{}, nil, err
	}
	if _, err := signed.Verify(s.accounts.key.Public()); err != nil {
		return User{}, nil, err
	}
	if err := claims.current(time.Now()); err != nil {
		return User{}, nil, err
	}
	meant := slices.DeleteFunc(slices.Clone(audiences), func(a string) bool { return !slices.Contains(claims.Audience, a) })
	if len(meant) == 0 {
		return User{}, nil, fmt.Errorf("token audiences %q is invalid for the target audiences %q", claims.Audience, audiences)
	}
	user, err := s.accountOfClaims(claims)
	return user, meant, err
}

// current says no when the token is not good yet, or no more. The API server
// allows a minute on both sides; tests do not want to wait that long.
func (c accountClaims) current(now time.Time) error {
	switch {
	case now.Unix() >= c.Expiry:
		return errors.New("service account token has expired")
	case now.Unix() < c.NotBefore:
		return errors.New("service account token is not valid yet")
	}
	return nil
}

// accountOfClaims is the account as a user, if it is still the one that the token
// was made for.
func (s *Server) accountOfClaims(c accountClaims) (User, error) {
	namespace, ref := c.Private.Namespace, c.Private.Account
	account, err := s.store.get(s.kind("", "serviceaccounts"), key{namespace, ref.Name})
	if err != nil {
		return User{}, err
	}
	if account.uid != ref.UID {
		return User{}, fmt.Errorf("service account UID (%s) does not match claim (%s)", account.uid, ref.UID)
	}
	return User{
		Name: accountUserPrefix + namespace + ":" + ref.Name, UID: ref.UID, Groups: accountGroups(namespace),
		Extra: map[string][]string{credentialIDExtra: {fromTokenPrefix + c.ID}},
	}, nil
}

// tokenRequest is authentication.k8s.io/v1 TokenRequest.
type tokenRequest struct {
	Kind       string             `json:"kind"`
	APIVersion string             `json:"apiVersion"`
	Metadata   reviewMeta         `json:"metadata"`
	Spec       tokenRequestSpec   `json:"spec"`
	Status     tokenRequestStatus `json:"status"`
}

type tokenRequestSpec struct {
	Audiences      []string        `json:"audiences"`
	Expiration     *int64          `json:"expirationSeconds"`
	BoundObjectRef json.RawMessage `json:"boundObjectRef"`
}

type tokenRequestStatus struct {
	Token      string `json:"token"`
	Expiration string `json:"expirationTimestamp"`
}

// serveToken serves serviceaccounts/token. Tokens are bound to their account
// and to no other object.
func (s *Server) serveToken(c *call, k *Kind) error {
	if c.attributes.Verb != "create" {
		return methodNotAllowed()
	}
	request, err := s.readTokenRequest(c)
	if err != nil {
		return err
	}
	account, err := s.store.get(k, c.attributes.key(k))
	if err != nil {
		return err
	}
	if err := request.settle(account); err != nil {
		return err
	}
	lifetime := time.Duration(*request.Spec.Expiration) * time.Second
	token, expiry, err := s.accounts.sign(account, lifetime, request.Spec.Audiences)
	if err != nil {
		return err
	}
	request.Status = tokenRequestStatus{Token: token, Expiration: timestamp(expiry)}
	return answer(c, request)
}

func (s *Server) readTokenRequest(c *call) (*tokenRequest, error) {
	body, err := readBody(c)
	if err != nil {
		return nil, err
	}
	request := &tokenRequest{}
	return request, decodeReview(c.r, body, "TokenRequest", authenticationGroup+"/v1", request)
}

// settle fills in what was left to the server, and refuses what it would.
func (t *tokenRequest) settle(account *revision) error {
	if t.Metadata.Name != "" && t.Metadata.Name != account.name {
		return invalid(authenticationGroup, "TokenRequest", account.name,
			invalidValue("metadata.name", t.Metadata.Name, "must match the service account name if specified"))
	}
	if len(t.Spec.BoundObjectRef) > 0 && string(t.Spec.BoundObjectRef) != "null" {
		return badRequest("cannot bind a token to an object on this server")
	}
	t.Kind, t.APIVersion = "TokenRequest", authenticationGroup+"/v1"
	t.Metadata = reviewMeta{Name: account.name, Namespace: account.namespace, UID: account.uid, Created: timestamp(time.Now())}
	if len(t.Spec.Audiences) == 0 {
		t.Spec.Audiences = []string{apiAudience}
	}
	if t.Spec.Expiration == nil {
		usual := int64(usualToken / time.Second)
		t.Spec.Expiration = &usual
	}
	const field = "spec.expirationSeconds"
	switch seconds := *t.Spec.Expiration; {
	case seconds < int64(shortestToken/time.Second):
		return invalid(authenticationGroup, "TokenRequest", "", invalidNumber(field, seconds, "may not specify a duration less than 10 minutes"))
	case seconds > int64(longestToken/time.Second):
		return invalid(authenticationGroup, "TokenRequest", "", invalidNumber(field, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	return nil
}

func invalidNumber(field string, value int64, text string) StatusCause {
	return StatusCause{Reason: "FieldValueInvalid", Message: fmt.Sprintf("Invalid value: %d: %s", value, text), Field: field}
}

// ServiceAccount is an account to [Server.Apply].
func ServiceAccount(namespace, name string) Object {
	return Object{
		"apiVersion": "v1", "kind": "ServiceAccount",
		"metadata": map[string]any{"name": name, "namespace": namespace},
	}
}
