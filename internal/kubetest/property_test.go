package kubetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// world is a store under random writes, with what it must have been at each version.
type world struct {
	*rapid.T
	store   *store
	kind    *Kind
	states  map[uint64]map[string]string // version -> path -> item, as listed
	floor   uint64
	readers []*reader
}

// reader folds the events of one watch.
type reader struct {
	*watcher
	selector selector
	state    map[string]string
	last     uint64
}

func newWorld(t *rapid.T) *world {
	c := newCatalog(nil)
	w := &world{T: t, store: newStore(c, 1<<20, 1<<20), kind: c.resource("", "v1", "configmaps"), states: map[uint64]map[string]string{}}
	for _, name := range []string{"x", "y"} {
		if _, err := w.store.put(c.resource("", "v1", "namespaces"), namespace(name), write{}); err != nil {
			t.Fatal(err)
		}
	}
	w.record()
	return w
}

func (w *world) record() { w.states[w.store.current()] = w.list(&selector{}, 0) }

// list is what the store lists, by path.
func (w *world) list(s *selector, version uint64) map[string]string {
	objects, _, ok := w.store.snapshot(w.kind, version)
	if !ok {
		w.Fatalf("version %d expired above the floor", version)
	}
	if !slices.IsSortedFunc(objects, comparePaths) {
		w.Fatalf("a list out of order")
	}
	out := map[string]string{}
	for _, r := range objects {
		if s.matches(r) {
			out[r.path] = string(r.item)
		}
	}
	return out
}

func (w *world) key() key {
	return key{
		rapid.SampledFrom([]string{"x", "y"}).Draw(w.T, "namespace"),
		rapid.SampledFrom([]string{"a", "b", "c"}).Draw(w.T, "name"),
	}
}

func (w *world) selector() selector {
	s := selector{namespace: rapid.SampledFrom([]string{"", "x"}).Draw(w.T, "in")}
	var err error
	if s.labels, err = parseLabels(rapid.SampledFrom([]string{"", "l=1", "l!=1", "!l", "l in (0,2)"}).Draw(w.T, "labels")); err != nil {
		w.Fatal(err)
	}
	if s.fields, err = parseFields(w.kind, rapid.SampledFrom([]string{"", "metadata.name=a", "metadata.name!=a", "metadata.namespace=y"}).Draw(w.T, "fields")); err != nil {
		w.Fatal(err)
	}
	return s
}

func (w *world) put(*rapid.T) {
	at := w.key()
	m := map[string]any{"name": at.name, "namespace": at.namespace}
	if l := rapid.IntRange(-1, 2).Draw(w.T, "label"); l >= 0 {
		m["labels"] = map[string]any{"l": fmt.Sprint(l)}
	}
	o := Object{"metadata": m, "data": map[string]any{"v": fmt.Sprint(rapid.IntRange(0, 2).Draw(w.T, "value"))}}
	if _, err := w.store.put(w.kind, o, write{}); err != nil {
		w.Fatal(err)
	}
	w.record()
}

func (w *world) delete(*rapid.T) {
	if _, err := w.store.remove(w.kind, w.key(), write{}); err != nil {
		return // There was none.
	}
	w.record()
}

func (w *world) compact(*rapid.T) {
	w.floor = max(w.floor, rapid.Uint64Range(0, w.store.current()).Draw(w.T, "compact"))
	w.store.compact(w.floor)
}

// watch begins with initial objects, or continues a list of some past version.
func (w *world) watch(*rapid.T) {
	s := w.selector()
	r := &reader{selector: s, state: map[string]string{}}
	start := watchStart{scope: s.scope(), initial: rapid.Bool().Draw(w.T, "initial")}
	if !start.initial {
		versions := slices.Sorted(maps.Keys(w.states))
		start.after = rapid.SampledFrom(versions).Draw(w.T, "after")
	}
	watcher, objects, version, err := w.store.watch(w.kind, start, func() { w.Error("overrun") })
	if expired := !start.initial && start.after < w.floor; (err != nil) != expired {
		w.Fatalf("watch from %d above %d: %v", start.after, w.floor, err)
	}
	if err != nil {
		return
	}
	r.watcher, r.last = watcher, start.after
	if start.initial {
		r.last = version
		for _, o := range objects {
			if s.matches(o) {
				r.state[o.path] = string(o.item)
			}
		}
	} else {
		r.state = w.list(&s, start.after)
	}
	w.readers = append(w.readers, r)
}

