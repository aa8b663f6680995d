package rest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	"github.com/sluice-gateway/sluice/gen/openapi"
	restv1 "github.com/sluice-gateway/sluice/gen/rest/sluice/v1"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// handler answers all of REST.
type handler struct {
	// Immutable after New.
	unary   *runtime.ServeMux
	routes  *http.ServeMux // finds the route of a method and a path; nothing is served by it
	methods []string       // that any route has
	streams map[string]call
}

// New makes the handler of /v1/ and of /openapi.json, which calls conn. It starts nothing: a call lasts as long as its request. The caller bounds
// the bodies of requests, answers preflights, and says who may come.
func New(conn grpc.ClientConnInterface) (http.Handler, error) {
	gateway := sluicev1.NewGatewayServiceClient(conn)
	h := &handler{
		unary: newUnary(), routes: http.NewServeMux(),
		streams: map[string]call{"Watch": streaming(gateway.Watch), "Logs": streaming(gateway.Logs)},
	}
	ctx := context.Background() // of the registration; nothing keeps it
	if err := restv1.RegisterClusterServiceHandlerClient(ctx, h.unary, sluicev1.NewClusterServiceClient(conn)); err != nil {
		return nil, fmt.Errorf("register ClusterService: %w", err)
	}
	if err := restv1.RegisterSessionServiceHandlerClient(ctx, h.unary, sluicev1.NewSessionServiceClient(conn)); err != nil {
		return nil, fmt.Errorf("register SessionService: %w", err)
	}
	routes, err := routesOf(openapi.Document)
	if err != nil {
		return nil, err
	}
	for _, rt := range routes {
		if rt.streams != (h.streams[rt.operation] != nil) {
			return nil, fmt.Errorf("the OpenAPI document and the streaming methods differ about %s", rt.operation)
		}
		if i := slices.IndexFunc(rt.produces, func(format string) bool { return rt.streams && forms[format] == nil }); i >= 0 {
			return nil, fmt.Errorf("OpenAPI document: no stream is written as %s", rt.produces[i])
		}
		h.add(rt.method, rt.path, h.serve(rt))
	}
	h.add(http.MethodGet, "/openapi.json", http.HandlerFunc(serveDocument))
	return h, nil
}

func (h *handler) add(method, pattern string, next http.Handler) {
	h.routes.Handle(method+" "+pattern, next)
	if !slices.Contains(h.methods, method) {
		h.methods = append(h.methods, method)
	}
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := checkSecrets(r.URL); err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	if !plainPath(r.URL) {
		refuse(w, http.StatusNotFound, errNoPath)
		return
	}
	if h.finds(r, r.Method) {
		h.routes.ServeHTTP(w, r)
		return
	}
	var allowed []string
	for _, method := range h.methods {
		if h.finds(r, method) {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		refuse(w, http.StatusNotFound, errNoPath)
		return
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	refuse(w, http.StatusMethodNotAllowed, errNoMethod)
}

// finds reports whether there is a route. The methods are compared here, because to http.ServeMux a HEAD is a GET as well, and a HEAD of a watch
// would be a watch.
func (h *handler) finds(r *http.Request, method string) bool {
	_, pattern := h.routes.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host})
	return strings.HasPrefix(pattern, method+" ")
}

// plainPath reports whether a path is the only way to write itself: no escapes, no dots, no empty segments. No name of a cluster, resource,
// namespace, pod or session needs an escape, so two readers of a path cannot take it for two.
func plainPath(u *url.URL) bool {
	return !strings.Contains(u.EscapedPath(), "%") && path.Clean(u.Path) == u.Path
}

// serve is the handler of one route: the request is checked, then becomes a call.
func (h *handler) serve(rt *route) http.Handler {
	stream := h.streams[rt.operation]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		values, err := rt.query(r.URL.RawQuery)
		if err != nil {
			refuse(w, http.StatusBadRequest, err)
			return
		}
		format := rt.format(r.Header)
		if format == "" {
			refuse(w, http.StatusNotAcceptable, rt.notAcceptable())
			return
		}
		if format == plainText && !r.ProtoAtLeast(1, 1) {
			refuse(w, http.StatusNotAcceptable, errNoEnd)
			return
		}
		body, code, err := rt.readBody(r)
		if err != nil {
			refuse(w, code, err)
			return
		}
		if stream != nil {
			h.stream(w, r, rt, stream, values, format)
			return
		}
		h.unary.ServeHTTP(w, rebuild(r, values, body))
	})
}

func serveDocument(w http.ResponseWriter, r *http.Request) {
	if r.URL.RawQuery != "" {
		refuse(w, http.StatusBadRequest, invalid("the document takes no query parameters"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openapi.Document) // a client that has left is told nothing
}
