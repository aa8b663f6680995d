package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

const workload = "spiffe://example.org/ns/default/sa/alice"

// ca signs certificates.
type ca struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

var serials int64 = 0x1000

// template is a certificate for alice, valid for an hour, unless change says otherwise.
func template(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	uri, err := url.Parse(workload)
	if err != nil {
		t.Fatal(err)
	}
	serials++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serials), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		Subject: pkix.Name{CommonName: "alice", Organization: []string{"dev", "ops"}}, URIs: []*url.URL{uri},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(c)
	}
	return c
}

// certify returns the template's certificate for a new key, signed by the CA, or by itself if that is nil.
func (c *ca) certify(t testing.TB, template *x509.Certificate) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, signer := template, crypto.Signer(key)
	if c != nil {
		parent, signer = c.certificate, c.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{certificate, key}
}

func asCA(c *x509.Certificate) {
	c.Subject = pkix.Name{CommonName: "authority"}
	c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage, c.URIs = true, true, x509.KeyUsageCertSign, nil, nil
	c.NotAfter = time.Now().Add(24 * time.Hour)
}

func newCA(t testing.TB) *ca { return (*ca)(nil).certify(t, template(t, asCA)) }

func (c *ca) issue(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	return c.certify(t, template(t, change)).certificate
}

func (c *ca) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.certificate.Raw})
}

// newCertificates returns an authenticator that trusts the CA.
func (c *ca) newCertificates(t testing.TB, change func(*auth.CertificateConfig), opts ...auth.Option) *auth.Certificates {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, file, c.pem())
	config := auth.CertificateConfig{Name: "workloads", CAFile: file}
	if change != nil {
		change(&config)
	}
	certificates, err := auth.NewCertificates(config, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return certificates
}

func writeFile(t testing.TB, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func show(c *auth.Certificates, chain ...*x509.Certificate) (*auth.Principal, error) {
	return c.Authenticate(context.Background(), chain)
}

func mustShow(t testing.TB, c *auth.Certificates, chain ...*x509.Certificate) *auth.Principal {
	t.Helper()
	p, err := show(c, chain...)
	if err != nil {
		t.Fatalf("refused a good certificate: %v", err)
	}
	return p
}

func TestWhoACertificateNames(t *testing.T) {
	authority := newCA(t)
	leaf := authority.issue(t, nil)
	p := mustShow(t, authority.newCertificates(t, func(c *auth.CertificateConfig) { c.UsernamePrefix = "spiffe:" }), leaf)
	if p.Authenticator != "certificate" || p.Issuer != "workloads" || p.Subject != workload || p.Username != "spiffe:"+workload || p.UID != "" ||
		p.Groups != nil || p.TokenID != hex.EncodeToString(leaf.SerialNumber.Bytes()) || p.KeyID != hex.EncodeToString(authority.certificate.SubjectKeyId) ||
		!p.ExpiresAt.Equal(leaf.NotAfter) || !p.NotBefore.Equal(leaf.NotBefore) || !p.IssuedAt.Equal(leaf.NotBefore) || !p.Credential().IsZero() {
		t.Errorf("the certificate names %+v", p)
	}
	byName := authority.newCertificates(t, func(c *auth.CertificateConfig) {
		c.Identity, c.UsernamePrefix, c.GroupsPrefix = auth.IdentityCN, "cert:", "org:"
	})
	if p := mustShow(t, byName, leaf); p.Subject != "alice" || p.Username != "cert:alice" || !slices.Equal(p.Groups, []string{"org:dev", "org:ops"}) {
		t.Errorf("the certificate names %+v", p)
	}
	// A renewed certificate is of the same caller.
	if !p.Same(mustShow(t, authority.newCertificates(t, nil), authority.issue(t, nil))) {
		t.Error("a renewed certificate is of somebody else")
	}
}

func TestAKeyWithoutANameIsNamedByItsHash(t *testing.T) {
	root := newCA(t)
	nameless := *root.certificate
	nameless.SubjectKeyId = nil
	leaf := (&ca{&nameless, root.key}).issue(t, nil)
	if len(leaf.AuthorityKeyId) != 0 {
		t.Fatal("the certificate names the key of who signed it")
	}
	hash := sha256.Sum256(root.certificate.RawSubjectPublicKeyInfo)
	if p := mustShow(t, root.newCertificates(t, nil), leaf); p.KeyID != hex.EncodeToString(hash[:]) {
		t.Errorf("signed by the key %q", p.KeyID)
	}
}

func TestT_A17_OnlyCertificatesOfAnAuthorityForClientsAreAccepted(t *testing.T) {
	authority, other := newCA(t), newCA(t)
	c := authority.newCertificates(t, nil)
	intermediate := authority.certify(t, template(t, asCA))
	below := intermediate.issue(t, nil)
	impostor := (&ca{other.certificate, other.key}).certify(t, template(t, func(c *x509.Certificate) { asCA(c); c.Subject = authority.certificate.Subject }))
	notCA := authority.certify(t, template(t, nil))
	forged := *authority.issue(t, nil)
	forged.Raw = slices.Clone(forged.Raw)
	forged.Signature = slices.Clone(forged.Signature)
	forged.Signature[len(forged.Signature)-1] ^= 1

	mustShow(t, c, authority.issue(t, nil))
	mustShow(t, c, below, intermediate.certificate)
	mustShow(t, c, authority.issue(t, nil), other.certificate) // what leads nowhere does no harm
	long := []*x509.Certificate{authority.issue(t, nil)}
	for range 8 {
		long = append(long, other.certificate)
	}
	for name, chain := range map[string][]*x509.Certificate{
		"of another authority":        {other.issue(t, nil)},
		"with that authority":         {other.issue(t, nil), other.certificate},
		"of an authority's namesake":  {impostor.issue(t, nil), impostor.certificate, other.certificate},
		"without its intermediate":    {below},
		"of who is no authority":      {notCA.issue(t, nil), notCA.certificate},
		"self-signed":                 {(*ca)(nil).certify(t, template(t, nil)).certificate},
		"for servers":                 {authority.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })},
		"with an extension not known": {authority.issue(t, critical)},
		"with a broken signature":     {&forged},
		"behind too many others":      long,
	} {
		p, err := show(c, chain...)
		t.Log(name)
		if err == nil {
			t.Errorf("%s: accepted as %+v", name, p)
			continue
		}
		wantRefusal(t, p, err, invalid)
		if text := status.From(err).Message; text != "the certificate was not accepted" {
			t.Errorf("%s: the caller is told %q", name, text)
		}
	}
	_, err := show(c)
	wantRefusal(t, nil, err, sluicev1.Reason_REASON_MISSING_CREDENTIAL)
}

