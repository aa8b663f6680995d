package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/client"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// HL-D1: the caller's token got lost on the way upstream by one of the doors. Sluice's doors all end in the caller's own Authorization.
func TestHL_D1_TokenReachesTheUpstreamByEveryDoor(t *testing.T) {
	r := rig.New(t, rig.Options{Kube: kubetest.Options{Record: true}})
	ctx := within(t)
	token := r.Token("alice")
	doors := map[string]func(){
		"Connect, plain": func() {
			c := connectWith(t, r, "Bearer "+token)
			c.send(openFrame(1, 0, watching()))
			c.until(listed(1))
		},
		"Connect, full": func() {
			c := connectWith(t, r, "Bearer "+token)
			c.hello(nil)
			c.send(openFrame(1, 1, watching()))
			c.until(listed(1))
		},
		"Watch": func() {
			w, err := sluicev1.NewGatewayServiceClient(r.Conn()).Watch(withToken(ctx, token), &sluicev1.WatchRequest{Watch: pods()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Recv(); err != nil {
				t.Fatal(err)
			}
		},
		"ListResources": func() {
			if _, err := sluicev1.NewClusterServiceClient(r.Conn()).ListResources(withToken(ctx, token), &sluicev1.ListResourcesRequest{}); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, door := range doors {
		before := len(r.Kube.Requests())
		door()
		got := r.Kube.Requests()[before:]
		if len(got) == 0 {
			t.Errorf("%s: nothing arrived", name)
		}
		for _, req := range got {
			if a := req.Header.Values("Authorization"); len(a) != 1 || a[0] != "Bearer "+token {
				t.Errorf("%s: %s %s arrived with %d Authorization headers, not the caller's one", name, req.Method, req.URI, len(a))
			}
		}
	}
}

// HL-D2: channels were keyed by path without the query, so that two selectors shared one upstream, and closing one closed the other.
func TestHL_D2_SelectorsAreChannelsOfTheirOwn(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c := connect(t, r, "alice")
	only := func(name string) func(*sluicev1.WatchTarget) {
		return func(w *sluicev1.WatchTarget) { w.FieldSelector = "metadata.name=" + name }
	}
	c.send(openFrame(1, 0, watching(only("a"))), openFrame(2, 0, watching(only("b"))))
	seen := 0
	c.until(func(f *sluicev1.ServerFrame) bool {
		if listed(f.GetChannel())(f) {
			seen++
		}
		return seen == 2
	})
	apply(t, r, "a", "1")
	apply(t, r, "b", "1")
	for got := map[uint32]string{}; len(got) < 2; {
		f := c.until(func(f *sluicev1.ServerFrame) bool { return f.GetData() != nil })
		got[f.GetChannel()] = nameOf(t, f.GetData().GetText())
		if want := map[uint32]string{1: "a", 2: "b"}[f.GetChannel()]; got[f.GetChannel()] != want {
			t.Fatalf("channel %d got %q, want %q", f.GetChannel(), got[f.GetChannel()], want)
		}
	}
	c.send(&sluicev1.ClientFrame{Channel: 2, Frame: &sluicev1.ClientFrame_Close{Close: &sluicev1.Close{}}})
	if err := c.closed(2); err == nil || err.Code != codes.Canceled {
		t.Errorf("channel 2 ended with %v", err)
	}
	apply(t, r, "a", "2")
	c.until(event(1))
}

func nameOf(t *testing.T, event string) string {
	t.Helper()
	var e struct {
		Object struct{ Metadata struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(event), &e); err != nil {
		t.Fatal(err)
	}
	return e.Object.Metadata.Name
}

// HL-D3: two tabs of one user shared a channel, and only the first got the events.
func TestHL_D3_EveryClientOfAUserGetsEverything(t *testing.T) {
	r := rig.New(t, rig.Options{})
	ctx := within(t)
	var watches []*client.Watch
	for range 3 {
		w := r.Client("alice").Watch(client.WatchRequest{Target: pods()})
		awaitList(ctx, t, w)
		watches = append(watches, w)
	}
	for i := range 10 {
		apply(t, r, "p", fmt.Sprint(i))
	}
	for tab, w := range watches {
		for i := range 10 {
			if ev, err := w.Next(ctx); err != nil || ev.Object == nil {
				t.Fatalf("tab %d, event %d: %+v, %v", tab, i, ev, err)
			}
		}
	}
}

func awaitList(ctx context.Context, t *testing.T, w *client.Watch) {
	t.Helper()
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if ev.State.GetKind() == sluicev1.ChannelState_KIND_RESYNC_END {
			return
		}
	}
}

// HL-D4: who knew another's id could write into, re-credential and close that user's upstreams. Here an id is a name: the secret and the same
// principal are what counts.
func TestHL_D4_SessionsBelongToTheirPrincipal(t *testing.T) {
	r := rig.New(t, rig.Options{})
	alice := connect(t, r, "alice")
	w := alice.hello(nil)
	alice.send(openFrame(1, 1, watching()))
	alice.until(listed(1))

	stolen := &sluicev1.Resume{Session: w.GetSession(), Secret: w.GetSecret(), LastLink: w.GetLink()}
	mallory := connect(t, r, "mallory")
	mallory.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1, Resume: stolen}}})
	if err := mallory.end(); err == nil || err.Code != codes.PermissionDenied || err.Reason != sluicev1.Reason_REASON_PRINCIPAL_MISMATCH {
		t.Errorf("another principal with the secret: %v", err)
	}
	guess := connect(t, r, "alice").hello(&sluicev1.Resume{Session: w.GetSession(), Secret: []byte("guess"), LastLink: w.GetLink()})
	if guess.GetResumed() || guess.GetSession() == w.GetSession() {
		t.Errorf("a wrong secret resumed the session")
	}
	apply(t, r, "p", "still alice's")
	alice.until(event(1))
}

