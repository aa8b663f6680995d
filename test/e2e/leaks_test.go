package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/server"
	"github.com/sluice-gateway/sluice/test/e2e/seeded"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

const (
	// opens is how many channels a run of the tests opens, and opensAtOnce how many at a time.
	opens       = 2_000
	opensAtOnce = 12
	// idlers is how many goroutines, and how many files, may be more than before: what idle TCP connections to the API server keep, of the
	// gateway, of the recorder and of the tests, which are kept or not as it comes.
	idlers = 8
	// leftover is how much more the heap may hold than before: pools, and maps that do not shrink.
	leftover = 1 << 20
)

// mishap is one way in which a channel ends.
type mishap struct {
	name string
	do   func(ctx context.Context, l *leaks, random *rand.Rand) error
}

// leaks is where channels are opened, over and over, and end in every way.
type leaks struct {
	*grounds
	alice, viewer *client.Client
}

// TestEveryEndLeavesNothing: two thousand channels of all kinds, each of which is refused, fails, is given up or ends; then goroutines, files and
// heap are what they were before.
func TestEveryEndLeavesNothing(t *testing.T) { openMany(t, opens) }

func openMany(t *testing.T, n int) {
	change := func(o *rig.Options) {
		o.Clusters[0].Server = kube.Shared(t).URL() // not by the recorder, which would do half of the work
		o.Change = func(c *server.Config) {         // what is logged would be kept by the test
			c.Log, c.Audit = slog.New(slog.DiscardHandler), slog.New(slog.DiscardHandler)
		}
	}
	g := newGrounds(t, change)
	g.idle("leaks")
	g.serve("leaks-web")
	g.run(kube.Pod{Name: "leaks-talker", Containers: []kube.Container{{Name: "main", Stdin: true, Command: []string{g.program, "talk", "1", "50000"}}}})
	ctx := within(t, time.Duration(n)*25*time.Millisecond+3*time.Minute)
	l := &leaks{grounds: g, alice: g.longLived("alice", kube.Streamers), viewer: g.longLived("vera", kube.Viewers)}
	l.round(ctx, 4*len(mishaps)) // what is there once for all is there afterwards
	before := l.measure(ctx, nil)
	l.round(ctx, n)
	after := l.measure(ctx, &before)
	t.Logf("%d channels, %d ways to end: before %v, after %v", n, len(mishaps), before, after)
}

// round opens n channels in the sessions of two clients, and some in sessions that end.
func (l *leaks) round(ctx context.Context, n int) {
	l.t.Helper()
	done := progress(l.t, n, "channels")
	if err := crowd(n, opensAtOnce, func(i int) error {
		defer done()
		m := mishaps[i%len(mishaps)]
		if err := m.do(ctx, l, rand.New(rand.NewPCG(seed, uint64(i)))); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		return nil
	}); err != nil {
		l.t.Fatal(err)
	}
	for range 3 {
		if err := l.lostTogether(ctx); err != nil {
			l.t.Fatal(err)
		}
	}
}

// dial is a client; who dials closes it.
func (g *grounds) dial(name, group string) *client.Client {
	g.t.Helper()
	token := g.token(func(c *issuer.Claims) { c.Subject, c.Groups = name, []string{group} })
	c, err := client.Dial(client.Config{
		Address: g.Server.GRPCAddr().String(), TLS: g.ClientTLS(), Token: client.StaticToken(token), Name: "test",
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

// longLived is a client whose session lasts as long as the test: what a session keeps of channels that have ended is seen.
func (g *grounds) longLived(name, group string) *client.Client {
	g.t.Helper()
	c := g.dial(name, group)
	g.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			g.t.Errorf("close the client: %v", err)
		}
	})
	return c
}

// lostTogether opens one of several kinds in a session of its own, by the recorder, leaves the session and cuts everything at the upstream.
func (l *leaks) lostTogether(ctx context.Context) error {
	c := l.dial("alice", kube.Streamers)
	w := c.Watch(client.WatchRequest{Cluster: lenient, Target: pods(kube.Namespace)})
	defer w.Close()
	follow, port := logOf("leaks-talker", "main"), portOf("leaks-web", webPort)
	follow.Cluster, port.Cluster = lenient, lenient
	log := c.Logs(follow)
	defer log.Close()
	_, err := w.Next(ctx)
	_, also := log.Next(ctx)
	f, too := c.PortForward(ctx, port)
	if err := errors.Join(err, also, too, c.Close()); err != nil {
		return err
	}
	if _, err := f.Read(make([]byte, 1)); err == nil {
		return errors.New("a TCP connection has outlived its session")
	}
	l.api.CutAll()
	return nil
}

// held is what a process holds.
type held struct {
	goroutines, files int
	heap              uint64
}

func (h held) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %d KiB", h.goroutines, h.files, h.heap>>10)
}

