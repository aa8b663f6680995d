package server

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestProfilesAreForThisMachine, whatever the admin port is bound to: they show what is in memory.
func TestProfilesAreForThisMachine(t *testing.T) {
	admin := (&Server{metrics: newMetrics(func() int { return 0 })}).adminServer().Handler
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/heap"} {
		for peer, want := range map[string]int{
			"127.0.0.1:1": http.StatusOK, "[::1]:1": http.StatusOK, "[::ffff:127.0.0.1]:1": http.StatusOK,
			"10.1.2.3:1": http.StatusForbidden, "[2001:db8::1]:1": http.StatusForbidden, "": http.StatusForbidden,
		} {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
			req.RemoteAddr = peer
			w := httptest.NewRecorder()
			admin.ServeHTTP(w, req)
			if w.Code != want {
				t.Errorf("%s from %q: %d, want %d", path, peer, w.Code, want)
			}
		}
	}
}
