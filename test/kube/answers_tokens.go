package kube

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	tokenReviews = subjectPath + "tokenreviews"
	ownSubject   = subjectPath + "selfsubjectreviews"
)

var tokenAnswers = []answer{
	{"a service account is a user with groups", accountIsUser},
	{"a token request says what it made", requestsToken},
	{"a token request may name audiences and a lifetime", requestsTokenFor},
	{"a token request that asks for too much or too little", refusesTokenRequests},
	{"a token for another audience is not taken", refusesOtherAudience},
	{"a review tells whose a token is, and repeats it", reviewsToken},
	{"a review of a token for another audience", reviewsOtherAudience},
	{"a review among several audiences tells which", reviewsAudiences},
	{"a review of an issuer's token", reviewsIssuedToken},
	{"a review of no token of anybody", reviewsNonsense},
	{"a token ends with its account", tokenEndsWithAccount},
	{"a token is not good for an account of the same name", tokenOfFormerAccount},
	{"a review of tokens asks for a permission", refusesTokenReview},
}

// subjectInfo is a UserInfo.
type subjectInfo struct {
	Username, UID string
	Groups        []string
	Extra         map[string][]string
}

// whoami is who the API server takes a request for.
func (a *asker) whoami(header http.Header) subjectInfo {
	a.Helper()
	answer := a.send(http.MethodPost, ownSubject, "{}", header)
	var review struct {
		metav1.TypeMeta
		Metadata struct{ CreationTimestamp metav1.Time }
		Status   struct{ UserInfo subjectInfo }
	}
	a.must(json.Unmarshal(answer.body, &review))
	if answer.code != http.StatusCreated || review.Kind != "SelfSubjectReview" || review.APIVersion != "authentication.k8s.io/v1" ||
		review.Metadata.CreationTimestamp.IsZero() {
		a.Fatalf("who am I: %d %s", answer.code, answer.body)
	}
	return review.Status.UserInfo
}

// uid is that of the account.
func (c caller) uid() string {
	c.Helper()
	var account object
	c.must(json.Unmarshal(c.admin(http.MethodGet, c.accounts()+"/"+c.name, "").body, &account))
	return string(account.UID)
}

func (c caller) groups() []string {
	return []string{"system:serviceaccounts", "system:serviceaccounts:" + c.Namespace, "system:authenticated"}
}

// isCaller checks that somebody is the caller, by the token whose id is given.
func (c caller) isCaller(who subjectInfo, id string) {
	c.Helper()
	extra := who.Extra["authentication.kubernetes.io/credential-id"]
	if who.Username != c.user() || who.UID != c.uid() || !slices.Equal(who.Groups, c.groups()) || !slices.Equal(extra, []string{"JTI=" + id}) {
		c.Errorf("%+v is not %s by %s", who, c.name, id)
	}
}

// accountClaims are what a service account's token says.
type accountClaims struct {
	Aud      []string
	Iss, Sub string
	Jti      string
	Exp, Iat int64
	Nbf      int64
	Private  struct {
		Namespace      string
		ServiceAccount struct{ Name, UID string }
	} `json:"kubernetes.io"`
}

func (a *asker) claims(token string) (claims accountClaims) {
	a.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		a.Fatalf("a token of %d parts", len(parts))
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	a.must(err)
	a.must(json.Unmarshal(payload, &claims))
	return claims
}

func accountIsUser(a *asker) {
	c := a.caller("somebody")
	c.isCaller(a.whoami(bearer(c.token)), a.claims(c.token).Jti)
}

func requestsToken(a *asker) {
	c := a.caller("requests")
	answer := a.admin(http.MethodPost, a.accounts()+"/"+c.name+"/token", `{}`)
	var made struct {
		metav1.TypeMeta
		Metadata metav1.ObjectMeta
		Spec     struct {
			Audiences         []string
			ExpirationSeconds int64
			BoundObjectRef    *struct{}
		}
		Status struct {
			Token               string
			ExpirationTimestamp time.Time
		}
	}
	a.must(json.Unmarshal(answer.body, &made))
	if answer.code != http.StatusCreated || made.Kind != "TokenRequest" || made.APIVersion != "authentication.k8s.io/v1" ||
		made.Metadata.Name != c.name || made.Metadata.Namespace != a.Namespace || string(made.Metadata.UID) != c.uid() {
		a.Errorf("%d %s", answer.code, answer.body)
	}
	claims := a.claims(made.Status.Token)
	if made.Spec.ExpirationSeconds != 3600 || made.Spec.BoundObjectRef != nil || !slices.Equal(made.Spec.Audiences, []string{claims.Iss}) {
		a.Errorf("%+v", made.Spec)
	}
	if claims.Sub != c.user() || claims.Private.Namespace != a.Namespace || claims.Private.ServiceAccount.Name != c.name ||
		claims.Private.ServiceAccount.UID != c.uid() || !slices.Equal(claims.Aud, made.Spec.Audiences) {
		a.Errorf("the token says %+v", claims)
	}
	if claims.Exp-claims.Iat != 3600 || claims.Nbf != claims.Iat || claims.Exp-made.Status.ExpirationTimestamp.Unix() > 1 || claims.Jti == "" {
		a.Errorf("the token says %+v, the answer %v", claims, made.Status.ExpirationTimestamp)
	}
}

