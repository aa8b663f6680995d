package link

import (
	"sync/atomic"

	"github.com/sluice-gateway/sluice/mux"
)

// messages is what both ends of a gRPC stream have: grpc.ServerStream, grpc.ClientStream.
type messages interface {
	SendMsg(m any) error
	RecvMsg(m any) error
}

// Stream is a gRPC stream as a mux's link. The stream's codec must be [Codec]. At a server Recv and Send return at the latest when the call's
// handler has, at a client when the call's context ends.
type Stream struct {
	stream messages // Immutable after NewStream.
	in     received // Owned by Recv.

	// unsent counts the references that grpc has to segments. It takes them back into the stream's quota, of 64 KiB, as it writes them, and
	// only then frees them: as long as there are none, SendMsg does not wait. What a broken stream never frees is of no interest.
	unsent atomic.Int64
}

var _ mux.Prompt = (*Stream)(nil)

// NewStream makes a link of a stream.
func NewStream(s messages) *Stream { return &Stream{stream: s} }

// Recv implements mux.Link. Its errors are grpc's, and io.EOF.
func (s *Stream) Recv() ([]byte, error) {
	s.in.release() // a link that waits keeps no large buffer
	if err := s.stream.RecvMsg(&s.in); err != nil {
		return nil, err
	}
	return s.in.b, nil
}

// Send implements mux.Link. Its errors are grpc's, and io.EOF at a client whose stream has ended.
func (s *Stream) Send(b mux.Batch) error {
	return s.stream.SendMsg(asBuffers(b, &s.unsent))
}

// Idle implements mux.Prompt.
func (s *Stream) Idle() bool { return s.unsent.Load() == 0 }
