package bridge

import (
	"sync"
	"time"
)

// pings are SPDY's pings: answers to the node's, and questions that keep the node from taking a forward for dead (a kubelet ends what says nothing for
// four hours), and that an API server can pass on only while it has the node. Nothing is concluded from an answer that does not come: a node
// that waits for the pod to read may not answer. One that comes says that all before the question has left the API server.
type pings struct {
	every  time.Duration                        // Immutable.
	write  func(id uint32) (n int64, err error) // Immutable: n is for passed.
	passed func(n int64)                        // Immutable.

	running sync.WaitGroup // the timer and the writing

	mu      sync.Mutex
	timer   *time.Timer // Guarded by mu; nil before start.
	stopped bool        // Guarded by mu.
	asked   uint32      // Guarded by mu: the last question, of odd numbers.
	waiting bool        // Guarded by mu: it was not answered.
	before  int64       // Guarded by mu: what its answer says has passed, 0 while that is not known.
	due     [2]uint32   // Guarded by mu: an answer and a question that are to be written, 0 for none.
	writing bool        // Guarded by mu.
}

// start begins asking.
func (p *pings) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running.Add(1)
	p.timer = time.AfterFunc(p.every, p.ask)
}

// stop ends the asking and returns when nothing of it runs. The tunnel is closed: what is being written fails. It may be called more than once.
func (p *pings) stop() {
	p.mu.Lock()
	p.stopped = true
	if p.timer != nil && p.timer.Stop() {
		p.running.Done()
	}
	p.mu.Unlock()
	p.running.Wait()
}

// ask asks, unless the last question is open.
func (p *pings) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		p.running.Done()
		return
	}
	if !p.waiting {
		p.asked = (p.asked + 2) | 1
		p.waiting, p.before, p.due[1] = true, 0, p.asked
		p.flush()
	}
	p.timer.Reset(p.every)
}

// heard takes a ping of the node's: a question, of which the last is answered, or an answer.
func (p *pings) heard(id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id%2 == 0 {
		p.due[0] = id
		p.flush()
		return
	}
	if p.waiting && id == p.asked {
		p.waiting = false
		p.passed(p.before)
	}
}

// flush has written what is due, by nobody who reads the tunnel: it may take as long as it likes. mu is held.
func (p *pings) flush() {
	if p.writing || p.stopped {
		return
	}
	p.writing = true
	p.running.Go(func() {
		for {
			id := p.next()
			if id == 0 {
				return
			}
			n, err := p.write(id)
			if err == nil { // where the tunnel fails, who reads it finds out
				p.written(id, n)
			}
		}
	})
}

// next is the ping to write; after 0 the writing has ended.
func (p *pings) next() (id uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.due {
		if id, p.due[i] = p.due[i], 0; id != 0 {
			return id
		}
	}
	p.writing = false
	return 0
}

// written notes what was written before the last question. The answer may be there already.
func (p *pings) written(id uint32, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case id != p.asked:
	case p.waiting:
		p.before = n
	default:
		p.passed(n)
	}
}
