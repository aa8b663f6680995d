package server

import (
	"context"
	"net/http"
	"net/url"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/cluster"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// dialers bounds how many upstreams of one cluster are dialled at a time, so that a burst of opens becomes no storm of handshakes, and a
// cluster that hangs holds up nobody but its own users.
type dialers struct {
	set *cluster.Set
	// Immutable after newDialers: one semaphore for each cluster.
	slots   map[string]chan struct{}
	trim    *trim
	metrics *metrics
	spans   *spans
}

func newDialers(set *cluster.Set, most int, m *metrics, t *spans) *dialers {
	d := &dialers{set: set, slots: map[string]chan struct{}{}, trim: newTrim(), metrics: m, spans: t}
	for _, name := range set.Names() {
		d.slots[name] = make(chan struct{}, most)
	}
	return d
}

// Resolve is the upstream of a cluster for a channel of a kind and whoever principal names at the time of each request: a channel outlives the
// credential it was opened with. It dials nothing.
func (d *dialers) Resolve(name, kind string, principal func() *auth.Principal) (*dialer, error) {
	up, err := d.set.Resolve(name, principal())
	if err != nil {
		return nil, err
	}
	return &dialer{all: d, first: up, kind: kind, principal: principal}, nil
}

// close ends what dials share. No upstream is left.
func (d *dialers) close() {
	d.trim.stop()
	d.set.Close()
}

// dialer is an upstream whose dials wait for their turn, with the credential that is current then.
type dialer struct {
	all       *dialers
	first     *cluster.Upstream // names the cluster
	kind      string            // of the channel
	principal func() *auth.Principal
}

// Cluster implements bridge.Upstream.
func (d *dialer) Cluster() string { return d.first.Cluster() }

// Identity implements bridge.Upstream.
func (d *dialer) Identity() string { return d.first.Identity() }

// Sharing implements bridge.Upstream: what one channel of a principal is told of a cluster, another may be told too.
func (d *dialer) Sharing() string { return d.principal().Key() }

func (d *dialer) now() (*cluster.Upstream, error) {
	return d.all.set.Resolve(d.first.Cluster(), d.principal())
}

// Get implements bridge.Upstream.
func (d *dialer) Get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	up, err := d.now()
	if err != nil {
		return nil, err
	}
	ctx = d.all.spans.request(ctx, "get")
	res, err := up.Get(cluster.WithTraceparent(ctx, traceparent(ctx)), path, query)
	d.all.spans.answered(ctx, up, codeOf(res), err)
	return res, err
}

// codeOf is the code of an answer, 0 for none.
func codeOf(res *http.Response) int {
	if res == nil {
		return 0
	}
	return res.StatusCode
}

// Dial implements bridge.Upstream.
func (d *dialer) Dial(ctx context.Context, path string, query url.Values, subprotocols ...string) (conn *websocket.Conn, subprotocol string, err error) {
	over := d.all.metrics.dial(d.Cluster())
	defer func() { over(err) }()
	slots := d.all.slots[d.Cluster()]
	select {
	case slots <- struct{}{}:
	case <-ctx.Done():
		return nil, "", context.Cause(ctx)
	}
	defer func() {
		<-slots
		d.all.trim.dialled()
	}()
	up, err := d.now()
	if err != nil {
		return nil, "", err
	}
	ctx = d.all.spans.request(ctx, d.kind)
	conn, subprotocol, err = up.Dial(cluster.WithTraceparent(ctx, traceparent(ctx)), path, query, subprotocols...)
	code := 0
	if err == nil {
		code = http.StatusSwitchingProtocols
	}
	d.all.spans.answered(ctx, up, code, err)
	return conn, subprotocol, err
}
