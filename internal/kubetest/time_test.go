package kubetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose conns are in memory, so that time can stand still.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { close(p.closed); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// bubble starts a server and a function that watches config maps over HTTP
// there, all of it in the test's own time.
func bubble(t *testing.T, o Options) (*Server, func(query string) *bufio.Scanner) {
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	p := &pipes{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: s}
	served := make(chan error, 1)
	go func() { served <- server.Serve(p) }()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		select {
		case p.conns <- theirs:
			return ours, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() {
		cancel()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s, func(query string) *bufio.Scanner {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x"+configMaps+"?watch=1&"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return bufio.NewScanner(resp.Body)
	}
}

func TestBookmarksComeInTime(t *testing.T) {
	for interval, want := range map[time.Duration]time.Duration{0: time.Minute, 7 * time.Second: 7 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, watch := bubble(t, Options{BookmarkInterval: interval})
			lines := watch(fmt.Sprintf("allowWatchBookmarks=1&resourceVersion=%d", s.Version()))
			for range 3 {
				began := time.Now()
				if _, err := s.Apply(namespace("n" + fmt.Sprint(began.Unix()))); err != nil { // another kind
					t.Fatal(err)
				}
				lines.Scan()
				e := decodeEvent(t, lines.Bytes())
				if e.Type != "BOOKMARK" || e.version() != fmt.Sprint(s.Version()) || len(e.Object) != 3 || len(e.Object.metadata()) != 1 {
					t.Errorf("%v at version %d", e, s.Version())
				}
				if took := time.Since(began); took != want {
					t.Errorf("after %v, want %v", took, want)
				}
			}
		})
	}
}

func TestWatchesWithoutBookmarksGetNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, watch := bubble(t, Options{})
		lines := watch(fmt.Sprintf("timeoutSeconds=600&resourceVersion=%d", s.Version()))
		began := time.Now()
		if lines.Scan() {
			t.Errorf("%q", lines.Text())
		}
		if took := time.Since(began); took != 600*time.Second || lines.Err() != nil {
			t.Errorf("ended after %v with %v", took, lines.Err())
		}
	})
}

func TestLastBookmarkComesBeforeTheTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, watch := bubble(t, Options{})
		lines := watch(fmt.Sprintf("allowWatchBookmarks=1&timeoutSeconds=30&resourceVersion=%d", s.Version()))
		began := time.Now()
		if !lines.Scan() || decodeEvent(t, lines.Bytes()).Type != "BOOKMARK" || time.Since(began) != 28*time.Second {
			t.Errorf("%q after %v", lines.Text(), time.Since(began))
		}
		if lines.Scan() || time.Since(began) != 30*time.Second {
			t.Errorf("%q after %v", lines.Text(), time.Since(began))
		}
	})
}

func TestWatchesHaveATimeoutOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, watch := bubble(t, Options{})
		lines := watch(fmt.Sprintf("resourceVersion=%d", s.Version()))
		began := time.Now()
		if lines.Scan() || time.Since(began) < 30*time.Minute || time.Since(began) > time.Hour {
			t.Errorf("%q after %v", lines.Text(), time.Since(began))
		}
	})
}

func TestWatchWaitsForAFutureVersionWithoutBookmarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, watch := bubble(t, Options{})
		lines := watch(fmt.Sprintf("allowWatchBookmarks=1&timeoutSeconds=300&resourceVersion=%d", s.Version()+1))
		if lines.Scan() {
			t.Errorf("%q", lines.Text())
		}
	})
}

// demoLog is the pods' history of a demo that ran for a while, and when each change came.
type demoLog struct {
	changes []string
	times   []time.Duration
	most    map[string]int // objects of a kind there were at once
}

