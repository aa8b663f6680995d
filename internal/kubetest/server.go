package kubetest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Options configure a [Server]. The zero value serves everybody.
type Options struct {
	// Authenticator finds out whose a bearer token is that is not a service
	// account's of this server; an error is a 401. It is called concurrently.
	// Without one everybody else is system:anonymous.
	Authenticator func(ctx context.Context, token string) (User, error)
	// ClientCAs verify client certificates, whose common name is then the user and
	// whose organizations the groups. Without them nobody is asked for one.
	ClientCAs *x509.CertPool
	// Authorizer decides whether a request may be served; false is a 403. It is
	// called concurrently. Without one everything may, unless RBAC says no.
	Authorizer func(User, Attributes) bool
	// RBAC lets a user do only what the roles and bindings in the store allow, see
	// [Server.Grant], beside what [Options.Authorizer] says. The group
	// system:masters may do everything.
	RBAC bool
	// Kinds are served beside the built-in ones, as custom resources are.
	Kinds []Kind
	// History is how many changes are kept per kind, 1,000 if 0. A watch from
	// an older version is told that it expired.
	History int
	// WatchQueue is how many changes may wait for one watch, 1,024 if 0. A
	// watch that falls further behind is ended.
	WatchQueue int
	// BookmarkInterval is the time between the bookmarks of a watch, a minute if 0.
	BookmarkInterval time.Duration
	// MinRequestTimeout bounds watches that name no timeoutSeconds: they end
	// after one to two times as long. Half an hour if 0.
	MinRequestTimeout time.Duration
	// LogBytes is how much of a container's log is kept, in bytes, 10 MiB if 0,
	// as a kubelet does; a log that grows longer is rotated.
	LogBytes int
	// ExecTimeout bounds what exec runs, an hour if 0; then it is killed.
	ExecTimeout time.Duration
	// WithoutWatchList turns KEP-3157 off, as it is by default in 1.33 and
	// before: sendInitialEvents is then refused.
	WithoutWatchList bool
	// Record keeps the requests for [Server.Requests], their credentials
	// included. Only for tests.
	Record bool
	// Logger receives what goes wrong while serving; nothing is logged without one.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.History == 0 {
		o.History = 1000
	}
	if o.WatchQueue == 0 {
		o.WatchQueue = 1024
	}
	if o.BookmarkInterval == 0 {
		o.BookmarkInterval = time.Minute
	}
	if o.LogBytes == 0 {
		o.LogBytes = 10 << 20
	}
	if o.ExecTimeout == 0 {
		o.ExecTimeout = time.Hour
	}
	if o.MinRequestTimeout == 0 {
		o.MinRequestTimeout = 30 * time.Minute
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Server is the API server: an [http.Handler], which [Server.Listen] serves
// over TLS. All its methods are safe for concurrent use.
type Server struct {
	// Faults is what goes wrong on purpose; nothing at first.
	Faults Faults

	// Immutable after New.
	options  Options
	catalog  *catalog
	store    *store
	node     *node
	accounts *accounts
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc

	requests sync.WaitGroup // every ServeHTTP; begun under mu while not closed
	counters counters
	listener listener

	mu     sync.Mutex
	closed bool                    // Guarded by mu.
	live   map[*liveWatch]struct{} // Guarded by mu.
	open   map[*stream]struct{}    // Guarded by mu.
	ways   map[string]int          // by user, the last way to impersonate; Guarded by mu.
}

// New makes a server with the namespaces every cluster has. Close it in the end.
func New(o Options) (*Server, error) {
	o = o.withDefaults()
	accounts, err := newAccounts()
	if err != nil {
		return nil, err
	}
	c := newCatalog(o.Kinds)
	ctx, cancel := context.WithCancel(context.Background())
	s := &Server{
		options: o, catalog: c, store: newStore(c, o.History, o.WatchQueue), accounts: accounts,
		ctx: ctx, cancel: cancel, live: map[*liveWatch]struct{}{}, open: map[*stream]struct{}{}, ways: map[string]int{},
	}
	s.node = &node{server: s, pods: map[key]*sandbox{}}
	s.counters.changed = make(chan struct{})
	if err := s.populate(); err != nil {
		cancel()
		return nil, err
	}
	return s, nil
}

// populate makes what every cluster has.
func (s *Server) populate() error {
	for _, name := range []string{"default", "kube-node-lease", "kube-public", "kube-system"} {
		if _, err := s.Apply(namespace(name)); err != nil {
			return err
		}
	}
	if s.options.RBAC {
		return s.grantDefaults()
	}
	return nil
}

func namespace(name string) Object {
	return Object{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": name, "labels": map[string]any{"kubernetes.io/metadata.name": name}},
		"spec":     map[string]any{"finalizers": []any{"kubernetes"}},
		"status":   map[string]any{"phase": "Active"},
	}
}

// Close ends every watch with close 1000, kills what runs in pods, which ends
// what is connected to it, stops listening, and returns when nothing of the
// server runs any more. A request on its way is answered.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.node.close()
	return s.listener.stop(s.requests.Wait)
}

