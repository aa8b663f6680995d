// Package issuer is a small OpenID Connect issuer that lives in one process.
//
// It publishes a discovery document and a key set, and signs tokens for the
// program that holds it. It has no token endpoint: nobody who merely reaches it
// over the network can obtain a token.
package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/go-jose/go-jose/v4"
)

const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/keys"

	// rsaBits is the size of an RS256 key, the least that RFC 7518 section 3.3 allows.
	rsaBits = 2048

	// maxAge is how long, in seconds, readers may cache what the issuer publishes.
	// It is short because a rotated key signs at once.
	maxAge = 10
)

// Option changes an Issuer while it is built.
type Option func(*Issuer)

// WithAlgorithm selects the signing algorithm: jose.ES256 (the default) or jose.RS256.
func WithAlgorithm(alg jose.SignatureAlgorithm) Option {
	return func(i *Issuer) { i.alg = alg }
}

// Issuer signs tokens and publishes the keys to verify them with.
// All methods are safe for concurrent use.
type Issuer struct {
	// Immutable after New.
	url  *url.URL
	name string
	alg  jose.SignatureAlgorithm

	// Guarded by mu.
	mu   sync.RWMutex
	keys []signingKey // the newest, which signs, is the last
}

// signingKey is one key pair under the id that names it in token headers.
type signingKey struct {
	id      string
	private crypto.Signer
}

// New returns an issuer with one fresh key. The issuerURL becomes the `iss` of
// every token, byte for byte, and must be the absolute http or https URL below
// which Handler is reachable.
func New(issuerURL string, opts ...Option) (*Issuer, error) {
	u, err := url.Parse(issuerURL)
	if err != nil {
		return nil, fmt.Errorf("parse issuer URL: %w", err)
	}
	if u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("issuer URL %q is not an absolute http or https URL", issuerURL)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("issuer URL of host %q has a query, a fragment or user information", u.Host)
	}
	i := &Issuer{url: u, name: issuerURL, alg: jose.ES256}
	for _, opt := range opts {
		opt(i)
	}
	if err := i.Rotate(); err != nil {
		return nil, err
	}
	return i, nil
}

// URL returns the issuer's URL exactly as given to New, the `iss` of its tokens.
func (i *Issuer) URL() string { return i.name }

// Rotate makes a new key sign from now on. The earlier keys stay published, so
// that their tokens remain valid, until Forget.
func (i *Issuer) Rotate() error {
	private, err := generate(i.alg)
	if err != nil {
		return err
	}
	public := jose.JSONWebKey{Key: private.Public()}
	thumbprint, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return fmt.Errorf("name the signing key: %w", err)
	}
	key := signingKey{id: base64.RawURLEncoding.EncodeToString(thumbprint), private: private}

	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, key)
	return nil
}

// Forget stops publishing every key but the one that signs now.
func (i *Issuer) Forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = slices.Clone(i.keys[len(i.keys)-1:])
}

// KeyID returns the id of the key that signs now: its RFC 7638 thumbprint.
func (i *Issuer) KeyID() string { return i.current().id }

// PublicKeyPEM returns the PKIX form of the key that signs now.
func (i *Issuer) PublicKeyPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(i.current().private.Public())
	if err != nil {
		// Not reachable: generate makes only kinds of keys that x509 can marshal.
		panic(fmt.Sprintf("marshal own public key: %v", err))
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func (i *Issuer) current() signingKey {
	i.mu.RLock()
	defer i.mu.RUnlock()
	return i.keys[len(i.keys)-1]
}

// Handler serves the discovery document (OpenID Connect Discovery 1.0 section 4)
// and the key set (RFC 7517 section 5) below the path of the issuer's URL.
func (i *Issuer) Handler() http.Handler {
	prefix := strings.TrimSuffix(i.url.Path, "/")
	m := http.NewServeMux()
	m.HandleFunc("GET "+prefix+discoveryPath, i.serveDiscovery)
	m.HandleFunc("GET "+prefix+keysPath, i.serveKeys)
	return m
}

// discovery is the part of the provider metadata that an issuer without any
// endpoint of its own can honestly fill. The authorization endpoint is required
// by the standard and answers 404.
type discovery struct {
	Issuer                string                    `json:"issuer"`
	AuthorizationEndpoint string                    `json:"authorization_endpoint"`
	JWKSURI               string                    `json:"jwks_uri"`
	ResponseTypes         []string                  `json:"response_types_supported"`
	SubjectTypes          []string                  `json:"subject_types_supported"`
	Algorithms            []jose.SignatureAlgorithm `json:"id_token_signing_alg_values_supported"`
	Claims                []string                  `json:"claims_supported"`
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	base := strings.TrimSuffix(i.name, "/")
	publish(w, discovery{
		Issuer:                i.name,
		AuthorizationEndpoint: base + "/authorize",
		JWKSURI:               base + keysPath,
		ResponseTypes:         []string{"id_token"},
		SubjectTypes:          []string{"public"},
		Algorithms:            []jose.SignatureAlgorithm{i.alg},
		Claims:                []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "groups", "email", "email_verified"},
	})
}

func (i *Issuer) serveKeys(w http.ResponseWriter, _ *http.Request) {
	publish(w, i.keySet())
}

func (i *Issuer) keySet() jose.JSONWebKeySet {
	i.mu.RLock()
	defer i.mu.RUnlock()
	var set jose.JSONWebKeySet
	for _, key := range i.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{
			Key: key.private.Public(), KeyID: key.id, Algorithm: string(i.alg), Use: "sig",
		})
	}
	return set
}

func publish(w http.ResponseWriter, document any) {
	body, err := json.Marshal(document)
	if err != nil {
		http.Error(w, "document cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", maxAge))
	_, _ = w.Write(body) // A reader that has gone is none of the issuer's business.
}

func generate(alg jose.SignatureAlgorithm) (crypto.Signer, error) {
	switch alg {
	case jose.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.RS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		return nil, fmt.Errorf("signing algorithm %q is not ES256 or RS256", alg)
	}
}
