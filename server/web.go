package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/server/rest"
	"github.com/sluice-gateway/sluice/server/web"
)

// Times of the web port's transport. A browser that has died without a word frees its watch after webSilence and webPingWithin.
const (
	webHeaderWithin = 5 * time.Second
	webIdle         = 2 * time.Minute
	webSilence      = 15 * time.Second
	webPingWithin   = 10 * time.Second
	webWriteWithin  = 30 * time.Second // for HTTP/2, whose streams a client that does not read holds back one by one
)

// webHeaderBytes is the longest header of a request, and webStreams the calls of one connection at a time.
const (
	webHeaderBytes = 16 << 10
	webStreams     = 100
)

// webDoor is the web port.
type webDoor struct {
	http *http.Server
	lis  net.Listener
	busy inFlight
	link *inProcess // by which REST calls
}

// newWebDoor makes the web port of s and listens; nil when the configuration has none.
func (s *Server) newWebDoor() (*webDoor, error) {
	if s.cfg.WebAddr == "" {
		return nil, nil
	}
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: webSilence, Interval: webPingWithin / 2, Count: 2}}
	lis, err := lc.Listen(context.Background(), "tcp", s.cfg.WebAddr)
	if err != nil {
		return nil, fmt.Errorf("listen for the web: %w", err)
	}
	link, err := s.newInProcess()
	if err != nil {
		return nil, errors.Join(err, lis.Close())
	}
	h, err := s.webHandler(link)
	if err != nil {
		link.stop()
		return nil, errors.Join(fmt.Errorf("web port: %w", err), lis.Close())
	}
	d := &webDoor{lis: lis, link: link}
	d.http = &http.Server{
		Handler: d.busy.counting(h), TLSConfig: webTLS(s.cfg.TLS),
		DisableGeneralOptionsHandler: true, ReadHeaderTimeout: webHeaderWithin, IdleTimeout: webIdle, MaxHeaderBytes: webHeaderBytes,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: webStreams, SendPingTimeout: webSilence, PingTimeout: webPingWithin, WriteByteTimeout: webWriteWithin,
		},
		// Of handshakes that fail and peers that break HTTP, which anybody can make happen.
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	return d, nil
}

// webHandler is all that the port serves.
func (s *Server) webHandler(link *inProcess) (http.Handler, error) {
	r, err := rest.New(link)
	if err != nil {
		return nil, err
	}
	return web.New(s.cfg.Web, web.Behind{GRPC: s.grpc, Services: s.webServices(), REST: link.from(r), TLS: s.cfg.TLS, Log: s.log})
}

// webServices are the services that the web port offers: all but reflection, which is for people with grpcurl, and bidirectional.
func (s *Server) webServices() []string {
	var out []string
	for service := range s.grpc.GetServiceInfo() {
		if !strings.HasPrefix(service, "grpc.reflection.") {
			out = append(out, service)
		}
	}
	return out
}

// webTLS is the gRPC port's side of TLS for a port that HTTP/1.1 comes to as well.
func webTLS(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.NextProtos = []string{"h2", "http/1.1"}
	return c
}

// serve serves until stop. The error is of whichever of the two could not.
func (d *webDoor) serve() error {
	linked := make(chan error, 1)
	go func() { linked <- d.link.serve() }()
	err := d.http.ServeTLS(d.lis, "", "")
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	} else {
		d.link.stop()
	}
	return errors.Join(err, <-linked)
}

// stop takes no new request, and waits for those that run: their sessions have ended. What is left after within is cut off.
func (d *webDoor) stop(within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	_ = d.http.Shutdown(ctx) // it says that time was up, or that the listener was closed before
	_ = d.http.Close()       // the same
	d.busy.wait()
	d.link.stop()
}

// webStopWithin is how long requests may take to end once their sessions have.
const webStopWithin = 2 * time.Second

// inFlight counts the requests that run, so that none outlives the server. http.Server.Close does not wait for them.
type inFlight struct {
	mu      sync.Mutex
	stopped bool // guarded by mu
	running sync.WaitGroup
}

// enter says whether another request may run; leave is to follow.
func (f *inFlight) enter() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.stopped {
		return false
	}
	f.running.Add(1)
	return true
}

func (f *inFlight) leave() { f.running.Done() }

// wait lets no more requests run, and waits for those that do.
func (f *inFlight) wait() {
	f.mu.Lock()
	f.stopped = true
	f.mu.Unlock()
	f.running.Wait()
}

// counting is h as long as the server has not stopped.
func (f *inFlight) counting(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.enter() {
			panic(http.ErrAbortHandler) // the connection is being closed: there is nobody to answer
		}
		defer f.leave()
		h.ServeHTTP(w, r)
	})
}

// WebAddr is where the web port listens; nil when there is none.
func (s *Server) WebAddr() net.Addr {
	if s.web == nil {
		return nil
	}
	return s.web.lis.Addr()
}
