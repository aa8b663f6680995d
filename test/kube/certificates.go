package kube

import (
	"fmt"
	"net/url"
	"time"

	"k8s.io/client-go/tools/clientcmd/api"
)

// ClientCertificate says what a client certificate is to be.
type ClientCertificate struct {
	User   string   // the common name, which the API server takes for the user
	Groups []string // the organizations, which it takes for the groups

	// URIs are subject alternative names, such as a SPIFFE ID, at which the API
	// server does not look.
	URIs []string

	// Expiry is when it ends; in a day if zero.
	Expiry time.Time
}

// IssueCertificate returns a certificate and its key, both in PEM, signed by the
// authority of [Cluster.CA], whose clients the API server knows. Its permissions
// are those of the user and the groups ([Cluster.Grant]); the group
// "system:masters" may do everything.
func (c *Cluster) IssueCertificate(want ClientCertificate) (cert, key []byte, err error) {
	template := certificate(want.User, want.Groups...)
	template.ExtKeyUsage = clientUse
	if !want.Expiry.IsZero() {
		template.NotAfter = want.Expiry
	}
	for _, text := range want.URIs {
		uri, err := url.Parse(text)
		if err != nil {
			return nil, nil, fmt.Errorf("issue certificate for %q: %w", want.User, err)
		}
		template.URIs = append(template.URIs, uri)
	}
	p, err := c.ca.issue(template)
	return p.cert, p.key, err
}

// WriteCertificateKubeconfig is [Cluster.WriteKubeconfig] with a certificate of
// [Cluster.IssueCertificate] for credential.
func (c *Cluster) WriteCertificateKubeconfig(file, name, server string, cert, key []byte) error {
	return c.writeKubeconfig(file, name, server, &api.AuthInfo{ClientCertificateData: cert, ClientKeyData: key})
}
