// Package link carries a mux's batches over gRPC streams, at either end.
//
// It is the one place that knows both: the mux does not know grpc, and grpc-go is given the segments of a batch as they lie, with their own
// reference counts, instead of messages to encode. Keep in mind what grpc-go 1.85 does with them: SendMsg consumes exactly one reference of
// each buffer, and keeps the slice that holds them.
package link

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that all other messages use
	"google.golang.org/grpc/mem"

	"github.com/sluice-gateway/sluice/mux"
)

// received is a batch as it came: an encoded ConnectRequest or ConnectResponse, in a buffer that is used again.
type received struct {
	b     []byte
	small []byte  // of at most keep bytes
	large *[]byte // from large; nil while batches are small
}

// keep is the largest receive buffer that is a link's own. A larger one is shared: large and small batches alternate on a link that carries a
// busy channel among quiet ones.
const keep = 16 << 10

var large = sync.Pool{New: func() any { return new([]byte) }}

// take copies a batch of n bytes.
func (r *received) take(n int, data mem.BufferSlice) {
	r.release()
	if n > keep {
		r.large = large.Get().(*[]byte)
		*r.large = fill(*r.large, n, data)
		r.b = *r.large
		return
	}
	r.small = fill(r.small, n, data)
	r.b = r.small
}

// release gives a large buffer back. What it held must not be read any more.
func (r *received) release() {
	if r.large != nil {
		large.Put(r.large)
		r.large, r.b = nil, nil
	}
}

// fill is b with n bytes of data in place of what it held.
func fill(b []byte, n int, data mem.BufferSlice) []byte {
	b = slices.Grow(b[:0], n)
	for _, d := range data {
		b = append(b, d.ReadOnlyData()...)
	}
	return b
}

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

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*received)
	if !ok {
		if err := c.proto.Unmarshal(data, v); err != nil {
			return fmt.Errorf("unmarshal %T: %w", v, err)
		}
		return nil
	}
	r.take(data.Len(), data)
	return nil
}
