package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/sluice-gateway/sluice/cluster"
	"github.com/sluice-gateway/sluice/cmd/sluice/config"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// userAgent is what API servers see.
func userAgent() string { return "sluice/" + thisBuild().Version }

// credentials are the words of the configuration.
var credentials = map[string]sluicev1.Credential{
	config.Passthrough:          sluicev1.Credential_CREDENTIAL_PASSTHROUGH,
	config.KubeconfigCredential: sluicev1.Credential_CREDENTIAL_KUBECONFIG,
}

// configuredClusters are the clusters of a configuration.
func configuredClusters(all []config.Cluster) (*cluster.Set, error) {
	out := make([]cluster.Config, len(all))
	var errs []error
	for i, c := range all {
		out[i] = cluster.Config{
			Name: c.Name, ID: c.ID, InCluster: c.InCluster, Server: c.Server, Insecure: c.Insecure, Credential: credentials[c.Credential],
			Audiences: c.Audiences, Issuers: c.Issuers, Subjects: c.Subjects,
		}
		if k := c.Kubeconfig; k != nil {
			out[i].Kubeconfig, out[i].Context = k.File, k.Context
		}
		if c.CAFile == "" {
			continue
		}
		ca, err := os.ReadFile(c.CAFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("clusters[%d].ca_file: %w", i, err))
		}
		out[i].CA = ca
	}
	set, err := cluster.New(out, userAgent(), cluster.Timeouts{})
	if err := errors.Join(append(errs, err)...); err != nil {
		set.Close()
		return nil, err
	}
	return set, nil
}

// startClusters starts the embedded cluster, or takes the contexts of --kubeconfig in its place.
func (d *dev) startClusters(f *devFlags, is *devIssuer, log *slog.Logger) (*cluster.Set, error) {
	if f.kubeconfig != "" {
		return d.contexts(f)
	}
	embedded, err := startCluster(is, log)
	if err != nil {
		return nil, err
	}
	d.closers.add(embedded.stop)
	d.clusters = []string{embeddedName}
	return cluster.New([]cluster.Config{{
		Name: embeddedName, Server: embedded.URL(), CA: embedded.CAPEM(),
		Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{devClusterAudience},
	}}, userAgent(), cluster.Timeouts{})
}

// embeddedName is the embedded cluster's name.
const embeddedName = "dev"

// contexts are the contexts of --kubeconfig, the current one first. One that cannot be used is told and left out.
func (d *dev) contexts(f *devFlags) (*cluster.Set, error) {
	contexts, err := cluster.Contexts(f.kubeconfig)
	if err != nil {
		return nil, err
	}
	n := newNotices(f.sys.stderr)
	var usable []cluster.Config
	for _, c := range contexts {
		// Insecure: what the file says is between its owner and the cluster, as it is with kubectl.
		config := cluster.Config{
			Name: c.Name, Kubeconfig: f.kubeconfig, Context: c.Context, Insecure: true,
			Credential: sluicev1.Credential_CREDENTIAL_KUBECONFIG, AnySubject: true,
		}
		one, err := cluster.New([]cluster.Config{config}, userAgent(), cluster.Timeouts{})
		one.Close()
		switch {
		case err != nil:
			n.sayf("context %s is left out: %v", c.Context, err)
			continue
		case c.Name != c.Context:
			n.sayf("context %s is cluster %s", c.Context, c.Name)
		}
		usable = append(usable, config)
		if c.Current {
			d.clusters = append([]string{c.Name}, d.clusters...)
		} else {
			d.clusters = append(d.clusters, c.Name)
		}
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("kubeconfig %s has no context that can be used", f.kubeconfig)
	}
	return cluster.New(usable, userAgent(), cluster.Timeouts{})
}
