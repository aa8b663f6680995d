package server_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/test/rig"
)

// HL-D12: each time an upstream was connected again, one more monitor with one more heartbeat was left behind. Here upstreams and links come
// and go, and the goroutines are as many as before.
func TestHL_D12_ReconnectingLeavesNothingBehind(t *testing.T) {
	r := rig.New(t, rig.Options{})
	ctx := within(t)
	relay := rig.NewRelay(t, r.Server.GRPCAddr().String())
	connected := make(chan struct{}, 100)
	w := r.Client("alice", func(c *client.Config) {
		c.Address = relay.Addr()
		c.OnState = func(s client.State) {
			if s.Phase == client.Connected {
				connected <- struct{}{}
			}
		}
	}).Watch(client.WatchRequest{Target: pods()})
	awaitList(ctx, t, w)
	<-connected
	round := func(i int) {
		watches := r.Kube.Counts().Watches
		r.Kube.ResetWatches()
		relay.Cut()
		<-connected
		if err := r.Kube.Await(ctx, func(n kubetest.Counts) bool { return n.Watches > watches && n.Live == 1 }); err != nil {
			t.Fatal(err)
		}
		apply(t, r, "p", fmt.Sprint(i))
		for {
			if ev, err := w.Next(ctx); err != nil {
				t.Fatal(err)
			} else if ev.Object != nil {
				return
			}
		}
	}
	round(0)
	before := runtime.NumGoroutine()
	for i := range 10 {
		round(i + 1)
	}
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		now := runtime.NumGoroutine()
		if now <= before+2 { // what is just ending
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d goroutines before, %d after ten reconnections", before, now)
		}
	}
}

// HL-D14: pings and a client's data were written to one WebSocket without a lock, and gorilla's panic took the process down. Here whatever
// clients send at once, from many sessions, while upstreams end and links are cut, ends no process: the race detector watches.
func TestHL_D14_NothingIsWrittenAtOnce(t *testing.T) {
	r := rig.New(t, rig.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var storm sync.WaitGroup
	for range 4 {
		c := connect(t, r, "alice")
		c.hello(nil)
		storm.Go(func() {
			for {
				if _, err := c.stream.Recv(); err != nil {
					return
				}
			}
		})
		storm.Go(func() {
			defer c.cancel()
			for id := uint32(1); ctx.Err() == nil && id <= 200; id++ {
				frames := []*sluicev1.ClientFrame{
					openFrame(id, 1, watching()),
					{Frame: &sluicev1.ClientFrame_Ping{Ping: &sluicev1.Ping{Nonce: uint64(id)}}},
					{Channel: id, Seq: 2, Frame: &sluicev1.ClientFrame_Data{Data: &sluicev1.Data{Payload: &sluicev1.Data_Text{Text: "ignored"}}}},
					{Channel: id, Seq: 3, Frame: &sluicev1.ClientFrame_Close{Close: &sluicev1.Close{}}},
				}
				if c.stream.Send(&sluicev1.ConnectRequest{Frames: frames}) != nil {
					return
				}
			}
		})
	}
	storm.Go(func() {
		for i := 0; ctx.Err() == nil && i < 50; i++ {
			r.Kube.EndWatches()
			if _, err := r.Kube.Apply(rig.Pod("default", "p", fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		}
	})
	storm.Wait()
	after := connect(t, r, "bob")
	after.send(openFrame(1, 0, watching()))
	after.until(listed(1))
	if err := r.Kube.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 1 }); err != nil {
		t.Errorf("upstreams live on: %+v", r.Kube.Counts())
	}
	if _, body := r.Admin("/metrics"); !containsLine(body, "sluice_panics_total 0") {
		t.Error("something panicked")
	}
}