func requestsTokenFor(a *asker) {
	c := a.caller("requests-for")
	claims := a.claims(c.request(`{"audiences":["one","two"],"expirationSeconds":600}`))
	if !slices.Equal(claims.Aud, []string{"one", "two"}) || claims.Exp-claims.Iat != 600 {
		a.Errorf("%+v", claims)
	}
}

func refusesTokenRequests(a *asker) {
	c := a.caller("requests-badly")
	path := a.accounts() + "/" + c.name + "/token"
	const invalid = `TokenRequest.authentication.k8s.io `
	for _, row := range []struct {
		token, method, path, body string
		refusal                   refusal
		message                   string
	}{
		{
			a.Tokens.Admin, http.MethodPost, path, `{"spec":{"expirationSeconds":599}}`,
			refusal{code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid},
			invalid + `"" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes`,
		},
		{
			a.Tokens.Admin, http.MethodPost, path, `{"spec":{"expirationSeconds":4294967297}}`,
			refusal{code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid},
			invalid + `"" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds`,
		},
		{
			a.Tokens.Admin, http.MethodPost, path, `{"metadata":{"name":"other"}}`,
			refusal{code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid},
			invalid + `"requests-badly" is invalid: metadata.name: Invalid value: "other": must match the service account name if specified`,
		},
		{
			a.Tokens.Admin, http.MethodPost, a.accounts() + "/nobody/token", `{}`,
			refusal{code: notFound, reason: reasonNotFound},
			`serviceaccounts "nobody" not found`,
		},
		{
			a.Tokens.Admin, http.MethodGet, path, "",
			refusal{code: http.StatusMethodNotAllowed, reason: metav1.StatusReasonMethodNotAllowed},
			"the server does not allow this method on the requested resource",
		},
		{
			c.token, http.MethodPost, path, `{}`,
			refusal{code: forbidden, reason: metav1.StatusReasonForbidden},
			fmt.Sprintf(`serviceaccounts "requests-badly" is forbidden: User %q cannot create resource "serviceaccounts/token" in API group "" in the namespace %q`, c.user(), a.Namespace),
		},
	} {
		answer := a.send(row.method, row.path, row.body, bearer(row.token))
		row.refusal.check(a, answer)
		if got := a.status(answer).Message; got != row.message {
			a.Errorf("%s %s %s: %q, want %q", row.method, row.path, row.body, got, row.message)
		}
	}
}

func refusesOtherAudience(a *asker) {
	c := a.caller("elsewhere")
	answer := a.get(c.request(`{"audiences":["elsewhere"]}`), "/version")
	refusal{code: unauthorized, reason: metav1.StatusReasonUnauthorized}.check(a, answer)
}

// tokenStatus is what a TokenReview found.
type tokenStatus struct {
	Authenticated bool
	User          subjectInfo
	Audiences     []string
	Error         string
}

// reviewToken asks as the administrator whose a token is.
func (a *asker) reviewToken(token string, audiences ...string) tokenStatus {
	a.Helper()
	spec, err := json.Marshal(map[string]any{"token": token, "audiences": audiences})
	a.must(err)
	answer := a.admin(http.MethodPost, tokenReviews, `{"spec":`+string(spec)+`}`)
	var review struct {
		metav1.TypeMeta
		Spec   struct{ Token string }
		Status tokenStatus
	}
	a.must(json.Unmarshal(answer.body, &review))
	if answer.code != http.StatusCreated || review.Kind != "TokenReview" || review.Spec.Token != token {
		a.Errorf("%d, kind %q, the same token: %v", answer.code, review.Kind, review.Spec.Token == token)
	}
	return review.Status
}

// notReviewed checks that a review did not find anybody.
func (a *asker) notReviewed(status tokenStatus, why string) {
	a.Helper()
	if status.Authenticated || status.User.Username != "" || len(status.User.Groups) > 0 || len(status.Audiences) > 0 || status.Error != why {
		a.Errorf("%+v, want nobody because %s", status, why)
	}
}

func reviewsToken(a *asker) {
	c := a.caller("is-reviewed")
	claims := a.claims(c.token)
	status := a.reviewToken(c.token)
	if !status.Authenticated || status.Error != "" || !slices.Equal(status.Audiences, claims.Aud) {
		a.Errorf("%+v", status)
	}
	c.isCaller(status.User, claims.Jti)
}

