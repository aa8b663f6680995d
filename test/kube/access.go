package kube

import (
	"context"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// UserSubject is the user of this name, such as "oidc:alice", in a binding.
func UserSubject(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}
}

// GroupSubject is who is in the group, such as "oidc:streamers".
func GroupSubject(name string) rbacv1.Subject {
	return rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: name}
}

// ServiceAccountSubject is a service account.
func ServiceAccountSubject(namespace, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}
}

// Grant gives the rules to the subjects and returns when that counts, which the
// API server finds out some milliseconds after it has stored it: in the
// namespace by a Role and a RoleBinding, or everywhere by a ClusterRole and a
// ClusterRoleBinding if that is empty. Both have the name, and must not exist.
func (c *Cluster) Grant(ctx context.Context, namespace, name string, rules []rbacv1.PolicyRule, to ...rbacv1.Subject) error {
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace}
	roles := c.admin.RbacV1()
	kind := "Role"
	var err error
	if namespace == "" {
		kind = "ClusterRole"
		_, err = roles.ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	} else {
		_, err = roles.Roles(namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	}
	if err == nil {
		err = c.Bind(ctx, namespace, name, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}, to...)
	}
	if err == nil && len(rules) > 0 && len(to) > 0 {
		err = c.awaitAllowed(ctx, firstRequest(namespace, rules[0], to[0]))
	}
	if err != nil {
		return fmt.Errorf("grant %s in namespace %q: %w", name, namespace, err)
	}
	return nil
}

// Bind makes a RoleBinding, or a ClusterRoleBinding if namespace is empty, to a
// role that may exist, such as the ClusterRole "cluster-admin". It does not wait
// until it counts.
func (c *Cluster) Bind(ctx context.Context, namespace, name string, role rbacv1.RoleRef, to ...rbacv1.Subject) (err error) {
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace}
	roles := c.admin.RbacV1()
	if namespace == "" {
		binding := &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: role, Subjects: to}
		_, err = roles.ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	} else {
		binding := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: role, Subjects: to}
		_, err = roles.RoleBindings(namespace).Create(ctx, binding, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("bind %s %s: %w", role.Kind, role.Name, err)
	}
	return nil
}