// begin admits a request unless the server is closed; its end is s.requests.Done.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.requests.Add(1)
	return true
}

// call is one request on its way through the server. Owned by its handler.
type call struct {
	w          http.ResponseWriter
	r          *http.Request
	attributes Attributes
	user       User
	plan       plan
}

// ServeHTTP answers one request: recorded, struck by its faults, authenticated,
// authorized and routed, in that order.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.begin() {
		http.Error(w, "apiserver is shutting down", http.StatusServiceUnavailable)
		return
	}
	defer s.requests.Done()
	c := &call{w: w, r: r, attributes: parseAttributes(r)}
	s.counters.request(r, c.attributes, s.options.Record)
	c.plan = s.Faults.plan(c.attributes, r)
	if !c.plan.await(r.Context(), s.ctx) {
		return
	}
	if c.plan.answer != nil {
		c.plan.answer(s, c)
		return
	}
	c.w = c.plan.writer(w)
	setCommonHeaders(c.w)
	if err := s.serve(c); err != nil {
		s.refuse(c, err)
	}
}

func setCommonHeaders(w http.ResponseWriter) {
	w.Header().Set("Audit-Id", newUID())
	w.Header().Set("Cache-Control", "no-cache, private")
}

// refuse answers an error as the Status it is.
func (s *Server) refuse(c *call, err error) {
	var status *Status
	if !errors.As(err, &status) {
		s.options.Logger.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "err", err)
		status = unclassified(err.Error())
	}
	writeStatus(c.w, c.r, status)
}

func (s *Server) serve(c *call) error {
	if health(c.r.URL.Path) {
		return writeText(c.w, "ok")
	}
	user, err := s.authenticate(c.r)
	if err != nil {
		return err
	}
	c.user = user
	if c.user, err = s.impersonate(c); err != nil {
		return err
	}
	if err := s.permit(c.user, c.attributes); err != nil {
		return err
	}
	if c.attributes.Resource == "" {
		return s.serveDiscovery(c)
	}
	return s.serveResource(c)
}

func health(path string) bool {
	return path == "/livez" || path == "/readyz" || path == "/healthz"
}

// serveResource routes a request about objects of a kind.
func (s *Server) serveResource(c *call) error {
	a := c.attributes
	k := s.catalog.resource(a.Group, a.Version, a.Resource)
	switch {
	case k != nil && a.fits(k):
	case s.catalog.resources(a.Group, a.Version) != nil:
		return noSuchResource()
	default:
		http.NotFound(c.w, c.r)
		return nil
	}
	if serve := streamer(a.Subresource); serve != nil {
		return serve(s, c, k)
	}
	if !acceptsJSON(c.r) {
		return notAcceptable()
	}
	switch {
	case a.Subresource == "token":
		return s.serveToken(c, k)
	case k.review != nil:
		return s.serveReview(c, k)
	}
	switch a.Verb {
	case "get":
		return s.serveGet(c.w, c.r, k, a.key(k))
	case "list", "watch":
		return s.serveCollection(c, k)
	case "create", "update", "patch", "delete":
		return s.serveWrite(c, k)
	default:
		return methodNotAllowed()
	}
}

