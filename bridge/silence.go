package bridge

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/status"
)

// suspicion finds out why an upstream says nothing: what to end it with, or nil; in that case again says to ask once more after as long.
type suspicion func(context.Context) (verdict *status.Error, again bool)

// silence looks after an upstream that has said nothing yet. A healthy API server answers pings and says nothing, for ever, to a watch from
// a version that its store has not reached: after etcd was restored, for example. It costs a timer until the first event or bookmark.
type silence struct {
	// Immutable after listen.
	ctx     context.Context // ends with stop
	cancel  context.CancelFunc
	after   time.Duration
	suspect suspicion
	end     func() // ends the upstream

	running sync.WaitGroup // the timer, until it has fired for the last time

	mu      sync.Mutex
	timer   *time.Timer   // Guarded by mu.
	stopped bool          // Guarded by mu.
	verdict *status.Error // Guarded by mu.
}

// listen asks suspect after so much silence. A verdict calls end. Whoever has a silence must call stop.
func listen(ctx context.Context, after time.Duration, end func(), suspect suspicion) *silence {
	s := &silence{after: after, suspect: suspect, end: end}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.running.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(after, s.ask)
	return s
}

func (s *silence) ask() {
	verdict, again := s.suspect(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if again && !s.stopped {
		s.timer.Reset(s.after)
		return
	}
	if verdict != nil && !s.stopped {
		s.verdict = verdict
		s.end()
	}
	s.running.Done()
}

// stop ends the looking after and returns the verdict, if there was one, when nothing of it runs any more. It may be called more than once.
func (s *silence) stop() *status.Error {
	s.cancel()
	s.mu.Lock()
	if !s.stopped && s.timer.Stop() {
		s.running.Done()
	}
	s.stopped = true
	s.mu.Unlock()
	s.running.Wait()
	return s.verdict
}
