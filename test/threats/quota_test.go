package threats

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// limited reports a refusal that names a limit.
func limited(e *status.Error, limit string) bool {
	return e != nil && e.Code == codes.ResourceExhausted && e.Reason == sluicev1.Reason_REASON_LIMIT && e.Limit == limit
}

// T-D2: a client that writes and never reads. It is held back or ended; it holds nothing that grows, nobody else notices, and nothing is left
// of it.
func TestT_D2_AClientThatWritesAndNeverReads(t *testing.T) {
	r := rig.New(t, rig.Options{})
	p := ports(r)[0] // the only one with calls to which the client streams
	if err := p.call(within(t)); err != nil {
		t.Fatal(err)
	}
	const pings = 100_000
	before := used(t)
	others := watchOver(t, p)
	s := newSession(t, r, "mallory")
	s.open(times(50, watching(rig.Cluster, ""))...)
	var sent atomic.Int64
	done := make(chan struct{})
	go func() { // ends with the session
		defer close(done)
		ping := &sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Ping{Ping: &sluicev1.Ping{}}}
		batch := &sluicev1.ConnectRequest{}
		for range 100 {
			batch.Frames = append(batch.Frames, ping)
		}
		for range pings / 100 {
			if s.stream.Send(batch) != nil {
				return
			}
			sent.Add(100)
		}
	}()
	last, since := int64(-1), time.Now()
	if !await(within(t), func() bool { // until nothing moves
		if n := sent.Load(); n != last {
			last, since = n, time.Now()
		}
		return time.Since(since) > patience
	}) {
		t.Error("the gateway takes more and more")
	}
	t.Logf("%d pings were taken", sent.Load())
	before.grew(16 << 20)
	others.done(p)
	s.end()
	<-done
	if err := r.Kube.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 0 }); err != nil {
		t.Error("its upstreams live on: ", err)
	}
}

// T-D4: whoever opens more than there may be is told which limit it met, and others open what they like.
func TestT_D4_LimitsStopOnlyWhoMeetsThem(t *testing.T) {
	const channels, sessions = 8, 2
	r := rig.New(t, rig.Options{Limits: server.Limits{SessionChannels: channels, PrincipalSessions: sessions, Channels: 1000}})
	var greedy []*session
	for range sessions {
		s := newSession(t, r, "mallory")
		greedy = append(greedy, s)
		closed := s.settle(s.open(times(4*channels, watching(rig.Cluster, ""))...))
		for id, e := range closed {
			if !limited(e, "limits.session_channels") {
				t.Errorf("channel %d: %v", id, e)
			}
		}
		if len(closed) != 3*channels {
			t.Errorf("%d of %d channels were refused", len(closed), 4*channels)
		}
	}
	more := newSession(t, r, "mallory")
	more.open(watching(rig.Cluster, ""))
	if _, err := more.recv(); !limited(status.From(err), "limits.principal_sessions") {
		t.Errorf("one session too many: %v", err)
	}
	for _, user := range []string{"alice", "bob", "carol"} {
		s := newSession(t, r, user)
		if closed := s.settle(s.open(times(channels, watching(rig.Cluster, ""))...)); len(closed) != 0 {
			t.Errorf("%s was refused: %v", user, closed)
		}
	}
	for _, s := range greedy { // what was refused holds no place
		s.close(1)
		s.ended(1)
		if closed := s.settle(s.open(watching(rig.Cluster, ""))); len(closed) != 0 {
			t.Errorf("a place that was given back is not there: %v", closed)
		}
	}
}

