package kube

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sluice-gateway/sluice/internal/issuer"
)

// currentVersion is the newest resourceVersion of all configmaps.
func currentVersion(t *testing.T, c *Cluster) string {
	t.Helper()
	list, err := c.Admin().CoreV1().ConfigMaps("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.ResourceVersion
}

// outcome tells how a watch that is quiet otherwise begins: "410" or the type of
// its first event.
func outcome(t *testing.T, socket *websocket.Conn) string {
	t.Helper()
	_, text, err := socket.ReadMessage()
	if err != nil {
		t.Fatal(err)
	}
	if _, expired := expiredEvent(text); expired {
		return "410"
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(string(text), `{"type":"`), `"`)
	return kind
}

func TestWhatEachGroupMayDo(t *testing.T) {
	c := Shared(t)
	for _, row := range []struct {
		group, namespace, verb, resource, sub string
		allowed                               bool
	}{
		{Streamers, "default", "watch", "pods", "", true},
		{Streamers, "", "list", "configmaps", "", true},
		{Streamers, "", "watch", "namespaces", "", true},
		{Streamers, "default", "get", "pods", "log", true},
		{Streamers, "default", "create", "pods", "exec", true},
		{Streamers, "default", "create", "pods", "attach", true},
		{Streamers, "default", "create", "pods", "portforward", true},
		{Streamers, "default", "list", "secrets", "", false},
		{Streamers, "default", "delete", "pods", "", false},
		{Viewers, Namespace, "watch", "pods", "", true},
		{Viewers, Namespace, "get", "pods", "exec", true},
		{Viewers, Namespace, "create", "pods", "exec", false},
		{Viewers, Namespace, "get", "pods", "log", false},
		{Viewers, "default", "watch", "pods", "", false},
	} {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "oidc:alice", Groups: []string{"oidc:" + row.group},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: row.namespace, Version: "v1",
				Verb: row.verb, Resource: row.resource, Subresource: row.sub,
			},
		}}
		answer, err := c.Admin().AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status.Allowed != row.allowed {
			t.Errorf("%+v: allowed %v", row, answer.Status.Allowed)
		}
	}
}

func TestKilledAPIServerComesBackAsItWas(t *testing.T) {
	c := Shared(t)
	target := answersTarget(t, c)
	if err := target.Objects.Put(t.Context(), "survives", "1"); err != nil {
		t.Fatal(err)
	}
	socket := mustWatch(t, c.URL(), target, "resourceVersion="+currentVersion(t, c))
	if err := c.KillAPIServer(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socket.ReadMessage(); err == nil || websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("a watch of a killed server ends with %v", err)
	}
	if _, err := net.Dial("tcp", c.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a killed server: %v", err)
	}
	if err := c.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := mustWatch(t, c.URL(), target, "fieldSelector=metadata.name%3Dsurvives")
	if got := outcome(t, again); got != "ADDED" {
		t.Errorf("the object after the restart: %s", got)
	}
}

func TestTerminatedAPIServerRefusesButKeepsWatches(t *testing.T) {
	c := Shared(t)
	target := answersTarget(t, c)
	socket := mustWatch(t, c.URL(), target, "resourceVersion="+currentVersion(t, c))
	if err := c.TerminateAPIServer(); err != nil {
		t.Fatal(err)
	}
	awaitRefused(t, c.Addr())
	pong := errors.New("pong")
	socket.SetPongHandler(func(string) error { return pong })
	if err := socket.WriteControl(websocket.PingMessage, nil, time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socket.ReadMessage(); !errors.Is(err, pong) {
		t.Errorf("a watch of a terminating server: %v", err)
	}
	if err := c.RestartAPIServer(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func awaitRefused(t *testing.T, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.Dial("tcp", addr)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			conn.Close()
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			t.Fatalf("%s still accepts: %v", addr, err)
		}
	}
}

// TestWhatExpiresAWatch pins what the documentation of Compact, RestartAPIServer
// and Expire says.
func TestWhatExpiresAWatch(t *testing.T) {
	cached := Shared(t)
	uncached := New(t, Options{Uncached: []string{"configmaps"}, Issuers: 2})
	compact := func(c *Cluster) error { _, err := c.Compact(t.Context()); return err }
	for _, row := range []struct {
		name    string
		cluster *Cluster
		do      func(*Cluster) error
		want    string
	}{
		{"nothing", cached, func(*Cluster) error { return nil }, "ADDED"},
		{"compaction with a watch cache does not", cached, compact, "ADDED"},
		{"compaction without a watch cache", uncached, compact, "410"},
		{"a restart", cached, func(c *Cluster) error { return c.RestartAPIServer(t.Context()) }, "410"},
		{"Expire", cached, func(c *Cluster) error { return c.Expire(t.Context()) }, "410"},
	} {
		t.Run(row.name, func(t *testing.T) {
			target := answersTarget(t, row.cluster)
			version := currentVersion(t, row.cluster)
			if err := target.Objects.Put(t.Context(), "later", row.name); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := target.Objects.Delete(context.Background(), "later"); err != nil {
					t.Error(err)
				}
			})
			if err := row.do(row.cluster); err != nil {
				t.Fatal(err)
			}
			socket := mustWatch(t, row.cluster.URL(), target, "resourceVersion="+version)
			if got := outcome(t, socket); got != row.want {
				t.Errorf("a watch from before that begins with %s, want %s", got, row.want)
			}
		})
	}
	t.Run("the users of a second issuer are others", func(t *testing.T) { tellsIssuersApart(t, uncached) })
}

// tellsIssuersApart asks the API server whom it takes two tokens for.
func tellsIssuersApart(t *testing.T, c *Cluster) {
	for i, want := range []string{"oidc:alice", "oidc2:alice"} {
		token, err := c.Issuers()[i].Sign(issuer.Claims{Subject: "alice", Audience: []string{Audience}})
		if err != nil {
			t.Fatal(err)
		}
		if got := whoami(t, c, token); got != want {
			t.Errorf("issuer %d: the API server says %q, want %q", i, got, want)
		}
	}
}

func whoami(t *testing.T, c *Cluster, token string) string {
	t.Helper()
	file := t.TempDir() + "/kubeconfig"
	if err := c.WriteKubeconfig(file, "dev", c.URL(), token); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	user, err := kubernetes.NewForConfigAndClient(config, client)
	if err != nil {
		t.Fatal(err)
	}
	review, err := user.AuthenticationV1().SelfSubjectReviews().Create(t.Context(),
		&authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.UserInfo.Username
}

func TestStopLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	Shared(t) // skips where there are no binaries
	c, err := Start(ctx, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*process{c.etcd, c.apiserver} {
		if p.alive() || birth(p.pid()) != "" {
			t.Errorf("%s (%d) still runs", p.name, p.pid())
		}
	}
	if _, err := os.Stat(c.state.dir); !os.IsNotExist(err) {
		t.Errorf("the state is still there: %v", err)
	}
	if err := c.Stop(); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
	if err := c.RestartAPIServer(ctx); err == nil {
		t.Error("a stopped cluster can be restarted")
	}
	if _, err := net.Dial("tcp", strings.TrimPrefix(c.Issuer().URL(), "https://")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the issuer: %v", err)
	}
}

func TestFailedStartShowsTheLog(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	Shared(t) // skips where there are no binaries
	_, err := Start(ctx, Options{APIServerArgs: []string{"--no-such-flag"}})
	if !errors.Is(err, errDied) || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("the error: %v", err)
	}
}
