package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/e2e/seeded"
	"github.com/sluice-gateway/sluice/test/kube"
)

const (
	// memoryBytes is how much passes through each kind in a run of the tests, and memoryRate how fast it comes, a second.
	memoryBytes = 32 << 20
	memoryRate  = 64 << 20
	// growth is what the gateway's memory may grow by: what a channel holds, twice for the garbage collector (GOGC=100), with what the runtime
	// does not give back at once. It is a small part of what passes.
	growth = 16 << 20
	// stalls is how often a slow reader stops, and for how long.
	stalls = 4
	stall  = 200 * time.Millisecond
)

// slow is a Writer that lets nothing through for a while, again and again; in between it is as fast as what it writes to.
type slow struct {
	to    io.Writer
	ctx   context.Context
	every int64 // bytes from one stall to the next
	count int64
}

func newSlow(ctx context.Context, to io.Writer, size int64) *slow {
	return &slow{to: to, ctx: ctx, every: size / (stalls + 1)}
}

// Write implements io.Writer.
func (s *slow) Write(b []byte) (int, error) {
	n, err := s.to.Write(b)
	before := s.count / s.every
	if s.count += int64(n); err == nil && s.count/s.every > before {
		err = pause(s.ctx, stall)
	}
	return n, err
}

// river is a gateway in a process of its own, through which much passes.
type river struct {
	t       *testing.T
	cluster *kube.Cluster
	gateway *process
	sdk     *client.Client
	program string
	uses    int
}

// TestMuchPassesThroughLittleMemory: of every kind more passes, and faster, than its reader takes; the gateway's memory stays where it was.
func TestMuchPassesThroughLittleMemory(t *testing.T) { muchPasses(t, memoryBytes, memoryBytes/3) }

// muchPasses has size bytes pass through each kind, but through a watch only so many as an API server is written.
func muchPasses(t *testing.T, size, watched int64) {
	c, _ := kube.SharedNode(t)
	r := &river{t: t, cluster: c, gateway: newProcess(t, c), program: buildContainer(t)}
	if err := r.gateway.start(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.sdk, err = client.Dial(client.Config{
		Address: r.gateway.addr, TLS: &tls.Config{RootCAs: r.gateway.roots, MinVersion: tls.VersionTLS12},
		Token: client.StaticToken(c.Token("alice", kube.Streamers)), Name: "test", Window: 1 << 20,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.sdk.Close(); err != nil {
			t.Errorf("close the client: %v", err)
		}
	})
	runPod(t, c, kube.Pod{Name: "memory", Containers: []kube.Container{{Name: "main"}}})
	serveIn(t, c, r.program, "memory-web")
	kinds := []struct {
		name string
		size int64
		pass func(ctx context.Context, size int64) error
	}{
		{"exec, output", size, r.output},
		{"exec, input", size, r.input},
		{"attach", size, r.attached},
		{"logs", size, r.log},
		{"port-forward", size, r.forwarded},
		{"watch", watched, r.watched},
	}
	for _, k := range kinds { // what is there once for all is there afterwards
		if err := k.pass(within(t, 2*time.Minute), 4<<20); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
	}
	for _, k := range kinds {
		before := r.resident("VmRSS", true)
		begin := time.Now()
		if err := k.pass(within(t, 4*time.Minute), k.size); err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
		peak := r.resident("VmHWM", false)
		t.Logf("%s: %d MiB in %v, from %d to %d MiB at the most", k.name, k.size>>20, time.Since(begin).Round(time.Millisecond), before>>20, peak>>20)
		if peak > before+growth {
			t.Errorf("%s: the gateway's memory has grown from %d to %d bytes", k.name, before, peak)
		}
	}
}

// resident is what the gateway's process holds in memory, or held at most since that was forgotten (proc(5), /proc/pid/clear_refs).
func (r *river) resident(field string, forget bool) int64 {
	r.t.Helper()
	dir := fmt.Sprintf("/proc/%d/", r.gateway.running.Process.Pid)
	if forget {
		if err := os.WriteFile(dir+"clear_refs", []byte("5"), 0o200); err != nil {
			r.t.Fatal(err)
		}
	}
	text, err := os.ReadFile(dir + "status")
	if err != nil {
		r.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				r.t.Fatal(err)
			}
			return n << 10
		}
	}
	r.t.Fatalf("no %s in %s", field, text)
	return 0
}

// pod is a name that no pod of this test has had.
func (r *river) pod() string {
	r.uses++
	return fmt.Sprintf("memory-%d", r.uses)
}

func (r *river) output(ctx context.Context, size int64) error {
	const key = 21
	out := seeded.NewChecker(key)
	return errors.Join(r.sdk.Exec(ctx, client.ExecRequest{
		Cluster: upstream, Target: execOf(r.program, "memory", "pour", key, size, 0, 0, 0, memoryRate),
		Streams: client.Streams{Stdout: newSlow(ctx, out, size)},
	}), out.Whole(size))
}

