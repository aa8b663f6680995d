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
	slots map[string]chan struct{}
}

func newDialers(set *cluster.Set, most int) *dialers {
	d := &dialers{set: set, slots: map[string]chan struct{}{}}
	for _, name := range set.Names() {
		d.slots[name] = make(chan struct{}, most)
	}
	return d
}

// Resolve is the upstream of a cluster for whoever principal names at the time of each request: a channel outlives the credential it was
// opened with. It dials nothing.
func (d *dialers) Resolve(name string, principal func() *auth.Principal) (*dialer, error) {
	up, err := d.set.Resolve(name, principal())
	if err != nil {
		return nil, err
	}
	return &dialer{set: d.set, first: up, principal: principal, slots: d.slots[up.Cluster()]}, nil
}

func (d *dialers) close() { d.set.Close() }

// dialer is an upstream whose dials wait for their turn, with the credential that is current then.
type dialer struct {
	set       *cluster.Set
	first     *cluster.Upstream // names the cluster
	principal func() *auth.Principal
	slots     chan struct{}
}

// Cluster implements bridge.Upstream.
func (d *dialer) Cluster() string { return d.first.Cluster() }

// Identity implements bridge.Upstream.
func (d *dialer) Identity() string { return d.first.Identity() }

func (d *dialer) now() (*cluster.Upstream, error) {
	return d.set.Resolve(d.first.Cluster(), d.principal())
}

// Get implements bridge.Upstream.
func (d *dialer) Get(ctx context.Context, path string, query url.Values) (*http.Response, error) {
	up, err := d.now()
	if err != nil {
		return nil, err
	}
	return up.Get(ctx, path, query)
}

// Dial implements bridge.Upstream.
func (d *dialer) Dial(ctx context.Context, path string, query url.Values, subprotocols ...string) (*websocket.Conn, string, error) {
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, "", context.Cause(ctx)
	}
	defer func() { <-d.slots }()
	up, err := d.now()
	if err != nil {
		return nil, "", err
	}
	return up.Dial(ctx, path, query, subprotocols...)
}
