package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/sluice-gateway/sluice/test/kube"
)

const shards = 4

// writer changes objects, one at a time, so that the order of its changes is that of the API server. It is owned by one goroutine. All its
// requests mean the same when they are made again: one that the API server's death left without an answer is made until it is answered,
// and has happened once.
type writer struct {
	name    string
	api     rest.Interface
	rand    *rand.Rand
	objects []object
	now     map[object]version
	n       int
	history []change
}

// newWriter makes the namespaces and a writer, called as the first of them, of some objects in each.
func newWriter(t *testing.T, c *kube.Cluster, seed uint64, each int, namespaces ...string) *writer {
	t.Helper()
	w := &writer{name: namespaces[0], api: c.Admin().CoreV1().RESTClient(), rand: rand.New(rand.NewPCG(seed, 1)), now: map[object]version{}}
	for _, ns := range namespaces {
		if err := c.CreateNamespace(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
		for _, resource := range []string{"configmaps", "pods"} {
			for i := range each {
				w.objects = append(w.objects, object{resource, ns, fmt.Sprintf("%s-%d", resource[:1], i)})
			}
		}
	}
	return w
}

// all writes every object once. Each shard has some of each resource and namespace afterwards.
func (w *writer) all(ctx context.Context) error {
	for i, o := range w.objects {
		if err := w.put(ctx, o, i%shards); err != nil {
			return err
		}
	}
	return nil
}

// run makes changes, one each interval, until ctx ends; what it began then it completes within grace.
func (w *writer) run(ctx, grace context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		if err := w.change(grace); err != nil {
			return err
		}
	}
}

// change makes one random change.
func (w *writer) change(ctx context.Context) error {
	o := w.objects[w.rand.IntN(len(w.objects))]
	was := w.now[o]
	switch dice := w.rand.IntN(10); {
	case was.n == 0 || dice == 0:
		return w.put(ctx, o, w.rand.IntN(shards))
	case dice == 1:
		return w.remove(ctx, o)
	default:
		return w.put(ctx, o, was.shard)
	}
}

// put creates or changes an object.
func (w *writer) put(ctx context.Context, o object, shard int) error {
	w.n++
	v := version{w.n, shard}
	m := w.manifest(o, v)
	if w.now[o].n > 0 {
		delete(m, "spec") // of a pod, which cannot be changed
	}
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return w.write(ctx, change{o, w.now[o], v}, func() error {
		if w.now[o].n > 0 {
			return w.api.Patch(types.MergePatchType).Namespace(o.namespace).Resource(o.resource).Name(o.name).Body(body).Do(ctx).Error()
		}
		err := w.api.Post().Namespace(o.namespace).Resource(o.resource).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
		if apierrors.IsAlreadyExists(err) { // by an attempt whose answer was lost
			return nil
		}
		return err
	})
}

func (w *writer) remove(ctx context.Context, o object) error {
	return w.write(ctx, change{o, w.now[o], version{}}, func() error {
		err := w.api.Delete().Namespace(o.namespace).Resource(o.resource).Name(o.name).Param("gracePeriodSeconds", "0").Do(ctx).Error()
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// write makes a change until the API server has taken it.
func (w *writer) write(ctx context.Context, c change, attempt func() error) error {
	for {
		err := attempt()
		if err == nil {
			break
		}
		if wait := pause(ctx, 50*time.Millisecond); wait != nil {
			return fmt.Errorf("write %v: %w", c, errors.Join(wait, err))
		}
	}
	if c.after.n == 0 && c.resource == "pods" { // the API server marks a pod before it removes it
		w.history = append(w.history, change{c.object, c.before, c.before})
	}
	w.now[c.object] = c.after
	if c.after.n == 0 {
		delete(w.now, c.object)
	}
	w.history = append(w.history, c)
	return nil
}

// manifest is an object as it is written.
func (w *writer) manifest(o object, v version) map[string]any {
	m := map[string]any{
		"apiVersion": "v1", "kind": map[string]string{"pods": "Pod", "configmaps": "ConfigMap"}[o.resource],
		"metadata": map[string]any{
			"name": o.name, "labels": map[string]string{writtenBy: w.name, "shard": strconv.Itoa(v.shard)},
			"annotations": map[string]string{"n": strconv.Itoa(v.n), "blob": blob(v.n)},
		},
	}
	if o.resource == "pods" {
		m["spec"] = map[string]any{"containers": []any{map[string]any{"name": "main", "image": "none"}}}
	}
	return m
}

// blob is the text that change n brings: mostly short, at times longer than a window.
func blob(n int) string {
	size := n * 7919 % 512
	if n%37 == 0 {
		size = 60<<10 + n*7919%(60<<10)
	}
	return strings.Repeat("sluice ä€😀 "+strconv.Itoa(n)+" ", 1+size/20)
}

// read takes the event out of what the API server or a watch says of an object, which must be whole.
func read(kind, resource string, raw []byte) (event, error) {
	var o struct {
		Metadata struct {
			Name, Namespace string
			Annotations     map[string]string
		}
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return event{}, err
	}
	n, err := strconv.Atoi(o.Metadata.Annotations["n"])
	if err != nil {
		return event{}, fmt.Errorf("an object that nobody wrote: %.300s", raw)
	}
	if o.Metadata.Annotations["blob"] != blob(n) {
		return event{}, fmt.Errorf("change %d of %s/%s is not as it was written: %.300s", n, o.Metadata.Namespace, o.Metadata.Name, raw)
	}
	return event{kind, object{resource, o.Metadata.Namespace, o.Metadata.Name}, n}, nil
}

// expected is what a watch must know in the end.
func (w *writer) expected(s selection) state {
	out := state{}
	for o, v := range w.now {
		if s.selects(o, v) {
			out[o] = v.n
		}
	}
	return out
}

// checkList fails unless the API server lists what the writer believes that there is.
func (w *writer) checkList(ctx context.Context, s selection, want state) error {
	raw, err := w.api.Get().Namespace(s.namespace).Resource(s.resource).Param("labelSelector", s.labels()).Do(ctx).Raw()
	if err != nil {
		return err
	}
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	got := state{}
	for _, item := range list.Items {
		e, err := read("ADDED", s.resource, item)
		if err != nil {
			return err
		}
		got[e.object] = e.n
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("%v: the API server lists %v, want %v", s, got, want)
	}
	return nil
}
