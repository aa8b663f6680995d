package server_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/test/rig"
)

// HL-D6: a channel kept the token of its first request for ever. Here a resume brings the renewed one, and what is dialled from then on has it.
func TestHL_D6_UpstreamsOpenedAgainHaveTheRenewedToken(t *testing.T) {
	r := rig.New(t, rig.Options{Kube: kubetest.Options{Record: true}})
	first, second := r.Token("alice"), r.Token("alice", func(c *issuer.Claims) { c.Expiry = time.Now().Add(2 * time.Hour) })
	c := connectWith(t, r, "Bearer "+first)
	w := c.hello(nil)
	c.send(openFrame(1, 1, watching()))
	c.until(listed(1))
	c.cancel()
	again := connectWith(t, r, "Bearer "+second)
	resumed := again.hello(&sluicev1.Resume{Session: w.GetSession(), Secret: w.GetSecret(), LastLink: w.GetLink()},
		&sluicev1.ChannelPosition{Channel: 1, Received: 2, Window: 64 << 10})
	if !resumed.GetResumed() || len(resumed.GetAuth()) != 1 || resumed.GetAuth()[0].GetVersion() != 2 {
		t.Fatalf("welcomed with %v", resumed)
	}
	r.Kube.EndWatches()
	if err := r.Kube.Await(within(t), func(n kubetest.Counts) bool { return n.Watches == 2 && n.Live == 1 }); err != nil {
		t.Fatal(err)
	}
	requests := r.Kube.Requests()
	if got := requests[len(requests)-1].Header.Get("Authorization"); got != "Bearer "+second {
		t.Error("the upstream was opened again with the token of before")
	}
}

// A copy of a client that knows less than the session has seen is turned away, and changes nothing.
func TestAStaleCopyChangesNothing(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c := connect(t, r, "alice")
	w := c.hello(nil)
	stale := &sluicev1.Resume{Session: w.GetSession(), Secret: w.GetSecret(), LastLink: 0}
	c.send(openFrame(1, 1, watching()))
	c.until(listed(1))
	expiry := soon()
	copied := connectWith(t, r, "Bearer "+r.Token("alice", func(cl *issuer.Claims) { cl.Expiry = expiry }))
	copied.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1, Resume: stale}}})
	if err := copied.end(); err == nil || err.Code != codes.Aborted || err.Reason != sluicev1.Reason_REASON_SUPERSEDED {
		t.Fatalf("the copy ended with %v", err)
	}
	<-time.After(time.Until(expiry.Add(time.Second)))
	r.Kube.EndWatches()
	if err := r.Kube.Await(within(t), func(n kubetest.Counts) bool { return n.Watches == 2 && n.Live == 1 }); err != nil {
		t.Fatal("the session ended with the copy's token: ", err)
	}
	apply(t, r, "p", "1")
	c.until(event(1))
}
