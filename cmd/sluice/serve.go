package main

import (
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/cmd/sluice/config"
	"github.com/sluice-gateway/sluice/server"
)

// serveFlags are the flags of `sluice serve`.
type serveFlags struct {
	sys    system
	listen listenFlags
	file   string
	check  bool
	online bool
}

func newServe(sys system) *cobra.Command {
	f := &serveFlags{sys: sys}
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run a gateway for your clusters",
		Long: `Run a gateway as a configuration file says: docs/configuration.md lists its fields. Everything that is wrong with it is reported at once.

SIGTERM and SIGINT drain: new sessions are refused, clients are told to go elsewhere, and what is left after drain_timeout is ended. A
second signal ends the process at once.

With --check nothing is served: what the configuration and its files say is printed, certificates that end within 14 days are warned of, and
everything that is wrong is told. With --online too, each issuer is asked for its keys and each cluster for its version, as the gateway would.`,
		Example: `  sluice serve --config sluice.yaml
  sluice serve --config sluice.yaml --check               # reads everything, and dials nothing
  sluice serve --config sluice.yaml --check --online      # and asks the issuers and the clusters`,
		Args: arguments(0, 0, ""),
		RunE: f.run,
	}
	f.listen.add(cmd, "", "", "")
	cmd.Flags().StringVar(&f.file, "config", "", "the configuration `FILE` (YAML)")
	cmd.Flags().BoolVar(&f.check, "check", false, "read the configuration and the files it names, say what they hold and what is wrong, and exit")
	cmd.Flags().BoolVar(&f.online, "online", false, "with --check: also ask each issuer for its keys and each cluster for its version")
	files(cmd, "config", "yaml", "yml")
	return cmd
}

func (f *serveFlags) run(cmd *cobra.Command, _ []string) (err error) {
	c, err := f.load(cmd)
	if err != nil {
		return err
	}
	if f.check {
		return f.runCheck(cmd, c)
	}
	log, err := newLog(f.sys.stderr, c.Log.Format, c.Log.Level)
	if err != nil {
		log = slog.New(slog.DiscardHandler) // it is among the problems that are told below
	}
	a := assemble(c, log)
	defer func() { err = errors.Join(err, a.closers.close()) }()
	if err := a.err(); err != nil {
		a.abandon()
		return usage(cmd, "configuration %s:\n%w", f.file, err)
	}
	if err := a.start(cmd.Context(), f.sys); err != nil {
		a.abandon()
		return usage(cmd, "configuration %s:\n%w", f.file, err)
	}
	s, err := server.New(a.server)
	if err != nil {
		return err
	}
	remove, err := addresses(s, c.TLS.CertFile).write(f.listen.readyFile)
	if err != nil {
		return err // the sockets end with the process
	}
	a.closers.add(remove)
	return s.Serve(cmd.Context())
}

// load reads the configuration and puts the flags over it. What is wrong with its form is told at once.
func (f *serveFlags) load(cmd *cobra.Command) (*config.Config, error) {
	if f.file == "" {
		return nil, usage(cmd, "--config FILE is missing; without any configuration, `sluice dev` serves an embedded cluster")
	}
	if f.online && !f.check {
		return nil, usage(cmd, "--online belongs to --check")
	}
	c, err := config.Load(f.file)
	if err != nil {
		return nil, usage(cmd, "%w", err)
	}
	for flag, field := range map[string]*string{"grpc-addr": &c.GRPCAddr, "web-addr": &c.WebAddr, "admin-addr": &c.AdminAddr} {
		if given := cmd.Flags().Lookup(flag); given.Changed {
			*field = given.Value.String()
		}
	}
	return c, nil
}
