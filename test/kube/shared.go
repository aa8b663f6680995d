package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// startTimeout bounds a cluster's start in a test. It leaves room for a cold
// build, though go test's own 10 minutes will not in a package with more to do:
// build the binaries first (go run ./test/kube/cmd/kube build).
const startTimeout = 9 * time.Minute

// shared is the cluster of the running test binary.
var shared struct {
	mu sync.Mutex
	// Guarded by mu.
	options Options
	cluster *Cluster
	err     error
}

// Tests runs the tests of a package and then stops the cluster they shared. It
// is what TestMain hands to goleak, which looks for goroutines after that:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(kube.Tests{M: m}) }
type Tests struct {
	M interface{ Run() int }

	// Options of the shared cluster.
	Options Options
}

// Run implements goleak.TestingM.
func (p Tests) Run() int {
	shared.mu.Lock()
	shared.options = p.Options
	shared.mu.Unlock()
	code := p.M.Run()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster == nil {
		return code
	}
	if err := shared.cluster.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the shared cluster:", err)
		return max(code, 1)
	}
	return code
}

// Shared returns the one cluster of the test binary, which the first call
// starts; TestMain must run [Tests]. A test that kills or expires it must leave
// it ready, and must not run in parallel with others.
//
// Where the binaries have to be built and cannot be ([ErrOffline]), Shared skips
// the test and says so on standard error, except when the variable CI is set:
// there, and on any other error, it fails the test. What the processes log
// during a failed test is shown with it.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.cluster == nil && shared.err == nil {
		shared.cluster, shared.err = startFor(shared.options)
	}
	if shared.err != nil {
		giveUp(t, shared.err)
	}
	shared.cluster.showLogs(t)
	return shared.cluster
}

// SharedNode is [Shared] with the cluster's node, which the first call starts.
// A test that kills the node must start it again.
func SharedNode(t testing.TB) (*Cluster, *Node) {
	t.Helper()
	c := Shared(t)
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	n, err := c.StartNode(ctx)
	if err != nil {
		giveUp(t, err)
	}
	return c, n
}

// New starts a cluster for one test, which stops it at its end; skips, failures
// and logs are as with [Shared].
func New(t testing.TB, options Options) *Cluster {
	t.Helper()
	c, err := startFor(options)
	if err != nil {
		giveUp(t, err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
	})
	c.showLogs(t)
	return c
}

func startFor(options Options) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	return Start(ctx, options)
}

// giveUp ends the test, as [Shared] tells.
func giveUp(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, ErrOffline) || os.Getenv("CI") != "" {
		t.Fatalf("no Kubernetes API server to test with: %v", err)
	}
	fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: NOT TESTED AGAINST A REAL KUBERNETES API SERVER: %v\n\n", t.Name(), err)
	t.Skip(err)
}