// HL-D7: one client that stopped reading, and one upstream that ended, stalled the gateway for everybody.
func TestHL_D7_AStuckClientStallsNobody(t *testing.T) {
	r := rig.New(t, rig.Options{})
	stuck := connect(t, r, "alice")
	stuck.hello(nil)
	for id := range uint32(20) {
		o := watching()
		o.Window = 1 << 20
		stuck.send(openFrame(id+1, 1, o))
	} // and it never reads again
	if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Live == 20 }); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 64<<10)
	for i := range 100 {
		apply(t, r, "p", fmt.Sprint(i, big))
	}
	r.Kube.EndWatches()
	bob := connect(t, r, "bob")
	bob.send(openFrame(1, 0, watching()))
	bob.until(listed(1))
	apply(t, r, "q", "for bob")
	bob.until(event(1))
	carol := connect(t, r, "carol")
	carol.send(openFrame(1, 0, watching()))
	carol.until(listed(1))
}

// HL-D8: upstreams were dialled in the loop that read the client, so one cluster that hung delayed the others by 45 s.
func TestHL_D8_AHungClusterDelaysNoOther(t *testing.T) {
	hung, err := kubetest.New(kubetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := hung.Listen(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := hung.Close(); err != nil {
			t.Error(err)
		}
	})
	hung.AcceptSilently(true)
	r := rig.New(t, rig.Options{Clusters: []cluster.Config{{
		Name: "hung", Server: hung.URL(), CA: hung.CAPEM(), Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{rig.Audience},
	}}})
	c := connect(t, r, "alice")
	slow := watching()
	slow.Cluster = "hung"
	c.send(openFrame(1, 0, slow), openFrame(2, 0, watching()))
	if err := hung.Await(within(t), func(c kubetest.Counts) bool { return c.Dials > 0 }); err != nil {
		t.Fatal(err)
	}
	f := c.until(func(f *sluicev1.ServerFrame) bool { return f.GetChannel() == 1 || listed(2)(f) })
	if f.GetChannel() == 1 {
		t.Fatalf("the hung cluster answered first: %v", f)
	}
}

