package kube

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// userOf is a client by the kubeconfig.
func userOf(t *testing.T, file string) kubernetes.Interface {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	user, err := kubernetes.NewForConfigAndClient(config, client)
	if err != nil {
		t.Fatal(err)
	}
	return user
}

// bearerOf is a client with the token.
func bearerOf(t *testing.T, c *Cluster, token string) kubernetes.Interface {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := c.WriteKubeconfig(file, "user", c.URL(), token); err != nil {
		t.Fatal(err)
	}
	return userOf(t, file)
}

func subjectOf(t *testing.T, user kubernetes.Interface) authenticationv1.UserInfo {
	t.Helper()
	review, err := user.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor asks until it is so.
func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for !is() {
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, context.Cause(ctx))
		}
	}
}

func TestWhatIsGrantedCountsUntilItIsRevoked(t *testing.T) {
	c := Shared(t)
	read := []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}}}
	user := bearerOf(t, c, c.Token("grace"))
	for _, namespace := range []string{"default", ""} {
		list := func() error {
			_, err := user.CoreV1().ConfigMaps(namespace).List(t.Context(), metav1.ListOptions{})
			return err
		}
		if err := list(); !apierrors.IsForbidden(err) {
			t.Fatalf("namespace %q: before the grant: %v", namespace, err)
		}
		must(t, c.Grant(t.Context(), namespace, "grace", read, UserSubject("oidc:grace")))
		if err := list(); err != nil {
			t.Errorf("namespace %q: after the grant: %v", namespace, err)
		}
		must(t, c.Revoke(t.Context(), namespace, "grace"))
		waitFor(t, "the revocation", func() bool { return apierrors.IsForbidden(list()) })
		must(t, c.DeleteGrant(t.Context(), namespace, "grace"))
		must(t, c.DeleteGrant(t.Context(), namespace, "grace"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Grant(ctx, "default", "never", read, UserSubject("oidc:grace")); err == nil {
		t.Error("a grant without a context that lives")
	}
}

func TestTokensOfServiceAccounts(t *testing.T) {
	c := Shared(t)
	const name = "robot"
	must(t, c.CreateServiceAccount(t.Context(), Namespace, name))
	must(t, c.CreateServiceAccount(t.Context(), Namespace, name))
	token, err := c.RequestToken(t.Context(), Namespace, name, ServiceAccountToken{Lifetime: 10 * time.Minute})
	must(t, err)
	user := bearerOf(t, c, token)
	if who := subjectOf(t, user); who.Username != "system:serviceaccount:"+Namespace+":"+name {
		t.Errorf("%+v", who)
	}
	if _, err := c.RequestToken(t.Context(), Namespace, name, ServiceAccountToken{Lifetime: time.Minute}); !apierrors.IsInvalid(err) {
		t.Errorf("a token for a minute: %v", err)
	}
	other, err := c.RequestToken(t.Context(), Namespace, name, ServiceAccountToken{Audiences: []string{Audience}})
	must(t, err)
	if _, err := bearerOf(t, c, other).Discovery().ServerVersion(); !apierrors.IsUnauthorized(err) {
		t.Errorf("a token for another: %v", err)
	}
	must(t, c.DeleteServiceAccount(t.Context(), Namespace, name))
	must(t, c.DeleteServiceAccount(t.Context(), Namespace, name))
	waitFor(t, "the end of the token", func() bool {
		_, err := user.Discovery().ServerVersion()
		return apierrors.IsUnauthorized(err)
	})
}

// A token that is bound to a pod ends with it, though the account stays.
func TestTokenOfAPod(t *testing.T) {
	c, _ := SharedNode(t)
	must(t, c.RunPod(t.Context(), Pod{Namespace: Namespace, Name: "bound", Containers: []Container{{Name: "main"}}}))
	token, err := c.RequestToken(t.Context(), Namespace, "default", ServiceAccountToken{Pod: "bound"})
	must(t, err)
	who := subjectOf(t, bearerOf(t, c, token))
	if got := who.Extra["authentication.kubernetes.io/pod-name"]; !slices.Equal(got, authenticationv1.ExtraValue{"bound"}) {
		t.Errorf("%+v", who)
	}
	unseen, err := c.RequestToken(t.Context(), Namespace, "default", ServiceAccountToken{Pod: "bound"})
	must(t, err)
	must(t, c.DeletePod(t.Context(), Namespace, "bound"))
	user := bearerOf(t, c, unseen)
	waitFor(t, "the end of the token", func() bool {
		_, err := user.Discovery().ServerVersion()
		return apierrors.IsUnauthorized(err)
	})
}

// The account of a gateway may do what it is for, and nothing else.
func TestGatewayHasItsRulesOnly(t *testing.T) {
	c := Shared(t)
	token, err := c.CreateGateway(t.Context(), Namespace, "gateway-for-tests", []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"users"}, Verbs: []string{"impersonate"}, ResourceNames: []string{"sluice:alice"}},
	})
	must(t, err)
	t.Cleanup(func() {
		if err := errors.Join(c.DeleteGrant(context.Background(), "", "gateway-for-tests"),
			c.DeleteServiceAccount(context.Background(), Namespace, "gateway-for-tests")); err != nil {
			t.Error(err)
		}
	})
	as := func(user string) error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL()+"/version", nil)
		must(t, err)
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("Impersonate-User", user)
		response, err := c.anyoneHTTP.Do(request)
		must(t, err)
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}
	if err := as("sluice:alice"); err != nil {
		t.Errorf("as alice: %v", err)
	}
	if err := as("sluice:bob"); err == nil {
		t.Error("as bob too")
	}
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "create", Group: "authentication.k8s.io", Resource: "tokenreviews"},
	}}
	answer, err := bearerOf(t, c, token).AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
	must(t, err)
	if answer.Status.Allowed {
		t.Error("it may review tokens")
	}
}

func TestClientCertificates(t *testing.T) {
	c := Shared(t)
	certified := func(want ClientCertificate) kubernetes.Interface {
		cert, key, err := c.IssueCertificate(want)
		must(t, err)
		file := filepath.Join(t.TempDir(), "kubeconfig")
		must(t, c.WriteCertificateKubeconfig(file, "user", c.URL(), cert, key))
		return userOf(t, file)
	}
	who := subjectOf(t, certified(ClientCertificate{User: "heidi", Groups: []string{"g"}, URIs: []string{"spiffe://acme.example/heidi"}}))
	if who.Username != "heidi" || !slices.Equal(who.Groups, []string{"g", "system:authenticated"}) {
		t.Errorf("%+v", who)
	}
	over := certified(ClientCertificate{User: "heidi", Expiry: time.Now().Add(-time.Minute)})
	if _, err := over.Discovery().ServerVersion(); !apierrors.IsUnauthorized(err) {
		t.Errorf("an expired certificate: %v", err)
	}
	if _, _, err := c.IssueCertificate(ClientCertificate{User: "heidi", URIs: []string{":"}}); err == nil {
		t.Error("a URI that is none")
	}
}

func TestShortTokenExpires(t *testing.T) {
	c := Shared(t)
	user := bearerOf(t, c, c.ShortToken(2*time.Second, "ivan"))
	if who := subjectOf(t, user); who.Username != "oidc:ivan" {
		t.Errorf("%+v", who)
	}
	waitFor(t, "the end of the token", func() bool {
		_, err := user.Discovery().ServerVersion()
		return apierrors.IsUnauthorized(err)
	})
}
