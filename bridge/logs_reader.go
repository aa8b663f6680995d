package bridge

import (
	"bytes"
	"hash/crc32"
	"math/bits"
	"sync"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

// logReader makes pieces of what an API server sends of a log: chunks that end anywhere, with a time before each line. It holds nothing back but
// a time that is not whole. What it hands to the queue lies in its buffer.
type logReader struct {
	// Immutable.
	stamps bool // the client wants the times
	text   bool // the client wants text

	// Per upstream.
	search  search
	hidden  bool // the client is not to have the lines that are read
	lenient bool // what follows is not what the client has, and the client knows
	resumed bool // it was asked for from a time on, to find a position again
	first   bool // no line was read

	// What is read, in the middle of something.
	held    [maxStamp]byte // the beginning of a time
	heldLen int
	within  lineKind
	leads   bool    // of an untimed line: it is the first
	stamp   int64   // of a timed line
	passage passage // of a timed line
	trim    uint64  // with complete: bytes of the line that are still to be dropped
	known   uint32  // hash of those that were
	hash    uint32  // of the line so far, if it is wanted
	hashed  bool
	gap     bool // missed was found, and is to be told before anything else

	// What is made of it.
	pos    position // after all that is in the buffer
	piece  int      // the largest piece
	queue  *queue
	buffer *logBuffer
	begin  int        // of what is not in a piece, in the buffer
	places []position // after each piece in the queue
	last   position   // after the last piece
	lacks  int        // bytes that a rune lacks whose beginning was the last piece
	timed  bool       // a line with a time was read
	spoken bool       // a line without a time was read: what the kubelet has to say itself
}

// lineKind is what the bytes that come belong to.
type lineKind uint8

const (
	lineBegins lineKind = iota
	timedLine
	untimedLine
)

// logBuffer holds what is made of one read: no more than that, and what was held.
type logBuffer struct {
	bytes []byte
	array [websocket.MaxRead + maxStamp]byte
}

var logBuffers = sync.Pool{New: func() any { return new(logBuffer) }}

// begins makes it ready for an upstream that continues the log at a position.
func (r *logReader) begins(p position) {
	r.pos, r.last, r.search, r.trim = p, p, searchFor(&p), 0
	r.heldLen, r.within, r.gap, r.timed, r.spoken = 0, lineBegins, false, false, false
	r.resumed, r.first, r.leads = r.search.on, true, false
}

// fill makes ready for the bytes of one read; release gives the buffer back.
func (r *logReader) fill(q *queue, piece int) {
	if r.buffer == nil {
		r.buffer = logBuffers.Get().(*logBuffer)
		r.buffer.bytes, r.begin = r.buffer.array[:0], 0
		r.places = r.places[:0]
	}
	r.queue, r.piece = q, piece
}

func (r *logReader) release() {
	if r.buffer != nil {
		logBuffers.Put(r.buffer)
		r.buffer, r.queue = nil, nil
	}
}

// read takes bytes and returns how many it is through with: all, unless there is a gap before the rest.
func (r *logReader) read(b []byte) (through int) {
	for through < len(b) && !r.gap {
		if r.within == lineBegins {
			through += r.beginning(b[through:])
		} else {
			through += r.body(b[through:])
		}
	}
	return through
}

// beginning reads what may be the time before a line.
func (r *logReader) beginning(b []byte) (n int) {
	if r.heldLen == 0 {
		at, size, verdict := readStamp(b)
		switch verdict {
		case stampRead:
			r.line(at, b[:size])
			return size
		case stampNone:
			r.untimed()
			return 0
		}
	}
	n = copy(r.held[r.heldLen:], b)
	had := r.heldLen
	at, size, verdict := readStamp(r.held[:had+n])
	r.heldLen += n
	switch verdict {
	case stampRead:
		r.heldLen = 0
		r.line(at, r.held[:size])
		return size - had
	case stampNone:
		r.heldLen = 0
		r.untimed()
		r.emit(r.held[:had])
		return 0
	}
	return n
}

// untimed begins a line without a time: what the kubelet has to say itself, or, before all others, the end of a line that the container wrote. A
// runtime writes a line of more than 16 KiB in parts, each with a time, and a kubelet that is asked for what is not older than a time leaves out
// the parts that are. A kubelet ends no line of its own.
func (r *logReader) untimed() {
	r.within, r.spoken = untimedLine, true
	r.leads, r.first = r.first, false
}

// line begins a line with a time.
func (r *logReader) line(stamp int64, prefix []byte) {
	r.within, r.stamp, r.timed, r.first = timedLine, stamp, true, false
	r.passage, r.trim = r.search.line(&r.pos, stamp), 0
	r.hash, r.hashed = 0, r.pos.at == 0 || stamp > r.pos.newest
	switch r.passage {
	case drop:
		r.hashed = !r.search.anchored && stamp == r.pos.newest
		return
	case complete:
		r.trim, r.known = r.pos.offset, 0
	case missed:
		r.gap = !r.lenient
		r.leave(stamp)
	case deliver:
		r.pos.line = stamp
	}
	if !r.stamps {
		return
	}
	if r.gap {
		r.heldLen = copy(r.held[:], prefix) // until goOn
		return
	}
	r.emit(prefix)
}

// goOn goes on behind a gap that was told.
func (r *logReader) goOn() {
	prefix := r.held[:r.heldLen]
	r.gap, r.heldLen = false, 0
	r.emit(prefix)
}

// body reads on in a line.
func (r *logReader) body(b []byte) (n int) {
	end := bytes.IndexByte(b, '\n')
	if n = end + 1; end < 0 {
		n = len(b)
	}
	if r.hashed {
		r.hash = crc32.Update(r.hash, castagnoli, b[:n])
	}
	r.emit(b[:n])
	if end >= 0 {
		r.endLine()
	}
	return n
}

func (r *logReader) endLine() {
	timed := r.within == timedLine
	r.within = lineBegins
	switch {
	case !timed:
		r.spoken = r.spoken && !r.leads
		r.leads = false
	case r.passage == drop:
		r.search.dropped(&r.pos, r.stamp, r.hash)
	default:
		r.gap = r.trim > 0 && !r.lenient // it is shorter than what the client has of it
		r.trim = 0
		r.pos.end(r.stamp, r.hash)
	}
}

// found reports whether what comes next is new to the client.
func (r *logReader) found() bool { return r.search.found(&r.pos) && r.trim == 0 && r.heldLen == 0 }

// emit appends bytes of the current line to what the client gets.
func (r *logReader) emit(p []byte) {
	timed := r.within == timedLine
	if timed {
		p = r.trimmed(p)
	}
	if timed && r.passage == drop || !timed && (r.hidden || r.leads && r.resumed) { // who resumes has the line that a leading part ends
		return
	}
	if r.hidden {
		r.pos.part = crc32.Update(r.pos.part, castagnoli, p)
		r.pos.offset += uint64(len(p))
		return
	}
	for len(p) > 0 {
		if len(r.buffer.bytes)-r.begin == r.piece {
			r.cut() // not before there is more: where a line ends, its end belongs to the position
		}
		n := min(len(p), r.begin+r.piece-len(r.buffer.bytes))
		r.buffer.bytes = append(r.buffer.bytes, p[:n]...)
		if timed {
			r.pos.offset += uint64(n)
		}
		p = p[n:]
	}
}

// trimmed is what the client does not have of the next bytes of a line. If the beginning is not that of the line the client has, it is another's, and
// the rest is dropped.
func (r *logReader) trimmed(p []byte) []byte {
	if r.trim == 0 {
		return p
	}
	n := min(r.trim, uint64(len(p)))
	r.known = crc32.Update(r.known, castagnoli, p[:n])
	if r.trim -= n; r.trim == 0 && r.known != r.pos.part {
		r.gap, r.passage = !r.lenient, drop
		r.leave(0)
	}
	return p[n:]
}

// leave leaves the line that the client has the beginning of, whose rest cannot be had, for one of this time.
func (r *logReader) leave(stamp int64) {
	r.pos.line, r.pos.offset, r.pos.part = stamp, 0, 0
	r.last.offset, r.last.part, r.lacks = 0, 0, 0
}

// cut makes a piece of what is in the buffer, up to the last whole rune if the client wants text: the rest will be in the next.
func (r *logReader) cut() {
	if b := r.leading(); len(b) > 0 {
		part := r.partOfRune(b)
		r.add(b[:len(b)-part], r.back(part))
	}
}

// flush makes pieces of all that is in the buffer. Nothing is held back to complete a rune: its parts go as bytes.
func (r *logReader) flush() {
	b := r.leading()
	part := r.partOfRune(b)
	r.add(b[:len(b)-part], r.back(part))
	if part > 0 {
		b = b[len(b)-part:]
		r.add(b, r.pos)
		r.lacks = runeLength(b[0]) - part
	}
}

// partOfRune is how many bytes at the end of b are the beginning of a rune that is to be sent whole, or apart.
func (r *logReader) partOfRune(b []byte) int {
	if !r.text {
		return 0
	}
	return len(b) - wholeRunes(b)
}

// leading makes a piece of the end of a rune whose beginning has gone, and returns what follows it.
func (r *logReader) leading() []byte {
	b := r.buffer.bytes[r.begin:]
	n := 0
	for n < min(r.lacks, len(b)) && !utf8.RuneStart(b[n]) {
		n++
	}
	if len(b) > 0 {
		p := r.last
		if p.offset > 0 {
			p.offset += uint64(n)
		}
		lacks := r.lacks - n
		r.add(b[:n], p)
		if n == len(b) {
			r.lacks = lacks
		}
	}
	return b[n:]
}

// add queues a piece.
func (r *logReader) add(b []byte, p position) {
	if len(b) == 0 {
		return
	}
	if p.offset > 0 {
		if line := bytes.LastIndexByte(b, '\n') + 1; line > 0 || r.last.offset == 0 {
			p.part = crc32.Checksum(b[line:], castagnoli)
		} else {
			p.part = crc32.Update(r.last.part, castagnoli, b)
		}
	}
	r.queue.add(data.Piece{Bytes: b, Text: r.text && utf8.Valid(b)}, end{})
	r.places = append(r.places, p)
	r.begin += len(b)
	r.last, r.lacks = p, 0
}

// back is the position so many bytes ago, in the same line.
func (r *logReader) back(n int) position {
	p := r.pos
	if p.offset >= uint64(n) {
		p.offset -= uint64(n)
	}
	return p
}

// runeLength is the length of a rune in UTF-8, by its first byte.
func runeLength(first byte) int { return max(bits.LeadingZeros8(^first), 1) }

// castagnoli is for hashes of lines, which processors have an instruction for.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)
