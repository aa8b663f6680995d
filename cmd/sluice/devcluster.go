package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// devLogBytes bounds the log of each of its containers, in bytes.
const devLogBytes = 256 << 10

// devCluster is the embedded cluster of `sluice dev`, with pods that come, change and go, and some that stay and can be talked to. It
// verifies tokens itself, as an API server does, for an audience of its own.
type devCluster struct {
	*kubetest.Server
	oidc   *auth.OIDC
	cancel context.CancelFunc
	ran    chan error
}

// startCluster runs the embedded cluster until stop.
func startCluster(is *devIssuer, log *slog.Logger) (*devCluster, error) {
	oidc, err := auth.NewOIDC(is.trustFor(devClusterAudience), auth.WithLogger(log))
	if err != nil {
		return nil, err
	}
	d := &devCluster{oidc: oidc, ran: make(chan error, 1)}
	if d.Server, err = kubetest.New(kubetest.Options{Authenticator: d.authenticate, Logger: log, LogBytes: devLogBytes}); err != nil {
		oidc.Close()
		return nil, err
	}
	if err := kubetest.RunPods(d.Server); err != nil {
		oidc.Close()
		return nil, errors.Join(err, d.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	go func() { d.ran <- kubetest.RunDemo(ctx, d.Server) }() // ends with stop, which waits
	if err := d.Listen(ctx, "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

func (d *devCluster) authenticate(ctx context.Context, token string) (kubetest.User, error) {
	p, err := d.oidc.Authenticate(ctx, auth.NewSecret(token))
	if err != nil {
		return kubetest.User{}, fmt.Errorf("verify the token: %w", err)
	}
	return kubetest.User{Name: p.Username, Groups: append(p.Groups, "system:authenticated")}, nil
}

func (d *devCluster) stop() error {
	d.cancel()
	err := errors.Join(<-d.ran, d.Close())
	d.oidc.Close()
	return err
}
