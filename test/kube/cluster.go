package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Options say what a cluster is to be. The zero value is a good one.
type Options struct {
	// Issuers is how many OIDC issuers the API server trusts; one if zero.
	Issuers int

	// Uncached names resources ("configmaps", "deployments.apps") that the API
	// server serves without a watch cache. Their watches come from etcd itself, so
	// [Cluster.Compact] alone expires them, and sendInitialEvents is refused.
	Uncached []string

	// APIServerArgs are further flags of kube-apiserver.
	APIServerArgs []string
}

// Cluster is a running etcd and kube-apiserver with the issuers they trust. All
// its methods are safe for concurrent use. Whoever started it must stop it; on
// Linux its processes end with this process in any case.
type Cluster struct {
	// Immutable after Start.
	options    Options
	binary     string // kube-apiserver
	addr       string // of the API server
	etcdURL    string
	state      *state
	ca         *authority
	issuers    []*issuerServer
	etcd       *process
	etcdHTTP   *http.Client
	adminHTTP  *http.Client
	anyoneHTTP *http.Client // shows no certificate
	admin      kubernetes.Interface

	mu sync.Mutex
	// Guarded by mu.
	apiserver *process
	node      *Node // nil unless started
	stopped   bool
}

// Start brings a cluster up and returns when the API server is ready and the
// objects named in this package exist: about 4 s, and [Binaries] before it, whose
// progress goes to standard error. ctx bounds the start, not the cluster.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	etcd, apiserver, err := Binaries(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	c := &Cluster{options: options, binary: apiserver}
	if err := c.start(ctx, etcd); err != nil {
		err = fmt.Errorf("start a cluster: %w%s", err, c.logTails())
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, etcd string) error {
	addrs, err := loopbackAddrs(3)
	if err != nil {
		return err
	}
	c.addr = addrs[0]
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.startEtcd(ctx, etcd, addrs[1], addrs[2]); err != nil {
		return err
	}
	c.mu.Lock()
	err = c.startAPIServer(ctx)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	return c.populate(ctx)
}

// prepare makes all that the processes need: the folder, keys and certificates,
// the issuers, the API server's configuration, and our own clients.
func (c *Cluster) prepare() (err error) {
	if c.state, err = newState(); err != nil {
		return err
	}
	if c.ca, err = newAuthority(); err != nil {
		return err
	}
	for range max(1, c.options.Issuers) {
		server, err := newIssuerServer(c.ca)
		if err != nil {
			return fmt.Errorf("start an issuer: %w", err)
		}
		c.issuers = append(c.issuers, server)
	}
	if err := c.writeKeys(); err != nil {
		return fmt.Errorf("write keys: %w", err)
	}
	return c.writeAuthentication()
}

// writeKeys issues every certificate; two of them our own clients use.
func (c *Cluster) writeKeys() error {
	if err := os.WriteFile(c.state.path("ca.crt"), c.ca.pem, 0o600); err != nil {
		return err
	}
	for _, name := range []string{"etcd", "apiserver", "node"} {
		p, err := c.ca.server(name)
		if err = errors.Join(err, p.write(c.state.path(name))); err != nil {
			return err
		}
	}
	store, err := c.ca.client("apiserver")
	if err = errors.Join(err, store.write(c.state.path("etcd-client"))); err != nil {
		return err
	}
	kubelets, err := c.ca.client("apiserver")
	if err = errors.Join(err, kubelets.write(c.state.path("kubelet-client"))); err != nil {
		return err
	}
	kubelet, err := c.ca.client("system:node:"+nodeName, "system:nodes")
	if err = errors.Join(err, kubelet.write(c.state.path("node-client"))); err != nil {
		return err
	}
	accounts, err := newKey()
	if err = errors.Join(err,
		os.WriteFile(c.state.path("accounts.key"), accounts.private, 0o600),
		os.WriteFile(c.state.path("accounts.pub"), accounts.publicPEM, 0o600)); err != nil {
		return err
	}
	admin, err := c.ca.client("admin", "system:masters")
	if err != nil {
		return err
	}
	return errors.Join(c.useKeys(store, admin), c.writeAdminKubeconfig(admin))
}

func (c *Cluster) useKeys(store, admin pair) error {
	storeCert, err := store.tls()
	if err != nil {
		return err
	}
	adminCert, err := admin.tls()
	if err != nil {
		return err
	}
	c.etcdHTTP = c.httpClient(storeCert.Certificates...)
	c.adminHTTP = c.httpClient(adminCert.Certificates...)
	c.anyoneHTTP = c.httpClient()
	// A negative QPS means no throttling on this side.
	c.admin, err = kubernetes.NewForConfigAndClient(&rest.Config{Host: c.URL(), QPS: -1}, c.adminHTTP)
	return err
}

// httpClient returns a client that shows the certificates and whose idle
// connections [Cluster.Stop] can close, which client-go's own cannot.
func (c *Cluster) httpClient(certs ...tls.Certificate) *http.Client {
	return &http.Client{Transport: &http.Transport{
		ForceAttemptHTTP2: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.ca.pool, Certificates: certs},
	}}
}

// spawn starts a process of the cluster, its output going to its log file.
func (c *Cluster) spawn(name string, cmd *exec.Cmd) (*process, error) {
	log, err := c.state.log(name)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own by then
	cmd.Stdout, cmd.Stderr = log, log
	p, err := startProcess(name, cmd)
	if err != nil {
		return nil, err
	}
	return p, c.state.record(p)
}

// Stop ends the processes and issuers, waits for them, and removes their state.
// Nothing needs to be saved, so it does not ask them to end but kills them. A
// second call does nothing.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return nil
	}
	c.stopped = true
	var errs []error
	if c.node != nil {
		errs = append(errs, c.node.Kill())
	}
	for _, p := range []*process{c.apiserver, c.etcd} {
		if p != nil {
			errs = append(errs, p.kill())
		}
	}
	for _, client := range []*http.Client{c.adminHTTP, c.etcdHTTP, c.anyoneHTTP} {
		if client != nil {
			client.CloseIdleConnections()
		}
	}
	for _, server := range c.issuers {
		errs = append(errs, server.close())
	}
	if c.state != nil {
		errs = append(errs, c.state.remove())
	}
	return errors.Join(errs...)
}

// Addr returns the API server's host:port, the same for the cluster's life.
func (c *Cluster) Addr() string { return c.addr }

// URL returns the API server's base URL, without a trailing slash.
func (c *Cluster) URL() string { return "https://" + c.addr }

// CA returns the certificate, in PEM, of the authority that signed the API
// server's, the issuers' and the recorders' certificates.
func (c *Cluster) CA() []byte { return c.ca.pem }

// CertPool returns a pool of that one certificate; the caller may add to it.
func (c *Cluster) CertPool() *x509.CertPool { return c.ca.pool.Clone() }

// Admin returns a client that may do everything. It does not throttle itself.
func (c *Cluster) Admin() kubernetes.Interface { return c.admin }