func (r *river) input(ctx context.Context, size int64) error {
	const key = 22
	var said bytes.Buffer
	err := r.sdk.Exec(ctx, client.ExecRequest{
		Cluster: upstream, Target: execOf(r.program, "memory", "swallow", size/(stalls+1)),
		Streams: client.Streams{Stdin: seeded.NewReader(key, size), Stdout: &said},
	})
	if err == nil && !strings.HasPrefix(said.String(), fmt.Sprint(size)+" ") {
		err = fmt.Errorf("the process has read %q", &said)
	}
	return err
}

// attached is told what to pour by the input of the attachment.
func (r *river) attached(ctx context.Context, size int64) error {
	const key = 23
	pod := r.pod()
	runPod(r.t, r.cluster, kube.Pod{
		Name: pod, Restart: "Never", Containers: []kube.Container{{Name: "main", Stdin: true, Command: []string{r.program, "await"}}},
	})
	stdin, keys := io.Pipe()
	var saying sync.WaitGroup
	saying.Go(func() { _, _ = fmt.Fprintf(keys, "%d %d 0 0 0 %d\n", key, size, memoryRate) }) // fails with the attachment
	out := seeded.NewChecker(key)
	err := r.sdk.Attach(ctx, client.AttachRequest{
		Cluster: upstream, Target: &sluicev1.AttachTarget{Namespace: kube.Namespace, Pod: pod},
		Streams: client.Streams{Stdin: stdin, Stdout: newSlow(ctx, out, size)},
	})
	_ = stdin.Close() // never fails
	saying.Wait()
	return errors.Join(err, out.Whole(size))
}

// log reads what a container has printed as fast as it could.
func (r *river) log(ctx context.Context, size int64) error {
	const key, perLine = 24, 236 // bytes, about
	pod := r.pod()
	runPod(r.t, r.cluster, kube.Pod{
		Name: pod, Restart: "Never", Containers: []kube.Container{{Name: "main", Command: []string{r.program, "list", fmt.Sprint(key), fmt.Sprint(size / perLine)}}},
	})
	l := r.sdk.Logs(logOf(pod, "main"))
	defer l.Close()
	lines := seeded.NewLineChecker(key)
	out := newSlow(ctx, lines, size)
	for {
		chunk, err := l.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return lines.Whole()
		case err != nil:
			return err
		case chunk.State != nil:
			return fmt.Errorf("after %d lines: %v", lines.Count(), chunk.State)
		}
		if _, err := out.Write(chunk.Data); err != nil {
			return err
		}
	}
}

func (r *river) forwarded(ctx context.Context, size int64) error {
	const key = 25
	f, err := r.sdk.PortForward(ctx, portOf("memory-web", webPort))
	if err != nil {
		return err
	}
	p := &guest{conn: f, key: key, size: size}
	defer f.Reset()
	if err := bound(ctx, f); err != nil {
		return err
	}
	res, err := p.ask("/bytes", true)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	body := seeded.NewChecker(key)
	_, err = io.Copy(newSlow(ctx, body, size), res.Body)
	return errors.Join(err, body.Whole(size))
}

// watched sees an object of 1 MiB change until so much was said of it.
func (r *river) watched(ctx context.Context, size int64) error {
	maps := r.cluster.Admin().CoreV1().ConfigMaps(kube.Namespace)
	o := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: r.pod()}}
	o, err := maps.Create(ctx, o, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	w := r.sdk.Watch(client.WatchRequest{
		Cluster: upstream, Target: &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps", Namespace: kube.Namespace, Name: o.Name},
	})
	defer w.Close()
	var wrote error
	var writing sync.WaitGroup
	changes := int(size >> 20)
	writing.Go(func() {
		for i := 0; i < changes && wrote == nil; i++ {
			o.Annotations = map[string]string{"change": fmt.Sprint(i + 1)}
			o.Data = map[string]string{"d": large(1<<20, fmt.Sprint(i))}
			o, wrote = maps.Update(ctx, o, metav1.UpdateOptions{})
		}
	})
	defer writing.Wait()
	last := fmt.Appendf(nil, `"change":"%d"`, changes)
	for seen := 0; ; {
		ev, err := w.Next(ctx)
		if err != nil {
			writing.Wait() // who changes the object ends with ctx, or after the last change
			return errors.Join(err, wrote)
		}
		if ev.State != nil {
			continue
		}
		seen++
		if seen%16 == 0 {
			if err := pause(ctx, stall); err != nil {
				return err
			}
		}
		if bytes.Contains(ev.Raw, last) {
			writing.Wait()
			return wrote
		}
	}
}
