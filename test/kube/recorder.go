package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Request is what a [Recorder] saw of one request.
type Request struct {
	At       time.Time
	Proto    string // "HTTP/1.1", "HTTP/2.0"
	Method   string
	Host     string
	Path     string // decoded
	RawQuery string

	// Header is every header field as received, with all its values; the names
	// are in canonical form, and Host is not among them (RFC 9110 section 7.2).
	Header http.Header

	// Status is what the API server answered: 101 for a WebSocket. It is 0 until
	// then, and stays so if the API server could not be asked.
	Status int

	// Ended tells that the answer, or the WebSocket, has ended.
	Ended bool
}

// Expiry is a watch event of type ERROR with code 410 that passed on a WebSocket.
type Expiry struct {
	At      time.Time
	Request Request // the watch it ended
	Message string
}

// Recorder is a TLS proxy in front of a cluster's API server that notes what
// passes. To the client it is the API server: same authority, same host, HTTP/1.1
// and HTTP/2; after 101 Switching Protocols bytes are relayed unread, but for a
// look at the text frames of the server. It adds no header. When the API server
// cannot be dialled, the client's TCP connection is closed without an answer,
// which is what a dead server looks like. A client certificate does not get
// through; tokens do.
//
// All methods are safe for concurrent use. The goroutines belong to the server;
// Close ends them and waits.
type Recorder struct {
	// Immutable after NewRecorder.
	target    *Cluster
	listener  *trackedListener
	server    *http.Server
	proxy     *httputil.ReverseProxy
	transport *http.Transport
	served    chan error // gets what Serve returned

	handlers sync.WaitGroup // of ServeHTTP

	mu sync.Mutex
	// Guarded by mu.
	requests []*Request
	expiries []Expiry
	changed  chan struct{} // closed and replaced at every change
	closed   bool
}

// NewRecorder starts a recorder on a free port of the loopback interface.
func NewRecorder(target *Cluster) (*Recorder, error) {
	config, err := recorderTLS(target)
	if err != nil {
		return nil, fmt.Errorf("certificate of the recorder: %w", err)
	}
	inner, err := net.Listen("tcp", loopback(0))
	if err != nil {
		return nil, err
	}
	r := &Recorder{
		target:   target,
		listener: &trackedListener{Listener: inner, open: map[*trackedConn]struct{}{}},
		transport: &http.Transport{
			TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: target.ca.pool},
			DisableCompression: true,
		},
		served:  make(chan error, 1),
		changed: make(chan struct{}),
	}
	r.proxy = r.reverseProxy()
	r.server = &http.Server{
		Handler: r, TLSConfig: config, ReadHeaderTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // clients cut on purpose
	}
	go func() { r.served <- r.server.ServeTLS(r.listener, "", "") }()
	return r, nil
}

func recorderTLS(target *Cluster) (*tls.Config, error) {
	cert, err := target.ca.server("recorder")
	if err != nil {
		return nil, err
	}
	return cert.tls()
}

// reverseProxy passes requests on with the headers they came with; only Go's own
// User-Agent has to be kept from being added.
func (r *Recorder) reverseProxy() *httputil.ReverseProxy {
	upstream := &url.URL{Scheme: "https", Host: r.target.Addr()}
	return &httputil.ReverseProxy{
		Transport:     r.transport,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(upstream)
			p.Out.Host = p.In.Host
			p.Out.URL.RawQuery = p.In.URL.RawQuery
			if _, given := p.In.Header["User-Agent"]; !given {
				p.Out.Header["User-Agent"] = []string{""}
			}
			for name, values := range p.In.Header {
				if _, forwarded := forwardingHeaders[name]; forwarded {
					p.Out.Header[name] = values
				}
			}
		},
		ModifyResponse: r.answered,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // net/http's way to close without an answer
		},
	}
}