// measure waits until the gateway has nothing open, and with a baseline until it is back at that.
func (l *leaks) measure(ctx context.Context, baseline *held) held {
	l.t.Helper()
	for _, kind := range []string{"watch", "logs", "exec", "attach", "port-forward"} {
		l.awaitSeries(fmt.Sprintf("sluice_channels{kind=%q}", kind), "0")
	}
	l.api.CutAll() // also what is idle
	l.api.Reset()
	patience, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var last held
	for same := 0; ; {
		now := held{runtime.NumGoroutine(), descriptors(), memory().HeapAlloc}
		switch {
		case baseline != nil && now.goroutines <= baseline.goroutines+idlers && now.files <= baseline.files+idlers && now.heap <= baseline.heap+leftover:
			return now
		case baseline == nil && now.goroutines == last.goroutines && now.files == last.files:
			same++
			if same == 10 {
				return now
			}
		default:
			same = 0
		}
		last = now
		if pause(patience, 50*time.Millisecond) != nil {
			stacks := make([]byte, 1<<20)
			l.t.Fatalf("before %v, after %v; there are\n%s", baseline, now, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// descriptors are the open files of this process; none where they cannot be counted.
func descriptors() int {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(open)
}

// endsWith fails unless err has one of the codes and the reason.
func endsWith(err error, reason sluicev1.Reason, of ...codes.Code) error {
	e, ok := errors.AsType[*client.Error](err)
	if ok && e.Reason == reason && slices.Contains(of, e.Code) {
		return nil
	}
	return fmt.Errorf("it has ended with %w, want %v %v", notNil(err), of, reason)
}

// leaves fails unless err says that ctx has ended.
func leaves(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("it has ended with %w, want the caller's leaving", notNil(err))
}

// leaving is a Writer that takes some bytes and then has its caller leave.
type leaving struct {
	left   int
	cancel context.CancelFunc
}

// Write implements io.Writer.
func (l *leaving) Write(b []byte) (int, error) {
	if l.left -= len(b); l.left <= 0 {
		l.cancel()
	}
	return len(b), nil
}

var errBroken = errors.New("broken on purpose")

// broken is a Reader and a Writer that fails.
type broken struct{}

func (broken) Read([]byte) (int, error)  { return 0, errBroken }
func (broken) Write([]byte) (int, error) { return 0, errBroken }

func isBroken(err error) error {
	if errors.Is(err, errBroken) {
		return nil
	}
	return fmt.Errorf("it has ended with %w, want what was broken", notNil(err))
}

func (l *leaks) watch(ctx context.Context, c *client.Client, target *sluicev1.WatchTarget) error {
	w := c.Watch(client.WatchRequest{Cluster: upstream, Target: target})
	defer w.Close()
	_, err := w.Next(ctx)
	return err
}

func (l *leaks) log(ctx context.Context, pod, container string) error {
	log := l.alice.Logs(logOf(pod, container))
	defer log.Close()
	_, err := log.Next(ctx)
	return err
}

func (l *leaks) exec(ctx context.Context, c *client.Client, target *sluicev1.ExecTarget, streams client.Streams) error {
	return c.Exec(ctx, client.ExecRequest{Cluster: upstream, Target: target, Streams: streams})
}

func (l *leaks) attach(ctx context.Context, container string, stdout io.Writer) error {
	return l.alice.Attach(ctx, client.AttachRequest{
		Cluster: upstream, Target: &sluicev1.AttachTarget{Namespace: kube.Namespace, Pod: "leaks-talker", Container: container},
		Streams: client.Streams{Stdout: stdout},
	})
}

// visit is a guest with a TCP connection of its own.
func (l *leaks) visit(ctx context.Context, random *rand.Rand, do func(context.Context, *guest) error) error {
	f, err := l.alice.PortForward(ctx, portOf("leaks-web", webPort))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // what it has not done itself
	if err := bound(ctx, f); err != nil {
		return err
	}
	return do(ctx, &guest{conn: f, key: random.Int64N(1 << 62), size: 1 + logUniform(random, 10_000)})
}

const refusedUpstream = sluicev1.Reason_REASON_UPSTREAM_REFUSED

// mishaps are how channels end, by kind.
var mishaps = []mishap{
	{"watch of what does not exist", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.watch(ctx, l.alice, &sluicev1.WatchTarget{Version: "v1", Resource: kube.UnknownResource}), refusedUpstream, codes.NotFound)
	}},
	{"watch of what is not allowed", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.watch(ctx, l.viewer, &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps"}), refusedUpstream, codes.PermissionDenied)
	}},
	{"watch that is left", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return l.watch(ctx, l.alice, pods(kube.Namespace))
	}},
	{"watch of nothing", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.watch(ctx, l.alice, &sluicev1.WatchTarget{}), sluicev1.Reason_REASON_INVALID_TARGET, codes.InvalidArgument)
	}},
	{"log of no pod", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.log(ctx, "leaks-nobody", "main"), refusedUpstream, codes.NotFound)
	}},
	{"log of no container", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.log(ctx, "leaks-talker", "nobody"), refusedUpstream, codes.InvalidArgument)
	}},
	{"log that is left", func(ctx context.Context, l *leaks, _ *rand.Rand) error { return l.log(ctx, "leaks-talker", "main") }},
	{"exec in no pod", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.exec(ctx, l.alice, l.execIn("leaks-nobody", "echo"), client.Streams{Stdout: io.Discard}), refusedUpstream, codes.NotFound)
	}},
	{"exec that is not allowed", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.exec(ctx, l.viewer, l.execIn("leaks", "echo"), client.Streams{Stdout: io.Discard}), refusedUpstream, codes.PermissionDenied)
	}},
	{"exec of no program", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		target := l.execIn("leaks", "echo")
		target.Command[0] = "no-such-program"
		return endsWith(l.exec(ctx, l.alice, target, client.Streams{Stdout: io.Discard}), refusedUpstream, codes.Internal)
	}},
	{"exec that fails", func(ctx context.Context, l *leaks, random *rand.Rand) error {
		exit, out := 1+random.Int64N(255), seeded.NewChecker(1)
		return errors.Join(exitIs(l.exec(ctx, l.alice, l.execIn("leaks", "pour", 1, 1000, 0, 0, exit, 0), client.Streams{Stdout: out}), exit), out.Whole(1000))
	}},
	{"exec that is left", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stdin, keys := io.Pipe() // a shell does not end before its input
		err := leaves(l.exec(ctx, l.alice, l.execIn("leaks", "shell", 1), client.Streams{Stdin: stdin, Stdout: &leaving{1, cancel}}))
		return errors.Join(err, keys.Close())
	}},
	{"exec that is left in the middle of its input", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		in := io.TeeReader(seeded.NewReader(3, math.MaxInt64), &leaving{40_000, cancel})
		return leaves(l.exec(ctx, l.alice, l.execIn("leaks", "swallow"), client.Streams{Stdin: in, Stdout: io.Discard}))
	}},
	{"exec whose input breaks", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return isBroken(l.exec(ctx, l.alice, l.execIn("leaks", "swallow"), client.Streams{Stdin: broken{}, Stdout: io.Discard}))
	}},
	{"exec whose output breaks", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return isBroken(l.exec(ctx, l.alice, l.execIn("leaks", "pour", 4, 60_000, 0, 0, 0, 100_000), client.Streams{Stdout: broken{}}))
	}},
	{"exec of nothing", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.exec(ctx, l.alice, &sluicev1.ExecTarget{}, client.Streams{Stdout: io.Discard}), sluicev1.Reason_REASON_INVALID_TARGET, codes.InvalidArgument)
	}},
	{"attach to no container", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		return endsWith(l.attach(ctx, "nobody", io.Discard), refusedUpstream, codes.InvalidArgument)
	}},
	{"attach that is left", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return leaves(l.attach(ctx, "main", &leaving{1, cancel}))
	}},
	{"forward to no pod", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		_, err := l.alice.PortForward(ctx, portOf("leaks-nobody", webPort))
		return endsWith(err, refusedUpstream, codes.NotFound)
	}},
	{"forward to a port that nobody serves", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		f, err := l.alice.PortForward(ctx, portOf("leaks-web", refusedPort))
		if err == nil {
			defer f.Reset()
			_, err = f.Read(make([]byte, 1))
		}
		return isResetError(err)
	}},
	{"forward that ends", func(ctx context.Context, l *leaks, random *rand.Rand) error {
		return l.visit(ctx, random, echoesAndHalfCloses)
	}},
	{"forward that is reset by the client", func(ctx context.Context, l *leaks, random *rand.Rand) error {
		return l.visit(ctx, random, resetsInTheMiddle)
	}},
	{"forward that is reset by the pod", func(ctx context.Context, l *leaks, random *rand.Rand) error { return l.visit(ctx, random, isReset) }},
	{"forward whose request is cancelled", func(ctx context.Context, l *leaks, random *rand.Rand) error {
		return l.visit(ctx, random, cancelsARequest)
	}},
	{"another cluster", func(ctx context.Context, l *leaks, _ *rand.Rand) error {
		err := l.alice.Exec(ctx, client.ExecRequest{Cluster: "nowhere", Target: l.execIn("leaks", "echo"), Streams: client.Streams{Stdout: &bytes.Buffer{}}})
		return endsWith(err, sluicev1.Reason_REASON_UNKNOWN_CLUSTER, codes.NotFound)
	}},
}
