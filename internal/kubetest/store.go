package kubetest

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// key names an object within its kind; namespace is empty for a cluster-wide kind.
type key struct{ namespace, name string }

func (k key) String() string {
	if k.namespace == "" {
		return k.name
	}
	return k.namespace + "/" + k.name
}

func comparePaths(a, b *revision) int { return strings.Compare(a.path, b.path) }

// change is one write. Immutable.
type change struct {
	version uint64
	before  *revision // nil when the object was created
	after   *revision // when deleted, the last state at the deletion's version
	deleted bool
}

func (c *change) size() int { return len(c.after.encoded) }

// table holds one kind: its objects, the changes that led to them as far back
// as the history reaches, and who watches. Guarded by store.mu.
type table struct {
	kind     *Kind
	objects  map[key]*revision
	history  []*change // in order of version
	bytes    int       // sum of the history's sizes
	floor    uint64    // version of the newest change that history lacks
	watchers map[key]map[*watcher]struct{}
}

// historyBytes bounds a kind's history beside the number of its changes, so
// that a few giant objects written over and over cannot fill the memory. The
// newest change is always kept.
const historyBytes = 64 << 20

// store is the state of the server, of which every change has a version of
// its own, larger than any before. Safe for concurrent use.
type store struct {
	catalog *catalog
	history int // changes kept per kind
	queue   int // changes that may wait for a watcher

	mu      sync.RWMutex
	version uint64
	tables  map[*Kind]*table
}

func newStore(c *catalog, history, queue int) *store {
	s := &store{catalog: c, history: history, queue: queue, tables: map[*Kind]*table{}}
	for _, k := range c.kinds {
		s.tables[k] = &table{kind: k, objects: map[key]*revision{}, watchers: map[key]map[*watcher]struct{}{}}
	}
	return s
}

// current is the version of the newest change of any kind.
func (s *store) current() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version
}

func (s *store) get(k *Kind, at key) (*revision, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if r := s.tables[k].objects[at]; r != nil {
		return r, nil
	}
	return nil, notFound(k, at.name)
}

// snapshot is all objects of a kind in order of their keys as they were at
// version, or now if that is 0, and the version it shows. It reports false when
// the history does not reach back that far.
func (s *store) snapshot(k *Kind, version uint64) ([]*revision, uint64, bool) {
	s.mu.RLock()
	objects, at, ok := s.tables[k].at(version, s.version)
	s.mu.RUnlock()
	slices.SortFunc(objects, comparePaths)
	return objects, at, ok
}

func (t *table) at(version, current uint64) ([]*revision, uint64, bool) {
	if version == 0 {
		version = current
	}
	if version < t.floor {
		return nil, version, false
	}
	undone := map[key]*revision{}
	for _, c := range slices.Backward(t.history) {
		if c.version <= version {
			break
		}
		undone[c.after.key()] = c.before
	}
	out := make([]*revision, 0, len(t.objects))
	for k, r := range t.objects {
		if _, changed := undone[k]; !changed {
			out = append(out, r)
		}
	}
	for _, r := range undone {
		if r != nil {
			out = append(out, r)
		}
	}
	return out, version, true
}

// write is a precondition of a put and what it does about an existing object.
type write struct {
	mustExist    bool
	mustNotExist bool
	version      string // the resourceVersion that must be there; "" for any
	uid          string // the uid that must be there; "" for any
}

func (w write) check(k *Kind, name string, existing *revision) *Status {
	switch {
	case existing == nil && w.mustExist:
		return notFound(k, name)
	case existing == nil:
		return nil
	case w.mustNotExist:
		return alreadyExists(k, name)
	case w.version != "" && w.version != fmt.Sprint(existing.version), w.uid != "" && w.uid != existing.uid:
		return conflict(k, name)
	}
	return nil
}

