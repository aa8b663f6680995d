package bridge

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
)

// TestRefusalOfAWatchThatStoodIsDoubted: an API server that has just started refuses those whom it let in before, until it has read its
// roles and its issuers' keys. One that goes on refusing is believed.
func TestRefusalOfAWatchThatStoodIsDoubted(t *testing.T) {
	for _, code := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		synctest.Test(t, func(t *testing.T) {
			c := inMemory(t, kubetest.Options{})
			refusal := kubetest.Fault{Action: kubetest.Respond(code, nil, `{"kind":"Status","code":1}`)}
			r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{LastBackoff: time.Second})
			must(t, r.awaitState(within(t), resyncEnd, 1))
			elapse(10 * time.Second) // what has stood for a while is opened again without a word
			believe := c.Faults.Add(refusal)
			c.EndWatches()
			elapse(25 * time.Second)
			believe()
			version := c.put(t, "a", "1")
			must(t, r.awaitEvent(within(t), "a", version))
			for _, s := range r.states(reconnecting) {
				if int(s.GetStatus().GetHttpCode()) != code {
					t.Errorf("RECONNECTING because of %v, want %d", s.GetStatus(), code)
				}
			}
			if n := len(r.states(resyncEnd)); n != 1 || len(r.states(reconnecting)) == 0 {
				t.Errorf("%d lists were told, %d times RECONNECTING", n, len(r.states(reconnecting)))
			}
			c.Faults.Add(refusal)
			c.EndWatches()
			began := time.Now()
			err := status.From(r.wait())
			if took := time.Since(began); err == nil || err.HTTPCode != code || took < 30*time.Second || took > 32*time.Second {
				t.Errorf("the watch ended with %v after %v, want %d after half a minute", err, took, code)
			}
		})
	}
}

// TestRefusalOfANewWatchIsBelieved at once.
func TestRefusalOfANewWatchIsBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{})
		c.Faults.Add(kubetest.Fault{Action: kubetest.Respond(http.StatusForbidden, nil, `{"kind":"Status","code":403}`)})
		began := time.Now()
		err := status.From(start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{}).wait())
		if err == nil || err.HTTPCode != http.StatusForbidden || time.Since(began) > time.Second {
			t.Errorf("ended with %v after %v", err, time.Since(began))
		}
	})
}
