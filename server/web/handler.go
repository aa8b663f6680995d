package web

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Behind is what lies behind the guard.
type Behind struct {
	// GRPC serves the calls of gRPC-Web and Connect. Required.
	GRPC *grpc.Server
	// Services are the names of those of its services that the port offers.
	Services []string
	// REST serves /v1/ and /openapi.json; nil for nothing there.
	REST http.Handler
	// TLS is what the port shows: its certificate says by which names it may be called. Required.
	TLS *tls.Config
	// Log takes what was refused and what panicked. Required.
	Log *slog.Logger
}

// Handler serves the web port. It is safe for concurrent use.
type Handler struct {
	// Immutable after New.
	config  Config
	hosts   *hosts
	origins origins
	grpc    *grpc.Server
	rest    http.Handler
	methods map[string]*method
	log     *slog.Logger
	// forwarded are the headers that become metadata.
	forwarded []string
	// bodyWithin is how long a body may take to arrive, and patience how long a client of HTTP/1.1 to take what there is for it.
	bodyWithin, patience time.Duration
}

// New makes the handler of a web port. All that is wrong with c is reported at once.
func New(c Config, b Behind) (*Handler, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	h := &Handler{
		config: c, hosts: newHosts(c.Hosts, b.TLS), origins: newOrigins(c), grpc: b.GRPC, rest: b.REST, methods: methods(b.GRPC, b.Services), log: b.Log,
		forwarded: slices.Clone(forwarded), bodyWithin: bodyWithin, patience: patience,
	}
	for _, name := range c.Forward {
		h.forwarded = append(h.forwarded, http.CanonicalHeaderKey(name))
	}
	return h, nil
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil {
			h.panicked(r, p)
		}
	}()
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'")
	header.Set("Cache-Control", "no-store")
	header.Set("Vary", "Origin")
	if r.ProtoMajor == 1 {
		if r.Header.Get("Upgrade") != "" || r.Method == http.MethodConnect || len(r.TransferEncoding) > 0 {
			// What follows may be meant for a tunnel, or be of a body whose length others saw differently (RFC 9112, section 6.3).
			header.Set("Connection", "close")
		}
		p := newPatient(w, h.patience)
		defer p.done()
		w = p
	}
	if f := h.guard(r); f != nil {
		h.refused(w, r, f)
		return
	}
	h.origins.share(w, r)
	if h.origins.preflight(w, r) {
		return
	}
	in := r.WithContext(r.Context())
	in.Header = h.filter(r.Header)
	if f := h.route(w, in); f != nil {
		h.refused(w, in, f)
	}
}

// guard refuses what must not reach anything of ours.
func (h *Handler) guard(r *http.Request) *refusal {
	to, ok := h.hosts.allow(r.Host)
	if !ok {
		return refuse(http.StatusMisdirectedRequest, denied("this port is not called by the name in the request"))
	}
	if !h.origins.allow(r, to) {
		return refuse(http.StatusForbidden, denied("pages of this origin may not call"))
	}
	if fields(r.Header) > h.config.Headers {
		return refuse(http.StatusRequestHeaderFieldsTooLarge, status.Limit("web.headers", "more than %d header fields", h.config.Headers))
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return refuse(http.StatusBadRequest, status.Violation("the query is malformed"))
	}
	if holdsSecret(q) || r.URL.User != nil {
		return refuse(http.StatusBadRequest, status.Violation("a credential does not belong in a URL: send it in the authorization header, "+
			"and regard this one as leaked"))
	}
	return nil
}

func denied(text string) *status.Error {
	return status.New(codes.PermissionDenied, sluicev1.Reason_REASON_UNSPECIFIED, "%s", text)
}

// route leads a request to what serves its path. A path is compared as it was sent: no other spelling of it means the same.
func (h *Handler) route(w http.ResponseWriter, r *http.Request) *refusal {
	path := r.URL.EscapedPath()
	if m := h.methods[path]; m != nil {
		return h.call(w, r, m)
	}
	if h.rest == nil || (path != "/openapi.json" && !strings.HasPrefix(path, "/v1/")) {
		return notFound()
	}
	return h.serveREST(w, r)
}

// serveREST hands a request to the REST handler, with its body in memory.
func (h *Handler) serveREST(w http.ResponseWriter, r *http.Request) *refusal {
	body, f := h.readBody(w, r)
	if f != nil {
		return f
	}
	r.Body, r.ContentLength = newBody(body), int64(len(body))
	h.rest.ServeHTTP(w, r)
	return nil
}

// refused answers a request that nothing of ours has run for. The log has the beginning of what an operator may want to allow, and no more of
// what the caller chose.
func (h *Handler) refused(w http.ResponseWriter, r *http.Request, f *refusal) {
	h.log.Info("web request refused", "peer", r.RemoteAddr, "host", beginning(r.Host), "origin", beginning(r.Header.Get("Origin")),
		"http_code", f.code, "code", f.err.Code.String(), "error", f.err.Error())
	f.write(w, r)
}

// beginning is as much of a name as the log has.
func beginning(s string) string { return s[:min(len(s), 128)] }

// panicked makes a panic the end of one request. The answer may have begun: it is cut off, so that nobody takes it for whole.
func (h *Handler) panicked(r *http.Request, p any) {
	if err, ok := p.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
		h.log.Error("a web request panicked", "peer", r.RemoteAddr, "panic", p, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}
