package kubetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// listener is where a server is reached: one TLS address at a time.
type listener struct {
	mu     sync.Mutex
	door   *door            // Guarded by mu; nil while not listening.
	addr   string           // Guarded by mu; the last one.
	ca     []byte           // Guarded by mu; made at the first Listen.
	leaf   *tls.Certificate // Guarded by mu; likewise.
	silent bool             // Guarded by mu.
}

// door is one period of listening.
type door struct {
	server *http.Server
	net.Listener
	accepted func()
	silent   func() bool
	done     chan struct{} // closed when Serve has returned

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{} // open ones; Guarded by mu.
}

// Listen serves TLS on addr, which is "127.0.0.1:0" if empty, until Close or
// Sever; ctx bounds only the call. The certificate, for localhost and the loopback
// addresses, is signed by a CA of the server's own and stays the same when
// Listen is called again after Sever.
func (s *Server) Listen(ctx context.Context, addr string) error {
	l := &s.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.door != nil {
		return errors.New("listen: the server listens already")
	}
	if err := l.certify(); err != nil {
		return err
	}
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	under, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", addr, err)
	}
	d := &door{
		Listener: under, accepted: s.counters.dial, silent: l.isSilent,
		done: make(chan struct{}), conns: map[net.Conn]struct{}{},
		server: &http.Server{
			Handler:           s,
			TLSConfig:         s.tlsConfig(*l.leaf),
			ReadHeaderTimeout: 30 * time.Second,
			ErrorLog:          slog.NewLogLogger(s.options.Logger.Handler(), slog.LevelDebug),
		},
	}
	l.door, l.addr = d, under.Addr().String()
	go d.serve()
	return nil
}

// tlsConfig asks clients for a certificate where those count; what one is worth
// is found out request by request.
func (s *Server) tlsConfig(leaf tls.Certificate) *tls.Config {
	c := &tls.Config{Certificates: []tls.Certificate{leaf}, MinVersion: tls.VersionTLS12}
	if s.options.ClientCAs != nil {
		c.ClientAuth = tls.RequestClientCert
	}
	return c
}

// serve runs until the door is closed. Started by Listen; Close and Sever wait
// for it.
func (d *door) serve() {
	defer close(d.done)
	_ = d.server.ServeTLS(d, "", "") // It returns when the door is closed, with an error that says so.
}

// Sever stops listening and breaks every TCP connection off with a reset, as
// if the process were killed. The objects stay; Listen may be called again.
func (s *Server) Sever() {
	s.listener.mu.Lock()
	d := s.listener.door
	s.listener.door = nil
	s.listener.mu.Unlock()
	if d == nil {
		return
	}
	d.Listener.Close()
	d.resetAll()
	d.server.Close()
	<-d.done
}

// stop closes the door, if there is one, waits for what was let in, and turns
// out what has never become a request.
func (l *listener) stop(wait func()) error {
	l.mu.Lock()
	d := l.door
	l.door = nil
	l.mu.Unlock()
	if d == nil {
		wait()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*endGrace)
	defer cancel()
	err := d.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = d.server.Close()
	}
	<-d.done
	wait()
	d.resetAll()
	return err
}

// URL is the base address, https://HOST:PORT, of the last Listen.
func (s *Server) URL() string { return "https://" + s.Addr() }

// Addr is HOST:PORT of the last Listen; empty before it.
func (s *Server) Addr() string {
	s.listener.mu.Lock()
	defer s.listener.mu.Unlock()
	return s.listener.addr
}

// CAPEM is the certificate, in PEM, of the CA that signed the server's; nil
// before the first Listen.
func (s *Server) CAPEM() []byte {
	s.listener.mu.Lock()
	defer s.listener.mu.Unlock()
	return s.listener.ca
}

// AcceptSilently decides whether new TCP connections are accepted and then
// ignored, not even their TLS handshake answered.
func (s *Server) AcceptSilently(on bool) {
	s.listener.mu.Lock()
	defer s.listener.mu.Unlock()
	s.listener.silent = on
}

func (l *listener) isSilent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.silent
}

// Accept waits for the next conn that is to be served.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		d.accepted()
		kept := &doorConn{Conn: conn, door: d}
		if !d.keep(kept) {
			conn.Close()
			continue
		}
		if !d.silent() {
			return kept, nil
		}
	}
}

func (d *door) keep(c *doorConn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.conns[c] = struct{}{}
	return true
}

func (d *door) resetAll() {
	d.mu.Lock()
	d.closed = true
	conns := make([]net.Conn, 0, len(d.conns))
	for c := range d.conns {
		conns = append(conns, c)
	}
	d.mu.Unlock()
	for _, c := range conns {
		resetConn(c)
	}
}

// doorConn is a conn that its door knows until it is closed.
type doorConn struct {
	net.Conn
	door *door
}

func (c *doorConn) NetConn() net.Conn { return c.Conn }

func (c *doorConn) Close() error {
	c.door.mu.Lock()
	delete(c.door.conns, c)
	c.door.mu.Unlock()
	return c.Conn.Close()
}

// certify makes the CA and the server's certificate once.
func (l *listener) certify() error {
	if l.leaf != nil {
		return nil
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a CA key: %w", err)
	}
	ca := certificate(1, "kubetest CA")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make a CA: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a server key: %w", err)
	}
	leaf := certificate(2, "kube-apiserver")
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf.DNSNames = []string{"localhost", "kubernetes", "kubernetes.default.svc"}
	leaf.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return fmt.Errorf("make a server certificate: %w", err)
	}
	l.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	l.leaf = &tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: key}
	return nil
}

func certificate(serial int64, name string) *x509.Certificate {
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
	}
}
