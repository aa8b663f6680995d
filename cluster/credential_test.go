package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// own is a configuration with the kubeconfig's credential for alice.
func own(kubeconfig string) Config {
	return Config{Name: "dev", Kubeconfig: kubeconfig, Credential: sluicev1.Credential_CREDENTIAL_KUBECONFIG, Subjects: []string{"alice"}}
}

// TestHL_D19_KubeconfigCredentials: Headlamp took only TLS from the kubeconfig; tokens, exec plugins, impersonation and proxies were
// ignored. Each way to prove oneself arrives at the API server, by WebSocket and by an ordinary request.
func TestHL_D19_KubeconfigCredentials(t *testing.T) {
	cert, key := clientCertificate(t, "gateway")
	execToken := execCredential(t, map[string]any{"token": "from-plugin"})
	execCert := execCredential(t, map[string]any{"clientCertificateData": string(cert), "clientKeyData": string(key)})
	tokenFile := filepath.Join(t.TempDir(), "token")
	writeFile(t, tokenFile, "from-file\n")
	cases := map[string]struct {
		user        clientcmdapi.AuthInfo
		authorized  string // the Authorization header
		certificate string // the common name
		acts        string // the Impersonate-User header
	}{
		"token":              {user: clientcmdapi.AuthInfo{Token: "static"}, authorized: "Bearer static"},
		"token file":         {user: clientcmdapi.AuthInfo{TokenFile: tokenFile}, authorized: "Bearer from-file"},
		"basic":              {user: clientcmdapi.AuthInfo{Username: "u", Password: "p"}, authorized: "Basic dTpw"},
		"client certificate": {user: clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key}, certificate: "gateway"},
		"exec token":         {user: execToken, authorized: "Bearer from-plugin"},
		"exec certificate":   {user: execCert, certificate: "gateway"},
		"acting as another":  {user: clientcmdapi.AuthInfo{Token: "static", Impersonate: "carol"}, authorized: "Bearer static", acts: "carol"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s := startAPIServer(t, nil)
			u := upstreamOf(t, own(s.kubeconfig(t, c.user, nil)))
			for _, ask := range []func(){func() { open(t, u) }, func() { get(t, u) }} {
				ask()
				r := s.last(t)
				if got := r.Header.Values("Authorization"); len(got) > 1 || r.Header.Get("Authorization") != c.authorized {
					t.Errorf("%s: Authorization %q", r.Method, got)
				}
				if got := r.Header.Get("Impersonate-User"); got != c.acts {
					t.Errorf("Impersonate-User %q", got)
				}
				name := ""
				if p := r.TLS.PeerCertificates; len(p) > 0 {
					name = p[0].Subject.CommonName
				}
				if name != c.certificate {
					t.Errorf("client certificate of %q", name)
				}
			}
		})
	}
}

// execCredential is a plugin that prints a credential.
func execCredential(t *testing.T, credential map[string]any) clientcmdapi.AuthInfo {
	t.Helper()
	file := filepath.Join(t.TempDir(), "credential.json")
	printed(t, file, credential)
	return clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
		APIVersion: "client.authentication.k8s.io/v1", Command: "cat", Args: []string{file}, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
	}}
}

func printed(t *testing.T, file string, credential map[string]any) {
	t.Helper()
	b, err := json.Marshal(map[string]any{
		"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": credential,
	})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, string(b))
}

// TestExecPluginIsAskedAgainAfter401: the answer to a refused upgrade passes client-go's wrapper, which runs the plugin again.
func TestExecPluginIsAskedAgainAfter401(t *testing.T) {
	user := execCredential(t, map[string]any{"token": "first"})
	s := startAPIServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer second" {
			printed(t, user.Exec.Args[0], map[string]any{"token": "second"})
			http.Error(w, "", http.StatusUnauthorized)
			return
		}
		accept(w, r)
	})
	u := upstreamOf(t, own(s.kubeconfig(t, user, nil)))
	// The caller's own token is fine, so the caller must not be told to get another.
	if err := status.From(refuse(t, u)); err.Code != codes.Unavailable || err.HTTPCode != 401 || err.Reason != sluicev1.Reason_REASON_UPSTREAM_REFUSED {
		t.Errorf("got %v", err)
	}
	open(t, u)
}