// HL-D10: the client reconnected only when something else was subscribed to, and began again at its first resource version.
func TestHL_D10_TheClientComesBackByItself(t *testing.T) {
	r := rig.New(t, rig.Options{})
	ctx := within(t)
	relay := rig.NewRelay(t, r.Server.GRPCAddr().String())
	resumed := make(chan bool, 100)
	c := r.Client("alice", func(cfg *client.Config) {
		cfg.Address = relay.Addr()
		cfg.OnState = func(s client.State) {
			if s.Phase == client.Connected {
				resumed <- s.Resumed
			}
		}
	})
	w := c.Watch(client.WatchRequest{Target: pods()})
	awaitList(ctx, t, w)
	if <-resumed {
		t.Error("the first link resumed something")
	}
	for i := range 10 {
		relay.Cut()
		apply(t, r, "p", fmt.Sprint(i))
		select {
		case ok := <-resumed:
			if !ok {
				t.Fatalf("cut %d: the session was not resumed", i)
			}
		case <-ctx.Done():
			t.Fatalf("cut %d: the client did not come back", i)
		}
		ev, err := w.Next(ctx)
		if err != nil || ev.Object == nil || !strings.Contains(string(ev.Raw), fmt.Sprintf(`"note":"%d"`, i)) {
			t.Fatalf("cut %d: %s, %v", i, ev.Raw, err)
		}
	}
	if n := r.Kube.Counts(); n.Watches != 1 || n.Live != 1 {
		t.Errorf("the upstream was opened %d times, %d live, want 1", n.Watches, n.Live)
	}
}

// HL-D20: no limit on messages, channels or sessions, and no heartbeat towards clients. The heartbeat is TestSPEC's of mux.
func TestHL_D20_EverythingHasALimitWithAName(t *testing.T) {
	r := rig.New(t, rig.Options{Limits: server.Limits{SessionChannels: 2, PrincipalSessions: 2, Sessions: 3}})
	c := connect(t, r, "alice")
	c.hello(nil)
	for id := range uint32(3) {
		c.send(openFrame(id+1, 1, watching()))
	}
	if err := c.closed(3); err == nil || err.Code != codes.ResourceExhausted || err.Limit != "limits.session_channels" {
		t.Errorf("third channel: %v", err)
	}
	huge := connect(t, r, "bob")
	if err := huge.stream.Send(&sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{{
		Channel: 1, Frame: &sluicev1.ClientFrame_Data{Data: &sluicev1.Data{Payload: &sluicev1.Data_Binary{Binary: make([]byte, 300<<10)}}},
	}}}); err != nil {
		t.Fatal(err)
	}
	if err := huge.end(); err == nil || err.Code != codes.ResourceExhausted || err.Limit != "limits.batch_bytes" {
		t.Errorf("a batch of 300 KiB: %v", err)
	}
	second := connect(t, r, "alice")
	second.hello(nil)
	third := connect(t, r, "alice")
	third.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1}}})
	if err := third.end(); err == nil || err.Code != codes.ResourceExhausted || err.Limit != "limits.principal_sessions" {
		t.Errorf("third session: %v", err)
	}
	connect(t, r, "bob").hello(nil)
	fourth := connect(t, r, "carol")
	fourth.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1}}})
	if err := fourth.end(); err == nil || err.Code != codes.ResourceExhausted || err.Limit != "limits.sessions" {
		t.Errorf("fourth session in all: %v", err)
	}
}