func reviewsOtherAudience(a *asker) {
	c := a.caller("is-reviewed-elsewhere")
	audience := a.claims(c.token).Aud[0]
	a.notReviewed(a.reviewToken(c.token, "elsewhere"),
		fmt.Sprintf(`[invalid bearer token, token audiences [%q] is invalid for the target audiences ["elsewhere"]]`, audience))
	elsewhere := c.request(`{"audiences":["elsewhere"]}`)
	a.notReviewed(a.reviewToken(elsewhere),
		fmt.Sprintf(`[invalid bearer token, token audiences ["elsewhere"] is invalid for the target audiences [%q]]`, audience))
	if status := a.reviewToken(elsewhere, "elsewhere"); !status.Authenticated || !slices.Equal(status.Audiences, []string{"elsewhere"}) || status.User.Username != c.user() {
		a.Errorf("%+v", status)
	}
}

func reviewsAudiences(a *asker) {
	c := a.caller("is-reviewed-twice")
	token := c.request(`{"audiences":["one","two"]}`)
	status := a.reviewToken(token, "three", "two", "one")
	slices.Sort(status.Audiences)
	if !status.Authenticated || !slices.Equal(status.Audiences, []string{"one", "two"}) {
		a.Errorf("%+v", status)
	}
}

// reviewsIssuedToken shows that what an issuer's token is made out to is not what
// it is reviewed for: the API server itself is.
func reviewsIssuedToken(a *asker) {
	c := a.caller("has-an-audience")
	status := a.reviewToken(a.Tokens.Permitted)
	if !status.Authenticated || status.User.Username == "" || !slices.Contains(status.User.Groups, "system:authenticated") ||
		!slices.Equal(status.Audiences, a.claims(c.token).Aud) {
		a.Errorf("%+v", status)
	}
	a.notReviewed(a.reviewToken(a.Tokens.Permitted, "sluice"), "invalid bearer token")
}

func reviewsNonsense(a *asker) {
	for _, token := range []string{"nonsense", "neither.a.token", strings.Repeat("x", 9000), a.Tokens.Expired, a.Tokens.WrongAudience} {
		status := a.reviewToken(token)
		if !strings.HasPrefix(strings.TrimPrefix(status.Error, "["), "invalid bearer token") { // and who refused it may say more
			a.Errorf("%.20q: %q", token, status.Error)
		}
		a.notReviewed(status, status.Error)
	}
	answer := a.admin(http.MethodPost, tokenReviews, `{"spec":{"token":""}}`)
	refusal{code: badRequest, reason: reasonBadRequest}.check(a, answer)
	if got := a.status(answer).Message; got != "token is required for TokenReview in authentication" {
		a.Errorf("no token: %q", got)
	}
}

// gone asks about tokens that have not been shown before, for the API server
// keeps for 10 s what it knows of one.
func (a *asker) gone(why string, tokens []string) {
	a.Helper()
	var status tokenStatus
	a.await(why, func() got {
		if len(tokens) == 0 {
			a.Fatalf("the API server takes a token on: %+v", status)
		}
		status, tokens = a.reviewToken(tokens[0]), tokens[1:]
		return got{}
	}, func(got) bool { return !status.Authenticated })
	a.notReviewed(status, why)
}

// unseen are tokens enough for [asker.gone].
func (c caller) unseen() []string {
	c.Helper()
	tokens := make([]string, 200)
	for i := range tokens {
		tokens[i] = c.request("{}")
	}
	return tokens
}

func tokenEndsWithAccount(a *asker) {
	c := a.caller("leaves")
	tokens := c.unseen()
	a.remove(a.accounts() + "/" + c.name)
	a.gone(`[invalid bearer token, serviceaccounts "leaves" not found]`, tokens)
	answer := a.get(tokens[len(tokens)-1], "/version")
	refusal{code: unauthorized, reason: metav1.StatusReasonUnauthorized}.check(a, answer)
}

func tokenOfFormerAccount(a *asker) {
	c := a.caller("returns")
	tokens, before := c.unseen(), c.uid()
	a.remove(a.accounts() + "/" + c.name)
	a.create(a.accounts(), fmt.Sprintf(`{"metadata":{"name":%q}}`, c.name))
	a.gone(fmt.Sprintf(`[invalid bearer token, service account UID (%s) does not match claim (%s)]`, c.uid(), before), tokens)
}

func refusesTokenReview(a *asker) {
	c := a.caller("reviews-not")
	answer := a.send(http.MethodPost, tokenReviews, `{"spec":{"token":"x"}}`, bearer(c.token))
	refusal{code: forbidden, reason: metav1.StatusReasonForbidden}.check(a, answer)
	want := fmt.Sprintf(`tokenreviews.authentication.k8s.io is forbidden: User %q cannot create resource "tokenreviews" in API group "authentication.k8s.io" at the cluster scope`, c.user())
	if got := a.status(answer).Message; got != want {
		a.Errorf("%q, want %q", got, want)
	}
}
