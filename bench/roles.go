//go:build unix

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/bench/live"
	"github.com/sluice-gateway/sluice/bench/load"
	"github.com/sluice-gateway/sluice/bench/naive"
	"github.com/sluice-gateway/sluice/bench/process"
	"github.com/sluice-gateway/sluice/bench/upstream"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/kube"
)

// roles are the processes that the benchmark starts itself as.
var roles = map[string]func(in io.Reader, out io.Writer) error{
	upstreamRole:        func(in io.Reader, out io.Writer) error { return process.Serve(in, out, beUpstream) },
	string(load.Naive):  func(in io.Reader, out io.Writer) error { return process.Serve(in, out, beNaive) },
	string(load.Sluice): func(in io.Reader, out io.Writer) error { return process.Serve(in, out, beSluice) },
	realRole:            beReal,
	clientRole:          func(in io.Reader, out io.Writer) error { return process.Serve(in, out, load.New) },
}

const (
	upstreamRole = "upstream"
	realRole     = "real"
	clientRole   = "client"

	audience    = kube.Audience
	subject     = "alice"
	clusterName = "bench"
	loopback    = "127.0.0.1:0"
)

// upstreamConfig is what an upstream is started with, upstreamReady what it says then.
type upstreamConfig struct {
	TLS bool `json:"tls"`
}

type upstreamReady struct {
	URL    string `json:"url"`
	CA     []byte `json:"ca"`
	Issuer string `json:"issuer"`
	// IssuerCA is the authority of the issuer's certificate; none for an issuer in the clear.
	IssuerCA []byte `json:"issuer_ca,omitempty"`
	Token    string `json:"token"`
	// Command is what pours in a real upstream.
	Command []string `json:"command,omitempty"`
}

// stopCommand has an upstream send no more; it is given the namespaces not to wait for, and answers the last number of each other.
const stopCommand = "stop"

// beUpstream serves watches, and the issuer of the callers' tokens, which is a stranger to the gateway too.
func beUpstream(ctx context.Context, c upstreamConfig) (any, process.Commands, error) {
	cert, ca, err := process.Certificate()
	if err != nil {
		return nil, nil, err
	}
	var config *tls.Config
	if c.TLS {
		config = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	}
	watches := upstream.New(ctx)
	ready := upstreamReady{CA: ca}
	if ready.URL, err = serve(config, func(string) (http.Handler, error) { return watches, nil }); err != nil {
		return nil, nil, err
	}
	if ready.Issuer, ready.Token, err = serveIssuer(); err != nil {
		return nil, nil, err
	}
	return ready, process.Commands{stopCommand: process.With(func(ignored []string) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		return watches.Stop(ctx, ignored), nil
	})}, nil
}

// beReal is an API server with a node and the process that pours in it. It lasts as long as the process's input.
func beReal(in io.Reader, out io.Writer) (err error) {
	var up *live.Cluster
	defer func() {
		if up != nil {
			err = errors.Join(err, up.Close())
		}
	}()
	return process.Serve(in, out, func(ctx context.Context, _ upstreamConfig) (any, process.Commands, error) {
		own, err := os.Executable()
		if err != nil {
			return nil, nil, fmt.Errorf("find the own executable: %w", err)
		}
		if up, err = live.Start(ctx); err != nil {
			return nil, nil, err
		}
		ready := upstreamReady{
			URL: up.URL(), CA: up.CA(), Issuer: up.Issuer().URL(), IssuerCA: up.CA(), Token: up.Token(subject, kube.Streamers), Command: up.Command(own),
		}
		return ready, process.Commands{
			stopCommand: func(json.RawMessage) (any, error) {
				ctx, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				poured, err := up.Stop(ctx)
				return map[string]uint64{upstream.Shell: poured}, err
			},
			process.Usages: func(json.RawMessage) (any, error) {
				u := process.ReadUsage()
				u.CPU += process.Descendants()
				return u, nil
			},
		}, nil
	})
}

// serve serves what handler returns on a free port, whose URL it is told, for as long as the process lives.
func serve(config *tls.Config, handler func(address string) (http.Handler, error)) (address string, err error) {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	address = "http://" + l.Addr().String()
	if config != nil {
		address = "https://" + l.Addr().String()
		l = tls.NewListener(l, config)
	}
	h, err := handler(address)
	if err != nil {
		return "", err
	}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo) // who leaves in a handshake is no news
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: quiet}
	go s.Serve(l) //nolint:errcheck // it ends with the process
	return address, nil
}

