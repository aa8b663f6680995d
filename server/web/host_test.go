package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

// certificateFor makes a certificate for names and addresses.
func certificateFor(t testing.TB, names []string, addresses ...net.IP) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: names, IPAddresses: addresses,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func shows(c *tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{*c}, MinVersion: tls.VersionTLS12}
}

// T-J4: a name that somebody else's DNS leads here is no name of the port, in any spelling.
func TestT_J4_OnlyItsOwnNamesAreHosts(t *testing.T) {
	cert := certificateFor(t, []string{"gateway.example", "*.apps.example"}, net.IPv4(127, 0, 0, 1), net.IPv6loopback)
	h := newHosts([]string{"localhost", "named.example:8444", "[fd00::1]:8444", "10.0.0.1"}, shows(cert))
	for _, good := range []string{
		"gateway.example", "gateway.example:8444", "gateway.example:1", "GATEWAY.example", "a.apps.example:443", "127.0.0.1", "127.0.0.1:8444", "[::1]",
		"[::1]:8444", "[0:0:0:0:0:0:0:1]:8444", "localhost", "localhost:65535", "named.example:8444", "[fd00::1]:8444", "10.0.0.1:99",
	} {
		if _, ok := h.allow(good); !ok {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{
		"", ":", ":8444", "evil.example", "evil.example:8444", "gateway.example.evil.example", "evilgateway.example", "gateway.example.",
		"gateway.example.:8444", ".gateway.example", "gateway..example", "a.b.apps.example", "apps.example", "named.example", "named.example:8445",
		"named.example:08444", "[fd00::1]", "[fd00::2]:8444", "127.0.0.2", "127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "127.0.0.1.", "localhost.",
		"localhost:", "localhost:0", "localhost:65536", "localhost:+80", "localhost:80:80", "local host", "localhost\x00", "localhost/", "localhost#",
		"localhost?x", "user@localhost", "user:pass@localhost", "localhost@evil.example", "http://localhost", "::1", "[::1", "::1]", "[::1]x", "[::1]:",
		"[::1%25lo]:8444", "[::1%lo]", "[127.0.0.1]", "[localhost]", "local_host", "löcalhost", "xn--", "-localhost", "localhost,evil.example",
		"localhost evil.example", "\u212A", strings.Repeat("a.", 126) + "example", strings.Repeat("a", 64) + ".apps.example", strings.Repeat("a", 1<<16),
	} {
		if _, ok := h.allow(bad); ok {
			t.Errorf("%q is allowed", bad)
		}
	}
}

// The names are those of the certificate that is shown now.
func TestHostsFollowTheCertificate(t *testing.T) {
	first, second := certificateFor(t, []string{"first.example"}), certificateFor(t, []string{"second.example"})
	shown := first
	var failure error
	h := newHosts(nil, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown, failure }})
	names := func() string {
		var out []string
		for _, name := range []string{"first.example", "second.example"} {
			if _, ok := h.allow(name); ok {
				out = append(out, name)
			}
		}
		return strings.Join(out, " ")
	}
	if got := names(); got != "first.example" {
		t.Errorf("with the first: %q", got)
	}
	shown = second
	if got := names(); got != "second.example" {
		t.Errorf("with the second: %q", got)
	}
	shown, failure = nil, errors.New("no certificate now")
	if got := names(); got != "" {
		t.Errorf("without any: %q", got)
	}
	shown, failure = &tls.Certificate{Certificate: [][]byte{{1}}}, nil
	if got := names(); got != "" {
		t.Errorf("with one that is none: %q", got)
	}
	if _, ok := newHosts(nil, &tls.Config{MinVersion: tls.VersionTLS12}).allow("first.example"); ok {
		t.Error("without a certificate a name is allowed")
	}
}

// Certificates by name: a name counts when the certificate that is shown for it covers it.
func TestHostsAskForTheCertificateOfTheName(t *testing.T) {
	cert := certificateFor(t, []string{"gateway.example"}, net.IPv4(127, 0, 0, 1))
	var asked []string
	h := newHosts(nil, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		asked = append(asked, hello.ServerName)
		return cert, nil
	}})
	for _, host := range []string{"Gateway.Example:1", "127.0.0.1"} {
		if _, ok := h.allow(host); !ok {
			t.Errorf("%q is refused", host)
		}
	}
	if got := strings.Join(asked, ","); got != "gateway.example," {
		t.Errorf("asked for %q", got)
	}
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"a", "a:1", "[::1]:8444", "127.0.0.1", "A.B", "a.", "[", "a:b", "[::1%a]"} {
		f.Add(s)
	}
	h := newHosts([]string{"a:1"}, shows(certificateFor(f, []string{"b.example"})))
	f.Fuzz(func(t *testing.T, s string) {
		parsed, ok := parseHost(s)
		if !ok {
			return
		}
		again, ok := parseHost(parsed.String())
		if !ok || again != parsed {
			t.Errorf("%q is %+v, and that is %+v", s, parsed, again)
		}
		if _, ok := h.allow(s); ok != (parsed == host{"a", "1"} || parsed.name == "b.example") {
			t.Errorf("%q: %v", s, ok)
		}
	})
}
