package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

const (
	// maxDocumentBytes bounds what is read of one of an issuer's documents,
	// after decompression.
	maxDocumentBytes = 1 << 20

	// maxKeys bounds the usable keys of one issuer; real ones publish a handful.
	maxKeys = 100

	minRSABits, maxRSABits = 2048, 8192

	maxRedirects = 3
)

// published reads what one issuer publishes over HTTP.
type published struct {
	// Immutable after construction.
	issuer string
	client *http.Client
}

func newPublished(issuer string, transport http.RoundTripper) *published {
	return &published{issuer: issuer, client: &http.Client{Transport: transport, CheckRedirect: sameOrigin}}
}

// newTransport returns the transport to one issuer; its certificate must be
// signed by one of roots, or by one of the system's if that is nil.
func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        2 * refreshInterval,
	}
}

// sameOrigin follows redirects only within one origin: whoever can make an
// issuer redirect must not be able to name another source of keys.
func sameOrigin(next *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	if next.URL.Scheme != via[0].URL.Scheme || next.URL.Host != via[0].URL.Host {
		return fmt.Errorf("redirect to another origin, %s://%s", next.URL.Scheme, next.URL.Host)
	}
	return nil
}

// keys fetches the discovery document (OpenID Connect Discovery 1.0 section 4)
// and the key set that it names.
func (p *published) keys(ctx context.Context) ([]publicKey, error) {
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	wellKnown := strings.TrimSuffix(p.issuer, "/") + "/.well-known/openid-configuration"
	if err := p.get(ctx, wellKnown, &document); err != nil {
		return nil, fmt.Errorf("discover issuer %q: %w", p.issuer, err)
	}
	if document.Issuer != p.issuer {
		return nil, fmt.Errorf("discover issuer %q: the document is of issuer %.200q", p.issuer, document.Issuer)
	}
	if err := p.checkKeysURL(document.JWKSURI); err != nil {
		return nil, fmt.Errorf("discover issuer %q: %w", p.issuer, err)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := p.get(ctx, document.JWKSURI, &set); err != nil {
		return nil, fmt.Errorf("fetch keys of issuer %q: %w", p.issuer, err)
	}
	keys, err := usableKeys(set.Keys)
	if err != nil {
		return nil, fmt.Errorf("read keys of issuer %q: %w", p.issuer, err)
	}
	return keys, nil
}

// checkKeysURL holds the source of keys to the rules for the issuer's own URL,
// and allows plain HTTP only if that uses it too.
func (p *published) checkKeysURL(raw string) error {
	u, err := parseIssuerURL(p.issuer)
	if err != nil {
		return err
	}
	keys, err := url.Parse(raw)
	if err != nil || keys.Host == "" || keys.User != nil {
		return errors.New("jwks_uri is not an absolute URL")
	}
	if keys.Scheme == "https" || keys.Scheme == "http" && u.Scheme == "http" && loopback(keys.Hostname()) {
		return nil
	}
	return errors.New("jwks_uri is not an https URL")
}

// get decodes the JSON document at location into document.
func (p *published) get(ctx context.Context, location string, document any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Accept", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: HTTP status %d", location, response.StatusCode)
	}
	body, err := io.ReadAll(http.MaxBytesReader(nil, response.Body, maxDocumentBytes))
	if err != nil {
		return fmt.Errorf("GET %s: %w", location, err)
	}
	if err := json.Unmarshal(body, document); err != nil {
		return fmt.Errorf("GET %s: decode: %w", location, err)
	}
	return nil
}

// usableKeys returns the keys that can verify signatures. Others are skipped, as
// RFC 7517 section 5 wants; a set without any usable key is an error, so that it
// cannot displace a good one.
func usableKeys(listed []json.RawMessage) ([]publicKey, error) {
	var usable []publicKey
	for _, raw := range listed {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil && fitForSignatures(&key) {
			usable = append(usable, publicKey{id: key.KeyID, algorithm: key.Algorithm, key: key.Key})
		}
		if len(usable) > maxKeys {
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("none of %d keys can verify signatures", len(listed))
	}
	return usable, nil
}

func fitForSignatures(key *jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" {
		return false
	}
	if _, known := schemes[key.Algorithm]; key.Algorithm != "" && !known {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= minRSABits && public.N.BitLen() <= maxRSABits
	case *ecdsa.PublicKey:
		return true
	case ed25519.PublicKey:
		return len(public) == ed25519.PublicKeySize
	}
	return false // a symmetric or private key, which nobody should publish
}

// parseIssuerURL returns the parsed form of a usable issuer URL: https, or http
// to this machine, without user information, query or fragment (OpenID Connect
// Core 1.0 section 2).
func parseIssuerURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(raw, "?#"):
		return nil, errors.New("must be an absolute URL without user information, query or fragment")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return u, nil
	}
	return nil, errors.New("must be an https URL, or http on a loopback address")
}

func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// closeIdle lets go of what the transport keeps open for later.
func (p *published) closeIdle() { p.client.CloseIdleConnections() }
