package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// putPod writes a pod in a phase. Its UID is its own until it is deleted.
func (c *testCluster) putPod(t testing.TB, name, phase string) {
	t.Helper()
	_, err := c.Apply(kubetest.Object{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name, "namespace": "default"},
		"status": map[string]any{"phase": phase, "reason": "Because"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *testCluster) deletePod(t testing.TB, name string) {
	t.Helper()
	if err := c.Delete("", "pods", "default", name); err != nil {
		t.Fatal(err)
	}
}

// awaitWatches waits until so many watches run, of so many that were asked for.
func (c *testCluster) awaitWatches(t testing.TB, live, asked int) {
	t.Helper()
	if err := c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == live && n.Watches >= asked }); err != nil {
		t.Fatalf("%d watches that run: %v, %+v", live, err, c.Counts())
	}
	if n := c.Counts().Watches; n != asked {
		t.Fatalf("%d watches were asked for, want %d", n, asked)
	}
}

// podsFor is a Pods that ends with the test, and the options of its watches.
func podsFor(t testing.TB) (*Pods, *Options) {
	opts := WithDefaults(Options{Loops: loopsFor(t), FirstBackoff: time.Millisecond, Jitter: func() float64 { return 0.5 }})
	p := NewPods()
	t.Cleanup(p.Close)
	return p, opts
}

// awaitSeen waits until a pod was seen.
func (p *Pods) awaitSeen(t testing.TB, pod string) {
	t.Helper()
	ctx := within(t)
	for {
		p.mu.Lock()
		w := p.watches[podKey{"test", "principal", "default", pod}]
		seen := w != nil && w.uid != ""
		p.mu.Unlock()
		if seen {
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("pod %s is not seen", pod)
		}
	}
}

// noting is a user that notes what it is told.
func noting() (gone func(error), told chan error) {
	told = make(chan error, 1)
	return func(err error) { told <- err }, told
}

func awaitTold(t testing.TB, told chan error) *status.Error {
	t.Helper()
	select {
	case err := <-told:
		e, ok := errors.AsType[*status.Error](err)
		if !ok {
			t.Fatalf("told %v", err)
		}
		return e
	case <-within(t).Done():
		t.Fatal("nothing is told")
		return nil
	}
}

func TestManyForwardsToAPodCostOneWatch(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	c.putPod(t, "web", "Running")
	pods, opts := podsFor(t)
	var leave []func()
	var told []chan error
	for range 200 {
		gone, heard := noting()
		told = append(told, heard)
		leave = append(leave, pods.join(c.up, opts, "default", "web", gone))
	}
	c.awaitWatches(t, 1, 1)
	for _, l := range leave[:100] {
		l()
		l() // twice does not hurt
	}
	c.awaitWatches(t, 1, 1)
	c.deletePod(t, "web")
	for i, heard := range told {
		if i < 100 {
			select {
			case err := <-heard:
				t.Fatalf("one that has left is told %v", err)
			default:
			}
			continue
		}
		if e := awaitTold(t, heard); e.Code != codes.NotFound || e.Reason != sluicev1.Reason_REASON_TARGET_GONE || e.Resumable {
			t.Fatalf("told %v", e)
		}
	}
	c.awaitWatches(t, 0, 1)
	for _, l := range leave[100:] {
		l()
	}
	c.putPod(t, "web", "Running")
	gone, _ := noting()
	last := pods.join(c.up, opts, "default", "web", gone)
	c.awaitWatches(t, 1, 2)
	last()
	c.awaitWatches(t, 0, 2)
}

// TestAPodIsGone: whatever becomes of the watch meanwhile, its users are told what has become of the pod, and once.
func TestAPodIsGone(t *testing.T) {
	for _, paged := range []bool{false, true} {
		for _, x := range []struct {
			name string
			do   func(t *testing.T, c *testCluster)
			code codes.Code
		}{
			{"deleted", func(t *testing.T, c *testCluster) { c.deletePod(t, "web") }, codes.NotFound},
			{"failed", func(t *testing.T, c *testCluster) { c.putPod(t, "web", "Failed") }, codes.Unavailable},
			{"succeeded", func(t *testing.T, c *testCluster) { c.putPod(t, "web", "Succeeded") }, codes.Unavailable},
			{"deleted unseen", func(t *testing.T, c *testCluster) {
				c.Sever()
				c.deletePod(t, "web")
				c.Compact(c.Version())
				if err := c.Listen(t.Context(), c.addr(t)); err != nil {
					t.Fatal(err)
				}
			}, codes.NotFound},
			{"replaced unseen", func(t *testing.T, c *testCluster) {
				c.Sever()
				c.deletePod(t, "web")
				c.putPod(t, "web", "Running")
				c.Compact(c.Version())
				if err := c.Listen(t.Context(), c.addr(t)); err != nil {
					t.Fatal(err)
				}
			}, codes.NotFound},
		} {
			t.Run(fmt.Sprintf("%s, in pages %v", x.name, paged), func(t *testing.T) {
				c := overTLS(t, kubetest.Options{WithoutWatchList: paged})
				c.putPod(t, "web", "Running")
				gone, told := noting()
				pods, opts := podsFor(t)
				defer pods.join(c.up, opts, "default", "web", gone)()
				pods.awaitSeen(t, "web") // before that nobody knows which pod it is
				c.EndWatches()           // which is no end of a pod
				c.putPod(t, "other", "Running")
				c.putPod(t, "web", "Running")
				x.do(t, c)
				if e := awaitTold(t, told); e.Code != x.code || e.Reason != sluicev1.Reason_REASON_TARGET_GONE {
					t.Errorf("told %v", e)
				}
			})
		}
	}
}

