package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/e2e/seeded"
	"github.com/sluice-gateway/sluice/test/kube"
	"github.com/sluice-gateway/sluice/test/rig"
)

// grounds are what streams are tested on: a setup whose cluster has a node, and the program that runs in its containers.
type grounds struct {
	*setup
	node    *kube.Node
	program string
}

func newGrounds(t *testing.T, change ...func(*rig.Options)) *grounds {
	t.Helper()
	s := newSetup(t, change...)
	_, node := kube.SharedNode(t)
	return &grounds{setup: s, node: node, program: buildContainer(t)}
}

// buildContainer builds the program that runs in containers. It is not built for the race detector: what is tested is on our side.
func buildContainer(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "container")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/sluice-gateway/sluice/test/e2e/container")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build what runs in containers: %v\n%s", err, out)
	}
	return binary
}

// run runs a pod for as long as the test does.
func (g *grounds) run(p kube.Pod) {
	g.t.Helper()
	runPod(g.t, g.cluster, p)
}

func runPod(t *testing.T, c *kube.Cluster, p kube.Pod) {
	t.Helper()
	p.Namespace = kube.Namespace
	if err := c.RunPod(within(t, time.Minute), p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.DeletePod(ctx, p.Namespace, p.Name); err != nil {
			t.Error(err)
		}
	})
}

// idle runs a pod in which commands can be executed.
func (g *grounds) idle(name string) {
	g.t.Helper()
	g.run(kube.Pod{Name: name, Containers: []kube.Container{{Name: "main"}}})
}

// webPort is where a pod of serve serves, and refusedPort where it does not.
const (
	webPort     = 80
	refusedPort = 81
)

// serve runs a pod with the server of HTTP, and returns when it serves.
func (g *grounds) serve(name string) {
	g.t.Helper()
	serveIn(g.t, g.cluster, g.program, name)
}

func serveIn(t *testing.T, c *kube.Cluster, program, name string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // to find a port that is free
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	runPod(t, c, kube.Pod{
		Name: name, Ports: map[int]string{webPort: addr},
		Containers: []kube.Container{{Name: "main", Command: []string{program, "serve", addr}}},
	})
	limit := within(t, time.Minute)
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close() // nobody waits for it
			return
		}
		if late := pause(limit, 10*time.Millisecond); late != nil {
			t.Fatalf("wait for the server of pod %s: %v", name, errors.Join(late, err))
		}
	}
}

// execIn names a command of the program in a pod; numbers are its arguments.
func (g *grounds) execIn(pod, command string, arguments ...int64) *sluicev1.ExecTarget {
	return execOf(g.program, pod, command, arguments...)
}

func execOf(program, pod, command string, arguments ...int64) *sluicev1.ExecTarget {
	t := &sluicev1.ExecTarget{Namespace: kube.Namespace, Pod: pod, Container: "main", Command: []string{program, command}}
	for _, a := range arguments {
		t.Command = append(t.Command, strconv.FormatInt(a, 10))
	}
	return t
}

// portOf names a port of a pod.
func portOf(pod string, port uint32) client.PortForwardRequest {
	return client.PortForwardRequest{
		Cluster: upstream, Target: &sluicev1.PortForwardTarget{Namespace: kube.Namespace, Pod: pod, Port: port},
	}
}

// logOf follows the log of a container.
func logOf(pod, container string) client.LogsRequest {
	return client.LogsRequest{
		Cluster: upstream, Target: &sluicev1.LogTarget{Namespace: kube.Namespace, Pod: pod, Container: container, Follow: true},
	}
}

// logUniform is a number up to most of which each order of magnitude is as likely as another, and 0 too.
func logUniform(random *rand.Rand, most int64) int64 {
	return int64(math.Exp(random.Float64()*math.Log(float64(most)+1))) - 1
}

// crowd runs do for each number below n, so many at a time, and returns everything that failed; but ten at the most.
func crowd(n, atOnce int, do func(i int) error) error {
	var mu sync.Mutex
	var failed []error
	next := make(chan int)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					mu.Lock()
					failed = append(failed, fmt.Errorf("number %d: %w", i, err))
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	return errors.Join(failed[:min(len(failed), 10)]...)
}

// progress returns what is called for each of n things that are done, by whomever: now and then it logs how many that were.
func progress(t *testing.T, n int, things string) (done func()) {
	const seldom = 30 * time.Second
	var mu sync.Mutex
	so, begin := 0, time.Now()
	next := begin.Add(seldom)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		so++
		if now := time.Now(); now.After(next) {
			next = now.Add(seldom)
			t.Logf("%d of %d %s after %v", so, n, things, now.Sub(begin).Round(time.Second))
		}
	}
}

// twisted is a checker of what an echo answers to a stream.
func twisted(key, with uint64) *seeded.Checker {
	c := seeded.NewChecker(key)
	c.Twist = with
	return c
}

// paced is a Reader with a pause before each piece, until ctx ends; then it has ended, without an error.
type paced struct {
	from  io.Reader
	every time.Duration
	most  int // bytes of a piece
	ctx   context.Context
	count int64
}

// Read implements io.Reader.
func (p *paced) Read(b []byte) (int, error) {
	if pause(p.ctx, p.every) != nil {
		return 0, io.EOF
	}
	n, err := p.from.Read(b[:min(len(b), p.most)])
	p.count += int64(n)
	return n, err
}

// tunnel makes a TCP connection to the server of HTTP one that echoes, transformed, and returns where to read that.
func tunnel(conn io.ReadWriter, key int64) (*bufio.Reader, error) {
	if _, err := fmt.Fprintf(conn, "POST /tunnel?key=%d HTTP/1.1\r\nHost: pod\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n", key); err != nil {
		return nil, err
	}
	back := bufio.NewReader(conn)
	res, err := http.ReadResponse(back, nil)
	if err != nil {
		return nil, err
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("the server says %s, %w", res.Status, notNil(err))
	}
	return back, nil
}

// awaitSeries waits until a series of the gateway's metrics has a value.
func (g *grounds) awaitSeries(series, want string) {
	g.t.Helper()
	limit := within(g.t, time.Minute)
	for {
		_, text := g.Admin("/metrics")
		if strings.Contains(text, "\n"+series+" "+want+"\n") {
			return
		}
		if err := pause(limit, 20*time.Millisecond); err != nil {
			g.t.Fatalf("wait for %s %s: %v in\n%s", series, want, err, text)
		}
	}
}
