package main

import (
	"errors"
	"fmt"

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
}

func newServe(sys system) *cobra.Command {
	f := &serveFlags{sys: sys}
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run a gateway for your clusters",
		Long: `Run a gateway as a configuration file says: docs/configuration.md lists its fields. Everything that is wrong with it is reported at once.

SIGTERM and SIGINT drain: new sessions are refused, clients are told to go elsewhere, and what is left after drain_timeout is ended. A
second signal ends the process at once.`,
		Example: `  sluice serve --config sluice.yaml
  sluice serve --config sluice.yaml --check      # validates, and dials nothing`,
		Args: arguments(0, 0, ""),
		RunE: f.run,
	}
	f.listen.add(cmd, "", "")
	cmd.Flags().StringVar(&f.file, "config", "", "the configuration file (YAML)")
	cmd.Flags().BoolVar(&f.check, "check", false, "read the configuration and the files it names, say what is wrong, and exit")
	return cmd
}

func (f *serveFlags) run(cmd *cobra.Command, _ []string) (err error) {
	c, err := f.load(cmd)
	if err != nil {
		return err
	}
	var cl closers
	defer func() { err = errors.Join(err, cl.close()) }()
	gateway, err := assemble(c, f.sys, &cl)
	if err != nil {
		return usage(cmd, "configuration %s:\n%w", f.file, err)
	}
	if f.check {
		fmt.Fprintf(f.sys.stdout, "%s is valid: issuers: %d, clusters: %d\n", f.file, len(c.Issuers), len(c.Clusters))
		gateway.Clusters.Close()
		return nil
	}
	s, err := server.New(gateway)
	if err != nil {
		return err
	}
	remove, err := ready{
		GRPCAddr: s.GRPCAddr().String(), AdminAddr: s.AdminAddr().String(), CAFile: c.TLS.CertFile,
	}.write(f.listen.readyFile)
	if err != nil {
		return err // the sockets end with the process
	}
	cl.add(remove)
	return s.Serve(cmd.Context())
}

// load reads the configuration, puts the flags over it and validates the result.
func (f *serveFlags) load(cmd *cobra.Command) (*config.Config, error) {
	if f.file == "" {
		return nil, usage(cmd, "--config FILE is missing; without any configuration, `sluice dev` serves an embedded cluster")
	}
	c, err := config.Load(f.file)
	if err != nil {
		return nil, usage(cmd, "%w", err)
	}
	for value, field := range map[*string]*string{&f.listen.grpc: &c.GRPCAddr, &f.listen.web: &c.WebAddr, &f.listen.admin: &c.AdminAddr} {
		if *value != "" {
			*field = *value
		}
	}
	if err := c.Validate(); err != nil {
		return nil, usage(cmd, "configuration %s:\n%w", f.file, err)
	}
	return c, nil
}