// Revoke deletes the binding of a [Cluster.Grant] or [Cluster.Bind] and leaves
// its role alone. The API server goes by it some milliseconds later. A binding
// that does not exist is no error.
func (c *Cluster) Revoke(ctx context.Context, namespace, name string) error {
	var err error
	if namespace == "" {
		err = c.admin.RbacV1().ClusterRoleBindings().Delete(ctx, name, metav1.DeleteOptions{})
	} else {
		err = c.admin.RbacV1().RoleBindings(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	}
	if err = unlessGone(err); err != nil {
		return fmt.Errorf("revoke %s in namespace %q: %w", name, namespace, err)
	}
	return nil
}

// DeleteGrant is [Cluster.Revoke], and deletes the role of the same name too.
func (c *Cluster) DeleteGrant(ctx context.Context, namespace, name string) error {
	if err := c.Revoke(ctx, namespace, name); err != nil {
		return err
	}
	var err error
	if namespace == "" {
		err = c.admin.RbacV1().ClusterRoles().Delete(ctx, name, metav1.DeleteOptions{})
	} else {
		err = c.admin.RbacV1().Roles(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	}
	if err = unlessGone(err); err != nil {
		return fmt.Errorf("delete role %s in namespace %q: %w", name, namespace, err)
	}
	return nil
}

func unlessGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// firstRequest is a request that the rule allows the subject.
func firstRequest(namespace string, rule rbacv1.PolicyRule, subject rbacv1.Subject) authorizationv1.SubjectAccessReviewSpec {
	spec := authorizationv1.SubjectAccessReviewSpec{User: subject.Name}
	switch subject.Kind {
	case rbacv1.GroupKind:
		spec.User, spec.Groups = "", []string{subject.Name}
	case rbacv1.ServiceAccountKind:
		spec.User = serviceAccountUser(subject.Namespace, subject.Name)
	}
	first := func(of []string) string {
		if len(of) == 0 {
			return ""
		}
		return of[0]
	}
	if len(rule.NonResourceURLs) > 0 {
		spec.NonResourceAttributes = &authorizationv1.NonResourceAttributes{Verb: first(rule.Verbs), Path: first(rule.NonResourceURLs)}
		return spec
	}
	resource, subresource, _ := strings.Cut(first(rule.Resources), "/")
	spec.ResourceAttributes = &authorizationv1.ResourceAttributes{
		Namespace: namespace, Verb: first(rule.Verbs), Group: first(rule.APIGroups),
		Resource: resource, Subresource: subresource, Name: first(rule.ResourceNames),
	}
	return spec
}

// reviewInterval is the time between two questions whether something is allowed
// by now.
const reviewInterval = 20 * time.Millisecond

func (c *Cluster) awaitAllowed(ctx context.Context, spec authorizationv1.SubjectAccessReviewSpec) error {
	again := time.NewTicker(reviewInterval)
	defer again.Stop()
	for {
		review := &authorizationv1.SubjectAccessReview{Spec: spec}
		answer, err := c.admin.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil || answer.Status.Allowed {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("it does not count: %w", context.Cause(ctx))
		}
	}
}

// serviceAccountUser is the user name of a service account.
func serviceAccountUser(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// CreateServiceAccount makes a service account in a namespace that exists; it may
// exist already. Its user name is "system:serviceaccount:NAMESPACE:NAME".
func (c *Cluster) CreateServiceAccount(ctx context.Context, namespace, name string) error {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}}
	_, err := c.admin.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	if err = unlessThere(err); err != nil {
		return fmt.Errorf("create service account %s/%s: %w", namespace, name, err)
	}
	return nil
}

// DeleteServiceAccount deletes a service account. The API server takes a token of
// it, if it has seen that before, for up to 10 s more, which it keeps an answer
// for. An account that does not exist is no error.
func (c *Cluster) DeleteServiceAccount(ctx context.Context, namespace, name string) error {
	err := c.admin.CoreV1().ServiceAccounts(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err = unlessGone(err); err != nil {
		return fmt.Errorf("delete service account %s/%s: %w", namespace, name, err)
	}
	return nil
}

// ServiceAccountToken says what a token of a service account is to be. The zero
// value is one for the API server that is good for an hour.
type ServiceAccountToken struct {
	// Lifetime is at least 10 minutes. The API server takes a token for a minute
	// more.
	Lifetime time.Duration

	// Audiences is whom it is made out to. The API server itself takes one that is
	// made out to [Cluster.URL], which is among them only if it is named.
	Audiences []string

	// Pod, unless empty, binds it to a pod of the account: it ends with that.
	Pod string
}

// RequestToken returns a token of a service account that exists, by TokenRequest.
func (c *Cluster) RequestToken(ctx context.Context, namespace, name string, t ServiceAccountToken) (string, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: t.Audiences}}
	if t.Lifetime != 0 {
		seconds := int64(t.Lifetime / time.Second)
		request.Spec.ExpirationSeconds = &seconds
	}
	if t.Pod != "" {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: t.Pod}
	}
	answer, err := c.admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("request a token of service account %s/%s: %w", namespace, name, err)
	}
	return answer.Status.Token, nil
}

// CreateGateway makes a service account that has exactly these rules everywhere,
// such as those to impersonate or to review tokens, and returns a token of it. The
// account, the role and the binding have the name; [Cluster.DeleteGrant] and
// [Cluster.DeleteServiceAccount] remove them.
func (c *Cluster) CreateGateway(ctx context.Context, namespace, name string, rules []rbacv1.PolicyRule) (token string, err error) {
	if err := c.CreateServiceAccount(ctx, namespace, name); err != nil {
		return "", err
	}
	if err := c.Grant(ctx, "", name, rules, ServiceAccountSubject(namespace, name)); err != nil {
		return "", err
	}
	return c.RequestToken(ctx, namespace, name, ServiceAccountToken{})
}
