package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/cmd/sluice/config"
	"github.com/sluice-gateway/sluice/server"
)

// Where dev listens unless that is busy.
const (
	devGRPCAddr  = "127.0.0.1:8443"
	devWebAddr   = "127.0.0.1:8444"
	devAdminAddr = "127.0.0.1:9090"
)

// devFlags are the flags of `sluice dev`.
type devFlags struct {
	sys        system
	listen     listenFlags
	kubeconfig string
	ttl        time.Duration
	grpcurl    string
	logLevel   string
}

func newDev(sys system) *cobra.Command {
	f := &devFlags{sys: sys}
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a gateway with everything it needs: a cluster, an issuer and a certificate, all embedded",
		Long: `Run a gateway that needs nothing: an embedded cluster whose pods come, change and go, an embedded OpenID Connect issuer, and a certificate
made for this run. It listens on loopback alone, takes free ports where the usual ones are busy, and prints a token and lines to paste.

$KUBECONFIG is ignored. With --kubeconfig the contexts of that file take the embedded cluster's place, each with the credential that the
file has for it: whoever holds the printed token acts with them.`,
		Example: `  sluice dev
  sluice dev --kubeconfig ~/.kube/config
  sluice dev --token-ttl 5m --ready-file dev.ready.json`,
		Args: arguments(0, 0, ""),
		RunE: f.run,
	}
	f.listen.add(cmd, devGRPCAddr, devWebAddr, devAdminAddr)
	flags := cmd.Flags()
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "serve the contexts of this `FILE` instead of the embedded cluster")
	flags.DurationVar(&f.ttl, "token-ttl", 24*time.Hour, "the `TIME` that the printed token lives")
	flags.StringVar(&f.grpcurl, "grpcurl", "", "the `COMMAND` by which the lines to paste call grpcurl; as found on the PATH without it")
	flags.StringVar(&f.logLevel, "log-level", "info", "the `LEVEL` from which on is logged, to the standard error: debug, info, warn or error")
	fixed(cmd, "log-level", config.Levels()...)
	files(cmd, "kubeconfig")
	files(cmd, "grpcurl")
	return cmd
}

// check refuses flags that make no sense, and finds ports.
func (f *devFlags) check(cmd *cobra.Command) error {
	if f.ttl <= 0 {
		return usage(cmd, "--token-ttl %v: a token must live for some time", f.ttl)
	}
	for _, l := range []struct {
		flag string
		addr *string
	}{{"grpc-addr", &f.listen.grpc}, {"web-addr", &f.listen.web}, {"admin-addr", &f.listen.admin}} {
		if err := f.findPort(cmd, l.flag, l.addr); err != nil {
			return err
		}
	}
	if f.kubeconfig == "" && f.sys.getenv("KUBECONFIG") != "" {
		newNotices(f.sys.stderr).sayf("$KUBECONFIG is ignored: this is the embedded cluster; --kubeconfig FILE serves your own")
	}
	return nil
}

// findPort refuses an address that others reach, and takes a free port in place of a usual one that is busy.
func (f *devFlags) findPort(cmd *cobra.Command, flag string, addr *string) error {
	if flag == "web-addr" && *addr == "" {
		return nil // switched off
	}
	if err := loopback(flag, *addr); err != nil {
		return usage(cmd, "%w", err)
	}
	if cmd.Flags().Changed(flag) {
		return nil
	}
	free, busy, err := orFree(cmd.Context(), *addr)
	if err != nil {
		return err
	}
	if busy {
		newNotices(f.sys.stderr).sayf("%s is busy; taking a free port (--%s chooses one)", *addr, flag)
	}
	*addr = free
	return nil
}

func (f *devFlags) run(cmd *cobra.Command, _ []string) (err error) {
	if err := f.check(cmd); err != nil {
		return err
	}
	log, err := newLog(f.sys.stderr, "text", f.logLevel)
	if err != nil {
		return usage(cmd, "%w", err)
	}
	var d dev
	defer func() { err = errors.Join(err, d.closers.close()) }()
	if err := d.assemble(cmd.Context(), f, log); err != nil {
		return err
	}
	s, err := server.New(d.config)
	if err != nil {
		return err
	}
	r := addresses(s, d.caFile)
	r.Token, r.Cluster = d.token, d.clusters[0]
	remove, err := r.write(f.listen.readyFile)
	if err != nil {
		return err // the sockets end with the process
	}
	d.closers.add(remove)
	f.greet(r, d.clusters, time.Now().Add(f.ttl))
	return s.Serve(cmd.Context())
}

// dev is what `sluice dev` is made of.
type dev struct {
	config   server.Config
	closers  closers
	caFile   string
	token    string
	clusters []string // the first one is what the lines to paste use
}

// assemble starts the embedded parts and configures the gateway for them.
func (d *dev) assemble(ctx context.Context, f *devFlags, log *slog.Logger) error {
	dir, err := devFolder(f.sys)
	if err != nil {
		return err
	}
	d.closers.add(func() error { return os.RemoveAll(dir) })
	d.caFile = filepath.Join(dir, "ca.crt")
	tlsConfig, err := devCertificate(d.caFile)
	if err != nil {
		return err
	}
	is, err := startIssuer(ctx)
	if err != nil {
		return err
	}
	d.closers.add(is.stop)
	if d.token, err = is.token(f.ttl); err != nil {
		return err
	}
	oidc, err := auth.NewOIDC(is.trustFor(devAudience), auth.WithLogger(log))
	if err != nil {
		return err
	}
	d.closers.add(func() error { oidc.Close(); return nil })
	clusters, err := d.startClusters(f, is, log)
	if err != nil {
		return err
	}
	d.config = server.Config{
		GRPCAddr: f.listen.grpc, WebAddr: f.listen.web, AdminAddr: f.listen.admin, TLS: tlsConfig, Reflection: true, Authenticator: oidc, Clusters: clusters,
		Version: thisBuild().Version, Log: log, Audit: log,
	}
	return nil
}

// closers end things, the last one first.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c *closers) close() error {
	var errs []error
	for _, f := range slices.Backward(*c) {
		errs = append(errs, f())
	}
	*c = nil
	return errors.Join(errs...)
}
