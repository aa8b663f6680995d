package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

const (
	watches = 200
	tcpCuts = 50
	seed    = 20260801
)

// sessions counts what becomes of a client's session.
type sessions struct {
	mu               sync.Mutex // guards everything below
	begun, resumed   int
	connected        bool
	changed          chan struct{}
	lastErr, anyEnds error
}

func (s *sessions) on(st client.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.connected = st.Phase == client.Connected
	switch {
	case st.Phase == client.Connected && st.Resumed:
		s.resumed++
	case st.Phase == client.Connected:
		s.begun++
	case st.Phase == client.Closed:
		s.anyEnds = st.Err
	}
	if st.Err != nil {
		s.lastErr = st.Err
	}
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// awaitConnected waits until the session has a link.
func (s *sessions) awaitConnected(ctx context.Context) error {
	for {
		s.mu.Lock()
		if s.connected {
			s.mu.Unlock()
			return nil
		}
		if s.changed == nil {
			s.changed = make(chan struct{})
		}
		changed, last := s.changed, s.lastErr
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for a link: %w", errors.Join(context.Cause(ctx), last))
		}
	}
}

// selections are n watches over both resources, one or all of the namespaces, and some or all of the shards.
func selections(n int, namespaces []string) []selection {
	of := [][]int{nil, {0}, {1}, {2}, {3}, {0, 1}, {1, 3}}
	out := make([]selection, n)
	for i := range out {
		out[i] = selection{index: i, writer: namespaces[0], resource: []string{"configmaps", "pods"}[i%2], shards: of[i%len(of)]}
		if k := i / 2 % (len(namespaces) + 1); k < len(namespaces) {
			out[i].namespace = namespaces[k]
		}
	}
	return out
}

// TestTwoHundredWatchesSurviveEverything holds 200 watches in one session, with the token of an OIDC user, against everything that can
// happen to them: objects change, the API server is killed, versions expire, the gateway's upstreams are cut and the client's TCP is cut 50
// times. Between resyncs every event comes once and in order; a resync shows a moment not before what was told; each was announced because
// the API server said 410.
func TestTwoHundredWatchesSurviveEverything(t *testing.T) {
	s := newSetup(t, func(o *rig.Options) {
		o.Change = func(c *server.Config) { c.Bridge.LastBackoff = time.Second } // or the test would wait for it
	})
	namespaces := []string{"survive-a", "survive-b", "survive-c", "survive-d"}
	w := newWriter(t, s.cluster, seed, 8, namespaces...)
	if err := w.all(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	line, ses := newRelay(t, s.Server.GRPCAddr().String()), &sessions{}
	c := s.alice(func(c *client.Config) { c.Address, c.OnState, c.Window = line.addr(), ses.on, 64<<10 })
	var all []*follower
	for _, sel := range selections(watches, namespaces) {
		all = append(all, follow(c, upstream, sel))
	}
	if err := each(all, func(f *follower) error {
		return f.until(within(t, time.Minute), func() bool { return f.list == nil })
	}); err != nil {
		t.Fatalf("the first lists: %v", err)
	}
	limit := within(t, 4*time.Minute)
	meanwhile(t, w, all, func() error {
		var cut, broke error
		var running sync.WaitGroup
		running.Go(func() { cut = cutOften(limit, line, ses) })
		running.Go(func() { broke = breakUpstream(limit, s) })
		running.Wait()
		return errors.Join(cut, broke)
	})
	checkSurvivors(t, s, w, all)
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.begun != 1 || ses.resumed == 0 {
		t.Errorf("%d sessions were begun and %d links resumed one, want one session and resumes", ses.begun, ses.resumed)
	}
	if n := strings.Count(s.Audit.String(), `"channel opened"`); n != watches {
		t.Errorf("%d channels were opened for %d watches: some did not survive", n, watches)
	}
	t.Logf("%d watches, %d changes, %d events told, %d TCP cuts, %d resumes, %d resyncs, %d times 410, %v requests upstream",
		watches, len(w.history), count(all, ""), line.count(), ses.resumed, count(all, listBegins), len(s.api.Expired410()), len(s.api.Requests()))
}

func count(all []*follower, kind string) (n int) {
	for _, f := range all {
		for _, e := range f.told {
			if e.kind == kind || kind == "" && e.name != "" {
				n++
			}
		}
	}
	return n
}

// cutOften cuts the client's TCP 50 times: after so many bytes, in the middle of a message as likely as not; and at times again while it
// still connects.
func cutOften(ctx context.Context, line *relay, ses *sessions) error {
	random := rand.New(rand.NewPCG(seed, 2))
	for line.count() < tcpCuts {
		if random.IntN(4) > 0 {
			if err := ses.awaitConnected(ctx); err != nil {
				return err
			}
			if err := pause(ctx, time.Duration(random.IntN(1200))*time.Millisecond); err != nil {
				return err
			}
		} else if err := pause(ctx, time.Duration(random.IntN(40))*time.Millisecond); err != nil {
			return err
		}
		quiet, cancel := context.WithTimeout(ctx, time.Second)
		select {
		case <-line.cutAfter(random.IntN(32 << 10)):
		case <-quiet.Done(): // nothing comes to cut
			line.cut()
		}
		cancel()
	}
	return nil
}

// breakUpstream kills and expires the API server, and cuts what the gateway has open to it, in turns.
func breakUpstream(ctx context.Context, s *setup) error {
	kill := func() error {
		return errors.Join(s.cluster.KillAPIServer(), pause(ctx, 500*time.Millisecond), s.cluster.RestartAPIServer(ctx))
	}
	cut := func() error { s.api.CutAll(); return nil }
	expire := func() error { return s.cluster.Expire(ctx) }
	for _, what := range []func() error{cut, kill, cut, expire, cut, cut, kill, expire, cut} {
		if err := errors.Join(pause(ctx, 2*time.Second), what()); err != nil {
			return err
		}
	}
	return pause(ctx, time.Second)
}

// checkSurvivors holds what every watch told against the history, and its resyncs against the recorder's log.
func checkSurvivors(t *testing.T, s *setup, w *writer, all []*follower) {
	t.Helper()
	expired := map[string]int{}
	for _, e := range s.api.Expired410() {
		q, err := url.ParseQuery(e.Request.RawQuery)
		if err != nil {
			t.Fatal(err)
		}
		expired[e.Request.Path+"?"+q.Get("labelSelector")]++
	}
	total := 0
	for _, f := range all {
		resyncs, err := judge(f.selection, w.history, f.told)
		if err != nil {
			t.Error(err)
		}
		if n := expired[f.String()]; resyncs > n {
			t.Errorf("watch %v announced %d resyncs, and the API server said 410 %d times", f.selection, resyncs, n)
		}
		if err := w.checkList(t.Context(), f.selection, f.fold); err != nil {
			t.Error(err)
		}
		total += resyncs
	}
	if total < watches {
		t.Errorf("%d resyncs of %d watches: versions did not expire", total, watches)
	}
}
