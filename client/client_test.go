package client_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/mux"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func pods() client.WatchRequest {
	return client.WatchRequest{Cluster: rig.Cluster, Target: &sluicev1.WatchTarget{Version: "v1", Resource: "pods"}}
}

func apply(t *testing.T, r *rig.Rig, name, note string) {
	t.Helper()
	if _, err := r.Kube.Apply(rig.Pod("default", name, note)); err != nil {
		t.Fatal(err)
	}
}

// next is the next event of an object; states are collected in between.
func next(ctx context.Context, t *testing.T, w *client.Watch, states ...*[]sluicev1.ChannelState_Kind) client.Event {
	t.Helper()
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if ev.State == nil {
			return ev
		}
		for _, s := range states {
			*s = append(*s, ev.State.GetKind())
		}
	}
}

func awaitList(ctx context.Context, t *testing.T, w *client.Watch) {
	t.Helper()
	for {
		if ev, err := w.Next(ctx); err != nil {
			t.Fatal(err)
		} else if ev.State.GetKind() == sluicev1.ChannelState_KIND_RESYNC_END {
			return
		}
	}
}

// phases collects what a client says of itself.
type phases struct {
	mu   sync.Mutex
	all  []client.State
	new  chan struct{}
	seen int // Owned by await.
}

func newPhases() *phases { return &phases{new: make(chan struct{}, 1000)} }

func (p *phases) tell(s client.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, s)
	p.new <- struct{}{}
}

