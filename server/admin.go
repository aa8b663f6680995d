package server

import (
	"errors"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminServer tells operators how the replica is: metrics, health, profiles. Nothing on it is authenticated; profiles, which show what is in
// memory, are for those on this machine, or in this pod, whatever the port is bound to.
func (s *Server) adminServer() *http.Server {
	m := http.NewServeMux()
	m.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{Registry: s.metrics.registry}))
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeLine(w, http.StatusOK, "ok") })
	m.HandleFunc("GET /readyz", s.ready)
	m.HandleFunc("GET /debug/pprof/", local(pprof.Index))
	m.HandleFunc("GET /debug/pprof/cmdline", local(pprof.Cmdline))
	m.HandleFunc("GET /debug/pprof/profile", local(pprof.Profile))
	m.HandleFunc("GET /debug/pprof/symbol", local(pprof.Symbol))
	m.HandleFunc("GET /debug/pprof/trace", local(pprof.Trace))
	return &http.Server{Handler: m, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
}

func (s *Server) serveAdmin(h *http.Server) error {
	if err := h.Serve(s.adminLis); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ready says whether new sessions are taken.
func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Err() != nil {
		writeLine(w, http.StatusServiceUnavailable, "draining")
		return
	}
	writeLine(w, http.StatusOK, "ok")
}

// local answers only callers on loopback.
func local(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if a, err := netip.ParseAddrPort(r.RemoteAddr); err != nil || !a.Addr().Unmap().IsLoopback() {
			writeLine(w, http.StatusForbidden, "profiles are for callers on this machine")
			return
		}
		h(w, r)
	}
}

func writeLine(w http.ResponseWriter, code int, line string) {
	w.WriteHeader(code)
	_, _ = w.Write([]byte(line + "\n")) // a prober that has left is told nothing
}