// HL-D24: a message that lacked a field was dropped, and only the server's log knew.
func TestHL_D24_BadOpensAreAnswered(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c := connect(t, r, "alice")
	bad := map[uint32]*sluicev1.Open{
		1: {Cluster: rig.Cluster},
		2: {Cluster: rig.Cluster, Target: &sluicev1.Target{}},
		3: watching(func(w *sluicev1.WatchTarget) { w.Resource = "" }),
		4: watching(func(w *sluicev1.WatchTarget) { w.Namespace = "../secrets" }),
		5: {Cluster: rig.Cluster, Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{}}},
	}
	for id := range uint32(5) {
		c.send(openFrame(id+1, 0, bad[id+1]))
	}
	for want := len(bad); want > 0; want-- {
		f := c.until(func(f *sluicev1.ServerFrame) bool { return f.GetClosed() != nil })
		if s := f.GetClosed().GetStatus(); codes.Code(s.GetCode()) != codes.InvalidArgument || s.GetReason() != sluicev1.Reason_REASON_INVALID_TARGET || s.GetMessage() == "" {
			t.Errorf("channel %d: %v", f.GetChannel(), s)
		}
	}
	c.send(openFrame(9, 0, watching())) // and nothing else is lost
	c.until(listed(9))
}

// HL-D26: what was meant to clean up was never called. A session that stays detached ends, and its upstreams with it.
func TestHL_D26_DetachedSessionsEnd(t *testing.T) {
	r := rig.New(t, rig.Options{Limits: server.Limits{DetachTTL: time.Second}})
	c := connect(t, r, "alice")
	w := c.hello(nil)
	c.send(openFrame(1, 1, watching()))
	c.until(listed(1))
	c.cancel()
	if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Watches == 1 && c.Live == 0 }); err != nil {
		t.Fatal("the upstream lives on: ", err)
	}
	again := connect(t, r, "alice").hello(&sluicev1.Resume{Session: w.GetSession(), Secret: w.GetSecret(), LastLink: w.GetLink()})
	if again.GetResumed() {
		t.Error("the session lives on")
	}
}

// HL-D28: nothing told who had opened what. Each channel leaves a line at its beginning and one at its end, and metrics count it.
func TestHL_D28_ChannelsAreAuditedAndCounted(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c := connect(t, r, "alice")
	c.send(openFrame(1, 0, watching(func(w *sluicev1.WatchTarget) { w.Namespace = "default" })))
	c.until(listed(1))
	c.send(&sluicev1.ClientFrame{Channel: 1, Frame: &sluicev1.ClientFrame_Close{Close: &sluicev1.Close{Reason: "done"}}})
	if err := c.closed(1); err == nil || err.Code != codes.Canceled {
		t.Errorf("the channel ended with %v", err)
	}
	if code, body := r.Admin("/metrics"); code != http.StatusOK || !strings.Contains(body, `sluice_channels_opened_total{kind="watch"} 1`) {
		t.Errorf("metrics: %d", code)
	}
	c.cancel()
	r.Stop()
	type line struct {
		Msg, Session, Cluster, Kind, Code, Duration string
		RequestID                                   string `json:"request_id"`
		Target                                      struct{ Resource, Namespace string }
		Principal                                   map[string]any
		BytesOut                                    *float64 `json:"bytes_out"`
	}
	var lines []line
	for l := range strings.SplitSeq(strings.TrimSpace(r.Audit.String()), "\n") {
		var a line
		if err := json.Unmarshal([]byte(l), &a); err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		lines = append(lines, a)
	}
	if len(lines) != 2 || lines[0].Msg != "channel opened" || lines[1].Msg != "channel closed" {
		t.Fatalf("audit: %s", r.Audit.String())
	}
	for _, a := range lines {
		if a.RequestID == "" || a.Session == "" || a.Cluster != rig.Cluster || a.Kind != "watch" || a.Target.Resource != "pods" ||
			a.Target.Namespace != "default" || len(a.Principal) == 0 {
			t.Errorf("incomplete: %+v", a)
		}
	}
	if lines[1].BytesOut == nil || lines[1].Duration == "" || lines[1].Code != codes.Canceled.String() {
		t.Errorf("incomplete end: %+v", lines[1])
	}
	if strings.Contains(r.Audit.String()+r.Log.String(), "eyJ") {
		t.Error("a token is in the log")
	}
}
