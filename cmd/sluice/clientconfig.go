package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/sluice-gateway/sluice/client"
)

// access is how a client command reaches a gateway, from one source: flags, the environment or the client configuration file.
type access struct {
	Server    string `json:"server"`
	CAFile    string `json:"ca_file"`
	TokenFile string `json:"token_file"`
	Cluster   string `json:"cluster"`
	Namespace string `json:"namespace"`

	token string // never from a file: a configuration file is no place for a secret
}

// accessFlags are the flags that every client command has.
type accessFlags struct {
	sys  system
	flag access
}

func newAccessFlags(cmd *cobra.Command, sys system) *accessFlags {
	f := &accessFlags{sys: sys}
	flags := cmd.Flags()
	flags.StringVar(&f.flag.Server, "server", "", "the gateway, as `HOST[:PORT]`; port 8443 if none (SLUICE_SERVER)")
	flags.StringVar(&f.flag.CAFile, "ca-file", "", "a `FILE` with the certificates (PEM) to trust instead of the system's (SLUICE_CA_FILE)")
	flags.StringVar(&f.flag.token, "token", "", "the `TOKEN`; other users of this machine see a command line, so prefer SLUICE_TOKEN or --token-file")
	flags.StringVar(&f.flag.TokenFile, "token-file", "", "a `FILE` with the token, read again for every attempt (SLUICE_TOKEN_FILE)")
	files(cmd, "ca-file")
	files(cmd, "token-file")
	return f
}

// withCluster adds the flag --cluster.
func (f *accessFlags) withCluster(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.flag.Cluster, "cluster", "", "the cluster's `NAME`; may be left out when there is one (SLUICE_CLUSTER)")
	complete(cmd, "cluster", f.asking(clusterWords))
}

// withNamespace adds the flag --namespace.
func (f *accessFlags) withNamespace(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.flag.Namespace, "namespace", "n", "", "the `NAMESPACE`; all of them without it (SLUICE_NAMESPACE)")
	complete(cmd, "namespace", f.asking(namespaceWords))
}

// withPodNamespace adds the flag --namespace of a command about one pod.
func (f *accessFlags) withPodNamespace(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.flag.Namespace, "namespace", "n", "", "the pod's `NAMESPACE`; default without it (SLUICE_NAMESPACE)")
	complete(cmd, "namespace", f.asking(namespaceWords))
}

// podNamespace is the namespace of a pod: without any it is the one called default.
func (a access) podNamespace() string { return cmp.Or(a.Namespace, "default") }

// resolve is what flags, environment and file say together: what is closer to the command line wins.
func (f *accessFlags) resolve(cmd *cobra.Command) (access, error) {
	a, err := f.gather()
	if e := oneOfFlags(cmd, "token", "token-file"); e != nil {
		return a, e
	}
	if err != nil {
		return a, usage(cmd, "%w", err)
	}
	return a, nil
}

func (f *accessFlags) gather() (access, error) {
	env := access{
		Server: f.sys.getenv("SLUICE_SERVER"), CAFile: f.sys.getenv("SLUICE_CA_FILE"), TokenFile: f.sys.getenv("SLUICE_TOKEN_FILE"),
		Cluster: f.sys.getenv("SLUICE_CLUSTER"), Namespace: f.sys.getenv("SLUICE_NAMESPACE"), token: f.sys.getenv("SLUICE_TOKEN"),
	}
	if env.token != "" && env.TokenFile != "" {
		return access{}, errors.New("both SLUICE_TOKEN and SLUICE_TOKEN_FILE are set; unset one")
	}
	file, err := loadAccess(accessFile(f.sys))
	if err != nil {
		return access{}, err
	}
	a := f.flag.over(env).over(file)
	switch {
	case a.Server == "":
		return access{}, errors.New("no gateway is named; give --server HOST:PORT, or set SLUICE_SERVER (`sluice dev` prints what to set)")
	case a.token == "" && a.TokenFile == "":
		return access{}, errors.New("no token; set SLUICE_TOKEN, or give --token-file FILE (`sluice dev` prints a token)")
	}
	a.Server = withPort(a.Server)
	return a, nil
}

// over is a with what it lacks taken from b. A token and a file of one are the same setting.
func (a access) over(b access) access {
	fill := func(v *string, otherwise string) {
		if *v == "" {
			*v = otherwise
		}
	}
	if a.token == "" && a.TokenFile == "" {
		a.token, a.TokenFile = b.token, b.TokenFile
	}
	fill(&a.Server, b.Server)
	fill(&a.CAFile, b.CAFile)
	fill(&a.Cluster, b.Cluster)
	fill(&a.Namespace, b.Namespace)
	return a
}

// withPort adds the port of gateways to an address without one.
func withPort(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), "8443")
}

// accessFile is where the client configuration file lies; empty where there is no such place.
func accessFile(sys system) string {
	dir := sys.getenv("XDG_CONFIG_HOME")
	if dir == "" {
		var err error
		if dir, err = os.UserConfigDir(); err != nil {
			return ""
		}
	}
	return filepath.Join(dir, "sluice", "client.yaml")
}

// loadAccess reads a client configuration file, strictly. A file that does not exist says nothing. Paths in it are relative to its folder.
func loadAccess(file string) (access, error) {
	var a access
	if file == "" {
		return a, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = yaml.UnmarshalStrict(text, &a)
	}
	if err != nil {
		return a, fmt.Errorf("client configuration %s: %w", file, err)
	}
	for _, p := range []*string{&a.CAFile, &a.TokenFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(filepath.Dir(file), *p)
		}
	}
	return a, nil
}

// dial makes a client of the gateway. It does not wait.
func (a access) dial(onState func(client.State)) (*client.Client, error) {
	roots, err := trust(a.CAFile)
	if err != nil {
		return nil, err
	}
	tokens, err := a.tokens()
	if err != nil {
		return nil, err
	}
	return client.Dial(client.Config{
		Address: a.Server, TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, Token: tokens,
		Name: "sluice/" + thisBuild().Version, OnState: onState,
	})
}

// trust is the certificates of a file; nil, the system's, without one.
func trust(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the certificates to trust: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read the certificates to trust: %s holds none in PEM", file)
	}
	return roots, nil
}
