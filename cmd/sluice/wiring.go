package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/cmd/sluice/config"
	"github.com/sluice-gateway/sluice/server"
)

// assemble opens what a valid configuration names and makes of it what a server is made with. All that is wrong is reported at once; cl is
// given what is to be closed after the server, also then.
func assemble(c *config.Config, sys system, cl *closers) (server.Config, error) {
	var errs []error
	note := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	log, err := newLog(sys.stderr, c.Log.Format, c.Log.Level)
	if err != nil {
		return server.Config{}, err
	}
	if c.WebAddr != "" {
		log.Warn(webNotServed, "web_addr", c.WebAddr)
	}
	out := server.Config{
		GRPCAddr: c.GRPCAddr, AdminAddr: c.AdminAddr, Reflection: c.Reflection, DrainTimeout: time.Duration(c.DrainTimeout),
		Limits: limits(c.Limits), Version: thisBuild().Version, Log: log,
	}
	note(out.Limits.Validate())
	certificate, err := server.LoadCertificate(c.TLS.CertFile, c.TLS.KeyFile, log)
	note(err)
	if err == nil {
		out.TLS = certificate.TLS()
	}
	oidc, err := authenticator(c.Issuers, log)
	note(err)
	if err == nil {
		out.Authenticator = oidc
		cl.add(func() error { oidc.Close(); return nil })
	}
	out.Clusters, err = configuredClusters(c.Clusters)
	note(err)
	if len(errs) > 0 { // an audit file is made only for a gateway that can run
		if out.Clusters != nil {
			out.Clusters.Close()
		}
		return out, errors.Join(errs...)
	}
	audit, closeAudit, err := openAudit(sys, c.Audit.Destination)
	cl.add(closeAudit)
	out.Audit = audit
	return out, err
}

// authenticator verifies the tokens of the configured issuers.
func authenticator(issuers []config.Issuer, log *slog.Logger) (*auth.OIDC, error) {
	all := make([]auth.IssuerConfig, len(issuers))
	var errs []error
	for i, is := range issuers {
		all[i] = auth.IssuerConfig{
			URL: is.URL, Audiences: is.Audiences, AuthorizedParties: is.AuthorizedParties,
			UsernameClaim: is.UsernameClaim, UsernamePrefix: is.UsernamePrefix, GroupsClaim: is.GroupsClaim, GroupsPrefix: is.GroupsPrefix,
			UIDClaim: is.UIDClaim, Algorithms: is.Algorithms, Leeway: time.Duration(is.Leeway), MaxLifetime: time.Duration(is.MaxLifetime),
		}
		if is.CAFile == "" {
			continue
		}
		ca, err := os.ReadFile(is.CAFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("issuers[%d].ca_file: %w", i, err))
		}
		all[i].CA = ca
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return auth.NewOIDC(all, auth.WithLogger(log))
}

func limits(l config.Limits) server.Limits {
	return server.Limits{
		Sessions: l.Sessions, PrincipalSessions: l.PrincipalSessions, SessionChannels: l.SessionChannels, Channels: l.Channels,
		Streams: l.Streams, MessageBytes: l.MessageBytes, WindowBytes: l.WindowBytes, SessionBytes: l.SessionBytes, HeldBytes: l.HeldBytes,
		HeaderBytes: l.HeaderBytes, DetachTTL: time.Duration(l.DetachTTL), ClusterDials: l.ClusterDials,
	}
}
