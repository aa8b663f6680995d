package auth_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	firstURL  = "https://one.example"
	secondURL = "https://two.example"
	audience  = "sluice"
)

// web is all issuers of a test behind one transport, reached in memory so that
// the time of a synctest bubble holds for them.
type web struct {
	mu      sync.Mutex
	hosts   map[string]http.Handler
	down    bool
	delay   time.Duration
	fetches map[string]int // of key sets, by host
	strays  []string       // requests to hosts that are no issuer
}

func newWeb() *web {
	return &web{hosts: map[string]http.Handler{}, fetches: map[string]int{}}
}

var errDown = errors.New("network is down")

// RoundTrip implements http.RoundTripper.
func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	handler, delay, err := w.route(r)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, r)
	response := recorder.Result()
	response.Request = r
	return response, nil
}

func (w *web) route(r *http.Request) (http.Handler, time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	handler := w.hosts[r.URL.Host]
	if handler == nil {
		w.strays = append(w.strays, r.URL.String())
	}
	if handler == nil || w.down {
		return nil, 0, errDown
	}
	if strings.HasSuffix(r.URL.Path, "/keys") {
		w.fetches[r.URL.Host]++
	}
	return handler, w.delay, nil
}

func (w *web) set(change func(*web)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

func (w *web) fetchesFrom(host string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fetches[host]
}

// newIssuer returns an issuer that the web serves.
func (w *web) newIssuer(t testing.TB, url string, opts ...issuer.Option) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New(url, opts...)
	if err != nil {
		t.Fatalf("new issuer: %v", err)
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
	w.set(func(w *web) { w.hosts[host] = i.Handler() })
	return i
}

// newOIDC returns an authenticator for issuers on the web.
func (w *web) newOIDC(t testing.TB, configs ...auth.IssuerConfig) *auth.OIDC {
	t.Helper()
	o, err := auth.NewOIDC(configs, auth.WithTransport(w))
	if err != nil {
		t.Fatalf("NewOIDC: %v", err)
	}
	t.Cleanup(o.Close)
	return o
}

func config(url string) auth.IssuerConfig {
	return auth.IssuerConfig{URL: url, Audiences: []string{audience}}
}

// single is one issuer and an authenticator for it.
type single struct {
	web    *web
	issuer *issuer.Issuer
	oidc   *auth.OIDC
}

func newSingle(t testing.TB, changes ...func(*auth.IssuerConfig)) single {
	t.Helper()
	w, c := newWeb(), config(firstURL)
	for _, change := range changes {
		change(&c)
	}
	return single{w, w.newIssuer(t, c.URL), w.newOIDC(t, c)}
}

func (s single) sign(t testing.TB, c issuer.Claims) string {
	t.Helper()
	return sign(t, s.issuer, c)
}

// sign returns a token of alice's for the gateway, unless the claims say otherwise.
func sign(t testing.TB, i *issuer.Issuer, c issuer.Claims) string {
	t.Helper()
	if c.Subject == "" {
		c.Subject = "alice"
	}
	if c.Audience == nil {
		c.Audience = []string{audience}
	}
	token, err := i.Sign(c)
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return token
}

func authenticate(t testing.TB, a auth.Authenticator, token string) (*auth.Principal, error) {
	t.Helper()
	return a.Authenticate(context.Background(), auth.NewSecret(token))
}

func mustAccept(t testing.TB, a auth.Authenticator, token string) *auth.Principal {
	t.Helper()
	p, err := authenticate(t, a, token)
	if err != nil {
		t.Fatalf("refused a good token: %v", err)
	}
	return p
}

// wantRefusal checks that the error is the refusal for that reason.
func wantRefusal(t testing.TB, p any, err error, reason sluicev1.Reason) {
	t.Helper()
	code := codes.Unauthenticated
	if reason == sluicev1.Reason_REASON_ISSUER_UNAVAILABLE {
		code = codes.Unavailable
	}
	var e *status.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %+v and error %v, want a refusal for %v", p, err, reason)
	}
	if e.Code != code || e.Reason != reason {
		t.Fatalf("refused with %v, want %v (%v)", e, code, reason)
	}
}

func mustRefuse(t testing.TB, a auth.Authenticator, token string, reason sluicev1.Reason) {
	t.Helper()
	p, err := authenticate(t, a, token)
	wantRefusal(t, p, err, reason)
}
