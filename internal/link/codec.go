// Package link carries a mux's batches over gRPC streams, at either end.
//
// It is the one place that knows both: the mux does not know grpc, and grpc-go is given the segments of a batch as they lie, with their own
// reference counts, instead of messages to encode. Keep in mind what grpc-go 1.85 does with them: SendMsg consumes exactly one reference of
// each buffer, and keeps the slice that holds them.
package link

import (
	"fmt"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that all other messages use
	"google.golang.org/grpc/mem"

	"github.com/sluice-gateway/sluice/mux"
)

// received is a batch as it came: an encoded ConnectRequest or ConnectResponse, in a buffer that is used again.
type received struct{ b []byte }

// sent is a batch as it goes, in the segments that hold it.
type sent struct {
	buffers  mem.BufferSlice
	segments []segment

	// Most batches are one segment, and one allocation.
	buffer  [1]mem.Buffer
	segment [1]segment
}

// segment shows a part of a batch to grpc. mem.Buffer has unexported methods; embedding SliceBuffer supplies them. They serve grpc's
// receiving side only.
type segment struct {
	mem.SliceBuffer
	part  mux.Part
	count *atomic.Int64 // of the references that grpc has to a stream's segments
}

func (s *segment) Ref() {
	s.count.Add(1)
	s.part.Ref()
}

func (s *segment) Free() {
	s.part.Free()
	s.count.Add(-1)
}

// asBuffers is b as grpc takes it, counted. It is this message's alone, since grpc keeps it.
func asBuffers(b mux.Batch, count *atomic.Int64) *sent {
	s := new(sent)
	s.buffers, s.segments = s.buffer[:], s.segment[:]
	if len(b) > 1 {
		s.buffers, s.segments = make(mem.BufferSlice, len(b)), make([]segment, len(b))
	}
	count.Add(int64(len(b)))
	for i, p := range b {
		s.segments[i] = segment{p.Bytes(), p, count}
		s.buffers[i] = &s.segments[i]
	}
	return s
}

// Codec passes batches through untouched and leaves every other message to grpc's own codec. It is safe for concurrent use.
type Codec struct{ proto encoding.CodecV2 }

var _ encoding.CodecV2 = Codec{}

// NewCodec makes a Codec.
func NewCodec() Codec { return Codec{encoding.GetCodecV2("proto")} }

// Name implements encoding.CodecV2.
func (c Codec) Name() string { return c.proto.Name() }

// Marshal implements encoding.CodecV2.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if s, ok := v.(*sent); ok {
		return s.buffers, nil
	}
	b, err := c.proto.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("marshal %T: %w", v, err)
	}
	return b, nil
}

// keep is the largest receive buffer that a link keeps between messages.
const keep = 16 << 10

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*received)
	if !ok {
		if err := c.proto.Unmarshal(data, v); err != nil {
			return fmt.Errorf("unmarshal %T: %w", v, err)
		}
		return nil
	}
	if cap(r.b) > keep && data.Len() <= keep {
		r.b = nil
	}
	r.b = r.b[:0]
	for _, b := range data {
		r.b = append(r.b, b.ReadOnlyData()...)
	}
	return nil
}