// read folds what has come for all watches and compares it with a list.
func (w *world) read(*rapid.T) {
	for _, r := range w.readers {
		batch, _ := r.take()
		for _, c := range batch {
			r.fold(w, c)
		}
		if want := w.list(&r.selector, 0); !maps.Equal(r.state, want) {
			w.Fatalf("folded through %+v:\n%v\nlisted:\n%v", r.selector, r.state, want)
		}
	}
}

func (r *reader) fold(w *world, c *change) {
	if c.version <= r.last {
		w.Fatalf("version %d after %d", c.version, r.last)
	}
	r.last = c.version
	kind, data, err := r.selector.event(c)
	if err != nil {
		w.Fatal(err)
	}
	_, had := r.state[c.after.path]
	if want := map[string]bool{"ADDED": false, "MODIFIED": true, "DELETED": true}; kind != "" && want[kind] != had {
		w.Fatalf("%s of %s, which was there: %v", kind, c.after.path, had)
	}
	switch kind {
	case "ADDED", "MODIFIED":
		r.state[c.after.path] = "{" + strings.TrimPrefix(string(data), `{"kind":"ConfigMap","apiVersion":"v1",`)
	case "DELETED":
		delete(r.state, c.after.path)
	}
	if kind != "" && !strings.Contains(string(data), fmt.Sprintf(`"resourceVersion":"%d"`, c.version)) {
		w.Fatalf("%s at %d shows %s", kind, c.version, data)
	}
}

// past lists every version that history reaches as it was listed then.
func (w *world) past(*rapid.T) {
	for version, want := range w.states {
		if version < w.floor {
			if _, _, ok := w.store.snapshot(w.kind, version); ok {
				w.Fatalf("version %d below the floor %d", version, w.floor)
			}
		} else if got := w.list(&selector{}, version); !maps.Equal(got, want) {
			w.Fatalf("version %d: %v, was %v", version, got, want)
		}
	}
}

// The property all watching rests on: the fold of a watch's events equals a
// list, whatever was selected, written and compacted, and wherever it began.
func TestFoldOfEventsEqualsAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		t.Repeat(map[string]func(*rapid.T){
			"put": w.put, "delete": w.delete, "compact": w.compact, "watch": w.watch, "read": w.read, "past": w.past,
		})
		w.read(t)
		w.past(t)
		for _, r := range w.readers {
			w.store.unwatch(r.watcher)
		}
		if n := len(w.store.tables[w.kind].watchers); n != 0 {
			t.Errorf("%d scopes are still watched", n)
		}
	})
}

// Pages put together are the list at the version of the first, whatever is
// written in between.
func TestPagesTogetherAreTheList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 12).Draw(t, "writes") {
			w.put(t)
		}
		s := w.selector()
		want, got := w.list(&s, 0), map[string]string{}
		o := &listOptions{kind: w.kind, selector: s, limit: rapid.IntRange(1, 4).Draw(t, "limit")}
		for {
			p, err := o.page()
			if err != nil {
				t.Fatal(err)
			}
			objects, version, _ := w.store.snapshot(w.kind, p.version)
			items, rest := cutPage(o, p, objects)
			for _, r := range items {
				got[r.path] = string(r.item)
			}
			if len(rest) == 0 {
				break
			}
			o.resume = continueToken{"meta.k8s.io/v1", int64(version), items[len(items)-1].path + "\x00"}.encode()
			w.delete(t)
		}
		if !maps.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}