// serveIssuer serves an issuer and makes a token of it.
func serveIssuer() (address, token string, err error) {
	address, err = serve(nil, func(address string) (http.Handler, error) {
		i, err := issuer.New(address)
		if err != nil {
			return nil, fmt.Errorf("make an issuer: %w", err)
		}
		token, err = i.Sign(issuer.Claims{Subject: subject, Audience: []string{audience}})
		return i.Handler(), err
	})
	return address, token, err
}

// gatewayConfig is what a gateway is started with, gatewayReady what it says then.
type gatewayConfig struct {
	Upstream upstreamReady `json:"upstream"`
}

type gatewayReady struct {
	Address string `json:"address"`
	CA      []byte `json:"ca"`
	// Admin is the address of Sluice's admin port.
	Admin string `json:"admin,omitempty"`
}

// collectCommand has a gateway collect its garbage and answer its process.Usage.
const collectCommand = "collect"

func collect(json.RawMessage) (any, error) {
	runtime.GC()
	return process.ReadUsage(), nil
}

func beNaive(_ context.Context, c gatewayConfig) (any, process.Commands, error) {
	cert, ca, err := process.Certificate()
	if err != nil {
		return nil, nil, err
	}
	u, err := url.Parse(c.Upstream.URL)
	if err != nil {
		return nil, nil, fmt.Errorf("the upstream's URL: %w", err)
	}
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	sluicev1.RegisterGatewayServiceServer(s, naive.New(u, process.Trust(c.Upstream.CA)))
	go s.Serve(l) //nolint:errcheck // it ends with the process
	return gatewayReady{Address: l.Addr().String(), CA: ca}, process.Commands{collectCommand: collect}, nil
}

// beSluice is the product with everything on and every limit at its default: tokens are verified, the audit is written (to nowhere), metrics
// are counted, sessions can be resumed.
func beSluice(ctx context.Context, c gatewayConfig) (any, process.Commands, error) {
	cert, ca, err := process.Certificate()
	if err != nil {
		return nil, nil, err
	}
	callers, err := auth.NewOIDC([]auth.IssuerConfig{{URL: c.Upstream.Issuer, CA: c.Upstream.IssuerCA, Audiences: []string{audience}}})
	if err != nil {
		return nil, nil, fmt.Errorf("make an authenticator: %w", err)
	}
	clusters, err := clusterOf(c.Upstream)
	if err != nil {
		return nil, nil, fmt.Errorf("make the clusters: %w", err)
	}
	formatted := slog.New(slog.NewJSONHandler(io.Discard, nil)) //nolint:sloglint // lines are to cost what they cost in earnest
	s, err := server.New(server.Config{
		GRPCAddr: loopback, AdminAddr: loopback, Authenticator: callers, Clusters: clusters, Version: "bench",
		TLS: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}},
		Log: formatted, Audit: formatted,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make the server: %w", err)
	}
	go s.Serve(ctx) //nolint:errcheck // it ends with the process
	ready := gatewayReady{Address: s.GRPCAddr().String(), CA: ca, Admin: s.AdminAddr().String()}
	return ready, process.Commands{collectCommand: collect}, nil
}

// clusterOf is the upstream as a cluster. The caller's token is passed on over TLS; in the clear no cluster may have it, nor does client-go
// send any other.
func clusterOf(u upstreamReady) (set *cluster.Set, err error) {
	if strings.HasPrefix(u.URL, "https:") {
		return cluster.New([]cluster.Config{{
			Name: clusterName, Server: u.URL, CA: u.CA, Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{audience},
		}}, "sluice-bench", cluster.Timeouts{})
	}
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "kubeconfig")
	if err := os.WriteFile(file, fmt.Appendf(nil, kubeconfig, u.URL), 0o600); err != nil {
		return nil, fmt.Errorf("write a kubeconfig: %w", err)
	}
	return cluster.New([]cluster.Config{{
		Name: clusterName, Kubeconfig: file, Insecure: true, Credential: sluicev1.Credential_CREDENTIAL_KUBECONFIG, Subjects: []string{subject},
	}}, "sluice-bench", cluster.Timeouts{})
}

// kubeconfig lacks the server's URL.
const kubeconfig = `apiVersion: v1
kind: Config
current-context: bench
contexts: [{name: bench, context: {cluster: bench}}]
clusters: [{name: bench, cluster: {server: "%s"}}]
`
