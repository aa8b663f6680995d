package bridge

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// written is a change as it was made at the API server.
type written struct {
	event, name string
	version     uint64
}

// oracle makes random changes, faults and stalls, and checks what a client hears against the changes.
type oracle struct {
	tb        testing.TB
	story     story
	cluster   *testCluster
	opts      Options
	namespace string
	pause     func(time.Duration) // nil where time is real
	patience  time.Duration

	history []written
	living  map[string]bool
	excused bool // a resync may have been called for
}

// story is what happens, drawn beforehand.
type story struct {
	Before    []step // changes before the watch
	ListFirst bool   // nothing happens before the list is complete
	Steps     []step
	Cursors   []int // where to open again
}

// step is one thing that happens: what, and three numbers for how.
type step struct{ What, A, B, C int }

func stories() *rapid.Generator[story] {
	number := rapid.IntRange(0, 1<<16)
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.IntRange(0, 12).Draw(t, "what"), number.Draw(t, "a"), number.Draw(t, "b"), number.Draw(t, "c")}
	}), 0, 40)
	return rapid.Custom(func(t *rapid.T) story {
		before := steps.Draw(t, "before")
		return story{
			Before: before[:min(5, len(before))], ListFirst: rapid.Bool().Draw(t, "list first"), Steps: steps.Draw(t, "steps"),
			Cursors: rapid.SliceOfN(number, 0, 3).Draw(t, "cursors"),
		}
	})
}

// broken is the panic of a story that did not go as it must.
type broken struct{ error }

func (o *oracle) fatalf(format string, args ...any) { panic(broken{fmt.Errorf(format, args...)}) }

func (o *oracle) must(err error) {
	if err != nil {
		panic(broken{err})
	}
}

// run lets the story happen, brings it to its end, and opens the watch again at some of the cursors.
func (o *oracle) run() (err error) {
	defer func() {
		if b, ok := recover().(broken); ok {
			err = b.error
		}
	}()
	o.living = map[string]bool{}
	defer o.cluster.Faults.Clear()
	for _, s := range o.story.Before {
		o.change(s)
	}
	target := &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps", Namespace: o.namespace}
	r := start(o.tb, o.cluster.up, openOf(target, ""), newTestChannel(o.tb, ""), o.opts)
	defer r.halt()
	if o.story.ListFirst {
		o.await(r, func() bool { return !r.listing })
	} else {
		o.excused = true // a list that is broken off is announced when it begins again
	}
	for _, s := range o.story.Steps {
		o.step(r, s)
	}
	o.cluster.Faults.Clear()
	r.hold(false)
	o.settle(r)
	o.check(r.told(), 0, true)
	if n := len(r.states(resyncBegin)); n > 0 && !o.excused {
		o.fatalf("%d resyncs without a 410", n)
	}
	cursors := cursorsOf(r.told())
	for _, n := range o.story.Cursors {
		o.reopen(target, cursors[n%len(cursors)])
	}
	return nil
}

// settle waits until the client has heard the last change, and ends the watch.
func (o *oracle) settle(r *running) {
	last := o.put("end", 10)
	o.await(r, func() bool { return heardAll(r.log, last) })
	r.halt()
}

func (o *oracle) await(r *running, ok func() bool) {
	ctx, cancel := context.WithTimeout(context.Background(), o.patience)
	defer cancel()
	if err := r.await(ctx, ok); err != nil {
		o.fatalf("%w; the client heard %s", err, summary(r.told()))
	}
}

// heardAll reports whether a client is at the last change: by an event, or by a list that is complete.
func heardAll(log []told, last written) bool {
	listed := false
	for _, l := range slices.Backward(log) {
		switch x := l; {
		case x.state.GetKind() == resyncEnd:
			listed = true
		case x.event != nil && x.event.Name == last.name && x.event.Version == fmt.Sprint(last.version):
			return !x.event.Listed || listed
		}
	}
	return false
}

// step is one thing that happens.
func (o *oracle) step(r *running, s step) {
	switch s.What {
	case 0:
		o.cluster.EndWatches()
	case 1:
		o.cluster.ResetWatches()
	case 2:
		o.trouble(s)
	case 3:
		o.cluster.Compact(o.cluster.Version() - min(o.cluster.Version(), uint64(s.A%4)))
		o.excused = true
	case 4:
		r.hold(true)
	case 5:
		r.hold(false)
	case 6:
		r.consume(s.A)
	case 7:
		if o.pause != nil {
			o.pause(time.Duration(s.A%20_000) * time.Millisecond)
		}
	default:
		o.change(s)
	}
}

// trouble strikes watches to come.
func (o *oracle) trouble(s step) {
	n := s.A % 4
	actions := []kubetest.Action{
		kubetest.CutAfter(n), kubetest.ResetAfter(n), kubetest.EndAfter(n + 1), kubetest.TooManyRequests(0), kubetest.Fragment(1 + 1000*n),
		kubetest.Respond(500, nil, ""), kubetest.ResetRequest(), kubetest.Pings(),
	}
	o.cluster.Faults.Add(kubetest.Fault{Match: kubetest.Watches, Times: 1 + s.B%3, Action: actions[s.C%len(actions)]})
	if s.B%2 == 0 {
		o.cluster.ResetWatches()
	}
}

func (o *oracle) change(s step) {
	name := []string{"a", "b", "c", "d"}[s.A%4]
	if o.living[name] && s.B%4 == 0 {
		o.delete(name)
		return
	}
	o.put(name, []int{10, 10, 10, 1000, 17_000, 40_000, 150_000}[s.C%7])
}

