package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// CertificateIdentity is the part of a certificate that names its holder.
type CertificateIdentity string

const (
	// IdentityURI is the one URI among the subject's alternative names, as
	// workload identities have (SPIFFE X.509-SVID). Such a caller is in no groups.
	IdentityURI CertificateIdentity = "uri"
	// IdentityCN is the one common name of the subject; the organizations are the
	// groups. It is what Kubernetes makes of a client certificate.
	IdentityCN CertificateIdentity = "cn"
)

// maxChain bounds the certificates that one caller may show.
const maxChain = 8

// commonName is the attribute type of that name (RFC 5280 appendix A.1).
var commonName = asn1.ObjectIdentifier{2, 5, 4, 3}

var errCertificate = status.Unauthenticated(sluicev1.Reason_REASON_INVALID_TOKEN, "the certificate was not accepted")

// CertificateConfig says which client certificates are accepted, and whom they name.
type CertificateConfig struct {
	// Name is the Issuer of the principals: whoever vouches are the holders of
	// the keys of CAFile.
	Name string
	// CAFile holds the certificates (PEM) that may have signed a client's, at
	// most 1 MiB. It is read again when it has changed, within a second of use.
	CAFile string
	// Identity is what names the caller; empty means IdentityURI.
	Identity CertificateIdentity

	UsernamePrefix string
	GroupsPrefix   string
}

func (c CertificateConfig) check() error {
	if err := checkIssuerName(c.Name); err != nil {
		return err
	}
	if c.Identity != IdentityURI && c.Identity != IdentityCN {
		return fmt.Errorf("identity %q is not %q or %q", c.Identity, IdentityURI, IdentityCN)
	}
	return checkPrefixes(c.UsernamePrefix, c.GroupsPrefix)
}

// Certificates authenticates callers by the certificates they have shown in a
// TLS handshake. Every call verifies them anew, against the authorities of that
// moment: neither a handshake of long ago nor a resumed TLS session makes one
// hold longer (CVE-2025-68121). It is safe for concurrent use.
type Certificates struct {
	// Immutable after NewCertificates.
	config      CertificateConfig
	now         func() time.Time
	authorities *authorities
}

// NewCertificates checks the configuration, reads the authorities and returns
// the authenticator for certificates that they have signed.
func NewCertificates(config CertificateConfig, opts ...Option) (*Certificates, error) {
	o := newOptions(opts)
	if config.Identity == "" {
		config.Identity = IdentityURI
	}
	if err := config.check(); err != nil {
		return nil, fmt.Errorf("client certificates: %w", err)
	}
	a, err := newAuthorities(config.CAFile, o)
	if err != nil {
		return nil, fmt.Errorf("client certificates: %w", err)
	}
	return &Certificates{config: config, now: o.now, authorities: a}, nil
}

// Authenticate returns whom the chain speaks for: the caller's certificate
// first, then whatever leads to an authority. That the caller holds its key is
// for the handshake to have proved. The error is a status.Error of
// UNAUTHENTICATED: MISSING_CREDENTIAL without a certificate, INVALID_TOKEN, or
// of a genuine one EXPIRED or NOT_YET_VALID.
func (c *Certificates) Authenticate(_ context.Context, chain []*x509.Certificate) (*Principal, error) {
	if len(chain) == 0 {
		return nil, status.Unauthenticated(sluicev1.Reason_REASON_MISSING_CREDENTIAL, "the caller has shown no certificate")
	}
	if len(chain) > maxChain {
		return nil, errCertificate
	}
	now := c.now()
	paths, err := c.verify(chain, now)
	if err != nil {
		return nil, errCertificate.Wrap(err)
	}
	// From here on the certificate is genuine, though perhaps of no use.
	leaf := chain[0]
	switch {
	case now.Before(leaf.NotBefore):
		return nil, status.Unauthenticated(sluicev1.Reason_REASON_NOT_YET_VALID, "the certificate is not valid yet")
	case !now.Before(leaf.NotAfter):
		return nil, expired(leaf.NotAfter)
	}
	p := &Principal{
		Authenticator: byCertificate, Issuer: c.config.Name, TokenID: hex.EncodeToString(leaf.SerialNumber.Bytes()), KeyID: signingKeyID(paths[0]),
		ExpiresAt: lastsUntil(paths), NotBefore: leaf.NotBefore, IssuedAt: leaf.NotBefore, chain: chain,
	}
	if p.ExpiredAt(now) {
		return nil, expired(p.ExpiresAt) // who signed it has
	}
	if err := c.readIdentity(leaf, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Recheck implements Rechecker: the certificates of p are verified again. A
// caller whose authority was removed is refused.
func (c *Certificates) Recheck(ctx context.Context, p *Principal) (*Principal, error) {
	newest, err := c.Authenticate(ctx, p.chain)
	if err != nil {
		return nil, err
	}
	return p.sameAs(newest)
}

// verify returns the paths from the caller's certificate to an authority. One
// that is valid at another time only is looked at in that time: to say that it
// has expired, it must be known to be genuine.
func (c *Certificates) verify(chain []*x509.Certificate, now time.Time) ([][]*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, intermediate := range chain[1:] {
		intermediates.AddCert(intermediate)
	}
	leaf := chain[0]
	switch {
	case now.Before(leaf.NotBefore):
		now = leaf.NotBefore
	case now.After(leaf.NotAfter):
		now = leaf.NotAfter
	}
	return leaf.Verify(x509.VerifyOptions{
		Roots: c.authorities.current(), Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
}

// lastsUntil returns when the last of the paths ends, each at its first
// certificate that does.
func lastsUntil(paths [][]*x509.Certificate) time.Time {
	var last time.Time
	for _, path := range paths {
		end := path[0].NotAfter
		for _, certificate := range path {
			if certificate.NotAfter.Before(end) {
				end = certificate.NotAfter
			}
		}
		if end.After(last) {
			last = end
		}
	}
	return last
}

// signingKeyID returns the identifier of the key that has signed the first
// certificate of a path: as it says, or else the hash of that key.
func signingKeyID(path []*x509.Certificate) string {
	if id := path[0].AuthorityKeyId; len(id) > 0 {
		return hex.EncodeToString(id)
	}
	signer := path[min(1, len(path)-1)] // an authority may show its own certificate
	hash := sha256.Sum256(signer.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(hash[:])
}

// readIdentity reads whom the certificate names. Two names for one caller are
// refused: others may read the other one.
func (c *Certificates) readIdentity(leaf *x509.Certificate, p *Principal) error {
	var names, groups []string
	if c.config.Identity == IdentityURI {
		for _, uri := range leaf.URIs {
			if !uri.IsAbs() {
				return c.unnamed()
			}
			names = append(names, uri.String())
		}
	} else {
		for _, attribute := range leaf.Subject.Names {
			if name, ok := attribute.Value.(string); attribute.Type.Equal(commonName) && ok {
				names = append(names, name)
			}
		}
		groups = leaf.Subject.Organization
	}
	if len(names) != 1 || !cleanName(names[0]) || !cleanNames(groups) {
		return c.unnamed()
	}
	p.Subject = names[0]
	p.Username = c.config.UsernamePrefix + names[0]
	p.Groups = prefixed(c.config.GroupsPrefix, groups)
	return nil
}

func (c *Certificates) unnamed() error {
	return status.Unauthenticated(sluicev1.Reason_REASON_INVALID_TOKEN,
		"the certificate does not name its holder by one %s, or has characters that names cannot have", c.config.Identity)
}
