package web

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
)

// host is a name or an address, and a port, as a Host header or an origin has them.
type host struct {
	name string // in lower case, an IPv6 address without brackets and in its canonical form
	port string // "" when there was none
}

// String is the host as a browser writes it.
func (h host) String() string {
	name := h.name
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if h.port == "" {
		return name
	}
	return name + ":" + h.port
}

// parseHost reads host, host:port, [address] or [address]:port. It takes no more than certificates name: a trailing dot, a zone or an
// underscore would be another spelling of a name that is compared.
func parseHost(s string) (host, bool) {
	if len(s) > 262 { // a name of 253, and a port
		return host{}, false
	}
	name, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		name, port = s[:i], s[i+1:]
		if !validPort(port) {
			return host{}, false
		}
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		a, err := netip.ParseAddr(inner)
		if !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return host{}, false
		}
		return host{a.String(), port}, true
	}
	name = lower(name)
	return host{name, port}, validName(name)
}

// validPort wants a port in decimal as everybody writes it.
func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s == strconv.FormatUint(n, 10)
}

// validName wants a name of letters, digits and hyphens (RFC 1123), in lower case.
func validName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

// lower is s with the letters of ASCII in lower case and nothing else changed: strings.ToLower makes a k of U+212A.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}

// hosts are the names by which the port may be called. It is safe for concurrent use.
type hosts struct {
	listed map[host]bool
	cert   *certificate
}

func newHosts(listed []string, t *tls.Config) *hosts {
	h := &hosts{listed: map[host]bool{}, cert: &certificate{config: t}}
	for _, s := range listed {
		if parsed, ok := parseHost(s); ok {
			h.listed[parsed] = true
		}
	}
	return h
}

// allow says whether a request's Host is one of the port's, and how it is written canonically. The port is looked at only where the
// configuration names one: a Service or a load balancer may show another than the one that is listened on, and what a rebound name has
// wrong is the name.
func (h *hosts) allow(s string) (host, bool) {
	asked, ok := parseHost(s)
	if !ok {
		return host{}, false
	}
	return asked, h.listed[asked] || h.listed[host{name: asked.name}] || h.cert.covers(asked.name)
}

// certificate is what the port shows. It is safe for concurrent use.
type certificate struct {
	config *tls.Config
	last   atomic.Pointer[leaf]
}

// leaf is a certificate that was parsed.
type leaf struct {
	of     *tls.Certificate
	parsed *x509.Certificate
}

// covers says whether the certificate that the port shows now is good for name.
func (c *certificate) covers(name string) bool {
	shown, err := c.shown(name)
	if err != nil {
		return false
	}
	last := c.last.Load()
	if last == nil || last.of != shown {
		parsed, err := parse(shown)
		if err != nil {
			return false
		}
		last = &leaf{shown, parsed}
		c.last.Store(last)
	}
	return last.parsed.VerifyHostname(name) == nil
}

// shown is the certificate that a client who asks for name is shown.
func (c *certificate) shown(name string) (*tls.Certificate, error) {
	if c.config.GetCertificate != nil {
		hello := &tls.ClientHelloInfo{}
		if net.ParseIP(name) == nil { // no address is ever asked for (RFC 6066, section 3)
			hello.ServerName = name
		}
		if shown, err := c.config.GetCertificate(hello); shown != nil || err != nil {
			return shown, err
		}
	}
	if len(c.config.Certificates) == 0 {
		return nil, errors.New("no certificate")
	}
	return &c.config.Certificates[0], nil
}

func parse(c *tls.Certificate) (*x509.Certificate, error) {
	if c.Leaf != nil {
		return c.Leaf, nil
	}
	if len(c.Certificate) == 0 {
		return nil, errors.New("an empty certificate")
	}
	return x509.ParseCertificate(c.Certificate[0])
}