func TestCredentialThatCannotBeHad(t *testing.T) {
	s := startAPIServer(t, nil)
	u := upstreamOf(t, own(s.kubeconfig(t, clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
		APIVersion: "client.authentication.k8s.io/v1", Command: "false", InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
	}}, nil)))
	err := status.From(refuse(t, u))
	if err.Code != codes.Unavailable || err.Reason != sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE || len(s.seen()) > 0 {
		t.Errorf("got %v, %d requests", err, len(s.seen()))
	}
}

// TestTokenFileIsReadAgain: a projected service account token is replaced while the gateway runs.
func TestTokenFileIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	writeFile(t, file, "first")
	synctest.Test(t, func(t *testing.T) {
		var server sync.WaitGroup
		seen := make(chan string, 2)
		dial := func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			server.Go(func() {
				defer theirs.Close()
				if r, err := http.ReadRequest(bufio.NewReader(theirs)); err == nil {
					seen <- r.Header.Get("Authorization")
					_, _ = io.WriteString(theirs, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
				}
			})
			return ours, nil
		}
		cfg := &rest.Config{Host: "http://cluster.test", BearerTokenFile: file, Dial: dial}
		e := &endpoint{cfg: Config{Name: "dev", Credential: sluicev1.Credential_CREDENTIAL_KUBECONFIG}, timeouts: Timeouts{}.withDefaults()}
		var err error
		if e.base, _, err = rest.DefaultServerUrlFor(cfg); err != nil {
			t.Fatal(err)
		}
		if err := e.wire(cfg); err != nil {
			t.Fatal(err)
		}
		defer e.close()
		u := &Upstream{endpoint: e, principal: alice()}
		for _, want := range []string{"first", "second"} {
			writeFile(t, file, want)
			<-time.After(2 * time.Minute)
			if err := status.From(refuse(t, u)); err.HTTPCode != 404 {
				t.Fatal(err)
			}
			if got := <-seen; got != "Bearer "+want {
				t.Errorf("Authorization %q, want %s", got, want)
			}
		}
		server.Wait()
	})
}

// TestT_B18_PassthroughSendsNothingOfTheGateway: a kubeconfig with every kind of credential is only an address and a CA when the
// caller's own token is passed on, and of the caller's request nothing but that token arrives.
func TestT_B18_PassthroughSendsNothingOfTheGateway(t *testing.T) {
	cert, key := clientCertificate(t, "gateway")
	s := startAPIServer(t, nil)
	c := Config{
		Name: "dev", Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Issuers: []string{"https://issuer.test"},
		Kubeconfig: s.kubeconfig(t, clientcmdapi.AuthInfo{
			Token: "the-gateways", ClientCertificateData: cert, ClientKeyData: key, Impersonate: "carol",
		}, nil),
	}
	u := upstreamOf(t, c)
	open(t, u, "a", "b")
	r := s.last(t)
	if len(r.TLS.PeerCertificates) > 0 {
		t.Error("the gateway's certificate was sent")
	}
	key1 := r.Header.Get("Sec-WebSocket-Key")
	want := http.Header{
		"Accept": {"application/json, */*"}, "Authorization": {"Bearer " + aliceToken}, "Connection": {"Upgrade"}, "Origin": {s.URL},
		"Sec-Websocket-Key": {key1}, "Sec-Websocket-Protocol": {"a, b"}, "Sec-Websocket-Version": {"13"}, "Upgrade": {"websocket"},
		"User-Agent": {"sluice/test"},
	}
	if !reflect.DeepEqual(r.Header, want) {
		t.Errorf("headers %v", r.Header)
	}
	if r.Host != s.Listener.Addr().String() || r.URL.Path != watchPath || r.URL.RawQuery != "watch=true" || r.Method != http.MethodGet {
		t.Errorf("%s %s %s", r.Method, r.Host, r.URL)
	}
	get(t, u)
	r = s.last(t)
	want = http.Header{
		"Accept": {"application/json, */*"}, "Authorization": {"Bearer " + aliceToken}, "Connection": {"close"}, "Origin": {s.URL},
		"User-Agent": {"sluice/test"},
	}
	if !reflect.DeepEqual(r.Header, want) || len(r.TLS.PeerCertificates) > 0 {
		t.Errorf("headers %v", r.Header)
	}
}

