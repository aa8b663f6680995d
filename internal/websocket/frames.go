package websocket

import (
	"encoding/binary"
	"unicode/utf8"
)

// The opcodes of RFC 6455 section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	maxControl = 125 // payload of a control frame, section 5.5
	maxHeader  = 14  // of a frame, mask included
)

// Fragment is a message, or a part of one.
type Fragment struct {
	// Bytes is the payload; empty in an empty message.
	Bytes []byte
	// Text says that the message is a text message.
	Text bool
	// Last says that the message ends here.
	Last bool
}

// header is the beginning of a frame.
type header struct {
	opcode byte
	fin    bool
	length int64
}

func (h header) control() bool { return h.opcode >= opClose }

// parseHeader reads the header at the beginning of d and returns its size, 0 when d holds too little of it. What two bytes
// already prove wrong is refused before there are more.
func parseHeader(d []byte) (h header, size int, err error) {
	if len(d) < 2 {
		return h, 0, nil
	}
	h = header{opcode: d[0] & 0x0f, fin: d[0]&0x80 != 0, length: int64(d[1] & 0x7f)}
	if err := h.check(d[0], d[1]); err != nil {
		return h, 0, err
	}
	switch {
	case h.length < 126:
		return h, 2, nil
	case h.length == 126:
		if len(d) < 4 {
			return h, 0, nil
		}
		h.length = int64(binary.BigEndian.Uint16(d[2:]))
		return h, 4, nil
	case len(d) < 10:
		return h, 0, nil
	}
	length := binary.BigEndian.Uint64(d[2:])
	if length > 1<<63-1 {
		return h, 0, violation("the top bit of a 64-bit length is set")
	}
	h.length = int64(length)
	return h, 10, nil
}

func (h header) check(first, second byte) error {
	switch {
	case first&0x70 != 0:
		return violation("reserved bits %#x are set and no extension was negotiated", first&0x70)
	case second&0x80 != 0:
		return violation("a server's frame is masked")
	case h.opcode > opBinary && h.opcode < opClose, h.opcode > opPong:
		return violation("unknown opcode %#x", h.opcode)
	case h.control() && !h.fin:
		return violation("a control frame is fragmented")
	case h.control() && h.length > maxControl:
		return violation("a control frame is longer than %d bytes", maxControl)
	}
	return nil
}

// framer takes a byte stream apart into fragments. It is a state machine without I/O: how the stream is cut into reads makes no
// difference to the fragments.
type framer struct {
	// Immutable after the first walk.
	utf8    bool                                    // check text messages
	cost    int                                     // what each fragment costs besides its bytes
	control func(opcode byte, payload []byte) error // an error ends the walk

	open  bool  // inside a message
	text  bool  // it is a text message
	fin   bool  // the current data frame is its last
	taken bool  // no data frame is being taken
	rest  int64 // payload of the current data frame that is yet to come

	// carry is what a walk left over: held bytes of the fragment that is being put together, then raw bytes.
	carry carry
	held  int
	ready bool // the carry holds a fragment that only lacked room
}

// begin starts a data frame.
func (f *framer) begin(h header) error {
	switch {
	case h.opcode == opContinuation && !f.open:
		return violation("a continuation without a message")
	case h.opcode != opContinuation && f.open:
		return violation("a new message inside a message")
	case h.opcode != opContinuation:
		f.open, f.text = true, h.opcode == opText
	}
	f.fin, f.rest, f.taken = h.fin, h.length, false
	return nil
}

// walk is one pass over what a read brought.
//
//	d[:start]     given out as fragments
//	d[start:end]  payload of the fragment that is being put together
//	d[next:]      raw bytes
type walk struct {
	*framer
	d                []byte
	start, end, next int
	room, part       int
	out              []Fragment
}

// walk goes over d, which begins with the carry, and appends to out the fragments for which limit has room. Of a message of at
// most part bytes it makes one fragment; of a longer one, fragments of exactly part bytes and a last one, in checked text
// shortened to whole runes. limit must be at least part+cost, so that a walk without any fragment needs more bytes, not more room.
func (f *framer) walk(d []byte, limit, part int, out []Fragment) ([]Fragment, error) {
	w := walk{framer: f, d: d, end: f.held, next: f.held, room: limit, part: part, out: out}
	f.ready = false
	err := w.run()
	f.keep(d[w.start:w.end], d[w.next:])
	return w.out, err
}

