package server

import (
	"context"
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

// Resolve is the upstream of a cluster for a principal. It dials nothing.
func (d *dialers) Resolve(name string, p *auth.Principal) (*dialer, error) {
	up, err := d.set.Resolve(name, p)
	if err != nil {
		return nil, err
	}
	return &dialer{Upstream: up, slots: d.slots[up.Cluster()]}, nil
}

func (d *dialers) close() { d.set.Close() }

// dialer is an upstream whose dials wait for their turn.
type dialer struct {
	*cluster.Upstream
	slots chan struct{}
}

// Dial implements bridge.Upstream.
func (d *dialer) Dial(ctx context.Context, path string, query url.Values, subprotocols ...string) (*websocket.Conn, string, error) {
	select {
	case d.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, "", context.Cause(ctx)
	}
	defer func() { <-d.slots }()
	return d.Upstream.Dial(ctx, path, query, subprotocols...)
}
