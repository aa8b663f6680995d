// Package event makes the watch events that the benchmark sends, and reads them where they arrive.
//
// An event is a Pod's as an API server would send it, of exactly the size that is asked for. An annotation of it holds a mark: when the
// event was due, on a clock that all processes of the machine share, and its place in its watch. The place is told by the resource version
// too, so that a watch can be continued anywhere.
package event

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// MinSize is the size of the smallest event, in bytes.
const MinSize = 420

const (
	markBegin   = "@@"
	markEnd     = "@@"
	timeDigits  = 20
	seqDigits   = 12
	markLen     = len(markBegin) + timeDigits + 1 + seqDigits + len(markEnd)
	versionBase = 100_000_000_000 // the version of an event is this and its place, always 12 digits
)

var annotation = []byte(`"bench/mark":"` + markBegin)

// Mark says of an event when it was due, in nanoseconds of [Now], and which of its watch it is, from 1.
type Mark struct {
	Due int64
	Seq uint64
}

// Read finds the mark of an event; false if it has none, or a damaged one.
func Read(ev []byte) (Mark, bool) {
	i := bytes.Index(ev, annotation)
	if i < 0 {
		return Mark{}, false
	}
	m := ev[i+len(annotation)-len(markBegin):]
	if len(m) < markLen || string(m[markLen-len(markEnd):markLen]) != markEnd {
		return Mark{}, false
	}
	m = m[len(markBegin):]
	due, ok1 := digits(m[:timeDigits])
	seq, ok2 := digits(m[timeDigits+1 : timeDigits+1+seqDigits])
	return Mark{Due: int64(due), Seq: seq}, ok1 && ok2
}

func digits(b []byte) (v uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		v = v*10 + uint64(c-'0')
	}
	return v, true
}

func putDigits(b []byte, v uint64) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = byte('0' + v%10)
		v /= 10
	}
}

// IsBookmark reports whether an event is a bookmark, of which [Frames] has none.
func IsBookmark(ev []byte) bool { return bytes.HasPrefix(ev, []byte(`{"type":"BOOKMARK"`)) }

// Version is the resource version of a watch's event.
func Version(seq uint64) string { return strconv.FormatUint(versionBase+seq, 10) }

// Seq is the place of the event with a resource version.
func Seq(version string) (uint64, error) {
	v, err := strconv.ParseUint(version, 10, 64)
	if err != nil || v < versionBase {
		return 0, fmt.Errorf("resource version %q is none of this upstream's", version)
	}
	return v - versionBase, nil
}

// Frames are some events of one watch in a row, each in a WebSocket text frame of a server (RFC 6455 section 5.2), in one buffer.
type Frames struct {
	buf            []byte
	n, each        int
	version, stamp int // where they are in a frame
}

// NewFrames makes n events of size bytes of the type, such as MODIFIED, about a Pod of the namespace. What Stamp has not been called for is
// not to be sent.
func NewFrames(kind, namespace string, size, n int) (*Frames, error) {
	ev, err := pod(kind, namespace, size)
	if err != nil {
		return nil, err
	}
	frame := TextFrame(ev)
	f := &Frames{buf: bytes.Repeat(frame, n), n: n, each: len(frame)}
	f.version = bytes.Index(frame, []byte(versionKey)) + len(versionKey)
	f.stamp = bytes.Index(frame, annotation) + len(annotation)
	return f, nil
}

// Len is how many events there are.
func (f *Frames) Len() int { return f.n }

// Stamp makes the first n events those from first on, due at a time, and returns their frames. They are valid until the next call.
func (f *Frames) Stamp(n int, first uint64, due int64) []byte {
	for i := range n {
		frame := f.buf[i*f.each : (i+1)*f.each]
		seq := first + uint64(i)
		putDigits(frame[f.version:f.version+seqDigits], versionBase+seq)
		m := frame[f.stamp:]
		putDigits(m[:timeDigits], uint64(due))
		putDigits(m[timeDigits+1:timeDigits+1+seqDigits], seq)
	}
	return f.buf[:n*f.each]
}

const versionKey = `"resourceVersion":"`

// pod is an event of exactly size bytes, with a mark that says nothing yet.
func pod(kind, namespace string, size int) ([]byte, error) {
	head := `{"type":"` + kind + `","object":{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web-7c5ddbdf54-x2x7k","namespace":"` +
		namespace + `",` + versionKey + strings.Repeat("0", seqDigits) + `","creationTimestamp":"2026-11-01T10:00:00Z","labels":{"app":"web"},` +
		`"annotations":{` + string(annotation) + strings.Repeat("0", timeDigits) + ":" + strings.Repeat("0", seqDigits) + markEnd + `"}`
	const (
		tail = `},"spec":{"nodeName":"node-1"},"status":{"phase":"Running","podIP":"10.1.2.3"}}}` + "\n"
		open = `,"managedFields":[`
		one  = `{"manager":"kubelet","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{".":{},"f:status":{}}}}},"subresource":"status"}`
		pad  = `,"generateName":""`
	)
	var b strings.Builder
	b.WriteString(head)
	rest := size - len(head) - len(tail)
	if n := (rest - len(open) - len(pad)) / (len(one) + 1); n > 0 {
		fields := open + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + "]"
		b.WriteString(fields)
		rest -= len(fields)
	}
	if rest < len(pad) {
		return nil, fmt.Errorf("an event in namespace %q cannot be as small as %d bytes", namespace, size)
	}
	b.WriteString(strings.TrimSuffix(pad, `"`) + strings.Repeat("x", rest-len(pad)) + `"`)
	b.WriteString(tail)
	return []byte(b.String()), nil
}

// Bookmark is the frame of the bookmark that ends a streamed list as of an event (KEP-3157).
func Bookmark(seq uint64) []byte {
	return TextFrame([]byte(`{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"` + Version(seq) +
		`","annotations":{"k8s.io/initial-events-end":"true"}}}}` + "\n"))
}

// TextFrame is a text message of a server as one frame.
func TextFrame(payload []byte) []byte {
	const finText = 0x81
	h := []byte{finText}
	switch n := len(payload); {
	case n < 126:
		h = append(h, byte(n))
	case n < 1<<16:
		h = binary.BigEndian.AppendUint16(append(h, 126), uint16(n))
	default:
		h = binary.BigEndian.AppendUint64(append(h, 127), uint64(n))
	}
	return append(h, payload...)
}
