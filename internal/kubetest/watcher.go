package kubetest

import "sync"

// watcher receives the changes of one scope of one kind, as many as fit its
// queue. An idle watcher costs no buffer. The store fills it, one goroutine
// empties it.
type watcher struct {
	table *table // Immutable after store.watch.
	scope key    // Immutable after store.watch.
	// from is the version up to which changes are of no interest. Immutable.
	from uint64
	// wake has an element when there is something to take.
	wake chan struct{}

	mu       sync.Mutex
	queue    []*change
	overrun  bool   // more came than the queue takes
	overflow func() // Immutable; called once when overrun becomes true.
}

// push adds a change. It never blocks: a watcher that has fallen behind by
// limit changes is given up, as the API server gives up slow watches.
func (w *watcher) push(c *change, limit int) {
	if c.version <= w.from {
		return
	}
	w.mu.Lock()
	lost := !w.overrun && len(w.queue) >= limit
	if lost {
		w.overrun, w.queue = true, nil
	} else if !w.overrun {
		w.queue = append(w.queue, c)
	}
	w.mu.Unlock()
	if lost {
		w.overflow()
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what has come since the last take.
func (w *watcher) take() (batch []*change, overrun bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, w.queue = w.queue, nil
	return batch, w.overrun
}

func (w *watcher) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queue) == 0 && !w.overrun
}

// scopesOf are the scopes in which a change of r is seen.
func scopesOf(r *revision) []key {
	scopes := []key{{}, {name: r.name}}
	if r.namespace != "" {
		scopes = append(scopes, key{namespace: r.namespace}, key{r.namespace, r.name})
	}
	return scopes
}

// watchStart is how a watch begins.
type watchStart struct {
	scope   key
	after   uint64 // replay the changes newer than this; unless now is set
	now     bool   // begin with the present
	initial bool   // and with the objects there are; implies now
}

// watch registers a watcher. Its changes continue the returned objects and
// version without a gap. overflow is called, once at most and with locks held,
// when the watcher falls behind. The caller calls unwatch in the end.
func (s *store) watch(k *Kind, start watchStart, overflow func()) (w *watcher, objects []*revision, version uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tables[k]
	w = &watcher{table: t, scope: start.scope, from: start.after, wake: make(chan struct{}, 1), overflow: overflow}
	switch {
	case start.initial:
		w.from = s.version
		for at, r := range t.objects {
			if start.scope.covers(at) {
				objects = append(objects, r)
			}
		}
	case start.now:
		w.from = s.version
	case start.after < t.floor:
		return nil, nil, 0, expired(tooOld(start.after, t.floor))
	default:
		w.replay(t)
	}
	if t.watchers[start.scope] == nil {
		t.watchers[start.scope] = map[*watcher]struct{}{}
	}
	t.watchers[start.scope][w] = struct{}{}
	return w, objects, s.version, nil
}

// replay queues the history the watcher asked for. It may exceed the queue's
// bound, but not the history's.
func (w *watcher) replay(t *table) {
	for _, c := range t.history {
		if c.version > w.from && w.scope.covers(c.after.key()) {
			w.queue = append(w.queue, c)
		}
	}
	if len(w.queue) > 0 {
		w.wake <- struct{}{}
	}
}

func (s *store) unwatch(w *watcher) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(w.table.watchers[w.scope], w)
	if len(w.table.watchers[w.scope]) == 0 {
		delete(w.table.watchers, w.scope)
	}
}

// settled is the version a bookmark may name: all changes up to it were taken.
func (s *store) settled(w *watcher) (uint64, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version, w.empty()
}

// covers says whether scope k includes the object at.
func (k key) covers(at key) bool {
	return (k.namespace == "" || k.namespace == at.namespace) && (k.name == "" || k.name == at.name)
}
