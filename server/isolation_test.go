package server_test

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/rig"
)

// T-D1, and the promise of the README: one of a thousand channels is not read for 30 s. The other 999 get everything their upstreams sent,
// and the stalled one holds its window and no more.
func TestT_D1_AStalledChannelHurtsOnlyItself(t *testing.T) {
	const (
		others = 999
		stall  = 30 * time.Second
		window = 256 << 10
	)
	r := rig.New(t, rig.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := r.Client("alice")
	in := func(namespace string) client.WatchRequest {
		w := pods()
		w.Namespace = namespace
		return client.WatchRequest{Target: w}
	}
	for _, name := range []string{"loud", "calm"} {
		if _, err := r.Kube.Apply(kubetest.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}); err != nil {
			t.Fatal(err)
		}
	}
	opening := time.Now()
	stalled := c.Watch(in("loud"))
	awaitList(ctx, t, stalled)

	var received atomic.Int64
	var calm sync.WaitGroup
	ready := make(chan struct{}, others)
	reading, stopReading := context.WithCancel(ctx)
	for range others {
		w := c.Watch(in("calm"))
		calm.Go(func() {
			for {
				ev, err := w.Next(reading)
				switch {
				case err != nil:
					return
				case ev.State.GetKind() == sluicev1.ChannelState_KIND_RESYNC_END:
					ready <- struct{}{}
				case ev.Object != nil:
					received.Add(1)
				}
			}
		})
	}
	for range others {
		select {
		case <-ready:
		case <-ctx.Done():
			t.Fatal("the watches do not open")
		}
	}
	t.Logf("opened in %v", time.Since(opening))
	sent := makeNoise(ctx, t, r, stall)
	want := int64(sent) * others
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for last, at := received.Load(), time.Now(); last < want && time.Since(at) < 20*time.Second; { // as long as they get on
		<-tick.C
		if got := received.Load(); got != last {
			last, at = got, time.Now()
		}
	}
	if got := received.Load(); got != want {
		t.Errorf("the others have %d of %d, and nothing more comes", got, want)
	}
	held := atRest(ctx, t, r) // the others hold nothing then
	if held > window || held < window/2 {
		t.Errorf("the stalled channel holds %d bytes, its window is %d", held, window)
	}
	stopReading()
	calm.Wait()
	t.Logf("%d watches received %d events beside one that took none for %v and holds %d bytes", others, want, stall, held)
}

// makeNoise writes large events to the stalled watch's namespace and small ones to the others', and returns how many of the latter.
func makeNoise(ctx context.Context, t *testing.T, r *rig.Rig, d time.Duration) (calm int) {
	t.Helper()
	big := strings.Repeat("x", 8<<10)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(d)
	for i := 0; time.Now().Before(end); i++ {
		applyIn(t, r, "loud", "p", fmt.Sprint(i, big))
		if i%25 == 0 {
			applyIn(t, r, "calm", "p", fmt.Sprint(i))
			calm++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		}
	}
	return calm
}

func applyIn(t *testing.T, r *rig.Rig, namespace, name, note string) {
	t.Helper()
	if _, err := r.Kube.Apply(rig.Pod(namespace, name, note)); err != nil {
		t.Fatal(err)
	}
}

// heldBytes is the gateway's own account of what its channels hold.
func heldBytes(t *testing.T, r *rig.Rig) int {
	t.Helper()
	_, body := r.Admin("/metrics")
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(line, "sluice_held_bytes "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(f)
		}
	}
	t.Fatal("no sluice_held_bytes")
	return 0
}

// T-D3: a client that never reads anything costs the sum of its budgets and no more.
func TestT_D3_AClientThatNeverReadsCostsItsBudget(t *testing.T) {
	before := debug.SetMemoryLimit(512 << 20)
	defer debug.SetMemoryLimit(before)
	const (
		channels = 100
		budget   = 2 << 20
	)
	r := rig.New(t, rig.Options{Limits: server.Limits{SessionBytes: budget}})
	c := connect(t, r, "alice")
	c.hello(nil)
	for id := range uint32(channels) {
		o := watching()
		o.Window = 1 << 20
		c.send(openFrame(id+1, 1, o))
	}
	if err := r.Kube.Await(within(t), func(n kubetest.Counts) bool { return n.Live == channels }); err != nil {
		t.Fatal(err)
	}
	base := heap()
	for i := range 60 { // 100 watches x 60 x 64 KiB is 384 MiB
		apply(t, r, "p", fmt.Sprint(i, strings.Repeat("x", 64<<10)))
	}
	last := atRest(within(t), t, r)
	// Every channel may always hold one frame beyond the budget.
	if most := budget + channels*(64<<10+64); last > most || last == 0 {
		t.Errorf("the gateway holds %d bytes, its budget is %d and a frame a channel", last, budget)
	}
	grown := heap() - base
	t.Logf("held %d bytes; the heap, the API server's included, grew by %d", last, grown)
	if grown > 128<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
}

// atRest is what the gateway holds once nothing moves any more.
func atRest(ctx context.Context, t *testing.T, r *rig.Rig) int {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	steady, last := 0, -1
	for steady < 10 {
		steady++
		if n := heldBytes(t, r); n != last {
			steady, last = 0, n
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the gateway does not come to rest")
		}
	}
	return last
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