// forwardingHeaders are those that ReverseProxy drops from what it passes on.
var forwardingHeaders = map[string]struct{}{
	"Forwarded": {}, "X-Forwarded-For": {}, "X-Forwarded-Host": {}, "X-Forwarded-Proto": {},
}

type recordKey struct{}

// ServeHTTP implements http.Handler.
func (r *Recorder) ServeHTTP(w http.ResponseWriter, incoming *http.Request) {
	if !r.enter() {
		panic(http.ErrAbortHandler)
	}
	defer r.handlers.Done()
	record := &Request{
		At: time.Now(), Proto: incoming.Proto, Method: incoming.Method, Host: incoming.Host,
		Path: incoming.URL.Path, RawQuery: incoming.URL.RawQuery, Header: incoming.Header.Clone(),
	}
	r.update(func() { r.requests = append(r.requests, record) })
	defer r.update(func() { record.Ended = true })
	r.proxy.ServeHTTP(w, incoming.WithContext(context.WithValue(incoming.Context(), recordKey{}, record)))
}

// enter counts a handler in, unless Close waits for them already.
func (r *Recorder) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.handlers.Add(1)
	}
	return !r.closed
}

// answered notes the status, and looks at the frames of a WebSocket from then on.
func (r *Recorder) answered(response *http.Response) error {
	record := response.Request.Context().Value(recordKey{}).(*Request)
	r.update(func() { record.Status = response.StatusCode })
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil
	}
	relay, ok := response.Body.(io.ReadWriteCloser)
	if !ok {
		return errors.New("a 101 without a connection to relay")
	}
	events := &frameReader{message: func(text []byte) { r.sawMessage(record, text) }}
	response.Body = &watchedRelay{ReadWriteCloser: relay, events: events}
	return nil
}

func (r *Recorder) sawMessage(record *Request, text []byte) {
	message, expired := expiredEvent(text)
	if expired {
		r.update(func() {
			r.expiries = append(r.expiries, Expiry{At: time.Now(), Request: record.clone(), Message: message})
		})
	}
}

// update changes what is recorded and wakes who waits for that.
func (r *Recorder) update(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.changed)
	r.changed = make(chan struct{})
}

func (q *Request) clone() Request {
	c := *q
	c.Header = maps.Clone(q.Header)
	return c
}

// Requests returns what was recorded, oldest first.
func (r *Recorder) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Request, len(r.requests))
	for i, record := range r.requests {
		all[i] = record.clone()
	}
	return all
}

// Expired410 returns the 410s that passed in WebSocket watches, oldest first. A
// 410 outside of a stream is the Status of a [Request].
func (r *Recorder) Expired410() []Expiry {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.expiries)
}

// Reset forgets what was recorded. Requests still under way are forgotten too.
func (r *Recorder) Reset() {
	r.update(func() { r.requests, r.expiries = nil, nil })
}

// Await returns once what is recorded satisfies enough, which it asks after
// every change, or returns the cause of ctx. enough must not keep its argument.
func (r *Recorder) Await(ctx context.Context, enough func([]Request) bool) error {
	for {
		r.mu.Lock()
		changed := r.changed
		r.mu.Unlock()
		if enough(r.Requests()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Live returns how many TCP connections clients have open to the recorder.
func (r *Recorder) Live() int { return r.listener.live() }

// CutAll resets (TCP RST) every connection that clients have open to the
// recorder, in whatever state, and returns how many there were. New ones are
// accepted as before.
func (r *Recorder) CutAll() int { return r.listener.cutAll() }

// Addr returns the recorder's host:port.
func (r *Recorder) Addr() string { return r.listener.Addr().String() }

// URL returns the recorder's base URL, without a trailing slash.
func (r *Recorder) URL() string { return "https://" + r.Addr() }

// Close resets what is open and waits until everything has ended. It is called
// once.
func (r *Recorder) Close() error {
	r.update(func() { r.closed = true })
	err := r.server.Close()
	if served := <-r.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	r.CutAll()
	r.handlers.Wait()
	r.transport.CloseIdleConnections()
	return err
}
