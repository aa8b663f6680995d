package cluster

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"
	"k8s.io/client-go/rest"

	"github.com/sluice-gateway/sluice/internal/websocket"
)

// offeredKey is the context key of the subprotocols that a request offers.
type offeredKey struct{}

// upgraded is the body of a 101: the WebSocket.
type upgraded struct{ conn *websocket.Conn }

// Read implements io.Reader: a WebSocket is read by its own means.
func (*upgraded) Read([]byte) (int, error) { return 0, io.EOF }

// Close implements io.Closer.
func (u *upgraded) Close() error {
	u.conn.Close(websocket.CodeGoingAway)
	return nil
}

// upgrader asks for a WebSocket on a connection of its own each time. It is the RoundTripper at the bottom of client-go's wrappers. A refused
// upgrade is an ordinary response to them, so that they can renew their credential; its connection is closed and never used again.
type upgrader struct {
	dial     func(ctx context.Context, network, address string) (net.Conn, error)
	proxy    func(*http.Request) (*url.URL, error)
	tls      *tls.Config
	timeouts Timeouts
}

func newUpgrader(cfg *rest.Config, config *tls.Config, host string, timeouts Timeouts) *upgrader {
	u := &upgrader{dial: cfg.Dial, proxy: cfg.Proxy, timeouts: timeouts}
	if u.dial == nil {
		u.dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	if u.proxy == nil {
		u.proxy = http.ProxyFromEnvironment
	}
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	u.tls = config.Clone() // one for all connections, each of which keeps what it points to
	if u.tls.ServerName == "" {
		u.tls.ServerName = host
	}
	u.tls.NextProtos = []string{"http/1.1"} // HTTP/2 knows no upgrade
	return u
}

// RoundTrip implements http.RoundTripper.
func (u *upgrader) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	nc, err := u.connect(ctx, req)
	if err != nil {
		return nil, err
	}
	shake, cancel := context.WithTimeout(ctx, u.timeouts.Handshake)
	defer cancel()
	if req.URL.Scheme == "https" {
		secure, err := websocket.Secure(shake, nc, u.tls)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("TLS: %w", err), nc.Close())
		}
		nc = secure
	}
	offered, _ := ctx.Value(offeredKey{}).([]string)
	conn, err := websocket.Handshake(shake, nc, req, offered...)
	var answered *websocket.HandshakeError
	if errors.As(err, &answered) && answered.StatusCode >= 200 {
		return &http.Response{
			StatusCode: answered.StatusCode, Header: answered.Header, Body: io.NopCloser(bytes.NewReader(answered.Body)),
			Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
		}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	return &http.Response{
		StatusCode: http.StatusSwitchingProtocols, Header: http.Header{}, Body: &upgraded{conn},
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req,
	}, nil
}

// connect makes the TCP connection, through a proxy if there is one.
func (u *upgrader) connect(ctx context.Context, req *http.Request) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, u.timeouts.Dial)
	defer cancel()
	via, err := u.proxy(req)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	address := withPort(req.URL)
	switch {
	case via == nil:
		nc, err := u.dial(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("dial: %w", err)
		}
		return nc, nil
	case via.Scheme == "socks5", via.Scheme == "socks5h":
		return u.socks(ctx, via, address)
	case via.Scheme == "http", via.Scheme == "https":
		return u.tunnel(ctx, via, address)
	}
	return nil, fmt.Errorf("proxy: scheme %q is not supported", via.Scheme)
}

func withPort(u *url.URL) string {
	if port := u.Port(); port != "" {
		return net.JoinHostPort(u.Hostname(), port)
	}
	if port, ok := map[string]string{"https": "443", "http": "80", "socks5": "1080", "socks5h": "1080"}[u.Scheme]; ok {
		return net.JoinHostPort(u.Hostname(), port)
	}
	return u.Host
}

// dialFunc makes the upgrader's dial what golang.org/x/net/proxy forwards to.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Dial implements proxy.Dialer.
func (f dialFunc) Dial(network, address string) (net.Conn, error) {
	return f(context.Background(), network, address)
}

// DialContext implements proxy.ContextDialer.
func (f dialFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

func (u *upgrader) socks(ctx context.Context, via *url.URL, address string) (net.Conn, error) {
	var login *proxy.Auth
	if via.User != nil {
		password, _ := via.User.Password()
		login = &proxy.Auth{User: via.User.Username(), Password: password}
	}
	d, err := proxy.SOCKS5("tcp", withPort(via), login, dialFunc(u.dial))
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if cd, ok := d.(proxy.ContextDialer); ok {
		nc, err := cd.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, fmt.Errorf("proxy: %w", err)
		}
		return nc, nil
	}
	return nil, errors.New("proxy: the SOCKS dialer knows no contexts")
}

// tunnel asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6).
func (u *upgrader) tunnel(ctx context.Context, via *url.URL, address string) (net.Conn, error) {
	nc, err := u.dial(ctx, "tcp", withPort(via))
	if err != nil {
		return nil, fmt.Errorf("proxy: dial: %w", err)
	}
	if via.Scheme == "https" {
		secure := tls.Client(nc, &tls.Config{ServerName: via.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("proxy: TLS: %w", err), nc.Close())
		}
		nc = secure
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) }) // what waits returns at once
	err = askForTunnel(nc, via, address)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("proxy: %w", err), nc.Close())
	}
	return nc, nil
}

func askForTunnel(nc net.Conn, via *url.URL, address string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if via.User != nil {
		password, _ := via.User.Password()
		login := base64.StdEncoding.EncodeToString([]byte(via.User.Username() + ":" + password))
		req.Header.Set("Proxy-Authorization", "Basic "+login)
	}
	if err := req.Write(nc); err != nil {
		return fmt.Errorf("ask for a tunnel: %w", err)
	}
	r := bufio.NewReader(io.LimitReader(nc, 16<<10))
	res, err := http.ReadResponse(r, req) //nolint:bodyclose // a 200 to CONNECT has no body; any other answer ends the TCP connection
	switch {
	case err != nil:
		return fmt.Errorf("read the answer: %w", err)
	case res.StatusCode != http.StatusOK:
		return fmt.Errorf("the proxy answered %d", res.StatusCode)
	case r.Buffered() > 0:
		return errors.New("the proxy sent more than its answer")
	}
	return nil
}

// newTransport is for ordinary requests. Connections are not kept: requests are rare, and one connection never serves two principals.
func newTransport(cfg *rest.Config, config *tls.Config, timeouts Timeouts) *http.Transport {
	t := &http.Transport{
		Proxy: cfg.Proxy, DialContext: cfg.Dial, TLSClientConfig: config, TLSHandshakeTimeout: timeouts.Handshake,
		ResponseHeaderTimeout: timeouts.Handshake + 20*time.Second, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		DisableCompression: true,
	}
	if t.Proxy == nil {
		t.Proxy = http.ProxyFromEnvironment
	}
	if t.DialContext == nil {
		t.DialContext = (&net.Dialer{Timeout: timeouts.Dial, KeepAlive: 30 * time.Second}).DialContext
	}
	return t
}
