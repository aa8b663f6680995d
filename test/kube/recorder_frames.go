package kube

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
)

// keptText is how much of a message frameReader keeps: an ERROR event is far
// shorter, and of a longer message nobody wants to know more.
const keptText = 16 << 10

// Of RFC 6455 section 5.2.
const (
	finalFrame = 0x80
	opcodeMask = 0x0f
	opText     = 0x1
	opContinue = 0x0
	maskedBit  = 0x80
	lengthMask = 0x7f
	length16   = 126
	length64   = 127
)

// watchedRelay is the byte stream to the API server after 101: what is read from
// it passes by events. Reads are of one goroutine.
type watchedRelay struct {
	io.ReadWriteCloser
	events *frameReader
}

// Read implements io.Reader.
func (w *watchedRelay) Read(p []byte) (int, error) {
	n, err := w.ReadWriteCloser.Read(p)
	w.events.write(p[:n])
	return n, err
}

// frameReader finds the text messages in a byte stream of WebSocket frames as a
// server sends them, which are not masked. A stream that is none, as after an
// upgrade to SPDY, gives no messages or senseless ones.
type frameReader struct {
	// Immutable.
	message func(text []byte) // at the end of each text message; must not keep text

	// Owned by write.
	header []byte // of the frame under way, until it is whole
	first  byte   // first byte of its header
	left   uint64 // payload bytes of it still to come
	inside bool   // the header is whole
	text   bool   // the message under way is text
	kept   []byte // what came of that message
}

func (f *frameReader) write(p []byte) {
	for len(p) > 0 {
		if !f.inside {
			f.header = append(f.header, p[0])
			p = p[1:]
			f.tryHeader()
		} else {
			n := min(uint64(len(p)), f.left)
			f.keep(p[:n])
			p = p[n:]
			f.left -= n
		}
		if f.inside && f.left == 0 {
			f.endFrame()
		}
	}
}

// tryHeader reads the header if all of it has come.
func (f *frameReader) tryHeader() {
	if len(f.header) < 2 {
		return
	}
	h, length := f.header, f.header[1]&lengthMask
	need := 2
	switch length {
	case length16:
		need = 4
	case length64:
		need = 10
	}
	if h[1]&maskedBit != 0 {
		need += 4
	}
	if len(h) < need {
		return
	}
	switch length {
	case length16:
		f.left = uint64(binary.BigEndian.Uint16(h[2:]))
	case length64:
		f.left = binary.BigEndian.Uint64(h[2:])
	default:
		f.left = uint64(length)
	}
	f.first, f.inside, f.header = h[0], true, h[:0]
	if f.data() && f.first&opcodeMask != opContinue {
		f.text, f.kept = f.first&opcodeMask == opText, f.kept[:0]
	}
}

// data tells whether the frame is one of a message and not a control frame.
func (f *frameReader) data() bool { return f.first&0x08 == 0 }

func (f *frameReader) keep(p []byte) {
	if f.text && f.data() {
		f.kept = append(f.kept, p[:min(len(p), keptText-len(f.kept))]...)
	}
}

func (f *frameReader) endFrame() {
	f.inside = false
	if f.text && f.data() && f.first&finalFrame != 0 {
		f.message(f.kept)
		f.text = false
	}
}

// expiredEvent tells whether the text of a message is a watch event of type
// ERROR with code 410, and the message of its Status.
func expiredEvent(text []byte) (message string, expired bool) {
	if !bytes.HasPrefix(text, []byte(`{"type":"ERROR"`)) {
		return "", false
	}
	var event struct {
		Object struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"object"`
	}
	if err := json.Unmarshal(text, &event); err != nil || event.Object.Code != http.StatusGone {
		return "", false
	}
	return event.Object.Message, true
}