func (o *oracle) put(name string, size int) written {
	object, err := o.cluster.Apply(kubetest.Object{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": name, "namespace": o.namespace},
		"data": map[string]any{"content": fmt.Sprint(o.cluster.Version(), strings.Repeat("ä", size/2))},
	})
	o.must(err)
	version, err := strconv.ParseUint(object.String("metadata", "resourceVersion"), 10, 64)
	o.must(err)
	w := written{"ADDED", name, version}
	if o.living[name] {
		w.event = "MODIFIED"
	}
	o.living[name] = true
	o.history = append(o.history, w)
	return w
}

func (o *oracle) delete(name string) {
	o.must(o.cluster.Delete("", "configmaps", o.namespace, name))
	delete(o.living, name)
	o.history = append(o.history, written{"DELETED", name, o.cluster.Version()})
}

// check walks along what a client heard: what a list names is what there was at its version; every other event is the next change.
func (o *oracle) check(all []told, at uint64, begin bool) {
	var fresh map[string]uint64
	if begin {
		fresh = map[string]uint64{}
	}
	for i, x := range all {
		switch {
		case x.state.GetKind() == resyncBegin:
			fresh = map[string]uint64{}
		case x.state.GetKind() == resyncEnd:
			at = o.versionOf(x.state.GetCursor())
			if want := o.objectsAt(at); fmt.Sprint(fresh) != fmt.Sprint(want) {
				o.fatalf("%d: the list at %d is %v, want %v", i, at, fresh, want)
			}
			fresh = nil
		case x.event == nil:
		case fresh != nil:
			fresh[x.event.Name] = o.number(x.event.Version)
		default:
			next := o.after(at)
			if got := (written{x.event.Type, x.event.Name, o.number(x.event.Version)}); got != next {
				o.fatalf("%d: after %d heard %v, want %v", i, at, got, next)
			}
			at = next.version
			if x.event.Cursor != "" && o.versionOf(x.event.Cursor) != at {
				o.fatalf("%d: the cursor of %v is at %d", i, next, o.versionOf(x.event.Cursor))
			}
		}
	}
	if last := o.history[len(o.history)-1]; at < last.version || fresh != nil {
		o.fatalf("the client stops at %d, the last change is %v", at, last)
	}
}

// after is the first change beyond a version.
func (o *oracle) after(version uint64) written {
	for _, w := range o.history {
		if w.version > version {
			return w
		}
	}
	return written{}
}

// objectsAt is what there was at a version.
func (o *oracle) objectsAt(version uint64) map[string]uint64 {
	objects := map[string]uint64{}
	for _, w := range o.history {
		switch {
		case w.version > version:
			return objects
		case w.event == "DELETED":
			delete(objects, w.name)
		default:
			objects[w.name] = w.version
		}
	}
	return objects
}

func (o *oracle) number(version string) uint64 {
	n, err := strconv.ParseUint(version, 10, 64)
	o.must(err)
	return n
}

func (o *oracle) versionOf(cursor string) uint64 {
	target := &sluicev1.WatchTarget{Version: "v1", Resource: "configmaps", Namespace: o.namespace}
	version, err := watchCursors(o.cluster.up.Identity(), target).version(cursor)
	o.must(err)
	return o.number(version)
}

func cursorsOf(all []told) (cursors []string) {
	for _, x := range all {
		if c := x.state.GetCursor(); c != "" {
			cursors = append(cursors, c)
		}
		if x.event != nil && x.event.Cursor != "" {
			cursors = append(cursors, x.event.Cursor)
		}
	}
	return cursors
}

// reopen checks that a new channel at a cursor hears exactly the rest.
func (o *oracle) reopen(target *sluicev1.WatchTarget, cursor string) {
	r := start(o.tb, o.cluster.up, openOf(target, cursor), newTestChannel(o.tb, cursor), o.opts)
	defer r.halt()
	o.settle(r)
	o.check(r.told(), o.versionOf(cursor), false)
}

// TestWatchTellsWhatHappened is the oracle in memory, where a stall of ten seconds takes none.
func TestWatchTellsWhatHappened(t *testing.T) {
	for name, options := range map[string]kubetest.Options{"streamed": {}, "in pages": {WithoutWatchList: true}} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				story, err := stories().Draw(rt, "story"), error(nil)
				synctest.Test(t, func(t *testing.T) {
					o := oracle{tb: t, story: story, cluster: inMemory(t, options), namespace: "default", pause: elapse, patience: time.Hour}
					o.opts = Options{PageSize: 2, Abrupt: 1}
					err = o.run()
				})
				if err != nil {
					rt.Fatal(err)
				}
			})
		})
	}
}

// TestWatchTellsWhatHappenedOverSockets is the oracle over TLS, with short times.
func TestWatchTellsWhatHappenedOverSockets(t *testing.T) {
	c, n := overTLS(t, kubetest.Options{}), 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		o := oracle{tb: t, story: stories().Draw(rt, "story"), cluster: c, namespace: fmt.Sprint("n", n), patience: 30 * time.Second}
		o.opts = Options{FirstBackoff: time.Millisecond, LastBackoff: 5 * time.Millisecond, Stall: 20 * time.Millisecond, Abrupt: 1}
		if _, err := c.Apply(kubetest.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": o.namespace}}); err != nil {
			rt.Fatal(err)
		}
		if err := o.run(); err != nil {
			rt.Fatal(err)
		}
	})
}
