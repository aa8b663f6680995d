package kube

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-gateway/sluice/internal/issuer"
)

// configMaps changes configmaps with the administrator's client.
type configMaps struct {
	*Cluster
	namespace string
}

func (m configMaps) Put(ctx context.Context, name, value string) error {
	maps := m.Admin().CoreV1().ConfigMaps(m.namespace)
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"value": value}}
	_, err := maps.Update(ctx, object, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = maps.Create(ctx, object, metav1.CreateOptions{})
	}
	return err
}

func (m configMaps) Delete(ctx context.Context, name string) error {
	return m.Admin().CoreV1().ConfigMaps(m.namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

func sign(t *testing.T, c *Cluster, claims issuer.Claims) string {
	t.Helper()
	token, err := c.Issuer().Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func answersTarget(t *testing.T, c *Cluster) AnswersTarget {
	t.Helper()
	const namespace = "answers"
	if err := c.CreateNamespace(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	streamers, anHourAgo := []string{Streamers}, time.Now().Add(-time.Hour)
	return AnswersTarget{
		URL: c.URL(), Roots: c.CertPool(), Namespace: namespace, Resource: "configmaps",
		Objects: configMaps{c, namespace},
		Tokens: AnswersTokens{
			Permitted:   c.Token("alice", Streamers),
			Unpermitted: c.Token("carol"),
			Expired: sign(t, c, issuer.Claims{
				Subject: "alice", Groups: streamers, Audience: []string{Audience},
				Issued: anHourAgo, Expiry: anHourAgo.Add(time.Minute),
			}),
			WrongAudience: sign(t, c, issuer.Claims{Subject: "alice", Groups: streamers, Audience: []string{"another"}}),
		},
	}
}

func TestAnswersOfARealAPIServer(t *testing.T) {
	Answers(t, answersTarget(t, Shared(t)))
}

func TestAccessAnswersOfARealAPIServer(t *testing.T) {
	c := Shared(t)
	target := answersTarget(t, c)
	if err := c.CreateServiceAccount(t.Context(), target.Namespace, "administrator"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Revoke(context.Background(), "", "administrator"); err != nil {
			t.Error(err)
		}
	})
	admin := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"}
	if err := c.Bind(t.Context(), "", "administrator", admin, ServiceAccountSubject(target.Namespace, "administrator")); err != nil {
		t.Fatal(err)
	}
	token, err := c.RequestToken(t.Context(), target.Namespace, "administrator", ServiceAccountToken{})
	if err != nil {
		t.Fatal(err)
	}
	target.Tokens.Admin = token
	AccessAnswers(t, target)
}

func TestStreamAnswersOfARealAPIServer(t *testing.T) {
	c, _ := SharedNode(t)
	if err := c.RunSamplePods(t.Context()); err != nil {
		t.Fatal(err)
	}
	target := answersTarget(t, c)
	target.Namespace = sampleNamespace
	StreamAnswers(t, target)
}
