package mux

import (
	"encoding/binary"
	"math/bits"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// The hot part of the wire format, by hand and compatible with the generated messages (the tests and fuzzers compare both):
//
//	ConnectRequest, ConnectResponse { repeated Frame frames = 1; }
//	ClientFrame, ServerFrame        { uint32 channel = 1; uint64 seq = 2; oneof { Data data = 3; Ack ack = 4; ... } }
//	Data                            { Stream stream = 1; bool more = 2; string cursor = 3; oneof { bytes binary = 4; string text = 5; } }
//	Ack                             { uint64 seq = 1; uint64 window = 2; }
//
// Data and Ack have the same numbers in both envelopes, and the payload comes last, so that header and payload are contiguous.
const (
	tagFrames  = 1<<3 | 2
	tagChannel = 1 << 3
	tagSeq     = 2 << 3
	tagData    = 3<<3 | 2
	tagAck     = 4<<3 | 2

	tagStream = 1 << 3
	tagMore   = 2 << 3
	tagCursor = 3<<3 | 2
	tagBinary = 4<<3 | 2
	tagText   = 5<<3 | 2

	tagAckSeq    = 1 << 3
	tagAckWindow = 2 << 3
)

func uvlen(x uint64) int { return (bits.Len64(x|1) + 6) / 7 }

// dataSizes are the encoded sizes of a piece with a payload of n bytes: of its Data, and of its frame without the outer tag and length.
func dataSizes(channel uint32, seq uint64, p *data.Piece, n int) (dataSize, frameSize int) {
	if p.Stream != 0 {
		dataSize += 1 + uvlen(uint64(p.Stream))
	}
	if p.More {
		dataSize += 2
	}
	if n := len(p.Cursor); n > 0 {
		dataSize += 1 + uvlen(uint64(n)) + n
	}
	dataSize += 1 + uvlen(uint64(n)) + n
	frameSize = 1 + uvlen(uint64(channel)) + 1 + uvlen(seq) + 1 + uvlen(uint64(dataSize)) + dataSize
	return dataSize, frameSize
}

// dataFrameSize is the encoded size of a piece with a payload of so many bytes, as one frame of a batch.
func dataFrameSize(channel uint32, seq uint64, p *data.Piece, payload int) int {
	_, n := dataSizes(channel, seq, p, payload)
	return 1 + uvlen(uint64(n)) + n
}

// appendData appends a piece as one frame of a batch.
func appendData(b []byte, channel uint32, seq uint64, p *data.Piece) []byte {
	payload := p.Len()
	dataSize, frameSize := dataSizes(channel, seq, p, payload)
	b = binary.AppendUvarint(append(b, tagFrames), uint64(frameSize))
	b = binary.AppendUvarint(append(b, tagChannel), uint64(channel))
	b = binary.AppendUvarint(append(b, tagSeq), seq)
	b = binary.AppendUvarint(append(b, tagData), uint64(dataSize))
	if p.Stream != 0 {
		b = binary.AppendUvarint(append(b, tagStream), uint64(p.Stream))
	}
	if p.More {
		b = append(b, tagMore, 1)
	}
	if p.Cursor != "" {
		b = binary.AppendUvarint(append(b, tagCursor), uint64(len(p.Cursor)))
		b = append(b, p.Cursor...)
	}
	tag := byte(tagBinary)
	if p.Text {
		tag = tagText
	}
	b = append(binary.AppendUvarint(append(b, tag), uint64(payload)), p.Bytes...)
	for _, rest := range p.Rest {
		b = append(b, rest...)
	}
	return b
}

// appendAck appends an Ack as one frame of a batch.
func appendAck(b []byte, channel uint32, seq, window uint64) []byte {
	n := 0
	if seq != 0 {
		n += 1 + uvlen(seq)
	}
	if window != 0 {
		n += 1 + uvlen(window)
	}
	b = append(b, tagFrames, byte(1+uvlen(uint64(channel))+2+n))
	b = binary.AppendUvarint(append(b, tagChannel), uint64(channel))
	b = append(b, tagAck, byte(n))
	if seq != 0 {
		b = binary.AppendUvarint(append(b, tagAckSeq), seq)
	}
	if window != 0 {
		b = binary.AppendUvarint(append(b, tagAckWindow), window)
	}
	return b
}

// newMessageSegment is a segment with one frame that is neither Data nor Ack.
func newMessageSegment(role Role, channel uint32, seq uint64, body proto.Message) *Segment {
	f := envelope(role, channel, seq, body)
	n := proto.Size(f)
	g := newSegment(1 + uvlen(uint64(n)) + n)
	g.b = binary.AppendUvarint(append(g.b, tagFrames), uint64(n))
	b, err := proto.MarshalOptions{}.MarshalAppend(g.b, f)
	if err != nil { // only a string that is not UTF-8 can do this, such as an upstream's text
		body = proto.Clone(body) // it may be shared
		makeValid(body.ProtoReflect())
		return newMessageSegment(role, channel, seq, body)
	}
	g.b, g.first, g.last = b, seq, seq
	return g
}

// makeValid replaces what is not UTF-8 in a message's strings.
func makeValid(m protoreflect.Message) {
	m.Range(func(d protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case d.Kind() == protoreflect.StringKind && d.IsList():
			for i := range v.List().Len() {
				v.List().Set(i, protoreflect.ValueOfString(strings.ToValidUTF8(v.List().Get(i).String(), "\uFFFD")))
			}
		case d.Kind() == protoreflect.StringKind:
			m.Set(d, protoreflect.ValueOfString(strings.ToValidUTF8(v.String(), "\uFFFD")))
		case d.Kind() == protoreflect.MessageKind && d.IsList():
			for i := range v.List().Len() {
				makeValid(v.List().Get(i).Message())
			}
		case d.Kind() == protoreflect.MessageKind:
			makeValid(v.Message())
		}
		return true
	})
}

