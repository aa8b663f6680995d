package websocket

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// TestIdleConnHoldsNoBatch: many Reads wait, after each has read something, and none of them keeps 64 KiB for it.
func TestIdleConnHoldsNoBatch(t *testing.T) {
	const conns = 8
	for _, transport := range transports {
		t.Run(transport, func(t *testing.T) {
			alive := countBatches(t)
			var reading sync.WaitGroup
			defer reading.Wait()
			for range conns {
				c := start(t, transport, func(peer *gorilla.Conn) {
					_ = peer.WriteMessage(gorilla.TextMessage, []byte("hello"))
					_, _, _ = peer.ReadMessage()
				})
				if _, m := next(t, c, &reader{limit: MaxRead, part: MaxRead}); string(m) != "hello" {
					t.Fatalf("got %q", m)
				}
				reading.Go(func() { _, _ = c.Read(MaxRead, MaxRead) })
				defer c.Close(CodeNormal) //nolint:gocritic // they live until the test has looked at all of them
				awaitWaiting(t, c)
			}
			awaitCollected(t, alive)
		})
	}
}

// countBatches counts the Batches that are made from now on and are not collected.
func countBatches(t *testing.T) *atomic.Int64 {
	alive := new(atomic.Int64)
	before := batches.New
	batches.New = func() any {
		alive.Add(1)
		b := new(Batch)
		runtime.AddCleanup(b, func(n *atomic.Int64) { n.Add(-1) }, alive)
		return b
	}
	t.Cleanup(func() { batches.New = before })
	return alive
}

func awaitWaiting(t *testing.T, c *Conn) {
	t.Helper()
	await(t, "the Read to wait", func() bool { return c.waiting.Load() != 0 })
}

// awaitCollected waits until the pool, which two collections empty, was the last to hold one.
func awaitCollected(t *testing.T, alive *atomic.Int64) {
	t.Helper()
	await(t, "the Batches to be collected", func() bool {
		runtime.GC()
		return alive.Load() == 0
	})
}

// await looks every millisecond, for as long as patience lasts.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("gave up waiting for %s", what)
		}
	}
}
