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

// Default is the configuration that a file begins from.
func Default() *Config {
	return &Config{
		GRPCAddr: DefaultGRPCAddr, WebAddr: DefaultWebAddr, AdminAddr: DefaultAdminAddr, DrainTimeout: Duration(25 * time.Second), Reflection: true,
		Log: Log{Format: "json", Level: "info"}, Audit: Audit{Destination: Stdout}, Tracing: Tracing{SampleRatio: 0.01},
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
	out := []*string{&c.TLS.CertFile, &c.TLS.KeyFile, &c.Tracing.CAFile}
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
