package kubetest_test

import (
	"context"
	"crypto/x509"
	"errors"
	"strconv"
	"testing"

	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/test/kube"
)

// objects changes the config maps of a server.
type objects struct {
	*kubetest.Server
	namespace string
}

func (o objects) Put(_ context.Context, name, value string) error {
	_, err := o.Apply(kubetest.Object{
		"kind": "ConfigMap", "apiVersion": "v1",
		"metadata": map[string]any{"name": name, "namespace": o.namespace},
		"data":     map[string]any{"value": value},
	})
	return err
}

func (o objects) Delete(_ context.Context, name string) error {
	return o.Server.Delete("", "configmaps", o.namespace, name)
}

// Expire moves on by a change before it compacts, for the newest version never expires.
func (o objects) Expire(ctx context.Context) error {
	if err := o.Put(ctx, "newest", strconv.FormatUint(o.Version(), 10)); err != nil {
		return err
	}
	o.Compact(o.Version())
	return o.Delete(ctx, "newest")
}

// answering is a server that the tables put their questions to.
type answering struct {
	*kubetest.Server
	roots *x509.CertPool
}

func startAnswering(t *testing.T, o kubetest.Options) answering {
	t.Helper()
	o.Authenticator = func(_ context.Context, token string) (kubetest.User, error) {
		switch token {
		case "alice", "carol":
			return kubetest.User{Name: token}, nil
		case "root":
			return kubetest.User{Name: token, Groups: []string{"system:masters"}}, nil
		}
		return kubetest.User{}, errors.New("unknown token")
	}
	s, err := kubetest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Listen(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CAPEM())
	return answering{s, roots}
}

func (s answering) target() kube.AnswersTarget {
	return kube.AnswersTarget{
		URL: s.URL(), Roots: s.roots, Namespace: "default", Resource: "configmaps",
		Objects: objects{s.Server, "default"},
		Tokens:  kube.AnswersTokens{Permitted: "alice", Unpermitted: "carol", Expired: "expired", WrongAudience: "stranger", Admin: "root"},
	}
}

// The table that was measured on a real API server holds here too.
func TestAnswersOfTheEmbeddedAPIServer(t *testing.T) {
	kube.Answers(t, startAnswering(t, kubetest.Options{Authorizer: onlyAlice}).target())
}

func onlyAlice(u kubetest.User, a kubetest.Attributes) bool {
	return u.Name == "alice" || a.Resource == ""
}

// So do the answers about who may do what.
func TestAccessAnswersOfTheEmbeddedAPIServer(t *testing.T) {
	kube.AccessAnswers(t, startAnswering(t, kubetest.Options{RBAC: true}).target())
}

// So do the answers about what runs in pods.
func TestStreamAnswersOfTheEmbeddedAPIServer(t *testing.T) {
	s := startAnswering(t, kubetest.Options{Authorizer: onlyAlice})
	if err := kubetest.RunPods(s.Server); err != nil {
		t.Fatal(err)
	}
	kube.StreamAnswers(t, s.target())
}
