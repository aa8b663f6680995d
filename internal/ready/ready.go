// Package ready tells the owners of many sockets when they can read, from a few goroutines.
//
// A goroutine that waits in Read costs a stack, which its first event grows to 4 KiB or more, beside the runtime's own descriptor of the
// socket. Most watches of a gateway are idle most of the time, so here one goroutine waits for thousands of them: a loop. It calls the
// source of each socket that has become readable, and the source reads what there is. A source at rest costs a [Handle] and a pointer.
//
// Sources that have just become readable come before those that have more to read than fits in their turn, as new flows come before old
// ones in the fq_codel of RFC 8290, section 4.1: a small event waits for at most one Step of a source that always has more.
//
// There are loops on Linux only (epoll). Elsewhere [New] says so, and a goroutine for each socket is the way.
package ready

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

// Source reads one socket. Its methods are called by the goroutine of one loop, one at a time.
//
// A source may also have a method Panicked(any). It is called with what Step panicked with, in the place of the panicking Step, whose
// stack is still there to be printed; the source leaves then. Without that method the panic ends the process.
type Source interface {
	// Step reads what there is and returns what the source waits for. All other sources of the loop wait for it: it must not block,
	// and should take about 64 KiB at most.
	//
	// hangup says that the peer has ended its direction, or that the socket has failed: the end has to be read even after a short read,
	// since nothing new will come to tell of it. Once true it stays true.
	Step(hangup bool) Next

	// Left is called once, after Step has returned Leave and the loop has forgotten the socket, which may be closed from then on. It must
	// not block either.
	Left()
}

// Next is what a source waits for. A Step that returns another value than those below panics.
type Next uint8

const (
	// Await waits until something new has come to the socket, or for a Wake. The Step has read until the socket said that nothing is
	// there, or has seen a short read without a hangup: of what it left unread nobody tells again.
	Await Next = iota
	// Again waits for nothing: there may be more to read. Step is called again when others have had their turn.
	Again
	// Pause waits for a Wake, whatever comes to the socket.
	Pause
	// Leave ends it: Step is never called again, and Left is called next.
	Leave
)

// Loops are the goroutines that wait. They are safe for concurrent use, also from within a Step and a Left, Close excepted.
type Loops struct {
	loops   []*loop        // Immutable after New.
	running sync.WaitGroup // the goroutines of the loops

	mu     sync.Mutex // held while a source is added, so that none is after Close
	closed bool       // Guarded by mu.
}

// New starts as many loops as it is told, at least one; Close ends them. One loop reads with one core at most. The error wraps
// [errors.ErrUnsupported] where the system has no epoll.
func New(loops int) (*Loops, error) {
	if loops < 1 {
		return nil, fmt.Errorf("start %d readiness loops: want at least one", loops)
	}
	l := &Loops{}
	for range loops {
		p, err := newPoller()
		if err != nil {
			for _, made := range l.loops {
				err = errors.Join(err, made.poller.close())
			}
			return nil, fmt.Errorf("start readiness loop: %w", err)
		}
		l.loops = append(l.loops, &loop{poller: p})
	}
	for _, one := range l.loops {
		l.running.Go(one.run) // ends after one.end, which Close calls and waits for
	}
	return l, nil
}

// Add watches a socket for its source, on the loop with the fewest sources. A first Step comes at once, before anything has come to the
// socket, and may come before Add returns. The descriptor is non-blocking; it stays the caller's, and must stay open until Left.
//
// The error wraps [os.ErrClosed] after Close, and else is the system's: too many descriptors are watched, this one is already, or it is
// none that can be. The source is not called then.
func (l *Loops) Add(fd int, s Source) (*Handle, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("watch descriptor %d: readiness loops: %w", fd, os.ErrClosed)
	}
	least, fewest := l.loops[0], l.loops[0].len()
	for _, one := range l.loops[1:] {
		if n := one.len(); n < fewest {
			least, fewest = one, n
		}
	}
	return least.add(fd, s)
}

// Len is how many sources have been added and have not left. A source is not counted any more when its Left is called.
func (l *Loops) Len() int {
	n := 0
	for _, one := range l.loops {
		n += one.len()
	}
	return n
}

// Close ends the loops and waits for their goroutines, so it must not be called from a Step or a Left. Every source must have left before:
// Close panics otherwise, since the owner of such a source would wait for ever. A second Close does nothing.
func (l *Loops) Close() {
	if !l.refuse() {
		return
	}
	for _, one := range l.loops {
		one.end()
	}
	l.running.Wait()
	for _, one := range l.loops {
		if err := one.poller.close(); err != nil {
			panic(fmt.Errorf("ready: close the loop's own descriptors: %w", err))
		}
	}
}

// refuse makes Add fail from now on, and says whether it is the first to do so. A Left that is under way may still call Add, so the lock is
// not held any longer.
func (l *Loops) refuse() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.Len(); n > 0 {
		panic(fmt.Sprintf("ready: Close while %d sources have not left", n))
	}
	first := !l.closed
	l.closed = true
	return first
}

// Handle is a source's place in its loop.
type Handle struct {
	// Immutable after Add.
	loop *loop
	fd   int32
	slot int32 // in the loop's table

	state  atomic.Uint32 // of the bits below
	source Source        // Owned by the loop's goroutine; nil once it has left.
	next   *Handle       // Owned by the queue that the handle is in.
}

// The bits of Handle.state.
const (
	// scheduled is set while a Step is due or under way: the handle is in one queue, or in the hands of who has set the bit, and
	// nobody else queues it. It stays set for good when the source leaves.
	scheduled = 1 << iota
	// woken asks for a Step that begins after it was set.
	woken
	// paused is set while nothing but a Wake is waited for. Only the loop's goroutine changes it.
	paused
	// hungUp is set for good when the peer has ended its direction.
	hungUp
)

// Wake has Step called soon, also if the source is paused. A Wake during a Step brings another Step after it, and several Wakes before a
// Step bring one: each Step sees what was written before the Wakes that it answers. Wake is safe for concurrent use, never blocks, and does
// nothing once the source leaves.
func (h *Handle) Wake() {
	// It must be a read-modify-write even when the bits are set: a plain load might pass the writes before it.
	if h.state.Or(scheduled|woken)&scheduled == 0 {
		h.loop.wake(h)
	}
}