func critical(c *x509.Certificate) {
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
}

func TestT_A6_TimesOfACertificate(t *testing.T) {
	authority := newCA(t)
	now := time.Now()
	c := authority.newCertificates(t, nil, auth.WithClock(func() time.Time { return now }))
	leaf := authority.issue(t, nil)
	intermediate := authority.certify(t, template(t, func(c *x509.Certificate) { asCA(c); c.NotAfter = time.Now().Add(time.Minute) }))
	below := intermediate.issue(t, nil)
	foreign := newCA(t).issue(t, nil)
	for _, tc := range []struct {
		name  string
		at    time.Time
		chain []*x509.Certificate
		want  sluicev1.Reason
	}{
		{"now", now, []*x509.Certificate{leaf}, accepted},
		{"from its first second", leaf.NotBefore, []*x509.Certificate{leaf}, accepted},
		{"before it", leaf.NotBefore.Add(-time.Second), []*x509.Certificate{leaf}, notYet},
		{"up to its end", leaf.NotAfter.Add(-1), []*x509.Certificate{leaf}, accepted},
		{"at its end", leaf.NotAfter, []*x509.Certificate{leaf}, expired},
		{"later", leaf.NotAfter.Add(time.Hour), []*x509.Certificate{leaf}, expired},
		{"a foreign one, later", leaf.NotAfter.Add(time.Hour), []*x509.Certificate{foreign}, invalid},
		{"a foreign one, before", leaf.NotBefore.Add(-time.Hour), []*x509.Certificate{foreign}, invalid},
		{"below one that ends before", now, []*x509.Certificate{below, intermediate.certificate}, accepted},
		{"when that has ended", intermediate.certificate.NotAfter, []*x509.Certificate{below, intermediate.certificate}, expired},
		{"after that", intermediate.certificate.NotAfter.Add(time.Second), []*x509.Certificate{below, intermediate.certificate}, invalid},
	} {
		now = tc.at
		p, err := show(c, tc.chain...)
		if tc.want == accepted {
			if err != nil {
				t.Errorf("%s: %v", tc.name, err)
			} else if end := tc.chain[len(tc.chain)-1].NotAfter; !p.ExpiresAt.Equal(end) {
				t.Errorf("%s: ends at %v, want %v", tc.name, p.ExpiresAt, end)
			}
			continue
		}
		t.Log(tc.name)
		wantRefusal(t, p, err, tc.want)
	}
}

