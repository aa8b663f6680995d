package ready

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEventsAllocateNothing, neither those of sockets nor Wakes.
func TestEventsAllocateNothing(t *testing.T) {
	fd, peer := pair(t)
	defer shut(t, fd)
	steps, b := make(chan struct{}, 1), make([]byte, 4)
	p := newProbe(func(hangup bool) Next {
		if hangup {
			return Leave
		}
		read(fd, b)
		steps <- struct{}{}
		return Await
	})
	h := add(t, start(t, 1), fd, p)
	<-steps
	one := []byte{1}
	if n := testing.AllocsPerRun(1000, func() {
		_, _ = unix.Write(peer, one)
		<-steps
	}); n != 0 {
		t.Errorf("%v allocations for an event", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		h.Wake()
		<-steps
	}); n != 0 {
		t.Errorf("%v allocations for a Wake", n)
	}
	shut(t, peer)
	receive(t, "Left", p.left)
}

// TestManySourcesAreSmall: 10,000 at rest cost a handle and a pointer each, and when all are gone nothing.
func TestManySourcesAreSmall(t *testing.T) {
	const sources, most = 10_000, 100
	l := start(t, 2)
	var left sync.WaitGroup
	var first sync.WaitGroup
	left.Add(sources)
	first.Add(sources)
	idle := make([]idleSource, sources)
	handles := make([]*Handle, sources)
	for i := range idle {
		idle[i] = idleSource{fd: pausedSocket(t), first: &first, left: &left}
	}
	before := memory()
	for i := range idle {
		handles[i] = add(t, l, idle[i].fd, &idle[i])
	}
	first.Wait()
	if each := (memory() - before) / sources; each > most {
		t.Errorf("a source at rest costs %d bytes, want at most %d", each, most)
	}
	if n := l.Len(); n != sources {
		t.Errorf("Len is %d, want %d", n, sources)
	}
	for _, h := range handles {
		h.Wake()
	}
	left.Wait()
	for i := range idle {
		shut(t, idle[i].fd)
	}
	for i, one := range l.loops {
		if one.table.slots != nil || one.table.free != nil {
			t.Errorf("loop %d keeps the room of a crowd that is gone", i)
		}
	}
}

// idleSource leaves with its second Step.
type idleSource struct {
	fd          int
	begun       bool
	first, left *sync.WaitGroup
}

func (s *idleSource) Step(bool) Next {
	if s.begun {
		return Leave
	}
	s.begun = true
	s.first.Done()
	return Await
}

func (s *idleSource) Left() { s.left.Done() }

// crowd is how many sockets the benchmarks have: both ends of each fit in a limit of 20,000 descriptors.
const crowd = 9_500

// waiting makes a reader wait for each of the sockets; each calls got after each byte. It returns what ends them.
type waiting func(b *testing.B, fds []int, got func()) (end func())

var ways = []struct {
	name string
	wait waiting
}{{"loop", waitInLoop}, {"goroutines", waitInGoroutines}}

func waitInLoop(b *testing.B, fds []int, got func()) (end func()) {
	l, err := New(1)
	if err != nil {
		b.Fatal(err)
	}
	var left sync.WaitGroup
	left.Add(len(fds))
	sources := make([]reader, len(fds))
	for i, fd := range fds {
		sources[i] = reader{fd: fd, got: got, left: &left}
		add(b, l, fd, &sources[i])
	}
	return func() {
		left.Wait()
		l.Close()
		for _, fd := range fds {
			shut(b, fd)
		}
	}
}

// reader is the smallest source.
type reader struct {
	fd   int
	got  func()
	left *sync.WaitGroup
}

func (r *reader) Step(hangup bool) Next {
	var b [8]byte
	switch n := read(r.fd, b[:]); {
	case n > 0:
		r.got()
	case n == 0, hangup:
		return Leave
	}
	return Await
}

func (r *reader) Left() { r.left.Done() }

func waitInGoroutines(_ *testing.B, fds []int, got func()) (end func()) {
	var all sync.WaitGroup
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		all.Go(func() {
			defer f.Close()
			var b [8]byte
			for {
				if n, err := f.Read(b[:]); n == 0 || err != nil {
					return
				}
				got()
			}
		})
	}
	return all.Wait
}

// BenchmarkIdle measures what a socket costs that has had an event and waits: stacks and heap, the 24 bytes of the smallest source included.
// The goroutines have the smallest of stacks: a reader that does something has a larger one.
func BenchmarkIdle(b *testing.B) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				fds, peers := sockets(b, crowd)
				var got sync.WaitGroup
				got.Add(crowd)
				before := memory()
				b.StartTimer()
				end := way.wait(b, fds, got.Done)
				for _, peer := range peers {
					send(b, peer, []byte{1})
				}
				got.Wait()
				b.StopTimer()
				b.ReportMetric(float64(memory()-before)/crowd, "B/socket")
				for _, peer := range peers {
					shut(b, peer)
				}
				end()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkOneOfMany measures how long it takes from an event of one socket among many to its reader's answer.
func BenchmarkOneOfMany(b *testing.B) {
	benchmarkEvents(b, 1)
}

// BenchmarkBurst measures an event when many come at once.
func BenchmarkBurst(b *testing.B) {
	benchmarkEvents(b, 1000)
}

func benchmarkEvents(b *testing.B, burst int) {
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			fds, peers := sockets(b, crowd)
			got := make(chan struct{}, burst)
			end := way.wait(b, fds, func() { got <- struct{}{} })
			one := []byte{1}
			b.ReportAllocs()
			at := 0
			for b.Loop() {
				for range burst {
					at = (at + 7919) % crowd // a prime: far from the last, and each in its turn
					_, _ = unix.Write(peers[at], one)
				}
				for range burst {
					<-got
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*burst), "ns/event")
			b.StopTimer()
			for _, peer := range peers {
				shut(b, peer)
			}
			end()
		})
	}
}

func sockets(b *testing.B, n int) (fds, peers []int) {
	for range n {
		fd, peer := pair(b)
		fds, peers = append(fds, fd), append(peers, peer)
	}
	return fds, peers
}

// memory is what the heap and the stacks use, in bytes.
func memory() int64 {
	for range 2 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
