package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/client"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kube.Tests{M: m}) }

const (
	// upstream is the name of the real cluster. It takes tokens for kube.Audience, as its API server does.
	upstream = "kube"
	// lenient is the same cluster without the gateway's check of audiences.
	lenient = "lenient"
	// gatewayOnly is an audience of the gateway that the API server does not know.
	gatewayOnly = "gateway-only"
)

// setup is a gateway in front of the real API server, which it reaches through a recorder, beside the embedded one of the rig.
type setup struct {
	*rig.Rig
	t       *testing.T
	cluster *kube.Cluster
	api     *kube.Recorder
}

func newSetup(t *testing.T, change ...func(*rig.Options)) *setup {
	t.Helper()
	return setupOf(t, kube.Shared(t), change...)
}

func setupOf(t *testing.T, c *kube.Cluster, change ...func(*rig.Options)) *setup {
	t.Helper()
	api, err := kube.NewRecorder(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Errorf("close the recorder: %v", err)
		}
	})
	o := rig.Options{
		Issuers: []auth.IssuerConfig{{URL: c.Issuer().URL(), CA: c.CA(), Audiences: []string{kube.Audience, gatewayOnly}}},
		Clusters: []cluster.Config{
			{
				Name: upstream, Server: api.URL(), CA: c.CA(),
				Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{kube.Audience},
			},
			{
				Name: lenient, Server: api.URL(), CA: c.CA(),
				Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Issuers: []string{c.Issuer().URL()},
			},
		},
	}
	for _, f := range change {
		f(&o)
	}
	return &setup{Rig: rig.New(t, o), t: t, cluster: c, api: api}
}

// token signs a token of the API server's issuer for alice, who may watch everything, unless change says otherwise.
func (s *setup) token(change ...func(*issuer.Claims)) string {
	s.t.Helper()
	c := issuer.Claims{Subject: "alice", Audience: []string{kube.Audience}, Groups: []string{kube.Streamers}}
	for _, f := range change {
		f(&c)
	}
	token, err := s.cluster.Issuer().Sign(c)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// alice is a client with a token of the API server's issuer.
func (s *setup) alice(change ...func(*client.Config)) *client.Client {
	s.t.Helper()
	token := s.token()
	s.neverTells(token)
	own := func(c *client.Config) { c.Token = client.StaticToken(token) }
	return s.Client("alice", append([]func(*client.Config){own}, change...)...)
}

// neverTells makes the test fail at its end if the gateway has written a token, or its signature, to its log or audit.
func (s *setup) neverTells(token string) {
	s.t.Cleanup(func() {
		s.Stop()
		signature := token[strings.LastIndexByte(token, '.')+1:]
		if signature == "" {
			return
		}
		for name, text := range map[string]string{"log": s.Log.String(), "audit": s.Audit.String()} {
			if strings.Contains(text, signature) {
				s.t.Errorf("the %s holds a token", name)
			}
		}
	})
}

// within bounds what a test waits for; it only ever ends one that has failed.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
