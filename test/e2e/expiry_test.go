package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/kube"
)

// TestSessionsEndWithTheToken: by every door the session ends within a second of the token's expiry, and not before it, and so do the upstreams.
// Where the machine itself is late, it may be as much later.
func TestSessionsEndWithTheToken(t *testing.T) {
	s := newSetup(t)
	machine := takePulse(t)
	expiry := time.Now().Truncate(time.Second).Add(7 * time.Second)
	token := s.token(func(c *issuer.Claims) { c.Expiry = expiry })
	s.neverTells(token)
	ctx := metadata.AppendToOutgoingContext(within(t, time.Minute), "authorization", "Bearer "+token)
	type end struct {
		door string
		err  error
		late time.Duration
	}
	ends := make(chan end)
	conn := s.Conn()
	begin := func(door string, f func() error) {
		go func() {
			err := f()
			ends <- end{door, err, time.Since(expiry)}
		}()
	}
	begin("Connect, full", func() error { return connect(ctx, conn, hello(), openOf(upstream, pods(""))) })
	begin("Connect, plain", func() error { return connect(ctx, conn, openOf(upstream, pods(""))) })
	begin("Watch", func() error {
		watch, err := sluicev1.NewGatewayServiceClient(conn).Watch(ctx, &sluicev1.WatchRequest{Cluster: upstream, Watch: pods("")})
		for err == nil {
			_, err = watch.Recv()
		}
		return err
	})
	begin("client", func() error {
		w := s.alice(func(c *client.Config) { c.Token = client.StaticToken(token) }).Watch(client.WatchRequest{Cluster: upstream, Target: pods("")})
		for {
			if _, err := w.Next(ctx); err != nil {
				return err
			}
		}
	})
	if err := s.api.Await(ctx, func(all []kube.Request) bool { return upgrades(all) == 4 }); err != nil {
		t.Error("the watches do not all stand: ", err)
	}
	for range 4 {
		e := <-ends
		err := status.From(e.err)
		if err == nil || err.Code != codes.Unauthenticated || err.Reason != sluicev1.Reason_REASON_EXPIRED {
			t.Errorf("%s ended with %v", e.door, e.err)
		}
		if late := machine.late(); e.late < 0 || e.late > time.Second+links*late {
			t.Errorf("%s ended %v after the token expired, on a machine that is late by %v", e.door, e.late, late)
		}
	}
	if err := s.api.Await(ctx, func(all []kube.Request) bool {
		for _, r := range all {
			if !r.Ended {
				return false
			}
		}
		return true
	}); err != nil {
		t.Error("upstreams outlive the token: ", err)
	}
}

// links is how many goroutines have to be woken, one by another, until a client knows of its session's end; about.
const links = 10

// pulse measures how late this machine is.
type pulse struct{ worst atomic.Int64 } // nanoseconds

// takePulse measures until the test ends.
func takePulse(t *testing.T) *pulse {
	t.Helper()
	const beat = 5 * time.Millisecond
	p := &pulse{}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for due := time.Now().Add(beat); pause(ctx, time.Until(due)) == nil; due = time.Now().Add(beat) {
			p.worst.Store(max(p.worst.Load(), int64(time.Since(due))))
		}
	}()
	t.Cleanup(func() {
		stop()
		<-stopped
	})
	return p
}

// late is by how much the machine was too late so far, at the worst.
func (p *pulse) late() time.Duration { return time.Duration(p.worst.Load()) }

// TestAFreshTokenGoesOn: a client whose source has another token when one expires misses nothing, and its watches list nothing again.
func TestAFreshTokenGoesOn(t *testing.T) {
	s := newSetup(t)
	w := newWriter(t, s.cluster, seed, 2, "fresh")
	if err := w.all(within(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	began := make(chan string, 100)
	var links atomic.Int32
	source := func(context.Context) (string, error) {
		life := 3 * time.Second
		if links.Load() >= 2 {
			life = time.Hour
		}
		return s.token(func(c *issuer.Claims) { c.Expiry = time.Now().Add(life) }), nil
	}
	c := s.alice(func(c *client.Config) {
		c.Token = source
		c.OnState = func(st client.State) {
			if st.Phase == client.Connected {
				links.Add(1)
				began <- st.Session
			}
		}
	})
	var all []*follower
	for _, sel := range selections(10, []string{"fresh"}) {
		all = append(all, follow(c, upstream, sel))
	}
	limit := within(t, 2*time.Minute)
	meanwhile(t, w, all, func() error {
		ids := map[string]bool{}
		for len(ids) < 3 {
			select {
			case id := <-began:
				ids[id] = true
			case <-limit.Done():
				return fmt.Errorf("%d sessions were begun, want 3", len(ids))
			}
		}
		return nil
	})
	for _, f := range all {
		resyncs, err := judge(f.selection, w.history, f.told)
		if err != nil || resyncs != 0 {
			t.Errorf("%d resyncs, %v", resyncs, err)
		}
	}
}

// finish writes every object once more and lets every watch come to the end.
func finish(t *testing.T, w *writer, all []*follower) {
	t.Helper()
	last := within(t, 3*time.Minute)
	if err := w.all(last); err != nil {
		t.Fatal(err)
	}
	if err := each(all, func(f *follower) error {
		want := w.expected(f.selection)
		// To know all there is, is not the end yet: the last events may be an object that came and went.
		var missing error
		ended := func() bool {
			if !f.knows(want) {
				return false
			}
			_, missing = judge(f.selection, w.history, f.told)
			return missing == nil
		}
		if err := f.until(last, ended); err != nil {
			return fmt.Errorf("watch %v knows %v in the end, want %v: %w", f.selection, f.fold, want, errors.Join(err, missing))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
