package bridge

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/data"
)

// descriptors are the open files of this process; none where they cannot be counted.
func descriptors() int {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(open)
}

// interruptions are what a client or its session does at any time in a process's life.
var interruptions = []func(*execution){
	func(*execution) {},
	func(e *execution) { e.stop(context.Canceled) },
	func(e *execution) { e.stop(errHungUp) },
	func(e *execution) { e.end(errors.New("the session has ended")) },
	func(e *execution) { e.input(strings.Repeat("x", 50<<10)) },
	func(e *execution) { e.send(data.Input{Kind: data.InputCloseSend}) },
	func(e *execution) { e.send(data.Input{Kind: data.InputResize, Width: 80, Height: 24}) },
	func(e *execution) { e.hold(true) },
}

// TestT_C11_EndsInAnyOrder: a panic or a leak where one end meets another. Two thousand processes, each with one of the ways that an upstream ends
// and two of the things that its client does, at the same time; then nothing of them is left. That done is called once, and nothing is called after
// it, is the channel's to check.
func TestT_C11_EndsInAnyOrder(t *testing.T) {
	endings := processEndings()
	servers := map[string]*processServer{}
	ups := map[string]Upstream{}
	for _, transport := range []string{"tcp", "tls"} {
		for i := range endings {
			key := fmt.Sprint(transport, i)
			script := endings[i].script
			servers[key] = &processServer{script: script}
			ups[key] = servers[key].reach(t, transport)
		}
	}
	runtime.GC()
	goroutines, files := runtime.NumGoroutine(), descriptors()
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for i := next.Add(1); i <= 2000; i = next.Add(1) {
				random := rand.New(rand.NewPCG(uint64(i), 3))
				transport := []string{"tcp", "tcp", "tcp", "tls"}[random.IntN(4)]
				up := ups[fmt.Sprint(transport, random.IntN(len(endings)))]
				interrupted(t, up, random)
			}
		})
	}
	workers.Wait()
	deadline := time.Now().Add(patienceForLeaks)
	for runtime.NumGoroutine() > goroutines || descriptors() > files {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and %d files before, %d and %d after", goroutines, files, runtime.NumGoroutine(), descriptors())
		}
		<-time.After(10 * time.Millisecond)
	}
}

// patienceForLeaks is how long the servers may take to notice that their clients are gone.
const patienceForLeaks = 20 * time.Second

// interrupted runs one process, while its client does two things at once.
func interrupted(t *testing.T, up Upstream, random *rand.Rand) {
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	ch := newTestChannel(t, "")
	ch.bytes = func(data.Piece) {}
	e := &execution{testChannel: ch, stop: stop, over: make(chan Outcome, 2)}
	var all sync.WaitGroup
	all.Go(func() {
		Start(ctx, up, execOf(shellTarget()), ch, WithDefaults(Options{}), func(o Outcome) { e.over <- o })
	})
	for range 2 {
		f, wait := interruptions[random.IntN(len(interruptions))], random.IntN(3000)
		all.Go(func() {
			<-time.After(time.Duration(wait) * time.Microsecond)
			f(e)
		})
	}
	ended := time.AfterFunc(time.Duration(5+random.IntN(5))*time.Millisecond, func() {
		e.hold(false)
		stop(context.Canceled) // some upstreams stand for ever
	})
	all.Wait()
	ended.Stop()
	if len(e.over) != 1 {
		t.Errorf("done was called %d times", len(e.over))
	}
	if o := <-e.over; o.Err == nil && o.Exit == nil {
		t.Errorf("the outcome is %+v", o)
	}
}
