// Package rig puts a whole gateway together for tests: the embedded API server, an issuer, and a server, on loopback, over TLS.
package rig

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/client"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/server"
)

// Audience is whom the rig's tokens are meant for.
const Audience = "sluice"

// Cluster is the name of the rig's cluster.
const Cluster = "dev"

// Rig is a gateway in front of an embedded API server.
type Rig struct {
	tb testing.TB

	Kube   *kubetest.Server
	Issuer *issuer.Issuer
	Server *server.Server
	Log    *Buffer
	Audit  *Buffer

	options Options
	verify  auth.Authenticator
	roots   *x509.CertPool
	stop    context.CancelFunc
	ended   chan error
	once    sync.Once
}

// Options change a rig while it is put together.
type Options struct {
	Kube     kubetest.Options
	Limits   server.Limits
	Clusters []cluster.Config    // beside the rig's own
	Issuers  []auth.IssuerConfig // whose tokens the gateway takes, beside the rig's own
	Change   func(*server.Config)
}

// New puts a rig together; it is taken apart at the test's end.
func New(tb testing.TB, o Options) *Rig {
	tb.Helper()
	r := &Rig{tb: tb, Log: &Buffer{}, Audit: &Buffer{}, roots: x509.NewCertPool()}
	r.startIssuer()
	verify := r.verifier(o.Issuers)
	tb.Cleanup(verify.Close)
	r.startKube(o.Kube, verify)
	r.options, r.verify = o, verify
	r.Server, r.stop, r.ended = r.start()
	tb.Cleanup(r.Stop)
	return r
}

// Replica starts another server of the same gateway; it ends with the test.
func (r *Rig) Replica() *server.Server {
	r.tb.Helper()
	s, stop, ended := r.start()
	r.tb.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			r.tb.Errorf("serve: %v", err)
		}
	})
	return s
}

// start makes a server and serves with it until stop is called; ended then has how it ended.
func (r *Rig) start() (s *server.Server, stop context.CancelFunc, ended chan error) {
	r.tb.Helper()
	set, err := cluster.New(append([]cluster.Config{{
		Name: Cluster, Server: r.Kube.URL(), CA: r.Kube.CAPEM(), Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{Audience},
	}}, r.options.Clusters...), "sluice/test", cluster.Timeouts{})
	if err != nil {
		r.tb.Fatal(err)
	}
	cfg := server.Config{
		GRPCAddr: "127.0.0.1:0", AdminAddr: "127.0.0.1:0", WebAddr: "127.0.0.1:0", TLS: r.certificate(), Reflection: true, Limits: r.options.Limits,
		Authenticator: r.verify, Clusters: set, Version: "test",
		Log: r.Log.Logger(), Audit: r.Audit.Logger(),
	}
	if r.options.Change != nil {
		r.options.Change(&cfg)
	}
	if s, err = server.New(cfg); err != nil {
		r.tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended = make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	return s, stop, ended
}

// Stop drains the server and waits for it. It may be called more than once.
func (r *Rig) Stop() {
	r.once.Do(func() {
		r.stop()
		if err := <-r.ended; err != nil {
			r.tb.Errorf("serve: %v", err)
		}
	})
}

func (r *Rig) startIssuer() {
	lis := httptest.NewUnstartedServer(nil)
	iss, err := issuer.New("http://" + lis.Listener.Addr().String())
	if err != nil {
		r.tb.Fatal(err)
	}
	lis.Config.Handler = iss.Handler()
	lis.Start()
	r.tb.Cleanup(lis.Close)
	r.Issuer = iss
}

func (r *Rig) verifier(others []auth.IssuerConfig) *auth.OIDC {
	own := auth.IssuerConfig{URL: r.Issuer.URL(), Audiences: []string{Audience, "other-cluster"}}
	v, err := auth.NewOIDC(append([]auth.IssuerConfig{own}, others...))
	if err != nil {
		r.tb.Fatal(err)
	}
	return v
}

func (r *Rig) startKube(o kubetest.Options, verify auth.Authenticator) {
	if o.Authenticator == nil {
		o.Authenticator = func(ctx context.Context, token string) (kubetest.User, error) {
			p, err := verify.Authenticate(ctx, auth.NewSecret(token))
			if err != nil {
				return kubetest.User{}, err
			}
			return kubetest.User{Name: p.Username, Groups: p.Groups}, nil
		}
	}
	kube, err := kubetest.New(o)
	if err != nil {
		r.tb.Fatal(err)
	}
	if err := kube.Listen(context.Background(), ""); err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() {
		if err := kube.Close(); err != nil {
			r.tb.Errorf("close the API server: %v", err)
		}
	})
	r.Kube = kube
}

// Token is a token of user, good for an hour unless change says otherwise.
func (r *Rig) Token(user string, change ...func(*issuer.Claims)) string {
	r.tb.Helper()
	c := issuer.Claims{Subject: user, Audience: []string{Audience}}
	for _, f := range change {
		f(&c)
	}
	token, err := r.Issuer.Sign(c)
	if err != nil {
		r.tb.Fatal(err)
	}
	return token
}

// Conn is a connection of gRPC to the server.
func (r *Rig) Conn(opts ...grpc.DialOption) *grpc.ClientConn {
	r.tb.Helper()
	conn, err := grpc.NewClient("passthrough:///"+r.Server.GRPCAddr().String(),
		append([]grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(r.ClientTLS()))}, opts...)...)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() {
		if err := conn.Close(); err != nil {
			r.tb.Errorf("close: %v", err)
		}
	})
	return conn
}

// ClientTLS trusts the server.
func (r *Rig) ClientTLS() *tls.Config {
	return &tls.Config{RootCAs: r.roots, MinVersion: tls.VersionTLS12}
}

// As is ctx with user's token in its metadata.
func (r *Rig) As(ctx context.Context, user string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+r.Token(user))
}

// Client is a client of user, to be closed by the test's end.
func (r *Rig) Client(user string, change ...func(*client.Config)) *client.Client {
	r.tb.Helper()
	cfg := client.Config{
		Address: r.Server.GRPCAddr().String(), TLS: r.ClientTLS(), Token: client.StaticToken(r.Token(user)), Name: "test",
		MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond,
	}
	for _, f := range change {
		f(&cfg)
	}
	c, err := client.Dial(cfg)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			r.tb.Errorf("close the client: %v", err)
		}
	})
	return c
}

// Admin gets a path of the admin port.
func (r *Rig) Admin(path string) (code int, body string) {
	r.tb.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + r.Server.AdminAddr().String() + path)
	if err != nil {
		r.tb.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		r.tb.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// certificate makes the server's, and trusts it.
func (r *Rig) certificate() *tls.Config {
	der, key := selfSigned(r.tb)
	r.roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
	}
}

// Pod is a small pod.
func Pod(namespace, name, resourceNote string) kubetest.Object {
	return kubetest.Object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"namespace": namespace, "name": name, "annotations": map[string]any{"note": resourceNote}},
	}
}
