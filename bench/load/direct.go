//go:build unix

package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/sluice-gateway/sluice/bench/process"
	"github.com/sluice-gateway/sluice/bench/upstream"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// direct opens a WebSocket to the upstream for each watch: what there is without any gateway.
type direct struct {
	c        Config
	upstream *url.URL
	tls      *tls.Config
	dialling chan struct{}
}

func openDirect(ctx context.Context, g *group, c Config) error {
	u, err := url.Parse(c.Upstream)
	if err != nil {
		return fmt.Errorf("the upstream's URL: %w", err)
	}
	d := &direct{c: c, upstream: u, tls: process.Trust(c.UpstreamCA), dialling: make(chan struct{}, 64)}
	for i := range c.Watches {
		g.watch(func() error { return d.watch(ctx, g.meter, i) })
	}
	return nil
}

// watch reads the i-th watch.
func (d *direct) watch(ctx context.Context, m *meter, i int) error {
	conn, err := d.dial(ctx, d.c.Watches[i])
	if err != nil {
		return err
	}
	defer conn.Close(websocket.CodeGoingAway)
	stop := context.AfterFunc(ctx, func() { conn.Close(websocket.CodeGoingAway) })
	defer stop()
	for {
		b, err := conn.Read(2*websocket.MaxRead, websocket.MaxRead)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		for _, f := range b.Fragments { // events are short enough to be whole
			m.deliver(i, f.Bytes)
		}
		b.Release()
		if d.c.Watches[i].Role == Stalled {
			<-ctx.Done()
			return ctx.Err()
		}
	}
}

func (d *direct) dial(ctx context.Context, w Watch) (*websocket.Conn, error) {
	d.dialling <- struct{}{}
	defer func() { <-d.dialling }()
	u := *d.upstream
	u.Path = "/api/v1/namespaces/" + w.Namespace + "/pods"
	u.RawQuery = url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "labelSelector": {upstream.Selector(w.Size, w.Rate)},
		"sendInitialEvents": {"true"}, "resourceVersionMatch": {"NotOlderThan"},
	}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	return d.shake(ctx, r)
}

// shake asks the upstream for a WebSocket.
func (d *direct) shake(ctx context.Context, r *http.Request, subprotocols ...string) (*websocket.Conn, error) {
	r.Header.Set("Authorization", "Bearer "+d.c.Token)
	r.Header.Set("Origin", d.c.Upstream)
	nc, err := d.reach(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial the upstream: %w", err)
	}
	conn, err := websocket.Handshake(ctx, nc, r, subprotocols...)
	if err != nil {
		return nil, fmt.Errorf("dial the upstream: %w", err)
	}
	return conn, nil
}

// reach makes what the WebSocket runs over.
func (d *direct) reach(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", d.upstream.Host)
	if err != nil || d.upstream.Scheme != "https" {
		return nc, err
	}
	config := d.tls.Clone()
	config.ServerName = d.upstream.Hostname()
	secure, err := websocket.Secure(ctx, nc, config)
	if err != nil {
		_ = nc.Close() // nothing of it is wanted
		return nil, err
	}
	return secure, nil
}
