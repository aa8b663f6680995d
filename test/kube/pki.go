package kube

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// validity bounds every certificate of a cluster, a day either way of now: no
// cluster lives that long, and a clock that is set meanwhile does no harm.
const validity = 24 * time.Hour

// serverUse is wider than a server needs because etcd dials itself with its
// server certificate (its HTTP gateway).
var (
	serverUse = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	clientUse = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
)

// authority is the one certificate authority of a cluster: it signs servers and
// clients alike. It is immutable, and safe for concurrent use.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	pool *x509.CertPool
}

// pair is a certificate with its private key, both in PEM.
type pair struct{ cert, key []byte }

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := certificate("sluice test authority")
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &authority{cert: cert, key: key, pem: encodePEM("CERTIFICATE", der), pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a, nil
}

// certificate returns what all certificates of a cluster have alike.
func certificate(name string, organizations ...string) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name, Organization: organizations},
		NotBefore: time.Now().Add(-validity),
		NotAfter:  time.Now().Add(validity),
		KeyUsage:  x509.KeyUsageDigitalSignature,
	}
}

// server issues a certificate for a server on the loopback interface.
func (a *authority) server(name string) (pair, error) {
	template := certificate(name)
	template.ExtKeyUsage = serverUse
	template.DNSNames = []string{"localhost"}
	template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	return a.issue(template)
}

// client issues a client certificate. The API server reads the common name as
// the user and the organizations as its groups.
func (a *authority) client(user string, groups ...string) (pair, error) {
	template := certificate(user, groups...)
	template.ExtKeyUsage = clientUse
	return a.issue(template)
}

func (a *authority) issue(template *x509.Certificate) (pair, error) {
	key, err := newKey()
	if err != nil {
		return pair{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.public, a.key)
	if err != nil {
		return pair{}, fmt.Errorf("issue certificate for %q: %w", template.Subject.CommonName, err)
	}
	return pair{cert: encodePEM("CERTIFICATE", der), key: key.private}, nil
}

// encodedKey is an ECDSA key: its private half and its public half in PEM.
type encodedKey struct {
	private, publicPEM []byte
	public             *ecdsa.PublicKey
}

func newKey() (encodedKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return encodedKey{}, err
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return encodedKey{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return encodedKey{}, err
	}
	return encodedKey{
		private:   encodePEM("EC PRIVATE KEY", private),
		publicPEM: encodePEM("PUBLIC KEY", public),
		public:    &key.PublicKey,
	}, nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// tls returns the configuration of a server, or client, with this certificate.
func (p pair) tls() (*tls.Config, error) {
	cert, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}, nil
}

// write stores the pair as prefix.crt and prefix.key.
func (p pair) write(prefix string) error {
	return errors.Join(
		os.WriteFile(prefix+".crt", p.cert, 0o600),
		os.WriteFile(prefix+".key", p.key, 0o600))
}