// T-D5: channels that come to nothing, in every way they can, leave nothing: no goroutine, no file, no memory.
func TestT_D5_ChannelsThatComeToNothingLeaveNothing(t *testing.T) {
	var lc net.ListenConfig
	closed, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	silent := newHostile(t, func(nc net.Conn, req *http.Request) { answer("")(nc, req) })
	nowhere := silent.config
	nowhere.Name, nowhere.Server = "nowhere", "https://"+closed.Addr().String()
	r := rig.New(t, rig.Options{
		Clusters: []cluster.Config{silent.config, nowhere}, Limits: server.Limits{ClusterDials: 4},
		Change: func(c *server.Config) { c.Log, c.Audit = slog.New(slog.DiscardHandler), slog.New(slog.DiscardHandler) }, // a rig keeps its logs
	})
	r.Kube.Faults.Add(kubetest.Fault{
		Match:  func(a kubetest.Attributes, _ *http.Request) bool { return a.Namespace == "refused" },
		Action: kubetest.Respond(http.StatusForbidden, nil, "no"),
	})
	invalid := watching(rig.Cluster, "")
	invalid.GetTarget().GetWatch().Resource = "../secrets"
	exec := &sluicev1.Open{Cluster: rig.Cluster, Target: &sluicev1.Target{Target: &sluicev1.Target_Exec{Exec: &sluicev1.ExecTarget{Pod: "p"}}}}
	stale := watching(rig.Cluster, "")
	stale.Cursor = "garbage"
	churn := func(s *session, rounds, each int) {
		for range rounds {
			first := s.next
			for _, o := range []*sluicev1.Open{watching("none", ""), invalid, exec, stale, {}} { // end by themselves, and dial nobody
				s.open(times(8*each, o)...)
			}
			s.open(times(each, watching(rig.Cluster, "refused"))...)
			living := s.next
			s.open(times(each, watching(rig.Cluster, ""))...)
			s.open(times(each, watching(evil, ""))...)      // waits for an answer, or for its turn
			s.open(times(each, watching("nowhere", ""))...) // tries again and again
			for id := living; id < s.next; id++ {
				s.close(id)
			}
			s.gone(first)
		}
	}
	s := newSession(t, r, "alice")
	churn(s, 2, 4) // what is made once is made now
	settled := func() bool { return silent.live() == 0 && r.Kube.Counts().Live == 0 }
	if !await(within(t), settled) {
		t.Fatal("upstreams live on")
	}
	before, opened := used(t), s.next
	const rounds, each = 110, 4
	churn(s, rounds, each)
	if !await(within(t), settled) {
		t.Errorf("%d and %d upstreams live on", silent.live(), r.Kube.Counts().Live)
	}
	t.Logf("%d channels", s.next-opened)
	before.returns()
	before.grew(4 << 20)
}

// T-D9: ten times as much is offered as there may be. What is there already goes on, the rest is refused at once, and when it stops, everything
// is as before.
func TestT_D9_OverloadIsShedAndForgotten(t *testing.T) {
	const places, early = 60, 20
	r := rig.New(t, rig.Options{Limits: server.Limits{Channels: places}})
	first := newSession(t, r, "alice")
	if closed := first.settle(first.open(times(early, watching(rig.Cluster, ""))...)); len(closed) != 0 {
		t.Fatalf("refused: %v", closed)
	}
	flood := func() (crowd []*session, refused int) {
		for _, user := range []string{"m0", "m1", "m2", "m3", "m4", "m5"} {
			s := newSession(t, r, user)
			crowd = append(crowd, s)
			for _, e := range s.settle(s.open(times(10*places/6, watching(rig.Cluster, ""))...)) {
				if !limited(e, "limits.channels") {
					t.Errorf("refused with %v", e)
				}
				refused++
			}
		}
		return crowd, refused
	}
	crowd, refused := flood()
	if want := 10*places - (places - early); refused != want {
		t.Errorf("%d were refused, want %d", refused, want)
	}
	if _, err := r.Kube.Apply(rig.Pod("default", "p", "in the overload")); err != nil {
		t.Fatal(err)
	}
	for told := map[uint32]bool{}; len(told) < early; {
		f, err := first.recv()
		if err != nil {
			t.Fatalf("%d of %d watches were told: %v", len(told), early, err)
		}
		if f.GetData() != nil {
			told[f.GetChannel()] = true
		}
	}
	for _, s := range crowd {
		s.end()
	}
	if !await(within(t), func() bool { return r.Kube.Counts().Live == early }) {
		t.Fatalf("%d upstreams live on", r.Kube.Counts().Live)
	}
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	if !await(ctx, func() bool { // the upstream ends a moment before its place is free
		s := newSession(t, r, "bob")
		closed := s.settle(s.open(times(places-early, watching(rig.Cluster, ""))...))
		s.end()
		return len(closed) == 0
	}) {
		t.Error("the places are not free again")
	}
}
