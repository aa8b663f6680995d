// Command node plays one Kubernetes node for tests: the containers of the pods that are bound to it are processes of
// this host, so that the API server streams their logs, execs, attachments and ports for real. It needs no privileges.
// An image is never looked at.
//
// To the API server it is a kubelet: it serves the part of the kubelet's HTTPS API that the API server asks for, with
// k8s.io/cri-streaming (SPDY and the older WebSocket protocols, which is what containerd serves), and keeps logs in the
// kubelet's places and in CRI's format. Every client must show a certificate of the cluster's authority, for whoever may
// exec runs programs as this user.
//
// When it is killed, all that it started ends too; started again on the same state it takes its pods over and starts
// their containers anew. It is started by package kube (test/kube), which has more to say.
//
// What differs from containers: processes share the host's files, network and process table, each pod having a working
// directory of its own; a port of a pod is a port of the loopback interface that the pod names in an annotation; and
// what a command leaves running in the background ends with the command.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case guardianCommand:
			os.Exit(guardian(os.Args[2:]))
		case webCommand:
			os.Exit(serveWeb(os.Args[2]))
		}
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := serve(log); err != nil {
		log.Error("node", "error", err)
		os.Exit(1)
	}
}

func serve(log *slog.Logger) error {
	flags := flag.NewFlagSet("node", flag.ExitOnError)
	var (
		server  = flags.String("server", "", "base `URL` of the API server")
		ca      = flags.String("ca", "", "`file` with the certificate of the cluster's authority")
		client  = flags.String("client", "", "`prefix` of the .crt and .key shown to the API server")
		serving = flags.String("serving", "", "`prefix` of the .crt and .key to serve with")
		name    = flags.String("name", "", "`name` of the node")
		listen  = flags.String("listen", "", "`address` to serve the kubelet's API on")
		state   = flags.String("state", "", "`folder` for the pods' files and logs; keep it to be the same node again")
		restart = flags.Duration("restart-delay", 100*time.Millisecond, "`pause` before a container is started again")
	)
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	toServer, toClients, err := configureTLS(*ca, *client, *serving)
	if err != nil {
		return err
	}
	l, err := newLauncher(*state)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	n := &node{
		name: *name, state: *state, restartDelay: *restart, launcher: l, log: log, pods: map[string]*pod{},
		api: &apiServer{*server, &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: toServer}}},
	}
	ctx := context.Background() // the node ends by a signal, and its guardians with it
	for port := listener.Addr().(*net.TCPAddr).Port; ; pause(ctx, retryDelay) {
		err := n.api.register(ctx, n.name, port)
		if err == nil {
			break
		}
		log.Warn("register the node", "error", err)
	}
	go n.followPods(ctx)
	var http1 http.Protocols // an upgrade to SPDY needs it
	http1.SetHTTP1(true)
	https := &http.Server{
		Protocols: &http1, Handler: n.handler(), TLSConfig: toClients, ReadHeaderTimeout: apiTimeout,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelInfo),
	}
	return https.ServeTLS(listener, "", "")
}

// configureTLS returns what is shown to the API server and what to clients.
func configureTLS(ca, client, serving string) (toServer, toClients *tls.Config, err error) {
	text, err := os.ReadFile(ca)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, nil, errors.New("no certificate in " + ca)
	}
	shown, err := tls.LoadX509KeyPair(client+".crt", client+".key")
	if err != nil {
		return nil, nil, err
	}
	served, err := tls.LoadX509KeyPair(serving+".crt", serving+".key")
	if err != nil {
		return nil, nil, err
	}
	toServer = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{shown}}
	toClients = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{served},
		ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}
	return toServer, toClients, nil
}

// newLauncher waits until all that a killed predecessor had started has ended.
func newLauncher(state string) (*launcher, error) {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	alive, err := os.OpenFile(filepath.Join(state, "alive"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(alive.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", alive.Name(), err)
	}
	return &launcher{self: self, alive: alive}, nil
}