// frame is a decoded frame. Its slices alias the batch.
type frame struct {
	channel uint32
	seq     uint64
	kind    kind
	size    int // encoded
	// Of Data.
	payload []byte
	cursor  []byte
	stream  sluicev1.Stream
	text    bool
	more    bool
	// Of Ack.
	ackSeq, window uint64
	// Of all others.
	body proto.Message
}

func malformed(what string) error {
	return status.Violation("batch: %s is malformed", what)
}

// nextFrame takes the first frame off b.
func nextFrame(b []byte, from Role, f *frame) (rest []byte, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, malformed("a tag")
		}
		if num != 1 || typ != protowire.BytesType {
			k := protowire.ConsumeFieldValue(num, typ, b[n:])
			if k < 0 {
				return nil, malformed("an unknown field")
			}
			b = b[n+k:]
			continue
		}
		v, k := protowire.ConsumeBytes(b[n:])
		if k < 0 {
			return nil, malformed("a frame's length")
		}
		return b[n+k:], parseFrame(v, from, f)
	}
	f.kind = kindNone
	return nil, nil
}

// parseFrame decodes one frame: the common shapes by hand, all others with the generated code.
func parseFrame(b []byte, from Role, f *frame) error {
	*f = frame{}
	if !parseFast(b, f) {
		*f = frame{}
		if err := parseMessage(b, from, f); err != nil {
			return err
		}
	}
	f.size = len(b)
	return nil
}

// parseFast decodes a frame with Data or Ack in the canonical order of fields, each at most once; false for anything else.
func parseFast(b []byte, f *frame) bool {
	var v uint64
	var ok bool
	if v, b, ok = takeVarint(b, tagChannel); ok {
		f.channel = uint32(v)
	}
	f.seq, b, _ = takeVarint(b, tagSeq)
	if len(b) < 2 {
		return false
	}
	tag := b[0]
	d, n := protowire.ConsumeBytes(b[1:])
	if n < 0 || 1+n != len(b) {
		return false
	}
	switch tag {
	case tagData:
		return f.parseData(d)
	case tagAck:
		return f.parseAck(d)
	}
	return false
}

func takeVarint(b []byte, tag byte) (uint64, []byte, bool) {
	if len(b) < 2 || b[0] != tag {
		return 0, b, false
	}
	if b[1] < 0x80 {
		return uint64(b[1]), b[2:], true
	}
	v, n := protowire.ConsumeVarint(b[1:])
	if n < 0 {
		return 0, b, false
	}
	return v, b[1+n:], true
}

func (f *frame) parseData(d []byte) bool {
	f.kind = kindData
	v, d, _ := takeVarint(d, tagStream)
	f.stream = sluicev1.Stream(int32(v))
	v, d, _ = takeVarint(d, tagMore)
	f.more = v != 0
	if len(d) > 0 && d[0] == tagCursor {
		c, n := protowire.ConsumeBytes(d[1:])
		if n < 0 || !utf8.Valid(c) {
			return false
		}
		f.cursor, d = c, d[1+n:]
	}
	if len(d) == 0 {
		return true
	}
	p, n := protowire.ConsumeBytes(d[1:])
	if n < 0 || 1+n != len(d) {
		return false
	}
	switch d[0] {
	case tagBinary:
	case tagText:
		if !utf8.Valid(p) {
			return false
		}
		f.text = true
	default:
		return false
	}
	f.payload = p
	return true
}

func (f *frame) parseAck(d []byte) bool {
	f.kind = kindAck
	f.ackSeq, d, _ = takeVarint(d, tagAckSeq)
	f.window, d, _ = takeVarint(d, tagAckWindow)
	return len(d) == 0
}

// parseMessage decodes a frame with the generated code.
func parseMessage(b []byte, from Role, f *frame) error {
	if from == Client {
		var m sluicev1.ClientFrame
		if err := proto.Unmarshal(b, &m); err != nil {
			return status.Violation("batch: a frame is malformed").Wrap(err)
		}
		f.channel, f.seq = m.GetChannel(), m.GetSeq()
		f.fromClient(&m)
		return nil
	}
	var m sluicev1.ServerFrame
	if err := proto.Unmarshal(b, &m); err != nil {
		return status.Violation("batch: a frame is malformed").Wrap(err)
	}
	f.channel, f.seq = m.GetChannel(), m.GetSeq()
	f.fromServer(&m)
	return nil
}

func (f *frame) setData(d *sluicev1.Data) {
	f.kind, f.stream, f.more, f.cursor = kindData, d.GetStream(), d.GetMore(), []byte(d.GetCursor())
	switch p := d.GetPayload().(type) {
	case *sluicev1.Data_Binary:
		f.payload = p.Binary
	case *sluicev1.Data_Text:
		f.payload, f.text = []byte(p.Text), true
	}
}

func (f *frame) setAck(a *sluicev1.Ack) {
	f.kind, f.ackSeq, f.window = kindAck, a.GetSeq(), a.GetWindow()
}
