package ready

// table finds a loop's handles by their slots, which is what the poller holds in the place of pointers. A slot is used again at once: all
// events of a poll are looked up before the next Step, and nothing but a Step makes a source leave.
type table struct {
	slots []*Handle
	free  []int32
}

// put gives a handle its slot.
func (t *table) put(h *Handle) {
	if n := len(t.free); n > 0 {
		h.slot = t.free[n-1]
		t.free = t.free[:n-1]
		t.slots[h.slot] = h
		return
	}
	h.slot = int32(len(t.slots))
	t.slots = append(t.slots, h)
}

// remove takes a handle out. With the last one goes the room that a crowd has taken.
func (t *table) remove(h *Handle) {
	t.slots[h.slot] = nil
	t.free = append(t.free, h.slot)
	if t.len() == 0 {
		t.slots, t.free = nil, nil
	}
}

func (t *table) len() int { return len(t.slots) - len(t.free) }

// queue is a list of handles, first in, first out. A handle is in one queue at most: its link is its own.
type queue struct{ head, tail *Handle }

func (q *queue) push(h *Handle) {
	if q.tail == nil {
		q.head = h
	} else {
		q.tail.next = h
	}
	q.tail = h
}

// pop takes the first handle; there is one.
func (q *queue) pop() *Handle {
	h := q.head
	q.head, h.next = h.next, nil
	if q.head == nil {
		q.tail = nil
	}
	return h
}

// take empties the queue.
func (q *queue) take() queue {
	all := *q
	*q = queue{}
	return all
}