func runDemo(t *testing.T, seed uint64, length time.Duration) demoLog {
	s, err := New(Options{WatchQueue: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, _, _, err := s.store.watch(s.kind("", "pods"), watchStart{}, func() { t.Error("overrun") })
	if err != nil {
		t.Fatal(err)
	}
	defer s.store.unwatch(w)
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- Demo{Seed: seed}.Run(ctx, s) }()
	log, began := demoLog{most: map[string]int{}}, time.Now()
	for {
		select {
		case <-w.wake:
			batch, _ := w.take()
			for _, c := range batch {
				event, object, err := (&selector{}).event(c)
				if err != nil {
					t.Fatal(err)
				}
				log.changes = append(log.changes, event+string(object))
				log.times = append(log.times, time.Since(began))
			}
			for _, k := range s.catalog.kinds {
				objects, _, _ := s.store.snapshot(k, 0)
				log.most[k.Resource] = max(log.most[k.Resource], len(objects))
			}
		case err := <-done:
			if err != nil {
				t.Errorf("the demo: %v", err)
			}
			return log
		}
	}
}

func TestDemoIsLivelyAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := runDemo(t, 1, time.Hour)
		for i := 1; i < len(log.times); i++ {
			if pause := log.times[i] - log.times[i-1]; pause > 2*time.Second {
				t.Fatalf("%v without a change, before %s", pause, log.changes[i])
			}
		}
		all := strings.Join(log.changes, "\n")
		for _, sign := range []string{
			`"phase":"Pending"`, `"phase":"Running"`, `"phase":"Succeeded"`, `"restartCount":2`, `"reason":"CrashLoopBackOff"`,
			`"reason":"ContainerCreating"`, `"deletionTimestamp":"`, "DELETED{", `"kind":"ReplicaSet"`, `"namespace":"kube-system"`,
		} {
			if !strings.Contains(all, sign) {
				t.Errorf("in %d changes no %s", len(log.changes), sign)
			}
		}
		for resource, bound := range map[string]int{"pods": 32, "events": 61, "deployments": 8, "configmaps": 1, "namespaces": 5} {
			if log.most[resource] > bound || log.most[resource] == 0 {
				t.Errorf("%d %s, want at most %d", log.most[resource], resource, bound)
			}
		}
	})
}

func TestDemoIsTheSameForASeed(t *testing.T) {
	stories := map[string]bool{}
	for _, seed := range []uint64{7, 7, 8} {
		synctest.Test(t, func(t *testing.T) {
			stories[strings.Join(runDemo(t, seed, 10*time.Minute).changes, "\n")] = true
		})
	}
	if len(stories) != 2 {
		t.Errorf("%d stories of two seeds", len(stories))
	}
}

func TestDemoSurvivesInterference(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- RunDemo(ctx, s) }()
		for range 100 {
			<-time.After(10 * time.Second)
			for _, resource := range []string{"pods", "events", "deployments"} {
				objects, _, _ := s.store.snapshot(s.kind(map[string]string{"deployments": "apps"}[resource], resource), 0)
				for _, r := range objects {
					if err := s.Delete(r.kind.Group, resource, r.namespace, r.name); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Deployments' counts are those of their pods at every moment.
func TestDemoDeploymentsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		st := newStage(s, 3)
		if err := st.populate(); err != nil {
			t.Fatal(err)
		}
		before := map[string]int{}
		for range 2000 {
			if err := st.step(); err != nil {
				t.Fatal(err)
			}
			counts, want := map[string]string{}, map[string]string{}
			deployments, _, _ := s.store.snapshot(s.kind("apps", "deployments"), 0)
			for _, d := range deployments {
				ready, _ := d.object.text([]string{"status", "readyReplicas"})
				counts[d.path] = ready
				want[d.path] = fmt.Sprint(readyPods(s, d.namespace, d.name))
				total, replicas := number(t, d, "status", "replicas"), number(t, d, "spec", "replicas")
				if total > before[d.path] && total > replicas+1 {
					t.Errorf("%s grew to %d pods, wants %d", d.path, total, replicas)
				}
				before[d.path] = total
			}
			if !maps.Equal(counts, want) {
				t.Fatalf("deployments say %v, pods %v", counts, want)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func number(t *testing.T, r *revision, path ...string) int {
	text, ok := r.object.text(path)
	n, err := strconv.Atoi(text)
	if !ok || err != nil {
		t.Fatalf("%s has no %v: %v", r.path, path, err)
	}
	return n
}

func readyPods(s *Server, namespace, app string) (n int) {
	pods, _, _ := s.store.snapshot(s.kind("", "pods"), 0)
	for _, p := range pods {
		if p.namespace == namespace && p.labels["app"] == app && strings.Contains(string(p.encoded), `"ready":true`) {
			n++
		}
	}
	return n
}
