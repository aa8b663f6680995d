package mux

// ring is a FIFO of channels through their own nextReady field.
type ring struct {
	head, tail *Channel
}

func (r *ring) push(c *Channel) {
	if r.head == nil {
		r.head = c
	} else {
		r.tail.nextReady = c
	}
	r.tail = c
}

func (r *ring) pop() *Channel {
	c := r.head
	r.head, c.nextReady = c.nextReady, nil
	if r.head == nil {
		r.tail = nil
	}
	return c
}

// enqueue lets a channel take part in the turns.
func (s *Session) enqueue(c *Channel) {
	s.mu.Lock()
	if !c.isReady && s.chans[c.id] == c {
		c.isReady = true
		s.ready.push(c)
	}
	s.mu.Unlock()
	s.wake()
}

// owe notes that a channel owes an Ack; now sends it at once, otherwise it leaves with other frames or within [AckAfter].
func (s *Session) owe(c *Channel, now bool) {
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

// collect gives the next batch of the link of generation gen: the session's frames, acknowledgements, then from each ready channel in turn, by deficit round robin
// (Shreedhar and Varghese, SIGCOMM 1995). An empty batch means that there is nothing to send.
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
	if len(s.owing) > 0 && (s.ackNow || len(b) > 0 || s.ready.head != nil) {
		b = s.collectAcks(b)
	}
	for size := b.Len(); s.ready.head != nil && size < batchTarget; {
		c := s.ready.pop()
		var n int
		b, n = s.turn(c, b, batchTarget-size)
		size += n
	}
	return b
}

// turn gives a channel its quantum and takes what the deficit pays for. mu is held.
func (s *Session) turn(c *Channel, b Batch, most int) (Batch, int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deficit += quantum
	total, held := 0, c.out.held
	for c.out.ready() && c.out.size() <= c.deficit && total < most {
		n := c.out.size()
		b = append(b, c.out.take())
		c.deficit -= n
		total += n
	}
	if freed := held - c.out.held; freed > 0 { // a plain session's frames are done with once they are sent
		s.budget.release(freed)
		c.wakeSender()
	}
	if c.out.ready() {
		s.ready.push(c)
		return b, total
	}
	c.isReady, c.deficit = false, 0
	if s.plain && c.state == closed {
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
