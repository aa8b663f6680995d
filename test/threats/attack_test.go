package threats

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/rig"
)

// within bounds what a test waits for; it only ever ends one that has failed.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// await looks again and again at what tells nobody when it changes: how much there is of something.
func await(ctx context.Context, ok func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// port is a door that strangers reach.
type port struct {
	name string
	addr string
	// call is a call of bob's, over a connection of its own.
	call func(ctx context.Context) error
}

func ports(r *rig.Rig) []port {
	return []port{
		{name: "gRPC", addr: r.Server.GRPCAddr().String(), call: func(ctx context.Context) error { return callGRPC(ctx, r) }},
		{name: "web", addr: r.Server.WebAddr().String(), call: func(ctx context.Context) error { return callWeb(ctx, r) }},
	}
}

// onBothPorts runs an attack on each port of a gateway of its own.
func onBothPorts(t *testing.T, o rig.Options, attack func(t *testing.T, r *rig.Rig, p port)) {
	for i, name := range []string{"gRPC", "web"} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t, o)
			p := ports(r)[i]
			if err := p.call(within(t)); err != nil { // what is made once, such as the connection to the issuer, is made now
				t.Fatal(err)
			}
			attack(t, r, p)
		})
	}
}

func callGRPC(ctx context.Context, r *rig.Rig) error {
	conn, err := grpc.NewClient("passthrough:///"+r.Server.GRPCAddr().String(), grpc.WithTransportCredentials(credentials.NewTLS(r.ClientTLS())))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = sluicev1.NewClusterServiceClient(conn).ListClusters(r.As(ctx, "bob"), &sluicev1.ListClustersRequest{})
	return err
}

// listClusters is the path of what users call here.
const listClusters = "/sluice.v1.ClusterService/ListClusters"

func callWeb(ctx context.Context, r *rig.Rig) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.WebURL(listClusters), strings.NewReader("{}"))
	if err != nil {
		return err
	}
	req.Header = http.Header{"Content-Type": {"application/json"}, "Authorization": {"Bearer " + r.Token("bob")}}
	transport := &http.Transport{TLSClientConfig: r.ClientTLS(), DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %d: %s, %w", res.StatusCode, body, err)
	}
	return nil
}

// bystander calls again and again, as long as the attack lasts. Every one of its calls must succeed.
type bystander struct {
	t     *testing.T
	stop  context.CancelFunc
	ended sync.WaitGroup
	calls int // Owned by its goroutine until ended.
}

func watchOver(t *testing.T, p port) *bystander {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &bystander{t: t, stop: cancel}
	b.ended.Go(func() {
		for ctx.Err() == nil {
			call, done := context.WithTimeout(context.Background(), 30*time.Second)
			if err := p.call(call); err != nil {
				t.Errorf("somebody else's call, after %d that succeeded: %v", b.calls, err)
				cancel()
			}
			done()
			b.calls++
		}
	})
	return b
}

// done ends the bystander, after one more call.
func (b *bystander) done(p port) {
	b.t.Helper()
	b.stop()
	b.ended.Wait()
	if err := p.call(within(b.t)); err != nil {
		b.t.Errorf("after the attack: %v", err)
	}
	b.t.Logf("%d calls of somebody else were served meanwhile", b.calls)
}

// usage is how much of something there is that an attack may not leave behind.
type usage struct {
	t          *testing.T
	goroutines int
	files      int
	heap       int64
}

func used(t *testing.T) usage {
	t.Helper()
	return usage{t: t, goroutines: runtime.NumGoroutine(), files: descriptors(t), heap: heap()}
}

// grew fails the test if more is live than there was, by more than bound. What the attackers hold counts too.
func (u usage) grew(bound int64) {
	u.t.Helper()
	grown := heap() - u.heap
	u.t.Logf("the heap grew by %d KiB", grown>>10)
	if grown > bound {
		u.t.Errorf("the heap grew by %d bytes, more than %d", grown, bound)
	}
}

// returns waits until there is no more than there was.
func (u usage) returns() {
	u.t.Helper()
	var goroutines, files int
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	defer cancel()
	if !await(ctx, func() bool {
		goroutines, files = runtime.NumGoroutine(), descriptors(u.t)
		return goroutines <= u.goroutines && files <= u.files
	}) {
		u.t.Errorf("there are %d goroutines and %d files, there were %d and %d; begun by:\n%s",
			goroutines, files, u.goroutines, u.files, crowds())
	}
}

// crowds are the goroutines, by what began them.
func crowds() string {
	stacks := make([]byte, 4<<20)
	count := map[string]int{}
	for line := range strings.Lines(string(stacks[:runtime.Stack(stacks, true)])) {
		if began, ok := strings.CutPrefix(line, "created by "); ok {
			began, _, _ = strings.Cut(began, " in goroutine ")
			count[strings.TrimSpace(began)]++
		}
	}
	var b strings.Builder
	for began, n := range count {
		fmt.Fprintf(&b, "%6d %s\n", n, began)
	}
	return b.String()
}

// heap is what is live.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// descriptors is how many files the process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("only Linux says which files are open: ", err)
	}
	return len(open)
}
