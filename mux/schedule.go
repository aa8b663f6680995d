package mux

import (
	"maps"
	"slices"
)

// ring is a FIFO of channels through their own nextReady field.
type ring struct {
	head, tail *Channel
	n          int
}

func (r *ring) push(c *Channel) {
	if r.head == nil {
		r.head = c
	} else {
		r.tail.nextReady = c
	}
	r.tail = c
	r.n++
}

func (r *ring) pop() *Channel {
	c := r.head
	r.head, c.nextReady = c.nextReady, nil
	if r.head == nil {
		r.tail = nil
	}
	r.n--
	return c
}

// turns is the order in which ready channels send: deficit round robin by bytes (Shreedhar and Varghese, SIGCOMM 1995), in which a channel
// goes first as long as it has sent less than a quantum in this round (MacGregor and Shi, DRR++, Allerton 2000). A frame cannot be cut, so
// without the second rule a small event may wait for one large frame of every other channel, instead of one quantum.
type turns struct {
	light ring   // whose next segment the rest of their quantum pays for
	heavy ring   // who save for theirs, a quantum a round
	round uint64 // of the heavy
	left  int    // how many of them have not had their turn in this round
}

// add lets c, which has something to send, take part.
func (t *turns) add(c *Channel) {
	if c.round != t.round { // what it saved or had left is of the past
		c.round, c.deficit = t.round, quantum
	}
	t.put(c)
}

func (t *turns) put(c *Channel) {
	if c.out.size() <= c.deficit {
		t.light.push(c)
	} else {
		t.heavy.push(c)
	}
}

// next takes out whose turn it is.
func (t *turns) next() *Channel {
	if t.light.n > 0 {
		return t.light.pop()
	}
	if t.left == 0 {
		t.round++
		t.left = t.heavy.n
	}
	t.left--
	c := t.heavy.pop()
	c.round = t.round
	c.deficit += quantum
	return c
}

func (t *turns) empty() bool { return t.light.n+t.heavy.n == 0 }

// clear takes everybody out.
func (t *turns) clear() {
	for t.light.n > 0 {
		t.light.pop()
	}
	for t.heavy.n > 0 {
		t.heavy.pop()
	}
	t.left = 0
}

// enqueue lets a channel take part in the turns.
func (s *Session) enqueue(c *Channel) {
	s.place(c)
	s.wake()
}

// sendSmall is the most, in bytes, that whoever brings it sends himself: more is worth a switch to the writer, which meanwhile lets the next
// be read.
const sendSmall = 16 << 10

// hand is enqueue for a channel that has just been given size bytes to send.
func (s *Session) hand(c *Channel, size int) {
	if by := s.place(c); size > sendSmall || by == nil || !by.sendNow() {
		s.wake()
	}
}

// place lets a channel take part in the turns, and returns what carries them.
func (s *Session) place(c *Channel) *carrier {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !c.isReady && s.chans[c.id] == c {
		c.mu.Lock()
		s.arrange(c)
		c.mu.Unlock()
	}
	return s.carrier
}

// arrange puts a channel where its next segment leaves from, if it has one. mu and c.mu are held.
func (s *Session) arrange(c *Channel) {
	c.isReady = c.out.ready()
	switch {
	case !c.isReady:
	case s.role == Client && c.out.opening():
		s.opens = append(s.opens, c)
	default:
		s.ready.add(c)
	}
}

// rearrange arranges all channels anew: after a resume, each of them may have to send again. mu is held.
func (s *Session) rearrange() {
	s.ready.clear()
	s.opens = nil
	for _, id := range slices.Sorted(maps.Keys(s.chans)) {
		c := s.chans[id]
		c.mu.Lock()
		s.arrange(c)
		c.mu.Unlock()
	}
}

// owe notes that a channel owes an Ack; now sends it at once, otherwise it leaves with other frames or within [AckAfter].
// A plain session acknowledges nothing.
func (s *Session) owe(c *Channel, now bool) {
	if s.plain {
		return
	}
	s.mu.Lock()
	first := len(s.owing) == 0
	if !c.ackDue && s.chans[c.id] == c {
		c.ackDue = true
		s.owing = append(s.owing, c)
	}
	s.ackNow = s.ackNow || now
	s.mu.Unlock()
	switch {
	case now:
		s.wake()
	case first:
		s.nudge()
	}
}

// collect gives the next batch of the link of generation gen: the session's frames, acknowledgements, Opens, then from the ready channels in
// turn. An empty batch means that there is nothing to send.
func (s *Session) collect(gen uint64) Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	if gen != s.gen {
		return nil
	}
	b := s.collectControl(nil)
	if s.holding {
		return b
	}
	if len(s.owing) > 0 && (s.ackNow || len(b) > 0 || len(s.opens) > 0 || !s.ready.empty()) {
		b = s.collectAcks(b)
	}
	b = s.collectOpens(b)
	for size := b.Len(); !s.ready.empty() && size < batchTarget; {
		var n int
		b, n = s.turn(s.ready.next(), b, batchTarget-size)
		size += n
	}
	return b
}

// collectOpens adds the Opens in the order of their ids: a server takes an id below one that it has seen for one that is gone. mu is held.
func (s *Session) collectOpens(b Batch) Batch {
	size := b.Len()
	for len(s.opens) > 0 && size < batchTarget {
		c := s.opens[0]
		s.opens = s.opens[1:]
		c.mu.Lock()
		if c.out.ready() {
			size += c.out.size()
			b = append(b, c.out.take())
		}
		s.arrange(c)
		c.mu.Unlock()
	}
	if len(s.opens) == 0 {
		s.opens = nil
	}
	return b
}

// turn takes from a channel what its deficit pays for, most bytes and one segment at most. mu is held.
func (s *Session) turn(c *Channel, b Batch, most int) (Batch, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	c.charged(func() bool {
		for c.out.ready() && c.out.size() <= c.deficit && total < most {
			n := c.out.size()
			b = append(b, c.out.take())
			c.deficit -= n
			total += n
		}
		return false
	})
	if s.plain { // its frames are done with once they are sent
		c.wakeSender()
	}
	if c.isReady = c.out.ready(); c.isReady {
		s.ready.put(c)
	} else if s.plain && c.state == closed {
		s.forget(c)
	}
	return b, total
}

// collectAcks adds all owed acknowledgements as one segment. mu is held.
func (s *Session) collectAcks(b Batch) Batch {
	const largest = 32 // bytes of an encoded Ack at most
	g := newSegment(min(len(s.owing)*largest, batchTarget))
	left := s.owing[:0]
	for _, c := range s.owing {
		if len(g.b)+largest > batchTarget {
			left = append(left, c)
			continue
		}
		c.ackDue = false
		c.mu.Lock()
		seq, window := c.in.ack()
		over := c.state == closed
		c.mu.Unlock()
		g.b = appendAck(g.b, c.id, seq, window)
		if over && s.role == Client {
			s.forget(c)
		}
	}
	clear(s.owing[len(left):])
	s.owing = left
	if len(left) == 0 {
		s.owing = nil
	}
	s.ackNow = len(left) > 0
	return append(b, Part{seg: g})
}
