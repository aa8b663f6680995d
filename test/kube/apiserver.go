package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// startAPIServer starts the API server on its address and waits until it is
// ready, which since 1.36 includes its watch caches, and takes the tokens of every
// issuer, whose keys it fetches on its own time. The caller holds mu.
func (c *Cluster) startAPIServer(ctx context.Context) error {
	p, err := c.spawn("kube-apiserver", exec.Command(c.binary, c.apiserverArgs()...))
	if err != nil {
		return err
	}
	c.apiserver = p
	if err := awaitReady(ctx, p, c.adminHTTP, c.URL()+"/readyz", ""); err != nil {
		return err
	}
	for _, issuer := range c.Issuers() {
		if err := awaitReady(ctx, p, c.anyoneHTTP, c.URL()+"/api", token(issuer, "ready")); err != nil {
			return fmt.Errorf("tokens of %s are not accepted: %w", issuer.URL(), err)
		}
	}
	return nil
}

// apiserverArgs are its flags
// (https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/).
// The endpoint reconciler is off because a loopback address may not become the
// endpoint of the "kubernetes" service.
func (c *Cluster) apiserverArgs() []string {
	host, port, _ := strings.Cut(c.addr, ":")
	args := []string{
		"--bind-address", host, "--secure-port", port, "--advertise-address", host,
		"--tls-cert-file", c.state.path("apiserver.crt"), "--tls-private-key-file", c.state.path("apiserver.key"),
		"--client-ca-file", c.state.path("ca.crt"),
		"--etcd-servers", c.etcdURL, "--etcd-cafile", c.state.path("ca.crt"),
		"--etcd-certfile", c.state.path("etcd-client.crt"), "--etcd-keyfile", c.state.path("etcd-client.key"),
		"--service-account-issuer", c.URL(), "--service-account-key-file", c.state.path("accounts.pub"),
		"--service-account-signing-key-file", c.state.path("accounts.key"),
		"--authorization-mode", "Node,RBAC", "--authentication-config", c.state.path("authentication.json"),
		"--kubelet-certificate-authority", c.state.path("ca.crt"), "--kubelet-preferred-address-types", "InternalIP",
		"--kubelet-client-certificate", c.state.path("kubelet-client.crt"), "--kubelet-client-key", c.state.path("kubelet-client.key"),
		"--service-cluster-ip-range", "10.0.0.0/24", "--endpoint-reconciler-type", "none",
		"--cert-dir", c.state.path("apiserver"),
	}
	if len(c.options.Uncached) > 0 {
		args = append(args, "--watch-cache-sizes", strings.Join(c.options.Uncached, "#0,")+"#0")
	}
	return append(args, c.options.APIServerArgs...)
}

// KillAPIServer ends the API server as a crash does (SIGKILL): every TCP
// connection to it is closed by the kernel. It returns when the process is gone.
func (c *Cluster) KillAPIServer() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apiserver.kill()
}

// TerminateAPIServer asks the API server to end (SIGTERM) and does not wait. It
// refuses new TCP connections at once, leaves WebSockets open and silent, and
// waits about 60 s for them.
func (c *Cluster) TerminateAPIServer() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.apiserver.signal(syscall.SIGTERM)
}

// RestartAPIServer starts the API server on its old address, after killing what
// still runs, and waits until it is ready. Its watch caches begin anew at etcd's
// newest revision, so a watch that resumes from before that is told 410.
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	return c.restartAPIServer(ctx, func() error { return nil })
}

// Expire makes every resourceVersion the API server has given out so far too old
// to watch from, for all resources: a watch that resumes from one is accepted
// (101) and then told 410 in the stream. It kills the API server, so that no
// bookmark can hand out a newer version meanwhile, compacts etcd one revision
// after the newest (see [Cluster.Compact]), and starts the API server again,
// whose watch caches begin there. It takes as long as
// [Cluster.RestartAPIServer].
func (c *Cluster) Expire(ctx context.Context) error {
	return c.restartAPIServer(ctx, func() error {
		_, err := c.Compact(ctx)
		return err
	})
}

// restartAPIServer does between while no API server runs.
func (c *Cluster) restartAPIServer(ctx context.Context, between func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return errors.New("the cluster is stopped")
	}
	if err := c.apiserver.kill(); err != nil {
		return err
	}
	if err := between(); err != nil {
		return err
	}
	return c.startAPIServer(ctx)
}

// writeAuthentication writes the API server's structured authentication
// configuration: one JWT authenticator per issuer, and nobody anonymous but for
// the health endpoints
// (https://kubernetes.io/docs/reference/access-authn-authz/authentication/).
func (c *Cluster) writeAuthentication() error {
	type object = map[string]any
	var authenticators []object
	for i, issuer := range c.Issuers() {
		authenticators = append(authenticators, object{
			"issuer": object{
				"url": issuer.URL(), "audiences": []string{Audience},
				"certificateAuthority": string(c.ca.pem),
			},
			"claimMappings": object{
				"username": object{"claim": "sub", "prefix": prefix(i)},
				"groups":   object{"claim": "groups", "prefix": prefix(i)},
			},
		})
	}
	health := []object{{"path": "/livez"}, {"path": "/readyz"}, {"path": "/healthz"}}
	text, err := json.MarshalIndent(object{
		"apiVersion": "apiserver.config.k8s.io/v1",
		"kind":       "AuthenticationConfiguration",
		"jwt":        authenticators,
		"anonymous":  object{"enabled": true, "conditions": health},
	}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(c.state.path("authentication.json"), text, 0o600)
}
