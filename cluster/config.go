package cluster

import (
	"errors"
	"fmt"
	"regexp"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// Config is one cluster behind the gateway. Exactly one of Kubeconfig, InCluster and Server says where it is.
type Config struct {
	// Name is what clients call it: [a-z0-9]([-a-z0-9.]*[a-z0-9])?, at most 63 characters.
	Name string
	// ID is what cursors call it; empty means Name. Two gateways that reach one cluster by different names share it, so that cursors of one are
	// good at the other.
	ID string

	// Kubeconfig is a file, and Context one of its contexts; empty means its current one.
	Kubeconfig, Context string
	// InCluster is the cluster that the gateway's pod runs in.
	InCluster bool
	// Server is the API server's URL, and CA the certificates (PEM) that may have signed its own; empty means the system's.
	Server string
	CA     []byte
	// Insecure allows a kubeconfig that turns the verification of the API server's certificate off.
	Insecure bool

	// Credential is whose credential the API server sees.
	Credential sluicev1.Credential
	// Audiences and Issuers are which callers' tokens the cluster may receive, with CREDENTIAL_PASSTHROUGH: a token must be meant for one of
	// Audiences and come from one of Issuers, as far as each is set. At least one must be, so that no cluster can collect tokens for another.
	Audiences, Issuers []string
	// Subjects are the users who may use the kubeconfig's credential, with CREDENTIAL_KUBECONFIG, by username.
	Subjects []string
	// AnySubject lets everybody use it: for `sluice dev` only.
	AnySubject bool
}

// Timeouts bound the way to an upstream. Zero fields take the defaults.
type Timeouts struct {
	// Dial is for the TCP connection and a proxy's answer: 5 s.
	Dial time.Duration
	// Handshake is for TLS and the upgrade: 10 s.
	Handshake time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	if t.Dial == 0 {
		t.Dial = 5 * time.Second
	}
	if t.Handshake == 0 {
		t.Handshake = 10 * time.Second
	}
	return t
}

const maxName = 63

var nameRule = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// ValidName reports whether name may be a cluster's.
func ValidName(name string) bool { return len(name) <= maxName && nameRule.MatchString(name) }

// validate reports all that is wrong with a cluster's configuration by itself.
func (c *Config) validate() error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("cluster %q: "+format, append([]any{c.Name}, args...)...))
	}
	if !ValidName(c.Name) {
		wrong("a name must match [a-z0-9]([-a-z0-9.]*[a-z0-9])? and have at most %d characters; set `name:`", maxName)
	}
	sources := 0
	for _, set := range []bool{c.Kubeconfig != "", c.InCluster, c.Server != ""} {
		if set {
			sources++
		}
	}
	if sources != 1 {
		wrong("exactly one of kubeconfig, inCluster and server must be set, %d are", sources)
	}
	switch c.Credential {
	case sluicev1.Credential_CREDENTIAL_PASSTHROUGH:
		if len(c.Audiences) == 0 && len(c.Issuers) == 0 {
			wrong("passthrough needs audiences or issuers: which tokens may this cluster receive?")
		}
		if len(c.Subjects) > 0 || c.AnySubject {
			wrong("subjects belong to the credential kubeconfig, not to passthrough")
		}
	case sluicev1.Credential_CREDENTIAL_KUBECONFIG:
		if len(c.Subjects) == 0 && !c.AnySubject {
			wrong("the credential kubeconfig needs subjects: who may act as the gateway?")
		}
		if c.Server != "" {
			wrong("the credential kubeconfig needs a kubeconfig or inCluster: server has no credential")
		}
		if len(c.Audiences) > 0 || len(c.Issuers) > 0 {
			wrong("audiences and issuers belong to the credential passthrough")
		}
	case sluicev1.Credential_CREDENTIAL_IMPERSONATE:
		wrong("the credential impersonate is not implemented by this version; use passthrough or kubeconfig")
	default:
		wrong("no credential: use passthrough or kubeconfig")
	}
	return errors.Join(errs...)
}

// rest is where and how client-go would reach the cluster.
func (c *Config) rest() (*rest.Config, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("cluster %q: %w", c.Name, err)
	}
	if cfg.Insecure && !c.Insecure {
		return nil, fmt.Errorf("cluster %q: the kubeconfig says insecure-skip-tls-verify; give it the certificate authority, "+
			"or set `insecure: true` if anybody may pose as this cluster and collect tokens", c.Name)
	}
	if c.Credential == sluicev1.Credential_CREDENTIAL_PASSTHROUGH {
		cfg = rest.AnonymousClientConfig(cfg) // nothing of the gateway's own is left that could be sent instead
	}
	return cfg, nil
}

func (c *Config) load() (*rest.Config, error) {
	switch {
	case c.InCluster:
		cfg, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("in-cluster configuration: %w", err)
		}
		return cfg, nil
	case c.Server != "":
		return &rest.Config{Host: c.Server, TLSClientConfig: rest.TLSClientConfig{CAData: c.CA}}, nil
	}
	// Not the deferred loading, which takes the pod's own service account where a file says nothing.
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: c.Kubeconfig}
	file, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", c.Kubeconfig, err)
	}
	cfg, err := clientcmd.NewNonInteractiveClientConfig(*file, c.Context, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", c.Kubeconfig, err)
	}
	return cfg, nil
}
