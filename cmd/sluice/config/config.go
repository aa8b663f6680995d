// Package config is the configuration file of `sluice serve`: what it may say, how it is read, and what is wrong with it.
//
// It is YAML, read strictly: a field that is unknown or said twice is refused, so that a misspelt limit is never a default. No field holds
// a secret; certificates, keys and kubeconfigs are named as files. docs/configuration.md lists every field and is checked against these
// types.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"
)

// Config is the whole file. Paths are relative to the file's own folder.
type Config struct {
	// GRPCAddr is where gRPC listens, as HOST:PORT; an empty host is every address.
	GRPCAddr string `json:"grpc_addr"`
	// WebAddr is kept for the web port. This version does not serve it, and says so when the field is set.
	WebAddr string `json:"web_addr"`
	// AdminAddr is where metrics, health and profiles listen, without authentication.
	AdminAddr string `json:"admin_addr"`
	// TLS is the certificate of the gRPC port.
	TLS TLS `json:"tls"`
	// Issuers are whose tokens are accepted.
	Issuers []Issuer `json:"issuers"`
	// Clusters are the clusters behind the gateway.
	Clusters []Cluster `json:"clusters"`
	// Limits bound everything a caller can make large.
	Limits Limits `json:"limits"`
	// DrainTimeout is how long sessions may go on after SIGTERM.
	DrainTimeout Duration `json:"drain_timeout"`
	// Reflection lets anybody ask which services there are, as grpcurl does.
	Reflection bool `json:"reflection"`
	// Log is what operators read.
	Log Log `json:"log"`
	// Audit is who opened what.
	Audit Audit `json:"audit"`
}

// TLS names the files of a certificate and its key, in PEM. They are read again when they change.
type TLS struct {
	CertFile string `json:"cert_file"`
	KeyFile  string `json:"key_file"`
}

// Issuer says which tokens of one OpenID Connect issuer are accepted, and whom they name. See auth.IssuerConfig.
type Issuer struct {
	URL               string   `json:"url"`
	Audiences         []string `json:"audiences"`
	AuthorizedParties []string `json:"authorized_parties"`
	CAFile            string   `json:"ca_file"`
	UsernameClaim     string   `json:"username_claim"`
	UsernamePrefix    string   `json:"username_prefix"`
	GroupsClaim       string   `json:"groups_claim"`
	GroupsPrefix      string   `json:"groups_prefix"`
	UIDClaim          string   `json:"uid_claim"`
	Algorithms        []string `json:"algorithms"`
	Leeway            Duration `json:"leeway"`
	MaxLifetime       Duration `json:"max_lifetime"`
}

// Cluster is one cluster behind the gateway. Exactly one of Kubeconfig, InCluster and Server says where it is.
type Cluster struct {
	Name string `json:"name"`
	// ID is what cursors call it; the name if empty.
	ID         string      `json:"id"`
	Kubeconfig *Kubeconfig `json:"kubeconfig"`
	InCluster  bool        `json:"in_cluster"`
	Server     string      `json:"server"`
	CAFile     string      `json:"ca_file"`
	// Insecure allows a kubeconfig that does not verify the API server's certificate.
	Insecure bool `json:"insecure"`
	// Credential is what the API server sees: one of Credentials.
	Credential string `json:"credential"`
	// Audiences and Issuers are whose tokens passthrough forwards.
	Audiences []string `json:"audiences"`
	Issuers   []string `json:"issuers"`
	// Subjects are who may use the kubeconfig's own credential.
	Subjects []string `json:"subjects"`
}

// Kubeconfig names a context of a kubeconfig file; an empty one is the file's current context.
type Kubeconfig struct {
	File    string `json:"file"`
	Context string `json:"context"`
}

// Limits are server.Limits; 0 is the default.
type Limits struct {
	Sessions          int      `json:"sessions"`
	PrincipalSessions int      `json:"principal_sessions"`
	SessionChannels   int      `json:"session_channels"`
	Channels          int      `json:"channels"`
	Streams           int      `json:"streams"`
	MessageBytes      int      `json:"message_bytes"`
	WindowBytes       int      `json:"window_bytes"`
	SessionBytes      int      `json:"session_bytes"`
	HeldBytes         int      `json:"held_bytes"`
	HeaderBytes       int      `json:"header_bytes"`
	DetachTTL         Duration `json:"detach_ttl"`
	ClusterDials      int      `json:"cluster_dials"`
}

// Log is the form of the log, which goes to the standard error: one of Formats from one of Levels on.
type Log struct {
	Format string `json:"format"`
	Level  string `json:"level"`
}

// Audit is where the audit goes: "stdout", "stderr", or a file that is appended to.
type Audit struct {
	Destination string `json:"destination"`
}

// Words that fields accept.
const (
	Passthrough          = "passthrough"
	KubeconfigCredential = "kubeconfig"
	Stdout               = "stdout"
	Stderr               = "stderr"
)

// Default addresses.
const (
	DefaultGRPCAddr  = ":8443"
	DefaultAdminAddr = "127.0.0.1:9090"
)

// Credentials are whose credential a cluster may see.
func Credentials() []string { return []string{Passthrough, KubeconfigCredential} }

// Formats are the forms of a log.
func Formats() []string { return []string{"json", "text"} }

// Levels are the levels from which on a log is written.
func Levels() []string { return []string{"debug", "info", "warn", "error"} }

// Default is the configuration that a file begins from.
func Default() *Config {
	return &Config{
		GRPCAddr: DefaultGRPCAddr, AdminAddr: DefaultAdminAddr, DrainTimeout: Duration(25 * time.Second), Reflection: true,
		Log: Log{Format: "json", Level: "info"}, Audit: Audit{Destination: Stdout},
	}
}

// Load reads a file over the defaults. Its errors are of form alone; Validate finds those of meaning.
func Load(file string) (*Config, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("configuration %s:\n%w", file, err)
	}
	c.resolve(filepath.Dir(file))
	return c, nil
}

// Parse reads YAML over the defaults. All fields it does not know are reported at once.
func Parse(text []byte) (*Config, error) {
	plain, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, err
	}
	if err := unknownFields(plain); err != nil {
		return nil, err
	}
	c := Default()
	if err := yaml.UnmarshalStrict(text, c); err != nil {
		return nil, explainType(err)
	}
	return c, nil
}

// explainType names the field of a value of another type than the field's.
func explainType(err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: a %s where %s belongs", t.Field, t.Value, typeName(t.Type))
	}
	return err
}

// resolve makes relative paths relative to dir.
func (c *Config) resolve(dir string) {
	for _, p := range c.paths() {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// paths are all fields that name a file.
func (c *Config) paths() []*string {
	out := []*string{&c.TLS.CertFile, &c.TLS.KeyFile}
	for i := range c.Issuers {
		out = append(out, &c.Issuers[i].CAFile)
	}
	for i := range c.Clusters {
		out = append(out, &c.Clusters[i].CAFile)
		if k := c.Clusters[i].Kubeconfig; k != nil {
			out = append(out, &k.File)
		}
	}
	if d := c.Audit.Destination; d != Stdout && d != Stderr {
		out = append(out, &c.Audit.Destination)
	}
	return out
}

// Duration is a time.Duration that is written as Go writes it, such as "1m30s".
type Duration time.Duration

// UnmarshalJSON implements json.Unmarshaler.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is no duration: write one with its unit, such as \"30s\" or \"5m\"", b)
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%q is no duration: write one with its unit, such as \"30s\" or \"5m\"", s)
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON implements json.Marshaler.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }
