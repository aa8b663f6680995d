package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// patience only bounds failures.
const patience = 30 * time.Second

// apiserver is an upstream that keeps what it is asked and answers as it is told.
type apiserver struct {
	*httptest.Server
	ca []byte

	mu       sync.Mutex
	requests []*http.Request
	answer   http.HandlerFunc // nil upgrades, or answers {} to what is no upgrade
}

func startAPIServer(t testing.TB, answer http.HandlerFunc) *apiserver {
	t.Helper()
	s := &apiserver{answer: answer}
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // what goes wrong, a test looks for itself
	s.StartTLS()
	t.Cleanup(s.Close)
	s.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return s
}

// ServeHTTP implements http.Handler.
func (s *apiserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	answer := s.answer
	s.mu.Unlock()
	if answer == nil {
		answer = accept
	}
	answer(w, r)
}

// accept greets on a WebSocket and waits for its end.
func accept(w http.ResponseWriter, r *http.Request) {
	if !gorilla.IsWebSocketUpgrade(r) {
		_, _ = io.WriteString(w, "{}")
		return
	}
	up := gorilla.Upgrader{Subprotocols: gorilla.Subprotocols(r), CheckOrigin: func(*http.Request) bool { return true }}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	_ = c.WriteMessage(gorilla.TextMessage, []byte("hello"))
	if _, _, err := c.ReadMessage(); err != nil { // it ends with the other side
		return
	}
}

func (s *apiserver) seen() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request(nil), s.requests...)
}

func (s *apiserver) last(t testing.TB) *http.Request {
	t.Helper()
	all := s.seen()
	if len(all) == 0 {
		t.Fatal("the API server was asked nothing")
	}
	return all[len(all)-1]
}

// kubeconfig writes one whose only context is called dev.
func (s *apiserver) kubeconfig(t testing.TB, user clientcmdapi.AuthInfo, change func(*clientcmdapi.Cluster)) string {
	t.Helper()
	c := clientcmdapi.Cluster{Server: s.URL, CertificateAuthorityData: s.ca}
	if change != nil {
		change(&c)
	}
	return writeKubeconfig(t, clientcmdapi.Config{
		Clusters: map[string]*clientcmdapi.Cluster{"c": &c}, AuthInfos: map[string]*clientcmdapi.AuthInfo{"u": &user},
		Contexts: map[string]*clientcmdapi.Context{"dev": {Cluster: "c", AuthInfo: "u"}}, CurrentContext: "dev",
	})
}

func writeKubeconfig(t testing.TB, c clientcmdapi.Config) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(c, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// passthrough is a configuration for alice's own token.
func (s *apiserver) passthrough() Config {
	return Config{
		Name: "dev", Server: s.URL, CA: s.ca, Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{"kubernetes"},
	}
}

const aliceToken = "alices-own-token"

func alice() *auth.Principal {
	p := &auth.Principal{Issuer: "https://issuer.test", Subject: "1", Username: "alice", Audiences: []string{"sluice", "kubernetes"}}
	return p.WithCredential(auth.NewSecret(aliceToken))
}

// newSet makes a set that is closed at the test's end.
func newSet(t testing.TB, configs ...Config) *Set {
	t.Helper()
	return newSetWith(t, Timeouts{}, configs...)
}

func newSetWith(t testing.TB, timeouts Timeouts, configs ...Config) *Set {
	t.Helper()
	s, err := New(configs, "sluice/test", timeouts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// upstreamOf is alice's upstream of the only cluster.
func upstreamOf(t testing.TB, c Config) *Upstream {
	t.Helper()
	u, err := newSet(t, c).Resolve("", alice())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

const watchPath = "/api/v1/namespaces/default/pods"

var watchQuery = url.Values{"watch": {"true"}}

// open dials, hears the greeting, and closes.
func open(t testing.TB, u *Upstream, subprotocols ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, subprotocol, err := u.Dial(ctx, watchPath, watchQuery, subprotocols...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(websocket.CodeNormal)
	if len(subprotocols) > 0 && subprotocol != subprotocols[0] {
		t.Errorf("subprotocol %q", subprotocol)
	}
	b, err := c.Read(websocket.MaxRead, websocket.MaxRead)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if string(b.Fragments[0].Bytes) != "hello" {
		t.Errorf("heard %q", b.Fragments[0].Bytes)
	}
}

// get asks the ordinary way.
func get(t testing.TB, u *Upstream) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := u.Get(ctx, watchPath, url.Values{"limit": {"5"}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
}

// refuse dials and returns the error.
func refuse(t testing.TB, u *Upstream) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, _, err := u.Dial(ctx, watchPath, watchQuery)
	if err == nil {
		c.Close(websocket.CodeNormal)
		t.Fatal("the dial succeeded")
	}
	return err
}

// clientCertificate is self-signed.
func clientCertificate(t testing.TB, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func writeFile(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
