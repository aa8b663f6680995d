package kubetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bearerHeader is a header, as client.do takes it.
func bearerHeader(token string, more ...string) []string {
	return append([]string{"Authorization", "Bearer " + token}, more...)
}

// who is who the server takes a request for.
func (c *client) who(header ...string) userInfo {
	c.Helper()
	code, _, body := c.do(http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews", "{}", header...)
	if code != http.StatusCreated {
		c.Fatalf("%d %s", code, body)
	}
	var review selfReview
	c.must(json.Unmarshal([]byte(body), &review))
	return review.Status.User
}

// may is what the server says about its own decision.
func (c *client) may(attributes string, header ...string) accessStatus {
	c.Helper()
	code, _, body := c.do(http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", `{"spec":{"resourceAttributes":`+attributes+`}}`, header...)
	if code != http.StatusCreated {
		c.Fatalf("%d %s", code, body)
	}
	var review accessReview
	c.must(json.Unmarshal([]byte(body), &review))
	return review.Status
}

const listConfigMaps = `{"verb":"list","resource":"configmaps","namespace":"default"}`

func TestEverythingIsAllowedUnlessSomebodyDecides(t *testing.T) {
	c := serve(t, Options{})
	if got := c.may(listConfigMaps); !got.Allowed || got.Reason != "" {
		t.Errorf("%+v", got)
	}
	if got := c.who("Impersonate-User", "alice"); got.Username != "alice" || !slices.Equal(got.Groups, []string{authenticatedGroup}) {
		t.Errorf("%+v", got)
	}
	if got := c.who("Authorization", "Bearer anything"); got.Username != anonymousUser || !slices.Equal(got.Groups, []string{unauthenticatedGroup}) {
		t.Errorf("%+v", got)
	}
	code, _, body := c.do(http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", `{"spec":{"namespace":"default"}}`)
	const all = `"status":{"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"]}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}],"incomplete":false}`
	if code != http.StatusCreated || !strings.Contains(body, all) {
		t.Errorf("%d %s", code, body)
	}
	if n := c.Counts().Reviews; n != 4 {
		t.Errorf("%d reviews were counted, want 4", n)
	}
}

func TestReviewsAnswerByTheAuthorizer(t *testing.T) {
	for _, rbac := range []bool{false, true} {
		c := serve(t, Options{RBAC: rbac, Authenticator: people, Authorizer: func(u User, a Attributes) bool {
			return a.Resource != "configmaps" || u.Name == "oidc:alice" && a.Verb == "list" && a.Namespace == "default"
		}})
		c.must(c.Grant("", "everybody", allRules, GroupSubject(authenticatedGroup)))
		if got := c.may(listConfigMaps, bearerHeader("alice")...); !got.Allowed {
			t.Errorf("alice: %+v", got)
		}
		if got := c.may(listConfigMaps, bearerHeader("bob")...); got.Allowed || got.Reason != "" {
			t.Errorf("bob: %+v", got)
		}
		if code, body := c.get(configMaps, bearerHeader("bob")...); code != http.StatusForbidden {
			t.Errorf("bob: %d %s", code, body)
		}
		_, _, body := c.do(http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", `{"spec":{"namespace":"default"}}`, bearerHeader("alice")...)
		if !strings.Contains(body, `"incomplete":true`) {
			t.Errorf("rules that an authorizer may take back: %s", body)
		}
	}
}

func TestGrantsCountAtOnce(t *testing.T) {
	c := serve(t, Options{RBAC: true, Authenticator: people}, configMap("one", "1"))
	read := []Rule{{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{""}, Resources: []string{"configmaps"}}}
	want := func(code int, path string) {
		t.Helper()
		if got, body := c.get(path, bearerHeader("alice")...); got != code {
			t.Errorf("%s: %d %s, want %d", path, got, body, code)
		}
	}
	const everywhere = "/api/v1/configmaps"
	want(http.StatusForbidden, configMaps)
	c.must(c.Grant("default", "read", read, UserSubject("oidc:alice")))
	want(http.StatusOK, configMaps)
	want(http.StatusForbidden, everywhere)
	c.must(c.Grant("", "read", read, UserSubject("oidc:bob"), GroupSubject(authenticatedGroup)))
	want(http.StatusOK, everywhere)
	c.must(c.Revoke("", "read"))
	want(http.StatusForbidden, everywhere)
	want(http.StatusOK, configMaps)
	c.must(c.Revoke("default", "read"))
	want(http.StatusForbidden, configMaps)
	if s := asStatus(t, c.Revoke("default", "read")); s.Code != http.StatusNotFound {
		t.Errorf("a second time: %v", s)
	}
	if code, body := c.get("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/read", bearerHeader("alice")...); code != http.StatusForbidden {
		t.Errorf("alice reads roles: %d %s", code, body)
	}
}

// A stream that was allowed goes on when the permission is gone: ending it is
// what a gateway is for.
func TestExecIsAskedOnlyAtItsBeginning(t *testing.T) {
	c := serve(t, Options{RBAC: true, Authenticator: people})
	c.must(c.RunPod(FixturePods()[0]))
	rule := func(verbs ...string) []Rule {
		return []Rule{{Verbs: verbs, APIGroups: []string{""}, Resources: []string{"pods/exec"}, ResourceNames: []string{"shell"}}}
	}
	header := http.Header{"Authorization": {"Bearer alice"}}
	path := podPath("shell", "exec?"+execQuery("stdin stdout", "cat"))
	refused := func(text string) {
		t.Helper()
		_, resp, err := c.dial(path, header, protocolV5)
		if err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
			t.Fatalf("%v %v", err, resp)
		}
		defer resp.Body.Close()
		var s Status
		c.must(json.NewDecoder(resp.Body).Decode(&s))
		if s.Message != text {
			t.Errorf("%q, want %q", s.Message, text)
		}
	}
	const noGet = `pods "shell" is forbidden: User "oidc:alice" cannot get resource "pods/exec" in API group "" in the namespace "default"`
	refused(noGet)
	c.must(c.Grant("default", "exec", rule("create"), UserSubject("oidc:alice")))
	refused(noGet)
	c.must(c.Grant("default", "exec", rule("get"), UserSubject("oidc:alice")))
	refused(`pods "shell" is forbidden: `)
	c.must(c.Grant("default", "exec", rule("get", "create"), UserSubject("oidc:alice")))
	conn, _, err := c.dial(path, header, protocolV5)
	c.must(err)
	c.must(c.Revoke("default", "exec"))
	refused(noGet)
	k := &command{client: c, Conn: conn, seen: map[byte][]byte{}}
	k.say(channelStdin, "still here\n")
	for !strings.Contains(string(k.seen[channelStdout]), "still here\n") {
		_, message, err := conn.ReadMessage()
		c.must(err)
		k.seen[message[0]] = append(k.seen[message[0]], message[1:]...)
	}
}

func TestServiceAccountTokensExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{RBAC: true, Authenticator: people})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(ServiceAccount("default", "robot")); err != nil {
			t.Fatal(err)
		}
		token, err := s.ServiceAccountToken("default", "robot", 6*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ask := func() int {
			r := httptest.NewRequest(http.MethodGet, "/version", nil)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			return w.Code
		}
		for range 6 {
			if code := ask(); code != http.StatusOK {
				t.Errorf("a good token: %d", code)
			}
			<-time.After(time.Second) // the clock of a bubble
		}
		if code := ask(); code != http.StatusUnauthorized {
			t.Errorf("an expired token: %d", code)
		}
		if _, _, err := s.identify(t.Context(), token, nil); err == nil || err.Error() != "[invalid bearer token, service account token has expired]" {
			t.Errorf("%v", err)
		}
		if _, err := s.ServiceAccountToken("default", "nobody", time.Hour); asStatus(t, err).Code != http.StatusNotFound {
			t.Errorf("of nobody: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Only the server's own key makes a service account.
func TestForgedServiceAccountTokensAreRefused(t *testing.T) {
	c := serve(t, Options{}, ServiceAccount("default", "robot"))
	token, err := c.ServiceAccountToken("default", "robot", time.Hour)
	c.must(err)
	if got := c.who(bearerHeader(token)...); got.Username != "system:serviceaccount:default:robot" {
		t.Errorf("%+v", got)
	}
	forger, err := newAccounts()
	c.must(err)
	account, err := c.store.get(c.kind("", "serviceaccounts"), key{"default", "robot"})
	c.must(err)
	forged, _, err := forger.sign(account, time.Hour, nil)
	c.must(err)
	early, _, err := c.accounts.sign(account, -time.Minute, nil)
	c.must(err)
	parts := strings.Split(token, ".")
	for name, bad := range map[string]string{
		"another key":         forged,
		"expired":             early,
		"another's signature": parts[0] + "." + parts[1] + "." + strings.Split(forged, ".")[2],
	} {
		if code, body := c.get("/version", bearerHeader(bad)...); code != http.StatusUnauthorized {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
}

// signer is an authority of client certificates.
type signer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newSigner(t *testing.T) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := certificate(1, "clients")
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signer{t, cert, key}
}

func (s signer) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(s.cert)
	return p
}

func (s signer) client(change func(*x509.Certificate)) tls.Certificate {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "alice", Organization: []string{"team"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestClientCertificates(t *testing.T) {
	ca := newSigner(t)
	c := serve(t, Options{ClientCAs: ca.pool(), Authenticator: people})
	with := func(cert tls.Certificate, token string) (int, userInfo) {
		t.Helper()
		config := c.tls.Clone()
		config.Certificates = []tls.Certificate{cert}
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.URL()+"/apis/authentication.k8s.io/v1/selfsubjectreviews", strings.NewReader("{}"))
		c.must(err)
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := (&http.Client{Transport: transport}).Do(r)
		c.must(err)
		defer resp.Body.Close()
		var review selfReview
		if resp.StatusCode == http.StatusCreated {
			c.must(json.NewDecoder(resp.Body).Decode(&review))
		}
		return resp.StatusCode, review.Status.User
	}
	for name, tc := range map[string]struct {
		cert  tls.Certificate
		token string
		code  int
		user  string
	}{
		"a certificate":              {ca.client(nil), "", 201, "alice"},
		"comes before a token":       {ca.client(nil), "bob", 201, "alice"},
		"of another authority":       {newSigner(t).client(nil), "", 401, ""},
		"that has expired":           {ca.client(func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) }), "", 401, ""},
		"of a server":                {ca.client(func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "", 401, ""},
		"without a name":             {ca.client(func(x *x509.Certificate) { x.Subject.CommonName = "" }), "", 401, ""},
		"that is bad beside a token": {newSigner(t).client(nil), "bob", 201, "oidc:bob"},
		"none":                       {tls.Certificate{}, "bob", 201, "oidc:bob"},
	} {
		code, user := with(tc.cert, tc.token)
		if code != tc.code || user.Username != tc.user {
			t.Errorf("%s: %d %+v, want %d %s", name, code, user, tc.code, tc.user)
		}
		if user.Username == "alice" && (!slices.Equal(user.Groups, []string{"team", authenticatedGroup}) || !strings.HasPrefix(user.Extra[credentialIDExtra][0], "X509SHA256=")) {
			t.Errorf("%s: %+v", name, user)
		}
	}
}

// What a gateway sends is recorded as it was sent.
func TestImpersonationIsRecordedAndObeyed(t *testing.T) {
	var asked []string
	c := serve(t, Options{Record: true, Authenticator: people, Authorizer: func(u User, a Attributes) bool {
		asked = append(asked, fmt.Sprintf("%s %s %s %s", u.Name, a.Verb, a.Resource, a.Name))
		return u.Name != "oidc:gateway" || a.Verb == "impersonate"
	}})
	code, body := c.get(configMaps, bearerHeader("gateway", "Impersonate-User", "oidc:alice", "Impersonate-Group", "a", "Impersonate-Uid", "7")...)
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	want := []string{
		"oidc:gateway impersonate-on:user-info:list configmaps ",
		"oidc:gateway impersonate users oidc:alice", "oidc:gateway impersonate uids 7", "oidc:gateway impersonate groups a",
		"oidc:alice list configmaps ",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked %q, want %q", asked, want)
	}
	requests := c.Requests()
	if got := requests[len(requests)-1].Header; got.Get("Impersonate-User") != "oidc:alice" || got.Get("Impersonate-Group") != "a" {
		t.Errorf("recorded %v", got)
	}
	asked = nil
	if code, _ := c.get(configMaps, bearerHeader("gateway", "Impersonate-User", "oidc:alice")...); code != http.StatusOK || asked[0] != "oidc:gateway impersonate users oidc:alice" {
		t.Errorf("the way that succeeded is not the first: %d %q", code, asked)
	}
}

func TestConstrainedImpersonationGivesNoPrivilege(t *testing.T) {
	user := User{Name: "gateway"}
	s, err := New(Options{Authorizer: func(u User, a Attributes) bool { return a.Verb != "impersonate" }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for group, allowed := range map[string]bool{"team": true, privilegedGroup: false, "": false} {
		r := httptest.NewRequest(http.MethodGet, "/version", nil)
		r.Header["Impersonate-User"], r.Header["Impersonate-Group"] = []string{"alice"}, []string{group}
		got, err := s.impersonate(&call{r: r, user: user, attributes: parseAttributes(r)})
		if (err == nil) != allowed {
			t.Errorf("group %q: %+v, %v", group, got, err)
		}
	}
}

// Reviews can be made to fail as everything can.
func TestReviewsCanFail(t *testing.T) {
	c := serve(t, Options{Authenticator: people})
	const path = "/apis/authentication.k8s.io/v1/tokenreviews"
	review := func() int {
		code, _, _ := c.do(http.MethodPost, path, `{"spec":{"token":"bob"}}`, bearerHeader("gateway")...)
		return code
	}
	remove := c.Faults.Add(Fault{Match: Path(path), Times: 1, Action: Respond(http.StatusInternalServerError, nil, "broken")})
	if code := review(); code != http.StatusInternalServerError {
		t.Errorf("broken: %d", code)
	}
	remove()
	if code := review(); code != http.StatusCreated {
		t.Errorf("mended: %d", code)
	}
}

func TestObjectsOfAccessAreObjects(t *testing.T) {
	c := serve(t, Options{RBAC: true, Authenticator: func(context.Context, string) (User, error) {
		return User{Name: "root", Groups: []string{privilegedGroup}}, nil
	}})
	const roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
	code, _, body := c.do(http.MethodPost, roles, `{"metadata":{"name":"acme:reader"},"rules":[]}`, bearerHeader("x")...)
	if code != http.StatusCreated {
		t.Errorf("a name with a colon: %d %s", code, body)
	}
	for _, name := range []string{"a/b", "..", "50%"} {
		if code, _, body := c.do(http.MethodPost, roles, `{"metadata":{"name":"`+name+`"},"rules":[]}`, bearerHeader("x")...); code != http.StatusUnprocessableEntity {
			t.Errorf("name %q: %d %s", name, code, body)
		}
	}
	if code, body := c.get(roles+"/system:discovery", bearerHeader("x")...); code != http.StatusOK || !strings.Contains(body, `"/openapi/*"`) {
		t.Errorf("%d %s", code, body)
	}
	if _, err := c.Apply(Object{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": map[string]any{"name": "x"}}); err == nil {
		t.Error("a review was stored")
	}
	c.apply(ServiceAccount("default", "robot"))
	if code, _, body := c.do(http.MethodDelete, "/api/v1/namespaces/default/serviceaccounts/robot", "", bearerHeader("x")...); code != http.StatusOK || !strings.Contains(body, `"kind":"ServiceAccount"`) {
		t.Errorf("%d %s", code, body)
	}
}