func TestT_B4_ACertificateThatNamesItsHolderBadlyIsRefused(t *testing.T) {
	authority := newCA(t)
	byURI := authority.newCertificates(t, nil)
	byName := authority.newCertificates(t, func(c *auth.CertificateConfig) { c.Identity = auth.IdentityCN })
	uris := func(all ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, one := range all {
				u, err := url.Parse(one)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			}
		}
	}
	subject := func(name pkix.Name) func(*x509.Certificate) { return func(c *x509.Certificate) { c.Subject = name } }
	for name, tc := range map[string]struct {
		certificates *auth.Certificates
		change       func(*x509.Certificate)
	}{
		"no URI":            {byURI, uris()},
		"two URIs":          {byURI, uris(workload, "spiffe://example.org/bob")},
		"relative":          {byURI, uris("/alice")},
		"no name":           {byName, subject(pkix.Name{Organization: []string{"dev"}})},
		"two names":         {byName, subject(pkix.Name{CommonName: "alice", ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "bob"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "alice"}}})},
		"a line in a name":  {byName, subject(pkix.Name{CommonName: "alice\r\nImpersonate-Group: system:masters"})},
		"NUL in a name":     {byName, subject(pkix.Name{CommonName: "alice\x00"})},
		"a space before":    {byName, subject(pkix.Name{CommonName: " alice"})},
		"a line in a group": {byName, subject(pkix.Name{CommonName: "alice", Organization: []string{"dev", "a\nb"}})},
	} {
		p, err := show(tc.certificates, authority.issue(t, tc.change))
		t.Log(name)
		if err == nil {
			t.Errorf("%s: accepted as %+v", name, p)
			continue
		}
		wantRefusal(t, p, err, invalid)
	}
}

// A17: NATS CVE-2026-33248 and Go CVE-2025-68121. What an authority that is gone has signed is refused from the next call
// on, without a restart, and so is a principal of before.
func TestT_A17_AuthoritiesAreReadAgain(t *testing.T) {
	before, after := newCA(t), newCA(t)
	old, renewed := before.issue(t, nil), after.issue(t, nil)
	file := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, file, before.pem())
	now := time.Now()
	var log bytes.Buffer
	c, err := auth.NewCertificates(auth.CertificateConfig{Name: "workloads", CAFile: file},
		auth.WithClock(func() time.Time { return now }), auth.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	if err != nil {
		t.Fatal(err)
	}
	p := mustShow(t, c, old)
	both := append(before.pem(), after.pem()...)
	for _, step := range []struct {
		name        string
		text        []byte // nil: no file
		old, latest bool
	}{
		{"both", both, true, true},
		{"half written", both[:len(both)-40], true, true},
		{"no certificate", []byte("nothing"), true, true},
		{"too large", append(slices.Clone(both), bytes.Repeat([]byte("\n"), 1<<20)...), true, true},
		{"a broken one", append(slices.Clone(after.pem()), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})...), true, true},
		{"no file", nil, true, true},
		{"the old one gone", after.pem(), false, true},
		{"the old one again", before.pem(), true, false},
	} {
		if step.text == nil {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		} else {
			writeFile(t, file, step.text)
		}
		now = now.Add(time.Second)
		_, oldErr := show(c, old)
		_, newErr := show(c, renewed)
		_, recheckErr := c.Recheck(t.Context(), p)
		if (oldErr == nil) != step.old || (newErr == nil) != step.latest || (recheckErr == nil) != step.old {
			t.Errorf("%s: the old one %v, rechecked %v, the new one %v", step.name, oldErr, recheckErr, newErr)
		}
		if !step.old {
			wantRefusal(t, nil, recheckErr, invalid)
		}
	}
	if n := strings.Count(log.String(), "not read again"); n != 1 {
		t.Errorf("one time without a file was logged %d times:\n%s", n, log.String())
	}
	if n := strings.Count(log.String(), "msg=\"read authorities"); n != 3 {
		t.Errorf("three changes were logged %d times:\n%s", n, log.String())
	}
}