// addr is where a severed cluster listened.
func (c *testCluster) addr(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func TestALargePodIsWatchedToo(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	put := func(phase string) {
		if _, err := c.Apply(kubetest.Object{
			"apiVersion": "v1", "kind": "Pod", "status": map[string]any{"phase": phase},
			"metadata": map[string]any{"name": "web", "namespace": "default", "annotations": map[string]any{"large": strings.Repeat("x", 100_000)}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	put("Running")
	gone, told := noting()
	pods, opts := podsFor(t)
	defer pods.join(c.up, opts, "default", "web", gone)()
	c.awaitWatches(t, 1, 1)
	put("Failed")
	if e := awaitTold(t, told); e.Code != codes.Unavailable {
		t.Errorf("told %v", e)
	}
}

func TestAPodsEndIsToldOnce(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	c.putPod(t, "web", "Running")
	pods, opts := podsFor(t)
	var told atomic.Int32
	defer pods.join(c.up, opts, "default", "web", func(error) { told.Add(1) })()
	pods.mu.Lock()
	w := pods.watches[podKey{"test", "principal", "default", "web"}]
	pods.mu.Unlock()
	for range 2 { // as when both events come in one read
		w.deleted()
	}
	if n := told.Load(); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestAPodThatIsGoneAtTheBeginningIsTold(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	gone, told := noting()
	pods, opts := podsFor(t)
	defer pods.join(c.up, opts, "default", "web", gone)()
	if e := awaitTold(t, told); e.Code != codes.NotFound {
		t.Errorf("told %v", e)
	}
}

// asUser is an upstream that counts its dials, and may be refused.
type asUser struct {
	*testUpstream
	refusal int // 0 for none
	dials   atomic.Int32
}

func (u *asUser) Dial(ctx context.Context, path string, q url.Values, subprotocols ...string) (*websocket.Conn, string, error) {
	u.dials.Add(1)
	if u.refusal == -1 {
		panic("a bug")
	}
	if u.refusal != 0 {
		return nil, "", answered(u.refusal, http.Header{}, nil)
	}
	return u.testUpstream.Dial(ctx, path, q, subprotocols...)
}

func TestThePodIsWatchedAsWhoIsStillThere(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	c.putPod(t, "web", "Running")
	pods, opts := podsFor(t)
	first, second := &asUser{testUpstream: c.up}, &asUser{testUpstream: c.up}
	gone, _ := noting()
	leave := pods.join(first, opts, "default", "web", gone)
	c.awaitWatches(t, 1, 1)
	gone, told := noting()
	defer pods.join(second, opts, "default", "web", gone)()
	leave()
	c.EndWatches()
	if err := c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 1 && n.Watches > 1 }); err != nil {
		t.Fatal(err)
	}
	if first.dials.Load() != 1 || second.dials.Load() == 0 {
		t.Errorf("who has left is asked for %d times, who is there %d", first.dials.Load(), second.dials.Load())
	}
	c.deletePod(t, "web")
	if e := awaitTold(t, told); e.Reason != sluicev1.Reason_REASON_TARGET_GONE {
		t.Errorf("told %v", e)
	}
}

func TestACredentialThatHasEndedLeavesTheOthers(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	c.putPod(t, "web", "Running")
	pods, opts := podsFor(t)
	good, bad := &asUser{testUpstream: c.up}, &asUser{testUpstream: c.up, refusal: http.StatusUnauthorized}
	gone, told := noting()
	defer pods.join(good, opts, "default", "web", gone)()
	c.awaitWatches(t, 1, 1)
	gone, _ = noting()
	defer pods.join(bad, opts, "default", "web", gone)() // the last to come is asked first
	c.EndWatches()
	if err := c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 1 && n.Watches > 1 }); err != nil {
		t.Fatal(err)
	}
	if bad.dials.Load() == 0 {
		t.Error("the last to come was not asked")
	}
	c.deletePod(t, "web")
	if e := awaitTold(t, told); e.Reason != sluicev1.Reason_REASON_TARGET_GONE {
		t.Errorf("told %v", e)
	}
}

func TestWhoMayNotWatchPodsForwardsAllTheSame(t *testing.T) {
	c := overTLS(t, kubetest.Options{Authorizer: func(_ kubetest.User, a kubetest.Attributes) bool { return a.Resource != "pods" }})
	c.putPod(t, "web", "Running")
	n := newForwardNode(t)
	n.rest = c
	pods, _ := podsFor(t)
	port := podServing(t, echoing)
	var forwards []*forwarding
	for range 3 {
		f := forwardTo(t, n.upstream(t), port, Options{Pods: pods})
		f.awaitOpened(t)
		forwards = append(forwards, f)
		if err := c.Await(within(t), func(k kubetest.Counts) bool { return k.Requests > 0 }); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range forwards {
		_, _ = io.WriteString(f, "hello")
		f.CloseWrite()
		if o := f.outcome(); o.Err != nil || f.text() != "hello" {
			t.Errorf("it ends with %v, %q", o.Err, f.text())
		}
	}
	pods.Close()
	if asked := c.Counts().Watches; asked > 1 {
		t.Errorf("it was asked %d times", asked)
	}
}

func TestAPanicOfTheWatchIsItsUsers(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	gone, told := noting()
	pods, opts := podsFor(t)
	defer pods.join(&asUser{testUpstream: c.up, refusal: -1}, opts, "default", "web", gone)()
	if _, ok := errors.AsType[*PanicError](<-told); !ok {
		t.Error("told something else")
	}
}

func TestClosedPodsTellNobody(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	c.putPod(t, "web", "Running")
	pods, opts := podsFor(t)
	never := func(err error) { t.Errorf("told %v", err) }
	leave := pods.join(c.up, opts, "default", "web", never)
	c.awaitWatches(t, 1, 1)
	pods.Close()
	c.awaitWatches(t, 0, 1)
	leave()
	pods.join(c.up, opts, "default", "web", never)()
	pods.Close()
	c.awaitWatches(t, 0, 1)
}

func TestPodsWithstandEverythingAtOnce(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	pods, opts := podsFor(t)
	var all sync.WaitGroup
	for i := range 20 {
		name := fmt.Sprintf("web-%d", i%3)
		all.Go(func() {
			for j := range 20 {
				if j%5 == i%5 {
					c.putPod(t, name, "Running")
				}
				var once atomic.Int32
				leave := pods.join(c.up, opts, "default", name, func(error) {
					if once.Add(1) > 1 {
						t.Error("told twice")
					}
				})
				if j%7 == i%7 {
					_ = c.Delete("", "pods", "default", name) // which another may have done
				}
				leave()
			}
		})
	}
	all.Wait()
	if err := c.Await(within(t), func(n kubetest.Counts) bool { return n.Live == 0 }); err != nil {
		t.Fatal(err)
	}
	pods.mu.Lock()
	defer pods.mu.Unlock()
	if len(pods.watches) > 0 {
		t.Errorf("%d watches are left", len(pods.watches))
	}
}

func TestAForwardEndsWithItsPod(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	c.putPod(t, "web", "Running")
	n := newForwardNode(t)
	n.rest = c
	pods, o := podsFor(t)
	opts := *o
	opts.Pods = pods
	port := podServing(t, func(nc *net.TCPConn) {
		_, _ = io.WriteString(nc, "hello")
		_, _ = io.Copy(io.Discard, nc) // as a node that is gone: the tunnel does not end with the pod
	})
	f := forwardTo(t, n.upstream(t), port, opts)
	held := forwardTo(t, n.upstream(t), port, opts)
	f.awaitBytes(t, 5)
	held.awaitBytes(t, 5)
	held.hold(true) // which takes nothing, and hears of it all the same
	c.awaitWatches(t, 1, 1)
	c.deletePod(t, "web")
	for _, f := range []*forwarding{f, held} {
		e := status.From(f.outcome().Err)
		if e == nil || e.Code != codes.NotFound || e.Reason != sluicev1.Reason_REASON_TARGET_GONE || e.Resumable || f.text() != "hello" {
			t.Errorf("it ends with %v, %q", e, f.text())
		}
	}
}

// TestWhatIsOnItsWayFromAPodThatIsGoneArrives: the event may be faster than the tunnel.
func TestWhatIsOnItsWayFromAPodThatIsGoneArrives(t *testing.T) {
	c := overTLS(t, kubetest.Options{})
	c.putPod(t, "web", "Running")
	pods, o := podsFor(t)
	opts := *o
	opts.Pods = pods
	told := make(chan struct{})
	up := scriptedBeside(t, c, func(s *scriptedTunnel) {
		_ = s.say(append(accepts(), says("hello"))...)
		<-told
		_ = s.say(says(" and good"), says("bye"), resets(dataStream)) // which is the pod's end, not another
		s.drain()
	})
	f := forwardTo(t, up, 80, opts)
	f.awaitBytes(t, 5)
	c.awaitWatches(t, 1, 1)
	c.deletePod(t, "web")
	c.awaitWatches(t, 0, 1) // all users were told
	close(told)
	e := status.From(f.outcome().Err)
	if e == nil || e.Reason != sluicev1.Reason_REASON_TARGET_GONE || f.text() != "hello and goodbye" {
		t.Errorf("it ends with %v, %q", e, f.text())
	}
}
