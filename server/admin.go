package server

import (
	"errors"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminServer tells operators how the replica is: metrics, health, profiles. Nothing on it is authenticated.
func (s *Server) adminServer() *http.Server {
	m := http.NewServeMux()
	m.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{Registry: s.metrics.registry}))
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { writeLine(w, http.StatusOK, "ok") })
	m.HandleFunc("GET /readyz", s.ready)
	m.HandleFunc("GET /debug/pprof/", pprof.Index)
	m.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	m.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	m.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	m.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
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

func writeLine(w http.ResponseWriter, code int, line string) {
	w.WriteHeader(code)
	_, _ = w.Write([]byte(line + "\n")) // a prober that has left is told nothing
}