// await returns the first state, of those it has not seen, that ok likes.
func (p *phases) await(ctx context.Context, t *testing.T, ok func(client.State) bool) client.State {
	t.Helper()
	for {
		select {
		case <-p.new:
		case <-ctx.Done():
			t.Fatalf("it never came: %+v", p.all)
		}
		p.mu.Lock()
		s := p.all[p.seen]
		p.mu.Unlock()
		p.seen++
		if ok(s) {
			return s
		}
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	token := client.StaticToken("t")
	for name, cfg := range map[string]client.Config{
		"no address":         {Token: token},
		"a name of controls": {Address: "localhost:1", Token: token, Name: "a\x01b"},
		"a foreign name":     {Address: "localhost:1", Token: token, Name: "café"},
		"no token":           {Address: "127.0.0.1:1"},
		"a small window":     {Address: "127.0.0.1:1", Token: token, Window: 1},
		"a strange backoff":  {Address: "127.0.0.1:1", Token: token, MinBackoff: time.Hour},
	} {
		if c, err := client.Dial(cfg); err == nil {
			t.Errorf("%s was taken", name)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// A gateway that forgets its sessions, as one that was killed: the client begins another, and its watches go on at their cursors.
func TestWatchSurvivesALostSession(t *testing.T) {
	r := rig.New(t, rig.Options{})
	second := r.Replica()
	relay := rig.NewRelay(t, r.Server.GRPCAddr().String())
	p := newPhases()
	w := r.Client("alice", func(c *client.Config) { c.Address, c.OnState = relay.Addr(), p.tell }).Watch(pods())
	ctx := within(t)
	apply(t, r, "a", "0")
	awaitList(ctx, t, w)
	apply(t, r, "a", "1")
	next(ctx, t, w)
	apply(t, r, "a", "2")
	relay.Retarget(second.GRPCAddr().String())
	relay.Cut()
	apply(t, r, "a", "3")
	var states []sluicev1.ChannelState_Kind
	for want := 2; want <= 3; want++ {
		if ev := next(ctx, t, w, &states); !strings.Contains(string(ev.Raw), fmt.Sprintf(`"note":"%d"`, want)) {
			t.Fatalf("want event %d, got %s", want, ev.Raw)
		}
	}
	for _, s := range states {
		if s == sluicev1.ChannelState_KIND_RESYNC_BEGIN {
			t.Error("there was a resync: the cursor was not used")
		}
	}
}

// The same in the middle of the first list: what the caller has seen of it is announced to be replaced.
func TestAListThatWasCutIsAnnouncedAgain(t *testing.T) {
	r := rig.New(t, rig.Options{})
	second := r.Replica()
	relay := rig.NewRelay(t, r.Server.GRPCAddr().String())
	for i := range 40 { // more than the window holds
		apply(t, r, fmt.Sprint("p", i), strings.Repeat("x", 16<<10))
	}
	w := r.Client("alice", func(c *client.Config) { c.Address = relay.Addr() }).Watch(pods())
	ctx := within(t)
	next(ctx, t, w)
	relay.Retarget(second.GRPCAddr().String())
	relay.Cut()
	seen, begun := map[string]bool{}, false
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		switch ev.State.GetKind() {
		case sluicev1.ChannelState_KIND_RESYNC_BEGIN:
			begun, seen = true, map[string]bool{}
		case sluicev1.ChannelState_KIND_RESYNC_END:
			if !begun || len(seen) != 40 {
				t.Errorf("announced: %v; the list has %d objects, want 40", begun, len(seen))
			}
			return
		}
		if ev.Object != nil {
			var o struct {
				Metadata struct {
					Name string `json:"name"`
				} `json:"metadata"`
			}
			if err := ev.Into(&o); err != nil {
				t.Fatal(err)
			}
			if seen[o.Metadata.Name] {
				t.Errorf("%s came twice in one list", o.Metadata.Name)
			}
			seen[o.Metadata.Name] = true
		}
	}
}

// What another attempt cannot change ends the client, with the gateway's own status.
func TestRefusalsEndTheClient(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c := r.Client("alice", func(c *client.Config) { c.Token = client.StaticToken("not a token") })
	_, err := c.Watch(pods()).Next(within(t))
	var e *client.Error
	if !errors.As(err, &e) || e.Code != codes.Unauthenticated || e.Reason != sluicev1.Reason_REASON_INVALID_TOKEN {
		t.Errorf("got %v", err)
	}
	select {
	case <-c.Done():
	case <-within(t).Done():
		t.Error("the client goes on")
	}
}

// A refused watch says why, and the others go on.
func TestARefusedWatchEndsAlone(t *testing.T) {
	r := rig.New(t, rig.Options{Kube: kubetest.Options{Authorizer: func(_ kubetest.User, a kubetest.Attributes) bool { return a.Resource != "secrets" }}})
	c := r.Client("alice")
	ctx := within(t)
	req := pods()
	req.Target = &sluicev1.WatchTarget{Version: "v1", Resource: "secrets"}
	w := c.Watch(req)
	_, err := w.Next(ctx)
	var e *client.Error
	if !errors.As(err, &e) || e.Code != codes.PermissionDenied || e.HTTPCode != 403 || e.Kubernetes.GetReason() != "Forbidden" {
		t.Errorf("got %v", err)
	}
	if _, again := w.Next(ctx); !errors.Is(again, err) {
		t.Errorf("the second time: %v", again)
	}
	awaitList(ctx, t, c.Watch(pods()))
}

// A source of tokens that renews them makes expiry a short pause.
func TestRenewedTokenGoesOn(t *testing.T) {
	r := rig.New(t, rig.Options{})
	short := func(context.Context) (string, error) {
		return r.Token("alice", func(c *issuer.Claims) { c.Expiry = time.Now().Add(4 * time.Second) }), nil
	}
	p := newPhases()
	w := r.Client("alice", func(c *client.Config) { c.Token, c.OnState = short, p.tell }).Watch(pods())
	ctx := within(t)
	awaitList(ctx, t, w)
	first := p.await(ctx, t, func(s client.State) bool { return s.Phase == client.Connected })
	for {
		s := p.await(ctx, t, func(s client.State) bool { return s.Phase == client.Connected })
		if s.Session != first.Session {
			break
		}
	}
	apply(t, r, "a", "after")
	var states []sluicev1.ChannelState_Kind
	if ev := next(ctx, t, w, &states); !strings.Contains(string(ev.Raw), "after") {
		t.Fatalf("got %s", ev.Raw)
	}
}

// WatchRaw delivers the same as Next, in place, and ends with its context.
func TestWatchRaw(t *testing.T) {
	r := rig.New(t, rig.Options{})
	relay := rig.NewRelay(t, r.Server.GRPCAddr().String())
	c := r.Client("alice", func(c *client.Config) { c.Address = relay.Addr() })
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	got := make(chan string, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- c.WatchRaw(ctx, pods(), func(raw client.Raw) {
			if raw.State != nil {
				got <- raw.State.GetKind().String()
				return
			}
			got <- string(raw.Data)
		})
	}()
	for s := range got {
		if s == sluicev1.ChannelState_KIND_RESYNC_END.String() {
			break
		}
	}
	for i := range 50 {
		if i%10 == 5 {
			relay.Cut()
		}
		apply(t, r, "p", fmt.Sprint(i))
	}
	for i := range 50 {
		select {
		case s := <-got:
			if !strings.Contains(s, fmt.Sprintf(`"note":"%d"`, i)) {
				t.Fatalf("event %d: %s", i, s)
			}
		case <-ctx.Done():
			t.Fatalf("event %d does not come", i)
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// Closing a watch closes its upstream; closing the client ends what waits.
func TestClose(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c := r.Client("alice")
	ctx := within(t)
	one, two := c.Watch(pods()), c.Watch(pods())
	awaitList(ctx, t, one)
	awaitList(ctx, t, two)
	one.Close()
	if err := r.Kube.Await(ctx, func(n kubetest.Counts) bool { return n.Live == 1 }); err != nil {
		t.Error("the upstream of a closed watch lives on")
	}
	if _, err := one.Next(ctx); err == nil {
		t.Error("a closed watch has events")
	}
	waiting := make(chan error, 1)
	go func() { _, err := two.Next(ctx); waiting <- err }()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; err == nil || ctx.Err() != nil {
		t.Errorf("what waited ended with %v", err)
	}
	if err := r.Kube.Await(ctx, func(n kubetest.Counts) bool { return n.Live == 0 }); err != nil {
		t.Error("the upstream of a closed client lives on")
	}
}

// A gateway that is not there is tried again, and the time in between is drawn from a bound that grows.
func TestBackoff(t *testing.T) {
	r := rig.New(t, rig.Options{Limits: server.Limits{}})
	relay := rig.NewRelay(t, "127.0.0.1:1")
	p := newPhases()
	c := r.Client("alice", func(c *client.Config) {
		c.Address, c.OnState, c.MinBackoff, c.MaxBackoff = relay.Addr(), p.tell, time.Millisecond, 8*time.Millisecond
	})
	ctx := within(t)
	for attempt := 1; attempt <= 6; attempt++ {
		s := p.await(ctx, t, func(s client.State) bool { return s.Phase == client.Waiting && s.Attempt == attempt })
		if s.Err == nil || s.Next < 0 || s.Next > time.Duration(min(8, 1<<attempt))*time.Millisecond {
			t.Errorf("attempt %d: %+v", attempt, s)
		}
	}
	relay.Retarget(r.Server.GRPCAddr().String())
	awaitList(ctx, t, c.Watch(pods()))
	clusters, err := c.Clusters(ctx)
	if err != nil || len(clusters) != 1 || clusters[0].GetName() != rig.Cluster {
		t.Errorf("clusters: %v, %v", clusters, err)
	}
	resources, err := c.Resources(ctx, rig.Cluster)
	if err != nil || len(resources.GetResources()) == 0 {
		t.Errorf("resources: %v, %v", resources, err)
	}
}

// What no frame has room for is refused on this side, by every kind.
func TestAnOpenThatIsTooLongIsRefused(t *testing.T) {
	g := newGateway(t, mux.Config{}, nil)
	c := g.client(t, g.addr())
	ctx, long := within(t), strings.Repeat("x", 100<<10)
	_, ofWatch := c.Watch(client.WatchRequest{Target: &sluicev1.WatchTarget{Name: long}}).Next(ctx)
	_, ofLog := c.Logs(client.LogsRequest{Target: &sluicev1.LogTarget{Pod: long}}).Next(ctx)
	_, ofForward := c.PortForward(ctx, client.PortForwardRequest{Target: &sluicev1.PortForwardTarget{Pod: long}})
	for kind, err := range map[string]error{
		"watch": ofWatch, "log": ofLog, "port-forward": ofForward, "exec": c.Exec(ctx, client.ExecRequest{Target: command(long)}),
		"attach": c.Attach(ctx, client.AttachRequest{Target: &sluicev1.AttachTarget{Pod: long}}),
	} {
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
