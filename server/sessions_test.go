package server

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/mux"
)

// sessionsAlone are the sessions of a server that has no ports.
func sessionsAlone() *sessions {
	s := &Server{cfg: Config{Limits: Limits{HeldBytes: 1 << 30, DetachTTL: time.Hour}.withDefaults()}, log: slog.New(slog.DiscardHandler)}
	s.budget = mux.NewBudget(s.cfg.Limits.HeldBytes, nil)
	s.metrics = newMetrics(s.budget.Held)
	s.sessions = newSessions(s)
	return s.sessions
}

// A session, full or plain, ends when its credential does: not before it and not a moment later. A credential that was renewed is the one that counts.
func TestASessionLivesAsLongAsItsCredential(t *testing.T) {
	for name, hello := range map[string]*sluicev1.Hello{"full": {Protocol: 1}, "plain": nil} {
		t.Run(name, func(t *testing.T) {
			for _, renewed := range []time.Duration{0, 10 * time.Minute, time.Minute} { // 0: never
				synctest.Test(t, func(t *testing.T) {
					ss, began, life := sessionsAlone(), time.Now(), 5*time.Minute
					p := &auth.Principal{Username: "alice", ExpiresAt: began.Add(life)}
					ses, err := ss.of(auth.NewContext(t.Context(), p), hello)
					if err != nil {
						t.Fatal(err)
					}
					if renewed > 0 {
						life = renewed
						ss.mu.Lock()
						ses.attach(&auth.Principal{Username: "alice", ExpiresAt: began.Add(renewed)})
						ss.mu.Unlock()
					}
					<-ses.mux.Done()
					if lived := time.Since(began); lived != life || ses.mux.Err().Reason != sluicev1.Reason_REASON_EXPIRED {
						t.Errorf("it lived for %v and ended with %v, want %v", lived, ses.mux.Err(), life)
					}
					ss.server.running.Wait()
				})
			}
		})
	}
}
