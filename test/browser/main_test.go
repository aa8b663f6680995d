package browser

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(kube.Tests{M: m}) }

// upstream is the name of the real cluster. It takes tokens for kube.Audience, as its API server does.
const upstream = "kube"

// setup is a gateway with a web port in front of the real API server, which it reaches through a recorder, and of the embedded one of the
// rig; a server of pages; and Chromium.
type setup struct {
	*rig.Rig
	*chromium
	t       *testing.T
	cluster *kube.Cluster
	api     *kube.Recorder
	pages   *httptest.Server
}

func newSetup(t *testing.T, change ...func(*rig.Options)) *setup {
	t.Helper()
	theBundle(t) // or nothing at all
	c := kube.Shared(t)
	api, err := kube.NewRecorder(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.Close(); err != nil {
			t.Errorf("close the recorder: %v", err)
		}
	})
	s := &setup{t: t, cluster: c, api: api}
	s.servePages()
	var shown *x509.Certificate
	o := rig.Options{
		Issuers: []auth.IssuerConfig{{URL: c.Issuer().URL(), CA: c.CA(), Audiences: []string{kube.Audience}}},
		Clusters: []cluster.Config{{
			Name: upstream, Server: api.URL(), CA: c.CA(),
			Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{kube.Audience},
		}},
		Change: func(c *server.Config) {
			c.WebAddr = "127.0.0.1:0"
			c.Web.Origins = []string{s.origin("console.example")}
			shown, err = x509.ParseCertificate(c.TLS.Certificates[0].Certificate[0])
		},
	}
	for _, f := range change {
		f(&o)
	}
	s.Rig = rig.New(t, o)
	if err != nil {
		t.Fatal(err)
	}
	s.chromium = newChromium(t, shown, s.pages.Certificate())
	return s
}

// servePages serves the page, and the same one to everybody.
func (s *setup) servePages() {
	files := theBundle(s.t).page
	s.pages = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", contentType(r.URL.Path))
		_, _ = w.Write(file) // a browser that is closed wants no page
	}))
	s.t.Cleanup(s.pages.Close)
}

func contentType(path string) string {
	if strings.HasSuffix(path, ".js") {
		return "text/javascript; charset=utf-8"
	}
	return "text/html; charset=utf-8"
}

// origin is that of the pages when they are asked for by the host's name.
func (s *setup) origin(host string) string {
	u, err := url.Parse(s.pages.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	return "https://" + host + ":" + u.Port()
}

// page opens the page of a host in a context of its own.
func (s *setup) page(host string) *tab {
	s.t.Helper()
	return s.open(s.context(), s.origin(host)+"/index.html")
}

// gateway is the web port's address, as pages call it.
func (s *setup) gateway() string { return "https://" + s.Server.WebAddr().String() }

// options are those of a watch in the page.
type options struct {
	Gateway  string `json:"gateway"`
	Protocol string `json:"protocol"`
	Token    string `json:"token"`
	Cluster  string `json:"cluster"`
	Target   target `json:"target"`
}

// target is a WatchTarget.
type target struct {
	Version   string `json:"version"`
	Resource  string `json:"resource"`
	Namespace string `json:"namespace,omitempty"`
}

// watching are the options of alice's watch in the real cluster.
func (s *setup) watching(resource string, change ...func(*options)) options {
	s.t.Helper()
	o := options{
		Gateway: s.gateway(), Protocol: "grpc-web", Token: s.token(), Cluster: upstream,
		Target: target{Version: "v1", Resource: resource, Namespace: kube.Namespace},
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

// embedded leads a watch to the embedded cluster, where everybody may.
func (s *setup) embedded(o *options) {
	o.Cluster, o.Token, o.Target.Namespace = rig.Cluster, s.Token("alice"), "default"
}

// speaking makes the page speak another protocol.
func speaking(protocol string) func(*options) {
	return func(o *options) { o.Protocol = protocol }
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

// within bounds what a test waits for; it only ever ends one that has failed.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// metric is the sum of a metric's samples.
func (s *setup) metric(name string) (sum float64) {
	s.t.Helper()
	_, text := s.Admin("/metrics")
	for line := range strings.Lines(text) {
		sample, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if family, _, _ := strings.Cut(sample, "{"); family != name {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		sum += v
	}
	return sum
}

// untilMetric waits until a metric has a value.
func (s *setup) untilMetric(ctx context.Context, name string, want float64) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		got := s.metric(name)
		if got == want {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s is %v, not %v: %w", name, got, want, context.Cause(ctx))
		}
	}
}
