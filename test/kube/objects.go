package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// What a cluster holds from the start.
const (
	// Namespace is a namespace that exists, beside "default", with a default
	// service account.
	Namespace = "sluice-test"

	// Streamers is the group whose members may do everywhere all that the gateway
	// carries: get, list and watch pods, configmaps, namespaces and deployments;
	// read logs; exec, attach and port-forward. [UnknownResource] is allowed too.
	Streamers = "streamers"

	// Viewers is the group whose members may get, list and watch pods in
	// [Namespace] and nothing else, except "get" on pods/exec: since Kubernetes
	// 1.35 an exec over WebSocket needs "create" as well and is refused to them.
	Viewers = "viewers"

	// UnknownResource is a resource of the core group that does not exist. Who is
	// not allowed a resource is told 403 whether it exists or not, so it takes
	// permission to be told 404.
	UnknownResource = "nosuchthings"
)

// unknownGroup is an API group that does not exist.
const unknownGroup = "nosuchgroup.example"

var (
	reading   = []string{"get", "list", "watch"}
	streaming = []string{"get", "create"}
)

var streamerRules = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"pods", "configmaps", "namespaces", UnknownResource}, Verbs: reading},
	{APIGroups: []string{unknownGroup}, Resources: []string{UnknownResource}, Verbs: reading},
	{APIGroups: []string{"apps"}, Resources: []string{"deployments"}, Verbs: reading},
	{APIGroups: []string{""}, Resources: []string{"pods/log"}, Verbs: []string{"get"}},
	{APIGroups: []string{""}, Resources: []string{"pods/exec", "pods/attach", "pods/portforward"}, Verbs: streaming},
}

var viewerRules = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: reading},
	{APIGroups: []string{""}, Resources: []string{"pods/exec"}, Verbs: []string{"get"}},
}

// CreateNamespace makes a namespace with the default service account without
// which no pod is admitted to it; both may exist already. Without a controller
// manager a deleted namespace never goes away, so give each test another name.
func (c *Cluster) CreateNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := c.admin.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{})
	if err = unlessThere(err); err != nil {
		return fmt.Errorf("create namespace %q: %w", name, err)
	}
	return c.CreateServiceAccount(ctx, name, "default")
}

func unlessThere(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// populate creates the namespaces and permissions a cluster starts with.
func (c *Cluster) populate(ctx context.Context) error {
	for _, name := range []string{"default", Namespace} {
		if err := c.CreateNamespace(ctx, name); err != nil {
			return err
		}
	}
	if err := allowStreamers(ctx, c.admin, c.group(Streamers)); err != nil {
		return fmt.Errorf("allow %s: %w", Streamers, err)
	}
	if err := allowViewers(ctx, c.admin, c.group(Viewers)); err != nil {
		return fmt.Errorf("allow %s: %w", Viewers, err)
	}
	return nil
}

// group names the group as every issuer's tokens bring it.
func (c *Cluster) group(name string) []rbacv1.Subject {
	var subjects []rbacv1.Subject
	for i := range c.issuers {
		subjects = append(subjects, rbacv1.Subject{
			APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: prefix(i) + name,
		})
	}
	return subjects
}

func allowStreamers(ctx context.Context, admin kubernetes.Interface, who []rbacv1.Subject) error {
	meta := metav1.ObjectMeta{Name: Streamers}
	role := &rbacv1.ClusterRole{ObjectMeta: meta, Rules: streamerRules}
	if _, err := admin.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: Streamers}
	binding := &rbacv1.ClusterRoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: who}
	_, err := admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	return err
}

func allowViewers(ctx context.Context, admin kubernetes.Interface, who []rbacv1.Subject) error {
	meta := metav1.ObjectMeta{Name: Viewers, Namespace: Namespace}
	role := &rbacv1.Role{ObjectMeta: meta, Rules: viewerRules}
	if _, err := admin.RbacV1().Roles(Namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return err
	}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: Viewers}
	binding := &rbacv1.RoleBinding{ObjectMeta: meta, RoleRef: ref, Subjects: who}
	_, err := admin.RbacV1().RoleBindings(Namespace).Create(ctx, binding, metav1.CreateOptions{})
	return err
}
