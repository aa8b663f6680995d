package main

import (
	"fmt"
	"log/slog"

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

// clusters makes the clusters of the configuration.
func (a *assembly) clusters() {
	var all []cluster.Config
	for i, c := range a.config.Clusters {
		field := fmt.Sprintf("clusters[%d]", i)
		one := cluster.Config{
			Name: c.Name, ID: c.ID, InCluster: c.InCluster, Server: c.Server, CA: a.authorities(field+".ca_file", c.CAFile), Insecure: c.Insecure,
			Credential: credentials[c.Credential], Audiences: c.Audiences, Issuers: c.Issuers, Subjects: c.Subjects,
		}
		if k := c.Kubeconfig; k != nil && k.File != "" {
			one.Kubeconfig, one.Context = k.File, k.Context
			a.kubeconfig(field+".kubeconfig.file", k.File)
		}
		if a.problems.Below(field) {
			continue
		}
		alone, err := cluster.New([]cluster.Config{one}, userAgent(), cluster.Timeouts{})
		alone.Close()
		if err != nil && c.InCluster {
			a.problems.Addf(field+".in_cluster", "%v; it can be checked in a pod of that cluster only", err)
		} else {
			a.note(field, err)
		}
		all = append(all, one)
	}
	if a.problems.Below("clusters") {
		return
	}
	var err error
	if a.server.Clusters, err = cluster.New(all, userAgent(), cluster.Timeouts{}); err != nil {
		a.note("clusters", err)
	}
}

// kubeconfig reads what a kubeconfig offers.
func (a *assembly) kubeconfig(field, file string) {
	contexts, err := cluster.Contexts(file)
	if err != nil {
		a.note(field, err)
	}
	a.contexts[field] = contexts
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
