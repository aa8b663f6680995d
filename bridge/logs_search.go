package bridge

// search finds a position again in a log that is read from [position.since] on. The log may have been rotated in the meantime, so that it begins
// anywhere.
type search struct {
	on       bool
	seen     uint64 // whole lines at the newest time
	after    uint64 // lines after the last of those, as [position] counts them
	anchored bool   // the first of them was seen
}

// passage is what becomes of a line.
type passage uint8

const (
	deliver  passage = iota
	drop             // the client has it
	complete         // the client has its beginning
	missed           // it is to be delivered, but what it follows is not what the client has
)

// searchFor begins a search. There is nothing to search for at the log's beginning.
func searchFor(p *position) search { return search{on: p.begun()} }

// found reports whether all that the position counts was seen: what follows is new.
func (s *search) found(p *position) bool {
	return !s.on || p.at > 0 && s.seen == p.at && s.after == p.after && p.offset == 0
}

// line takes the time of the next line. A search ends with anything but drop.
func (s *search) line(p *position, stamp int64) passage {
	if !s.on {
		return deliver
	}
	what := s.judge(p, stamp)
	s.on = what == drop
	return what
}

func (s *search) judge(p *position, stamp int64) passage {
	cut := p.offset > 0 && stamp == p.line
	switch {
	case p.at == 0 && stamp < p.line:
		return drop
	case s.seen < p.at && stamp <= p.newest:
		return drop
	case s.seen == p.at && s.after < p.after && stamp < p.newest:
		if stamp >= p.since().UnixNano() {
			s.after++
		}
		return drop
	case cut: // also where the log was rotated just before it
		return complete
	case s.found(p):
		return deliver
	}
	return missed
}

// dropped takes note that a line was dropped whole. Of those at the newest time the log may have some that the client has not: before the first
// it has, if it asked for a tail, and instead of that, if the log was rotated.
func (s *search) dropped(p *position, stamp int64, hash uint32) {
	if p.at == 0 || stamp != p.newest || s.seen == p.at {
		return
	}
	s.anchored = s.anchored || hash == p.anchor
	if s.anchored {
		s.seen++
	}
}
