package spdy

import (
	"encoding/binary"
	"fmt"
)

// maxControl is the longest control frame that is passed over, in bytes of payload. Replies of spdystream have 20.
const maxControl = 64 << 10

// Kind is what an event tells.
type Kind uint8

// The kinds of events.
const (
	// None: what there was to read told nothing. Control frames that concern nobody end here.
	None Kind = iota
	// Data: bytes on a stream, a whole frame or part of one.
	Data
	// Reply: the peer has accepted a stream.
	Reply
	// Headers: the peer has sent headers on a stream, which are not read.
	Headers
	// Reset: the peer has ended both directions of a stream.
	Reset
	// Ping: a question of the peer, or the answer to one of this end; the number tells.
	Ping
	// GoAway: the peer will accept no further stream.
	GoAway
)

// Event is what the peer has said.
type Event struct {
	Kind Kind
	// Fin says that the peer sends no more on the stream: of Data, Reply and Headers. It comes with the last bytes, or without any.
	Fin bool
	// Stream is the stream's number; 0 for Ping, and for GoAway the last that the peer has taken.
	Stream uint32
	// Code is the status of Reset and GoAway, the number of Ping.
	Code uint32
	// Bytes are those of Data. They are part of what was decoded and as valid as that.
	Bytes []byte
}

// Error says that the peer broke SPDY. It is final.
type Error struct {
	// Message names the rule.
	Message string
}

// Error implements error.
func (e *Error) Error() string { return "spdy: peer broke the protocol: " + e.Message }

func violation(format string, args ...any) *Error {
	return &Error{Message: fmt.Sprintf(format, args...)}
}

// Decoder takes a peer's byte stream apart. It is a state machine without I/O that holds at most 16 bytes: data is handed over where it lies,
// as it comes, and how the stream is cut makes no difference but to the lengths of Data. The zero value is ready. One goroutine at a time
// may use it.
type Decoder struct {
	header [headerBytes]byte
	got    int // of the header

	// What the header says. Valid while a frame is being read: got is headerBytes.
	control bool
	kind    uint16
	flags   byte
	rest    uint32 // payload that is yet to come

	// Of a control frame: the beginning of its payload, which is all that is looked at.
	head [8]byte
	held uint8
	want uint8

	failure *Error
}

// Next reads from b, which is not empty, up to the next event, and returns it with the number of bytes read. An event of Kind None says that b
// is used up. An error is an *[Error], and returned by each further call.
func (d *Decoder) Next(b []byte) (e Event, n int, err error) {
	if d.failure != nil {
		return Event{}, 0, d.failure
	}
	for n < len(b) {
		var used int
		e, used, d.failure = d.step(b[n:])
		n += used
		if d.failure != nil {
			return Event{}, n, d.failure
		}
		if e.Kind != None {
			return e, n, nil
		}
	}
	return Event{}, n, nil
}

// step reads a part of a frame: of its header, or of its payload. It uses at least one byte of b.
func (d *Decoder) step(b []byte) (e Event, n int, failure *Error) {
	if d.got == headerBytes {
		return d.payload(b, 0)
	}
	n = copy(d.header[d.got:], b)
	d.got += n
	if d.got < headerBytes {
		return Event{}, n, nil
	}
	if failure = d.begin(); failure != nil || d.rest > 0 {
		return Event{}, n, failure
	}
	return d.payload(b[n:], n)
}

// begin reads a frame's header.
func (d *Decoder) begin() *Error {
	length := binary.BigEndian.Uint32(d.header[4:])
	d.flags, d.rest = byte(length>>24), length&MaxData
	d.control = d.header[0]&controlBit != 0
	if !d.control {
		if d.stream() == 0 {
			return violation("data on stream 0")
		}
		return nil
	}
	if v := binary.BigEndian.Uint16(d.header[:]) &^ (controlBit << 8); v != version {
		return violation("a control frame of version %d", v)
	}
	if d.rest > maxControl {
		return violation("a control frame of %d bytes, more than %d", d.rest, maxControl)
	}
	d.kind = binary.BigEndian.Uint16(d.header[2:])
	d.held, d.want = 0, 0
	shape, known := shapes[d.kind]
	switch {
	case !known: // section 2.2.1: what is unknown is passed over
		return nil
	case d.kind == typeSynStream:
		return violation("the peer opens a stream")
	case d.rest < uint32(shape.least), shape.exact && d.rest != uint32(shape.least):
		return violation("a control frame of type %d and %d bytes", d.kind, d.rest)
	}
	d.want = shape.least
	return nil
}

// shape is how long a control frame is, and whether it may be longer. The first 8 bytes at most are looked at.
type shape struct {
	least uint8
	exact bool
}

// shapes are the control frames that mean something, sections 2.6.1 to 2.6.8.
var shapes = map[uint16]shape{
	typeSynStream:    {},
	typeSynReply:     {least: 4},
	typeRstStream:    {least: 8, exact: true},
	typeSettings:     {least: 4},
	typePing:         {least: 4, exact: true},
	typeGoAway:       {least: 8, exact: true},
	typeHeaders:      {least: 4},
	typeWindowUpdate: {least: 8, exact: true},
}

// stream is the number of the stream that a DATA frame belongs to.
func (d *Decoder) stream() uint32 { return binary.BigEndian.Uint32(d.header[:]) & maxStream }

// payload reads of the current frame's payload; before is what was read in the same step. The frame's end begins the next.
func (d *Decoder) payload(b []byte, before int) (e Event, n int, failure *Error) {
	p := b[:min(len(b), int(d.rest))]
	d.rest -= uint32(len(p))
	n = before + len(p)
	if d.control && d.held < d.want {
		d.held += uint8(copy(d.head[d.held:d.want], p))
	}
	whole := d.rest == 0
	if whole {
		d.got = 0
	}
	switch {
	case !d.control:
		e = Event{Kind: Data, Stream: d.stream(), Bytes: p, Fin: whole && d.flags&flagFin != 0}
		if len(p) == 0 && !e.Fin {
			e = Event{} // an empty frame tells nothing
		}
	case whole:
		e, failure = d.told()
	}
	return e, n, failure
}

// told is what a whole control frame tells.
func (d *Decoder) told() (Event, *Error) {
	first, second := binary.BigEndian.Uint32(d.head[:]), binary.BigEndian.Uint32(d.head[4:])
	e := Event{Stream: first & maxStream, Fin: d.flags&flagFin != 0}
	switch d.kind {
	case typeSynReply:
		e.Kind = Reply
	case typeHeaders:
		e.Kind = Headers
	case typeRstStream:
		e = Event{Kind: Reset, Stream: e.Stream, Code: second}
	case typeGoAway:
		return Event{Kind: GoAway, Stream: e.Stream, Code: second}, nil
	case typePing:
		return Event{Kind: Ping, Code: first}, nil
	default:
		return Event{}, nil
	}
	if e.Stream == 0 {
		return Event{}, violation("a control frame of type %d on stream 0", d.kind)
	}
	return e, nil
}
