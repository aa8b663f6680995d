package cluster

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strings"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// endpoint is a cluster as it is reached. It is immutable and safe for concurrent use.
type endpoint struct {
	cfg       Config
	base      *url.URL
	origin    string // API servers refuse a watch over WebSocket without one
	userAgent string
	timeouts  Timeouts

	upgrade http.RoundTripper // asks for WebSockets; without a credential for passthrough
	plain   *http.Transport   // the connections of ordinary requests
	get     http.RoundTripper // asks for the rest, over plain
}

func newEndpoint(c Config, userAgent string, timeouts Timeouts) (*endpoint, error) {
	cfg, err := c.rest()
	if err != nil {
		return nil, err
	}
	e := &endpoint{cfg: c, userAgent: userAgent, timeouts: timeouts}
	if e.base, _, err = rest.DefaultServerUrlFor(cfg); err != nil {
		return nil, fmt.Errorf("cluster %q: server: %w", c.Name, err)
	}
	if e.base.User != nil {
		return nil, fmt.Errorf("cluster %q: server: a URL must not hold a user; give the kubeconfig one", c.Name)
	}
	e.base = &url.URL{Scheme: e.base.Scheme, Host: e.base.Host, Path: prefix(cfg.Host)}
	e.origin = e.base.Scheme + "://" + e.base.Host
	if passthrough := c.Credential == sluicev1.Credential_CREDENTIAL_PASSTHROUGH; e.base.Scheme != "https" && (passthrough || !c.Insecure) {
		return nil, fmt.Errorf("cluster %q: the server must be an https one: credentials must not travel in the clear", c.Name)
	}
	if err := e.wire(cfg); err != nil {
		return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	return e, nil
}

// prefix is the path below which the API server's own begin, as behind Rancher.
func prefix(host string) string {
	u, err := url.Parse(host)
	if err != nil || u.Host == "" {
		return ""
	}
	return strings.TrimSuffix(u.Path, "/")
}

// wire puts client-go's wrappers around what moves bytes.
func (e *endpoint) wire(cfg *rest.Config) error {
	config, err := rest.TLSConfigFor(cfg)
	if err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	up := newUpgrader(cfg, config, e.base.Hostname(), e.timeouts)
	e.plain = newTransport(cfg, config, e.timeouts)
	if e.upgrade, err = rest.HTTPWrappersForConfig(cfg, bottom{up}); err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	if e.get, err = rest.HTTPWrappersForConfig(cfg, bottom{e.plain}); err != nil {
		return fmt.Errorf("credential: %w", err)
	}
	return nil
}

func (e *endpoint) close() { e.plain.CloseIdleConnections() }

// Upstream is a cluster for one principal. It is safe for concurrent use.
type Upstream struct {
	endpoint  *endpoint
	principal *auth.Principal
}

// Cluster is the cluster's name.
func (u *Upstream) Cluster() string { return u.endpoint.cfg.Name }

// Identity is the cluster's name in cursors. It does not depend on the address.
func (u *Upstream) Identity() string {
	if id := u.endpoint.cfg.ID; id != "" {
		return id
	}
	return u.endpoint.cfg.Name
}

// Host is the name or address of the API server, without a port.
func (u *Upstream) Host() string { return u.endpoint.base.Hostname() }

// traceparentKey is the context key of a traceparent.
type traceparentKey struct{}

// WithTraceparent has the requests that are made with the context tell the API server which trace they belong to
// (https://www.w3.org/TR/trace-context/#traceparent-header). An empty one tells nothing.
func WithTraceparent(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return context.WithValue(ctx, traceparentKey{}, traceparent)
}

// Credential is whose credential the API server sees.
func (u *Upstream) Credential() sluicev1.Credential { return u.endpoint.cfg.Credential }

// Dial opens a WebSocket and returns it with the subprotocol that the API server chose. The error is a status.Error, with the API server's
// own answer if it gave one, or the end of ctx.
func (u *Upstream) Dial(ctx context.Context, path string, query url.Values, subprotocols ...string) (*websocket.Conn, string, error) {
	req, err := u.request(ctx, path, query)
	if err != nil {
		return nil, "", err
	}
	req = req.WithContext(context.WithValue(ctx, offeredKey{}, subprotocols))
	res, err := u.with(u.endpoint.upgrade).RoundTrip(req)
	if err != nil {
		return nil, "", u.failed(ctx, err)
	}
	up, ok := res.Body.(*upgraded)
	if !ok {
		return nil, "", u.refused(res)
	}
	return up.conn, up.conn.Subprotocol(), nil
}

// Get asks for a path and returns an answer of 2xx, whose body the caller closes; ctx bounds the reading of the body too. Redirects are not
// followed. Errors are those of Dial.
func (u *Upstream) Get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	req, err := u.request(ctx, path, query)
	if err != nil {
		return nil, err
	}
	res, err := u.RoundTrip(req)
	if err != nil {
		return nil, u.failed(ctx, err)
	}
	if res.StatusCode/100 != 2 {
		return nil, u.refused(res)
	}
	return res, nil
}

// RoundTrip implements http.RoundTripper for ordinary requests to the cluster with the principal's credential.
func (u *Upstream) RoundTrip(req *http.Request) (*http.Response, error) {
	return u.with(u.endpoint.get).RoundTrip(req)
}

// with adds the caller's own token, where that is what the API server sees.
func (u *Upstream) with(rt http.RoundTripper) http.RoundTripper {
	if u.Credential() == sluicev1.Credential_CREDENTIAL_PASSTHROUGH {
		return transport.NewBearerAuthRoundTripper(u.principal.Credential().Reveal(), rt)
	}
	return rt
}

// canonical says whether a path means the same to everybody who reads it on its way: it is clean and of characters that nobody escapes. What
// leads here is built of checked fields already; this is the second lock.
func canonical(p string) bool {
	const others = "-._~:/"
	return strings.HasPrefix(p, "/") && path.Clean(p) == p && !strings.ContainsFunc(p, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(others, r)
	})
}

// request builds a request from nothing.
func (u *Upstream) request(ctx context.Context, p string, query url.Values) (*http.Request, error) {
	if !canonical(p) {
		return nil, status.New(codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_TARGET, "the path of the target is not canonical")
	}
	target := *u.endpoint.base
	target.Path += p
	target.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, status.New(codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_TARGET, "the target makes no request").Wrap(err)
	}
	req.Header.Set("Accept", "application/json, */*") // a kubelet, which is asked for a stream with the same header, has no JSON to offer
	req.Header.Set("User-Agent", u.endpoint.userAgent)
	req.Header.Set("Origin", u.endpoint.origin)
	if tp, ok := ctx.Value(traceparentKey{}).(string); ok {
		req.Header.Set("Traceparent", tp)
	}
	return req, nil
}