func (w *walk) run() error {
	for {
		if w.open && !w.taken {
			if more, err := w.take(); !more || err != nil {
				return err
			}
			continue
		}
		h, size, err := parseHeader(w.d[w.next:])
		if size == 0 || err != nil {
			return err
		}
		if h.control() {
			if more, err := w.answer(h, size); !more || err != nil {
				return err
			}
			continue
		}
		if err := w.begin(h); err != nil {
			return err
		}
		w.next += size
		w.rebase()
	}
}

// answer hands over a control frame, if it is whole.
func (w *walk) answer(h header, size int) (more bool, err error) {
	begin, end := w.next+size, w.next+size+int(h.length)
	if end > len(w.d) {
		return false, nil
	}
	w.next = end
	return true, w.control(h.opcode, w.d[begin:end])
}

// take moves payload of the current frame into the fragment and gives out what is complete. It returns false when it needs more
// bytes or more room.
func (w *walk) take() (more bool, err error) {
	for {
		switch size := w.end - w.start; {
		case size >= w.part && w.rest > 0, size > w.part && w.fin:
			if more, err := w.emit(w.part, false); !more {
				return false, err
			}
		case w.rest > 0:
			n := int(min(w.rest, int64(len(w.d)-w.next), int64(w.part-size)))
			if n == 0 {
				return false, nil
			}
			w.move(n)
		case !w.fin:
			w.taken = true
			return true, nil
		default:
			more, err := w.emit(size, true)
			if more {
				w.taken, w.open = true, false
			}
			return more, err
		}
	}
}

// move appends n raw bytes to the fragment, where they are already unless a header lay between.
func (w *walk) move(n int) {
	if w.end != w.next {
		copy(w.d[w.end:], w.d[w.next:w.next+n])
	}
	w.end += n
	w.next += n
	w.rest -= int64(n)
}

// emit gives out the first n bytes of the fragment, or fewer to end at a whole rune.
func (w *walk) emit(n int, last bool) (more bool, err error) {
	p := w.d[w.start : w.start+n : w.start+n]
	if w.text && w.utf8 {
		if !last {
			p = wholeRunes(p)
		}
		if !utf8.Valid(p) {
			return false, &ProtocolError{Code: CodeInvalidText, Message: "a text message is not UTF-8"}
		}
	}
	if len(p)+w.cost > w.room {
		w.ready = true
		return false, nil
	}
	w.room -= len(p) + w.cost
	w.out = append(w.out, Fragment{Bytes: p, Text: w.text, Last: last})
	w.start += len(p)
	w.rebase()
	return true, nil
}

// rebase begins an empty fragment where the raw bytes are, so that nothing has to be moved.
func (w *walk) rebase() {
	if w.start == w.end {
		w.start, w.end = w.next, w.next
	}
}

// wholeRunes is p without the beginning of a rune at its end.
func wholeRunes(p []byte) []byte {
	for i := len(p) - 1; i >= 0 && i >= len(p)-utf8.UTFMax+1; i-- {
		if utf8.RuneStart(p[i]) {
			if utf8.FullRune(p[i:]) {
				return p
			}
			return p[:i]
		}
	}
	return p
}

// keep carries over what is left of a walk.
func (f *framer) keep(held, raw []byte) {
	f.held = len(held)
	f.carry.fill(held, raw)
}

// closeError reads the payload of a close frame, section 5.5.1. cut says that it came within a message.
func closeError(p []byte, cut bool) error {
	if len(p) == 0 {
		return &CloseError{Code: CodeNone, Cut: cut}
	}
	if len(p) == 1 {
		return violation("a close frame of one byte")
	}
	code := int(binary.BigEndian.Uint16(p))
	if !sendable(code) {
		return violation("a close frame with code %d", code)
	}
	if !utf8.Valid(p[2:]) {
		return &ProtocolError{Code: CodeInvalidText, Message: "the reason of a close frame is not UTF-8"}
	}
	return &CloseError{Code: code, Reason: string(p[2:]), Cut: cut}
}

// sendable says whether a close frame may carry the code: section 7.4.2 and IANA's registry of close codes.
func sendable(code int) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
		return true
	}
	return code >= 3000 && code <= 4999
}