// put stores o, which it takes over, and returns what is stored then. A write
// that changes nothing leaves the version alone, as the API server does.
func (s *store) put(k *Kind, o Object, w write) (*revision, error) {
	at := key{o.String("metadata", "namespace"), o.String("metadata", "name")}
	s.mu.Lock()
	defer s.mu.Unlock()
	existing := s.tables[k].objects[at]
	if err := s.admit(k, at, existing, w); err != nil {
		return nil, err
	}
	complete(o, existing)
	if existing != nil && existing.equals(o) {
		return existing, nil
	}
	r, err := newRevision(k, o, s.version+1)
	if err != nil {
		return nil, err
	}
	s.commit(k, &change{version: r.version, before: existing, after: r})
	return r, nil
}

// admit refuses what the API server would refuse whatever the object says.
func (s *store) admit(k *Kind, at key, existing *revision, w write) error {
	if status := w.check(k, at.name, existing); status != nil {
		return status
	}
	if !k.Namespaced || existing != nil {
		return nil
	}
	namespaces := s.catalog.resource("", "v1", "namespaces")
	if s.tables[namespaces].objects[key{name: at.namespace}] == nil {
		return notFound(namespaces, at.namespace)
	}
	return nil
}

// complete fills in what a client does not write: the identity of an object,
// which stays what it was when the object is replaced.
func complete(o Object, existing *revision) {
	m := o.metadata()
	if existing != nil {
		m["uid"], m["creationTimestamp"] = existing.uid, existing.object.metadata()["creationTimestamp"]
		return
	}
	if _, ok := m["uid"].(string); !ok {
		m["uid"] = newUID()
	}
	if _, ok := m["creationTimestamp"].(string); !ok {
		m["creationTimestamp"] = timestamp(time.Now())
	}
}

// remove deletes an object and returns its last state. A namespace takes
// everything in it along.
func (s *store) remove(k *Kind, at key, w write) (*revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.mustExist = true
	existing := s.tables[k].objects[at]
	if status := w.check(k, at.name, existing); status != nil {
		return nil, status
	}
	if k.Group == "" && k.Resource == "namespaces" {
		if err := s.empty(at.name); err != nil {
			return nil, err
		}
	}
	return s.erase(existing)
}

func (s *store) empty(namespace string) error {
	for _, k := range s.catalog.kinds {
		for _, r := range s.tables[k].objects {
			if k.Namespaced && r.namespace == namespace {
				if _, err := s.erase(r); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s *store) erase(r *revision) (*revision, error) {
	last, err := r.at(s.version + 1)
	if err != nil {
		return nil, err
	}
	s.commit(r.kind, &change{version: last.version, before: r, after: last, deleted: true})
	return last, nil
}

// commit makes c the newest change and tells who watches it.
func (s *store) commit(k *Kind, c *change) {
	t := s.tables[k]
	s.version = c.version
	if c.deleted {
		delete(t.objects, c.after.key())
	} else {
		t.objects[c.after.key()] = c.after
	}
	t.history = append(t.history, c)
	t.bytes += c.size()
	t.trim(s.history)
	for _, scope := range scopesOf(c.after) {
		for w := range t.watchers[scope] {
			w.push(c, s.queue)
		}
	}
}

// trim forgets the oldest changes beyond the bounds.
func (t *table) trim(limit int) {
	n := 0
	for size := t.bytes; n < len(t.history)-1 && (len(t.history)-n > limit || size > historyBytes); n++ {
		size -= t.history[n].size()
	}
	t.forget(n)
}

// forget drops the n oldest changes.
func (t *table) forget(n int) {
	if n == 0 {
		return
	}
	for _, c := range t.history[:n] {
		t.bytes -= c.size()
	}
	t.floor = t.history[n-1].version
	t.history = slices.Delete(t.history, 0, n)
}

// compact forgets the changes up to version in every kind: whoever asks for
// an older version than that learns that it expired.
func (s *store) compact(version uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	version = min(version, s.version)
	for _, t := range s.tables {
		n, _ := slices.BinarySearchFunc(t.history, version+1, func(c *change, v uint64) int { return cmp.Compare(c.version, v) })
		t.forget(n)
		t.floor = max(t.floor, version)
	}
}

// timestamp prints t as metav1.Time does.
func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func newUID() string {
	var b [16]byte
	rand.Read(b[:])
	return formatUID(b)
}

// formatUID prints 16 random bytes as a version 4 UUID (RFC 9562, 5.4).
func formatUID(b [16]byte) string {
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