// The same, end to end: a TLS session that is resumed brings the certificate of its first handshake, which is verified as
// if it were new.
func TestT_A17_AResumedSessionIsVerifiedAnew(t *testing.T) {
	before, after := newCA(t), newCA(t)
	holder := before.certify(t, template(t, nil))
	file := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, file, before.pem())
	now := time.Now()
	c, err := auth.NewCertificates(auth.CertificateConfig{Name: "workloads", CAFile: file}, auth.WithClock(func() time.Time { return now }))
	if err != nil {
		t.Fatal(err)
	}
	gateway := newCA(t).certify(t, template(t, func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"gateway.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}))
	roots := x509.NewCertPool()
	roots.AddCert(gateway.certificate)
	serverConfig := &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{gateway.certificate.Raw}, PrivateKey: gateway.key}}, ClientAuth: tls.RequestClientCert,
	}
	clientConfig := &tls.Config{
		RootCAs: roots, ServerName: "gateway.example", ClientSessionCache: tls.NewLRUClientSessionCache(1),
		Certificates: []tls.Certificate{{Certificate: [][]byte{holder.certificate.Raw}, PrivateKey: holder.key}},
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", serverConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	connect := func() tls.ConnectionState {
		t.Helper()
		states := make(chan tls.ConnectionState, 1)
		go func() {
			defer close(states)
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			defer func() { _ = conn.Close() }()
			if _, err := conn.Write([]byte("x")); err != nil { // shakes hands, and sends the ticket before
				return
			}
			states <- conn.(*tls.Conn).ConnectionState()
		}()
		conn, err := tls.Dial("tcp", listener.Addr().String(), clientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return <-states
	}
	first := connect()
	mustShow(t, c, first.PeerCertificates...)
	writeFile(t, file, after.pem())
	now = now.Add(time.Second)
	resumed := connect()
	if !resumed.DidResume || len(resumed.PeerCertificates) != 1 {
		t.Fatalf("resumed %v with %d certificates", resumed.DidResume, len(resumed.PeerCertificates))
	}
	p, err := show(c, resumed.PeerCertificates...)
	wantRefusal(t, p, err, invalid)
}

func TestACertificateConfigurationThatCannotBeSafeIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	writeFile(t, file, newCA(t).pem())
	empty := filepath.Join(t.TempDir(), "empty.pem")
	writeFile(t, empty, nil)
	good := auth.CertificateConfig{Name: "workloads", CAFile: file}
	if _, err := auth.NewCertificates(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*auth.CertificateConfig){
		"no name":        func(c *auth.CertificateConfig) { c.Name = "" },
		"no file":        func(c *auth.CertificateConfig) { c.CAFile = file + ".not" },
		"no certificate": func(c *auth.CertificateConfig) { c.CAFile = empty },
		"an identity":    func(c *auth.CertificateConfig) { c.Identity = "dn" },
		"user prefix":    func(c *auth.CertificateConfig) { c.UsernamePrefix = "a\n" },
		"groups prefix":  func(c *auth.CertificateConfig) { c.GroupsPrefix = " a" },
	} {
		c := good
		change(&c)
		if _, err := auth.NewCertificates(c); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// FuzzCertificates shows any certificate at all to one who trusts none of them.
func FuzzCertificates(f *testing.F) {
	authority := newCA(f)
	certificates := authority.newCertificates(f, nil)
	byName := authority.newCertificates(f, func(c *auth.CertificateConfig) { c.Identity = auth.IdentityCN })
	good := authority.issue(f, nil)
	f.Add(good.Raw)
	f.Add(newCA(f).issue(f, nil).Raw)
	f.Add(newCA(f).certificate.Raw)
	f.Add(authority.issue(f, func(c *x509.Certificate) { c.URIs = nil }).Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		for _, c := range []*auth.Certificates{certificates, byName} {
			p, err := show(c, certificate)
			if (p == nil) == (err == nil) {
				t.Fatalf("got principal %v and error %v", p, err)
			}
			if err == nil && authority.certificate.CheckSignature(certificate.SignatureAlgorithm, certificate.RawTBSCertificate, certificate.Signature) != nil {
				t.Fatalf("accepted %x", der)
			}
		}
	})
}
