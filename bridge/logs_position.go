package bridge

import (
	"encoding/base64"
	"encoding/binary"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// instance is one run of a container. The zero value is one of which nothing is known.
type instance struct {
	pod       [hashBytes]byte // of the pod's UID
	container [hashBytes]byte // of the container's ID at its runtime
	restarts  uint32          // restartCount
}

// known reports whether it is known which one it is.
func (i instance) known() bool { return i.container != [hashBytes]byte{} }

// position is how much of a log was delivered. An API server knows lines by their time alone, cut to seconds, and the times of lines that a
// process writes to two streams at once may be out of order by a little. So it is: all up to the last of the lines at the newest time,
// and so many more, in the order of the log, and so many bytes of the line after those. The zero value is the log's beginning.
type position struct {
	instance instance
	newest   int64  // time of the newest line that is whole, in nanoseconds since 1970
	at       uint64 // whole lines at that time; 0 when no line is whole
	after    uint64 // whole lines after the last of those, within slack
	offset   uint64 // bytes of the line after those, as the client has them; 0 when it has none
	line     int64  // the time of that line
	part     uint32 // hash of those bytes
	anchor   uint32 // hash of the first of the lines at the newest time
}

// slack is how much older than the newest line before it a line may be: what is asked for begins that much earlier than it would have to.
const slack = time.Second

// begun reports whether there is anything before the position.
func (p *position) begun() bool { return p.at > 0 || p.offset > 0 }

// since is the time from which on lines must be asked for to find the position again. It is whole seconds, as the API server cuts it.
func (p *position) since() time.Time {
	t := p.newest
	if p.at == 0 {
		t = p.line
	}
	return time.Unix(0, t).UTC().Truncate(time.Second).Add(-slack)
}

// end moves the position to the end of a line of this time. Its hash is needed only if it is newer than all before it.
func (p *position) end(stamp int64, hash uint32) {
	switch {
	case p.at == 0 || stamp > p.newest:
		p.newest, p.at, p.after, p.anchor = stamp, 1, 0, hash
	case stamp == p.newest:
		p.at++
		p.after = 0
	case stamp >= p.since().UnixNano():
		p.after++
	}
	p.offset, p.line, p.part = 0, 0, 0
}

// logCursors are the cursors of a log. What is asked of it beyond its name is no part of the target here: it says where to begin.
func logCursors(identity string, t *sluicev1.LogTarget) *cursors {
	c := &cursors{cursorFormat, logCursor}
	previous, stamps := "", ""
	if t.GetPrevious() {
		previous = "previous"
	}
	if t.GetTimestamps() { // a position within a line counts them
		stamps = "timestamps"
	}
	copy(c[2:], hash(identity))
	copy(c[2+hashBytes:], hash(t.GetNamespace(), t.GetPod(), t.GetContainer(), previous, stamps))
	return c
}

// atPosition is the cursor of a position; empty for the log's beginning.
func (c *cursors) atPosition(p *position) string {
	if !p.begun() {
		return ""
	}
	return c.ofPosition(p)
}

// atBeginning is the cursor of the beginning of an instance's log, whatever the target says of where to begin; empty if the instance is not known.
func (c *cursors) atBeginning(p *position) string {
	if p.begun() || !p.instance.known() {
		return ""
	}
	return c.ofPosition(p)
}

// ofPosition writes a cursor.
//
//	8 bytes  beginning of SHA-256 of the pod's UID, zeros when that is not known
//	8 bytes  beginning of SHA-256 of the container's ID, likewise
//	varints  restarts, newest, at, after, offset; if that is not 0 line, relative to newest, and part; anchor
func (c *cursors) ofPosition(p *position) string {
	var raw [cursorHeader + 2*hashBytes + 8*binary.MaxVarintLen64]byte
	b := append(raw[:0], c[:]...)
	b = append(append(b, p.instance.pod[:]...), p.instance.container[:]...)
	b = binary.AppendUvarint(b, uint64(p.instance.restarts))
	b = binary.AppendVarint(b, p.newest)
	b = binary.AppendUvarint(b, p.at)
	b = binary.AppendUvarint(b, p.after)
	b = binary.AppendUvarint(b, p.offset)
	if p.offset > 0 {
		b = binary.AppendVarint(b, p.line-p.newest)
		b = binary.AppendUvarint(b, uint64(p.part))
	}
	b = binary.AppendUvarint(b, uint64(p.anchor))
	return base64.RawURLEncoding.EncodeToString(b)
}

// position reads a cursor: INVALID_ARGUMENT with REASON_INVALID_CURSOR unless [cursors.atPosition] or [cursors.atBeginning] made it, for this target
// and this cluster.
func (c *cursors) position(cursor string) (p position, err error) {
	rest, err := c.open(cursor)
	if err != nil {
		return position{}, err
	}
	if len(rest) < 2*hashBytes {
		return position{}, foreignCursor()
	}
	copy(p.instance.pod[:], rest)
	copy(p.instance.container[:], rest[hashBytes:])
	r := varints{rest: rest[2*hashBytes:]}
	p.instance.restarts = uint32(r.unsigned())
	p.newest, p.at, p.after, p.offset = r.signed(), r.unsigned(), r.unsigned(), r.unsigned()
	if p.offset > 0 {
		p.line = p.newest + r.signed()
		p.part = uint32(r.unsigned())
	}
	p.anchor = uint32(r.unsigned())
	if !p.begun() && !p.instance.known() || c.ofPosition(&p) != cursor { // a number was cut, or too long, or there was something behind
		return position{}, foreignCursor()
	}
	return p, nil
}

// varints reads numbers one after the other. One that is broken is 0.
type varints struct{ rest []byte }

func (v *varints) unsigned() uint64 {
	n, size := binary.Uvarint(v.rest)
	v.rest = v.rest[max(size, 0):]
	return n
}

func (v *varints) signed() int64 {
	n, size := binary.Varint(v.rest)
	v.rest = v.rest[max(size, 0):]
	return n
}