// fits says whether there is such a path for kind k.
func (a Attributes) fits(k *Kind) bool {
	switch {
	case a.Subresource != "":
		return k.Group == "" && a.Namespace != "" &&
			(k.Resource == "pods" && streamer(a.Subresource) != nil || k.Resource == "serviceaccounts" && a.Subresource == "token")
	case k.review != nil && a.Name != "":
		return false
	case k.Namespaced:
		return a.Namespace != "" || a.Verb == "list" || a.Verb == "watch" || a.Name == ""
	default:
		return a.Namespace == "" || k.Resource == "namespaces"
	}
}

func (s *Server) serveCollection(c *call, k *Kind) error {
	namespace := ""
	if k.Namespaced {
		namespace = c.attributes.Namespace
	}
	o, err := parseListOptions(k, namespace, c.r.URL.Query(), !s.options.WithoutWatchList)
	if err != nil {
		return err
	}
	if o.watch {
		return s.serveWatch(c, o)
	}
	return s.serveList(c.w, c.r, o)
}

// writeJSON answers body, indented for people (a browser, curl) as the API server does.
func writeJSON(w http.ResponseWriter, r *http.Request, code int, body []byte) {
	if pretty(r) {
		var b bytes.Buffer
		if json.Indent(&b, body, "", "  ") == nil {
			body = b.Bytes()
		}
	} else {
		body = append(bytes.Clone(body), '\n')
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(body) // An error means that the client is gone; there is nobody to tell.
}

func pretty(r *http.Request) bool {
	if q := r.URL.Query().Get("pretty"); q != "" {
		on, err := strconv.ParseBool(q)
		return err == nil && on
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

func writeText(w http.ResponseWriter, text string) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := io.WriteString(w, text)
	return err
}

// Apply creates the object or replaces it as a whole, by its kind, namespace
// and name, and returns what is stored. Writing what is there already changes
// nothing. The errors are of type [*Status]; the size is not bounded.
func (s *Server) Apply(o Object) (Object, error) {
	o, err := o.normalize()
	if err != nil {
		return nil, err
	}
	k := s.catalog.object(o.String("apiVersion"), o.String("kind"))
	if k == nil || k.review != nil {
		return nil, badRequest("no matches for kind %q in version %q", o.String("kind"), o.String("apiVersion"))
	}
	if err := identify(k, o, o.String("metadata", "namespace")); err != nil {
		return nil, err
	}
	r, err := s.store.put(k, o, write{})
	if err != nil {
		return nil, err
	}
	return r.object.normalize()
}

// Delete removes an object; deleting a namespace removes what is in it. The
// group and resource are as in paths, the namespace is empty for a
// cluster-wide kind. The errors are of type [*Status].
func (s *Server) Delete(group, resource, namespace, name string) error {
	k := s.kind(group, resource)
	if k == nil {
		return badRequest("no resource %q in group %q", resource, group)
	}
	_, err := s.store.remove(k, key{namespace, name}, write{})
	s.node.collect()
	return err
}

// Get returns a copy of an object. The errors are of type [*Status].
func (s *Server) Get(group, resource, namespace, name string) (Object, error) {
	k := s.kind(group, resource)
	if k == nil {
		return nil, badRequest("no resource %q in group %q", resource, group)
	}
	r, err := s.store.get(k, key{namespace, name})
	if err != nil {
		return nil, err
	}
	return r.object.normalize()
}

func (s *Server) kind(group, resource string) *Kind {
	for _, k := range s.catalog.kinds {
		if k.Group == group && k.Resource == resource {
			return k
		}
	}
	return nil
}

// Version is the resource version of the newest change.
func (s *Server) Version() uint64 { return s.store.current() }

// Compact forgets the history up to and including version, or up to the newest
// change if that is older: watches and lists at versions before it expire.
// Watches that are running go on.
func (s *Server) Compact(version uint64) { s.store.compact(version) }

// EndWatches ends every watch with close 1000, as the API server does at their timeout.
func (s *Server) EndWatches() { s.cutWatches(errEnded) }

// ResetWatches breaks every watch off with a TCP reset, as a crash does.
func (s *Server) ResetWatches() { s.cutWatches(errReset) }

func (s *Server) cutWatches(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.live {
		l.cancel(cause)
	}
}

var (
	errEnded = errors.New("ended on purpose")
	errReset = errors.New("reset on purpose")
	errSlow  = errors.New("the watch has fallen behind")
)
