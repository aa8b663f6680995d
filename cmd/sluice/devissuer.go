package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/issuer"
)

// Who the tokens of dev are for, and of whom.
const (
	devAudience        = "sluice"          // the gateway's
	devClusterAudience = "sluice-dev-kube" // the embedded cluster's
	devSubject         = "dev"
)

// devIssuer is the issuer of `sluice dev`, served on loopback: discovery and keys, and no way to get a token from it.
type devIssuer struct {
	*issuer.Issuer
	http   *http.Server
	served chan error
}

// startIssuer serves a new issuer. stop ends it.
func startIssuer(ctx context.Context) (*devIssuer, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the issuer: %w", err)
	}
	is, err := issuer.New("http://" + l.Addr().String())
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	d := &devIssuer{is, &http.Server{Handler: is.Handler(), ReadHeaderTimeout: 5 * time.Second}, make(chan error, 1)}
	go func() { d.served <- d.http.Serve(l) }() // ends with stop, which waits
	return d, nil
}

func (d *devIssuer) stop() error {
	err := d.http.Close()
	if e := <-d.served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

// token is a token of the developer's.
func (d *devIssuer) token(ttl time.Duration) (string, error) {
	return d.Sign(issuer.Claims{
		Subject: devSubject, Audience: []string{devAudience, devClusterAudience}, Groups: []string{"developers"}, Expiry: time.Now().Add(ttl),
	})
}

// trustFor is how this issuer's tokens are verified by one of their audiences.
func (d *devIssuer) trustFor(audience string) []auth.IssuerConfig {
	return []auth.IssuerConfig{{URL: d.URL(), Audiences: []string{audience}}}
}