// TestHL_D19_ProxyOfKubeconfig: Headlamp ignored proxy-url.
func TestHL_D19_ProxyOfKubeconfig(t *testing.T) {
	s := startAPIServer(t, nil)
	for scheme, start := range map[string]func(*testing.T) (string, func() int){"http": startHTTPProxy, "socks5": startSOCKSProxy} {
		t.Run(scheme, func(t *testing.T) {
			address, tunnels := start(t)
			u := upstreamOf(t, own(s.kubeconfig(t, clientcmdapi.AuthInfo{Token: "static"}, func(c *clientcmdapi.Cluster) {
				c.ProxyURL = scheme + "://user:password@" + address
			})))
			open(t, u)
			get(t, u)
			if n := tunnels(); n != 2 {
				t.Errorf("%d tunnels", n)
			}
		})
	}
}

func TestProxyThatRefuses(t *testing.T) {
	s := startAPIServer(t, nil)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	t.Cleanup(proxy.Close)
	u := upstreamOf(t, own(s.kubeconfig(t, clientcmdapi.AuthInfo{Token: "static"}, func(c *clientcmdapi.Cluster) { c.ProxyURL = proxy.URL })))
	// What a proxy says is not the cluster's answer.
	if err := status.From(refuse(t, u)); err.Reason != sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE || err.HTTPCode != 0 {
		t.Errorf("got %v", err)
	}
}

// startHTTPProxy starts a proxy that makes tunnels for user.
func startHTTPProxy(t *testing.T) (address string, tunnels func() int) {
	var open counter
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpwYXNzd29yZA==" {
			http.Error(w, "", http.StatusProxyAuthRequired)
			return
		}
		open.add()
		nc, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer nc.Close()
		_, _ = io.WriteString(nc, "HTTP/1.1 200 OK\r\n\r\n")
		forward(nc, r.Host)
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), open.value
}

// startSOCKSProxy starts a proxy of RFC 1928 with the password of RFC 1929.
func startSOCKSProxy(t *testing.T) (address string, tunnels func() int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var open counter
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer nc.Close()
				if target, ok := socks(nc); ok {
					open.add()
					forward(nc, target)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String(), open.value
}

func socks(nc net.Conn) (target string, ok bool) {
	r := bufio.NewReader(nc)
	exchange := func(n int, reply ...byte) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return make([]byte, n)
		}
		_, _ = nc.Write(reply)
		return b
	}
	methods := int(exchange(2)[1])
	exchange(methods, 5, 2)
	exchange(2+len("user")+1+len("password"), 1, 0)
	request := exchange(10, 5, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	if request[0] != 5 || request[3] != 1 {
		return "", false
	}
	port := int(request[8])<<8 | int(request[9])
	return (&net.TCPAddr{IP: request[4:8], Port: port}).String(), true
}

func forward(nc net.Conn, target string) {
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer out.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(out, nc)
		_ = out.Close()
	}()
	_, _ = io.Copy(nc, out)
	_ = nc.Close()
	<-done
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
}

func (c *counter) value() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// TestWebSocketsAreClosed: what Dial made ends with its Close.
func TestWebSocketsAreClosed(t *testing.T) {
	ended := make(chan struct{})
	s := startAPIServer(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		accept(w, r)
	})
	c, _, err := upstreamOf(t, s.passthrough()).Dial(t.Context(), watchPath, watchQuery)
	if err != nil {
		t.Fatal(err)
	}
	c.Close(websocket.CodeGoingAway)
	<-ended
}
