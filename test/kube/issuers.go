package kube

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/internal/issuer"
)

// Audience is what a token must be made out to for the API server to take it.
const Audience = "sluice"

// issuerServer serves one OIDC issuer over https. Its serve goroutine ends when
// the server is closed; close waits for it.
type issuerServer struct {
	// Immutable after newIssuerServer.
	issuer *issuer.Issuer
	server *http.Server
	served chan error
}

func newIssuerServer(ca *authority) (*issuerServer, error) {
	cert, err := ca.server("oidc issuer")
	if err != nil {
		return nil, err
	}
	config, err := cert.tls()
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", loopback(0))
	if err != nil {
		return nil, err
	}
	iss, err := issuer.New("https://" + listener.Addr().String())
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s := &issuerServer{
		issuer: iss,
		server: &http.Server{Handler: iss.Handler(), TLSConfig: config, ReadHeaderTimeout: 10 * time.Second},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.server.ServeTLS(listener, "", "") }()
	return s, nil
}

func (s *issuerServer) close() error {
	err := s.server.Close()
	if served := <-s.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// prefix is what the API server puts before the user and group names of the
// issuer with this index: "oidc:" for the first, "oidc2:" for the second.
// Different prefixes keep one issuer from speaking for another's users.
func prefix(index int) string {
	if index == 0 {
		return "oidc:"
	}
	return fmt.Sprintf("oidc%d:", index+1)
}

// Issuer returns the first OIDC issuer the API server trusts.
func (c *Cluster) Issuer() *issuer.Issuer { return c.issuers[0].issuer }

// Issuers returns all of them, as many as [Options] asked for. The API server
// knows the users of the second as "oidc2:NAME", and so on.
func (c *Cluster) Issuers() []*issuer.Issuer {
	all := make([]*issuer.Issuer, len(c.issuers))
	for i, server := range c.issuers {
		all[i] = server.issuer
	}
	return all
}

// Token returns an ID token of the first issuer for the user, valid for an hour.
// The API server sees the user "oidc:USER" with the groups "oidc:GROUP"; see
// [Streamers] and [Viewers]. Other tokens (expired, for another audience) are
// made with [Cluster.Issuer].
func (c *Cluster) Token(user string, groups ...string) string {
	return token(c.Issuer(), user, groups...)
}

// ShortToken is [Cluster.Token] with another lifetime, in whole seconds. The API
// server keeps the answer about a token for 10 s, so it takes one that it has seen
// for up to that much longer.
func (c *Cluster) ShortToken(lifetime time.Duration, user string, groups ...string) string {
	return mustSign(c.Issuer(), issuer.Claims{
		Subject: user, Audience: []string{Audience}, Groups: groups, Expiry: time.Now().Add(lifetime),
	})
}

func token(from *issuer.Issuer, user string, groups ...string) string {
	return mustSign(from, issuer.Claims{Subject: user, Audience: []string{Audience}, Groups: groups})
}

func mustSign(from *issuer.Issuer, claims issuer.Claims) string {
	signed, err := from.Sign(claims)
	if err != nil {
		// The claims are plain strings and the key is our own.
		panic(fmt.Sprintf("kube: sign a token: %v", err))
	}
	return signed
}
