package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/cluster"
	"github.com/sluice-gateway/sluice/cmd/sluice/config"
	"github.com/sluice-gateway/sluice/internal/tracing"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/server/web"
)

// assembly makes of a configuration what a server is made with. All that is wrong is collected, so that it is told at once.
type assembly struct {
	config   *config.Config
	log      *slog.Logger
	closers  closers
	problems config.Problems
	server   server.Config // Complete once there are no problems and start was called.

	// What was read, by the field that names the file.
	certificates map[string][]*x509.Certificate
	contexts     map[string][]cluster.Context
}

// assemble reads the files that a configuration names. It dials nothing and writes nothing.
func assemble(c *config.Config, log *slog.Logger) *assembly {
	a := &assembly{
		config: c, log: log, problems: c.Check(),
		certificates: map[string][]*x509.Certificate{}, contexts: map[string][]cluster.Context{},
	}
	a.server = server.Config{
		GRPCAddr: c.GRPCAddr, WebAddr: c.WebAddr, AdminAddr: c.AdminAddr, Reflection: c.Reflection, DrainTimeout: time.Duration(c.DrainTimeout),
		Limits: limits(c.Limits), Version: thisBuild().Version, Log: a.log,
		Web: web.Config{Origins: c.Web.Origins, Hosts: c.Web.Hosts, BodyBytes: c.Web.BodyBytes, Headers: c.Web.Headers},
	}
	a.certificate()
	if !a.problems.Below("web") {
		a.note("", a.server.Web.Validate())
	}
	a.authenticator()
	a.clusters()
	if !a.problems.Below("limits") {
		a.note("", a.server.Limits.Validate())
	}
	a.authorities("tracing.ca_file", c.Tracing.CAFile)
	return a
}

// note keeps an error as a problem of a field; the text of one without a field names it.
func (a *assembly) note(field string, err error) {
	if err != nil {
		a.problems.Addf(field, "%v", err)
	}
}

// start opens what is written to. It is for a gateway that is going to run.
func (a *assembly) start(ctx context.Context, sys system) error {
	audit, closeAudit, err := openAudit(sys, a.config.Audit.Destination)
	if err != nil {
		return err
	}
	a.closers.add(closeAudit)
	a.server.Audit = audit
	return a.trace(ctx)
}

// flushWithin is how long the last spans may take on their way.
const flushWithin = 5 * time.Second

// trace makes the spans go to the collector, if there is one.
func (a *assembly) trace(ctx context.Context) error {
	t := a.config.Tracing
	c := tracing.Config{Endpoint: t.Endpoint, Insecure: t.Insecure, CAFile: t.CAFile, SampleRatio: t.SampleRatio, Version: thisBuild().Version}
	if !c.Enabled() {
		return nil
	}
	provider, err := tracing.New(ctx, c, a.log)
	if err != nil {
		return err
	}
	a.closers.add(func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushWithin)
		defer cancel()
		return provider.Shutdown(ctx)
	})
	a.server.Tracer = provider.TracerProvider()
	return nil
}

// certificate loads that of the ports.
func (a *assembly) certificate() {
	c := a.config.TLS
	_, cert := a.file("tls.cert_file", c.CertFile)
	_, key := a.file("tls.key_file", c.KeyFile)
	if !cert || !key {
		return
	}
	loaded, err := server.LoadCertificate(c.CertFile, c.KeyFile, a.log)
	if err != nil {
		a.note("tls", err)
		return
	}
	a.server.TLS = loaded.TLS()
	if pair, err := a.server.TLS.GetCertificate(nil); err == nil {
		a.certificates["tls.cert_file"] = []*x509.Certificate{pair.Leaf}
	}
}

// file reads a file that a field names; ok is false if there is none to be read.
func (a *assembly) file(field, name string) (text []byte, ok bool) {
	if name == "" {
		return nil, false
	}
	text, err := os.ReadFile(name)
	if err != nil {
		a.problems.Addf(field, "cannot be read: %v", err)
	}
	return text, err == nil
}

// authorities reads certificates that may have signed others. No file is the system's.
func (a *assembly) authorities(field, name string) []byte {
	text, ok := a.file(field, name)
	if !ok {
		return nil
	}
	found, err := parseCertificates(text)
	switch {
	case err != nil:
		a.problems.Addf(field, "%s: %v", name, err)
	case len(found) == 0:
		a.problems.Addf(field, "%s holds no certificate; write it in PEM", name)
	}
	a.certificates[field] = found
	return text
}

// parseCertificates are the certificates in a text in PEM.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out, nil
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out = append(out, c)
	}
}

// authenticator verifies the tokens of the configured issuers.
func (a *assembly) authenticator() {
	var all []auth.IssuerConfig
	for i, is := range a.config.Issuers {
		field := fmt.Sprintf("issuers[%d]", i)
		one := auth.IssuerConfig{
			URL: is.URL, Audiences: is.Audiences, AuthorizedParties: is.AuthorizedParties, CA: a.authorities(field+".ca_file", is.CAFile),
			UsernameClaim: is.UsernameClaim, UsernamePrefix: is.UsernamePrefix, GroupsClaim: is.GroupsClaim, GroupsPrefix: is.GroupsPrefix,
			UIDClaim: is.UIDClaim, Algorithms: is.Algorithms, Leeway: time.Duration(is.Leeway), MaxLifetime: time.Duration(is.MaxLifetime),
		}
		if a.problems.Below(field) {
			continue
		}
		if alone, err := auth.NewOIDC([]auth.IssuerConfig{one}); err != nil {
			a.note(field, err)
		} else {
			alone.Close()
		}
		all = append(all, one)
	}
	if a.problems.Below("issuers") {
		return
	}
	oidc, err := auth.NewOIDC(all, auth.WithLogger(a.log))
	if err != nil {
		a.note("issuers", err)
		return
	}
	a.server.Authenticator = oidc
	a.closers.add(func() error { oidc.Close(); return nil })
}

// abandon ends what a server would have ended that was never made.
func (a *assembly) abandon() {
	if a.server.Clusters != nil {
		a.server.Clusters.Close()
	}
}

// err is all that is wrong; nil for nothing.
func (a *assembly) err() error { return a.problems.Err() }

func limits(l config.Limits) server.Limits {
	return server.Limits{
		Sessions: l.Sessions, PrincipalSessions: l.PrincipalSessions, SessionChannels: l.SessionChannels, Channels: l.Channels,
		Streams: l.Streams, MessageBytes: l.MessageBytes, WindowBytes: l.WindowBytes, SessionBytes: l.SessionBytes, HeldBytes: l.HeldBytes,
		HeaderBytes: l.HeaderBytes, DetachTTL: time.Duration(l.DetachTTL), ClusterDials: l.ClusterDials,
	}
}
