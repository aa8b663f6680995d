package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	// Field is the path of the field, such as "clusters[1].name".
	Field string
	// What is wrong with it, and what to do.
	What string
}

// String is the problem as a sentence.
func (p Problem) String() string {
	if p.Field == "" { // the sentence names it
		return p.What
	}
	return p.Field + ": " + p.What
}

// Problems are all that is wrong.
type Problems []Problem

// Err is the problems as one error, a line each; nil for none.
func (p *Problems) Err() error {
	errs := make([]error, len(*p))
	for i, one := range *p {
		errs[i] = errors.New(one.String())
	}
	return errors.Join(errs...)
}

// Below reports whether something is wrong with a field, or a part of it.
func (p *Problems) Below(field string) bool {
	return slices.ContainsFunc(*p, func(one Problem) bool {
		rest, ok := strings.CutPrefix(one.Field, field)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// Addf adds what is wrong with a field.
func (p *Problems) Addf(field, format string, args ...any) {
	*p = append(*p, Problem{field, fmt.Sprintf(format, args...)})
}

// whenf adds a sentence about a field if bad.
func (p *Problems) whenf(bad bool, field, format string, args ...any) {
	if bad {
		p.Addf(field, format, args...)
	}
}

// oneOf adds a sentence unless the value is one of words.
func (p *Problems) oneOf(field, value string, words []string) {
	p.whenf(!slices.Contains(words, value), field, "%q is none of %s", value, strings.Join(words, ", "))
}

// Validate is Check as one error.
func (c *Config) Validate() error {
	p := c.Check()
	return p.Err()
}

// Check finds all that is wrong at once. It reads no file.
func (c *Config) Check() Problems {
	var p Problems
	p.address("grpc_addr", c.GRPCAddr)
	if c.WebAddr != "" {
		p.address("web_addr", c.WebAddr)
	}
	p.address("admin_addr", c.AdminAddr)
	p.whenf(c.TLS.CertFile == "", "tls.cert_file", "name the file of the certificate (PEM); tokens never travel in the clear")
	p.whenf(c.TLS.KeyFile == "", "tls.key_file", "name the file of the certificate's key (PEM)")
	p.notNegative("web", map[string]int{"body_bytes": c.Web.BodyBytes, "headers": c.Web.Headers})
	p.issuers(c.Issuers)
	p.clusters(c.Clusters)
	p.limits(c.Limits)
	p.whenf(c.DrainTimeout < 0, "drain_timeout", "is negative; 0s ends sessions at once")
	p.oneOf("log.format", c.Log.Format, Formats())
	p.oneOf("log.level", c.Log.Level, Levels())
	p.whenf(c.Audit.Destination == "", "audit.destination", "name stdout, stderr or a file")
	p.tracing(c.Tracing)
	return p
}

func (p *Problems) address(field, addr string) {
	_, port, err := net.SplitHostPort(addr)
	n, bad := strconv.ParseUint(port, 10, 16)
	p.whenf(err != nil || bad != nil, field, "%q is no HOST:PORT, such as \":8443\" or \"127.0.0.1:%d\"", addr, max(n, 9090))
}

// tracing wants an endpoint for what says how to reach one.
func (p *Problems) tracing(t Tracing) {
	host, port, err := net.SplitHostPort(t.Endpoint)
	p.whenf(t.Endpoint != "" && (err != nil || host == "" || port == ""), "tracing.endpoint", "%q is no HOST:PORT, such as \"localhost:4317\"", t.Endpoint)
	p.whenf(t.Endpoint == "" && (t.Insecure || t.CAFile != ""), "tracing.endpoint", "name the collector that insecure or ca_file is for")
	p.whenf(t.Insecure && t.CAFile != "", "tracing.insecure", "contradicts ca_file: without TLS there is no certificate to verify")
	p.whenf(!(t.SampleRatio >= 0 && t.SampleRatio <= 1), "tracing.sample_ratio", "%v is not between 0 and 1", t.SampleRatio)
}

func (p *Problems) issuers(all []Issuer) {
	p.whenf(len(all) == 0, "issuers", "name at least one; without an issuer nobody can be authenticated")
	seen := map[string]bool{}
	for i, is := range all {
		field := fmt.Sprintf("issuers[%d]", i)
		p.issuer(field, is)
		p.whenf(is.URL != "" && seen[is.URL], field+".url", "%q is configured twice", is.URL)
		seen[is.URL] = true
	}
}

func (p *Problems) issuer(field string, is Issuer) {
	u, err := url.Parse(is.URL)
	p.whenf(is.URL == "" || err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http"), field+".url",
		"%q is no URL of an issuer; write its `iss` byte for byte, such as \"https://issuer.example.org\"", is.URL)
	p.whenf(len(is.Audiences) == 0 || slices.Contains(is.Audiences, ""), field+".audiences",
		"name at least one audience, none of them empty; tokens for anybody else are refused")
	p.whenf(is.Leeway < 0 || is.Leeway > Duration(30*time.Second), field+".leeway", "%v is not between 0s and 30s", time.Duration(is.Leeway))
	p.whenf(is.MaxLifetime < 0, field+".max_lifetime", "is negative; 0s means any")
}

// clusterName is what a cluster may be called.
var clusterName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

// maxClusterName is how long a cluster's name may be, in bytes.
const maxClusterName = 63

func (p *Problems) clusters(all []Cluster) {
	p.whenf(len(all) == 0, "clusters", "name at least one cluster")
	seen := map[string]bool{}
	for i, c := range all {
		field := fmt.Sprintf("clusters[%d]", i)
		p.whenf(len(c.Name) > maxClusterName || !clusterName.MatchString(c.Name), field+".name",
			"%q is no cluster name: lower-case letters, digits, - and ., beginning and ending with a letter or digit, at most %d", c.Name, maxClusterName)
		p.whenf(c.Name != "" && seen[c.Name], field+".name", "%q is configured twice", c.Name)
		seen[c.Name] = true
		p.place(field, c)
		p.credential(field, c)
	}
}

// place wants exactly one way to say where a cluster is.
func (p *Problems) place(field string, c Cluster) {
	ways := 0
	for _, said := range []bool{c.Kubeconfig != nil, c.InCluster, c.Server != ""} {
		if said {
			ways++
		}
	}
	p.whenf(ways != 1, field, "say exactly one of kubeconfig, in_cluster and server, not %d", ways)
	p.whenf(c.Kubeconfig != nil && c.Kubeconfig.File == "", field+".kubeconfig.file", "name the kubeconfig file; $KUBECONFIG is not read")
	p.whenf(c.CAFile != "" && c.Server == "", field+".ca_file", "belongs to server; a kubeconfig and in_cluster bring their own")
	p.whenf(c.Insecure && c.Kubeconfig == nil, field+".insecure", "belongs to kubeconfig; with server the certificate is always verified")
	if c.Server != "" {
		u, err := url.Parse(c.Server)
		p.whenf(err != nil || u.Scheme != "https" || u.Host == "", field+".server", "%q is no https URL", c.Server)
	}
}

// credential wants the guard that belongs to the credential's kind, and no other.
func (p *Problems) credential(field string, c Cluster) {
	p.oneOf(field+".credential", c.Credential, Credentials())
	guarded := len(c.Audiences)+len(c.Issuers) > 0
	switch c.Credential {
	case Passthrough:
		p.whenf(!guarded, field, "passthrough needs audiences or issuers: whose tokens this cluster may receive, so that it cannot collect others")
		p.whenf(len(c.Subjects) > 0, field+".subjects", "belongs to the credential kubeconfig; with passthrough the API server decides by the caller's token")
	case KubeconfigCredential:
		p.whenf(len(c.Subjects) == 0, field+".subjects", "name who may use the kubeconfig's own credential; everyone listed gets its rights")
		p.whenf(guarded, field, "audiences and issuers belong to the credential passthrough")
		p.whenf(c.Server != "", field+".credential", "server brings no credential of its own; use a kubeconfig or passthrough")
	}
}

// limits wants no negative number; the server knows each limit's least value.
func (p *Problems) limits(l Limits) {
	p.notNegative("limits", map[string]int{
		"sessions": l.Sessions, "principal_sessions": l.PrincipalSessions, "session_channels": l.SessionChannels, "channels": l.Channels,
		"streams": l.Streams, "message_bytes": l.MessageBytes, "window_bytes": l.WindowBytes, "session_bytes": l.SessionBytes,
		"held_bytes": l.HeldBytes, "header_bytes": l.HeaderBytes, "cluster_dials": l.ClusterDials,
	})
	p.whenf(l.DetachTTL < 0, "limits.detach_ttl", "is negative; 0s means the default")
}

// notNegative wants that of each field below a path.
func (p *Problems) notNegative(path string, values map[string]int) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		p.whenf(values[name] < 0, path+"."+name, "is negative; 0 means the default")
	}
}
