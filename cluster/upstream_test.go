package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// TestT_B7_RedirectsAreNotFollowed: a redirect would take the credential to whoever the answer names.
func TestT_B7_RedirectsAreNotFollowed(t *testing.T) {
	canary := startAPIServer(t, nil)
	for _, code := range []int{301, 302, 303, 307, 308} {
		s := startAPIServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, canary.URL+r.URL.Path, code) })
		u := upstreamOf(t, s.passthrough())
		for way, ask := range ways(u) {
			if e := status.From(ask(t.Context())); e.Code != codes.Unavailable || e.Reason != refusedByServer || e.HTTPCode != code {
				t.Errorf("%s %d: %v", way, code, e)
			}
		}
		if _, err := u.Resources(t.Context()); err == nil {
			t.Errorf("discovery: %d was followed", code)
		}
	}
	if n := len(canary.seen()); n != 0 {
		t.Errorf("the canary was asked %d times", n)
	}
}

// TestT_B6_RefusedUpgradeIsNotReused: after any refusal the next request is made on a TCP connection of its own.
func TestT_B6_RefusedUpgradeIsNotReused(t *testing.T) {
	s := startAPIServer(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	u := upstreamOf(t, s.passthrough())
	from := map[string]bool{}
	for range 3 {
		if err := refuse(t, u); err == nil {
			t.Fatal("it was not refused")
		}
		from[s.last(t).RemoteAddr] = true
	}
	if len(from) != 3 {
		t.Errorf("connections %v", from)
	}
}

// TestT_B19_CertificatesAreVerified: a self-signed API server is refused on every way unless its certificate is named, and a kubeconfig that
// turns the verification off is refused unless the configuration allows it.
func TestT_B19_CertificatesAreVerified(t *testing.T) {
	s := startAPIServer(t, nil)
	c := s.passthrough()
	c.CA = nil
	for way, ask := range ways(upstreamOf(t, c)) {
		e := status.From(ask(t.Context()))
		if e.Code != codes.Unavailable || e.Reason != unreachableNow || !strings.Contains(e.Message, "certificate authority") {
			t.Errorf("%s: %v", way, e)
		}
	}
	if n := len(s.seen()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	blind := own(s.kubeconfig(t, clientcmdapi.AuthInfo{Token: "static"}, func(c *clientcmdapi.Cluster) {
		c.InsecureSkipTLSVerify, c.CertificateAuthorityData = true, nil
	}))
	if _, err := New([]Config{blind}, "sluice/test", Timeouts{}); err == nil || !strings.Contains(err.Error(), "insecure") {
		t.Errorf("insecure-skip-tls-verify: %v", err)
	}
	blind.Insecure = true
	open(t, upstreamOf(t, blind))
}

// TestT_E4_SilentUpstreams: one that is reached and never says anything, in TLS or after it.
func TestT_E4_SilentUpstreams(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // its backlog takes connections, and nobody ever accepts them
	hold := make(chan struct{})
	s := startAPIServer(t, func(http.ResponseWriter, *http.Request) { <-hold })
	t.Cleanup(func() { close(hold) })
	silent := s.passthrough()
	silent.Server = "https://" + l.Addr().String()
	for name, c := range map[string]Config{"TLS": silent, "upgrade": s.passthrough()} {
		t.Run(name, func(t *testing.T) {
			u, err := newSetWith(t, Timeouts{Dial: time.Second, Handshake: 100 * time.Millisecond}, c).Resolve("", alice())
			if err != nil {
				t.Fatal(err)
			}
			if e := status.From(refuse(t, u)); e.Reason != unreachableNow || !strings.Contains(e.Message, "in time") {
				t.Errorf("got %v", e)
			}
		})
	}
}

func TestEndOfContextEndsDial(t *testing.T) {
	asked, hold := make(chan struct{}, 1), make(chan struct{})
	s := startAPIServer(t, func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-hold })
	t.Cleanup(func() { close(hold) })
	ended := errors.New("the channel was closed")
	for way, ask := range ways(upstreamOf(t, s.passthrough())) {
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { <-asked; cancel(ended) }()
		if err := ask(ctx); !errors.Is(err, ended) {
			t.Errorf("%s: %v", way, err)
		}
	}
}

func TestUnreachableCluster(t *testing.T) {
	s := startAPIServer(t, nil)
	c := s.passthrough()
	s.Close()
	for way, ask := range ways(upstreamOf(t, c)) {
		e := status.From(ask(t.Context()))
		if e.Code != codes.Unavailable || e.Reason != unreachableNow || strings.Contains(e.Message, "127.0.0.1") {
			t.Errorf("%s: %v", way, e)
		}
	}
}

// TestPathBelowAPrefix: behind Rancher and its like the API server is not at the root.
func TestPathBelowAPrefix(t *testing.T) {
	s := startAPIServer(t, nil)
	c := s.passthrough()
	c.Server += "/k8s/clusters/c-1/"
	u := upstreamOf(t, c)
	open(t, u)
	if got := s.last(t).URL.Path; got != "/k8s/clusters/c-1"+watchPath {
		t.Errorf("path %s", got)
	}
}

func TestAnswerIsReadWithinContext(t *testing.T) {
	hold := make(chan struct{})
	s := startAPIServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "beginning")
		_ = http.NewResponseController(w).Flush()
		<-hold
	})
	t.Cleanup(func() { close(hold) })
	ctx, cancel := context.WithCancel(t.Context())
	res, err := upstreamOf(t, s.passthrough()).Get(ctx, watchPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	if _, err := io.ReadAll(res.Body); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// spy is the only way out of an upstream, and leads nowhere.
type spy struct {
	mu        sync.Mutex
	addresses []string
}

var errSpied = errors.New("not dialled")

func (s *spy) dial(_ context.Context, _, address string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addresses = append(s.addresses, address)
	return nil, errSpied
}

// watched is alice's upstream whose dials the spy sees.
func watched(t testing.TB, s *spy) *Upstream {
	t.Helper()
	cfg := &rest.Config{Host: "https://cluster.test:6443/prefix", Dial: s.dial}
	e := &endpoint{
		cfg:      Config{Name: "dev", Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH},
		base:     &url.URL{Scheme: "https", Host: "cluster.test:6443", Path: "/prefix"},
		timeouts: Timeouts{}.withDefaults(),
	}
	if err := e.wire(cfg); err != nil {
		t.Fatal(err)
	}
	return &Upstream{endpoint: e, principal: alice()}
}

// FuzzPath proves of any path and query that only the configured address is dialled, and that what would be asked for is what was said:
// below the prefix, path and query each in their place (T-B8, T-B10, HL-D27).
func FuzzPath(f *testing.F) {
	for _, p := range []string{
		watchPath, "", "/", "//other.test/x", "/a/../b", "/a/%2e%2e/b", "/a%2Fb", "/a;b", "/a\\b", "/a\x00b", "/a?b", "/a#b", "/a/./b", "/a/",
		"@other.test/", ":80/", "https://other.test/", "/a\r\nHost: other.test", "/ä", "/a b",
	} {
		f.Add(p, "container", "a;b&c=d\r\n")
	}
	f.Fuzz(func(t *testing.T, p, key, value string) {
		s := &spy{}
		u := watched(t, s)
		defer u.endpoint.close()
		req, err := u.request(t.Context(), p, url.Values{key: {value}})
		if err != nil {
			if e := status.From(err); e.Code != codes.InvalidArgument || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET {
				t.Errorf("%q: %v", p, err)
			}
		} else {
			again, err := url.ParseRequestURI(req.URL.RequestURI())
			if err != nil || again.Path != "/prefix"+p || again.EscapedPath() != again.Path || path.Clean(p) != p || again.Query().Get(key) != value {
				t.Errorf("%q became %q, %v", p, req.URL, err)
			}
			if req.URL.Host != "cluster.test:6443" || req.Host != "cluster.test:6443" {
				t.Errorf("%q goes to %s", p, req.URL.Host)
			}
		}
		for _, ask := range []func() error{
			func() error { _, _, err := u.Dial(t.Context(), p, url.Values{key: {value}}); return err },
			func() error { _, err := u.Get(t.Context(), p, url.Values{key: {value}}); return err },
		} {
			if err := ask(); err == nil || req != nil && !errors.Is(err, errSpied) {
				t.Errorf("%q: %v", p, err)
			}
		}
		for _, address := range s.addresses {
			if address != "cluster.test:6443" {
				t.Errorf("%q made it dial %q", p, address)
			}
		}
		if req == nil && len(s.addresses) > 0 {
			t.Errorf("%q was dialled", p)
		}
	})
}

// TestHL_D27_PathsAreNotTheCallers: Headlamp dialled any path that its client sent.
func TestHL_D27_PathsAreNotTheCallers(t *testing.T) {
	s := &spy{}
	u := watched(t, s)
	for _, p := range []string{"", "api", "/api/../secrets", "//api", "/api/%2e%2e", "/api/", "/api/v1?watch=1", "/a\\b", "/a;b", "/a\n", "/ä"} {
		for way, ask := range map[string]func() error{
			"Dial": func() error { _, _, err := u.Dial(t.Context(), p, nil); return err },
			"Get":  func() error { _, err := u.Get(t.Context(), p, nil); return err },
		} {
			if e := status.From(ask()); e == nil || e.Code != codes.InvalidArgument || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET {
				t.Errorf("%s %q: %v", way, p, e)
			}
		}
	}
	if len(s.addresses) > 0 {
		t.Errorf("dialled %v", s.addresses)
	}
}
