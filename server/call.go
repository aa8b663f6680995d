package server

import (
	"context"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// channelCall is the stream of a call that is one channel: the link of a plain session, which opens the channel by itself and tells its frames as
// responses.
type channelCall struct {
	to responses

	open []byte // Owned by Recv: the only batch, until it is received.

	closed *sluicev1.Closed // Owned by Send until the session has ended.
}

// responses tells a channel's frames to the caller. It is called by one goroutine.
type responses interface {
	opened() error
	data(*sluicev1.Data) error
	state(*sluicev1.ChannelState) error
}

var _ mux.Link = (*channelCall)(nil)

// oneChannel carries a plain session of one channel, told as responses, until the channel has ended: the call ends as its channel did.
func (s *Server) oneChannel(ctx context.Context, o *sluicev1.Open, to responses) error {
	b, err := proto.Marshal(&sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{
		{Channel: 1, Frame: &sluicev1.ClientFrame_Open{Open: o}},
	}})
	if err != nil {
		return status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "encode the request").Wrap(err)
	}
	c := &channelCall{to: to, open: b}
	g, err := mux.Greet(ctx, c)
	if err != nil {
		return err
	}
	if err := s.carry(ctx, c, g); err != nil {
		return err
	}
	return c.end()
}

// Recv implements mux.Link: the caller has said everything with the request.
func (c *channelCall) Recv() ([]byte, error) {
	if c.open == nil {
		return nil, io.EOF
	}
	b := c.open
	c.open = nil
	return b, nil
}

// Send implements mux.Link.
func (c *channelCall) Send(b mux.Batch) error {
	defer b.Free()
	for _, p := range b {
		var r sluicev1.ConnectResponse
		if err := proto.Unmarshal(p.Bytes(), &r); err != nil {
			return status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "decode our own frames").Wrap(err)
		}
		for _, f := range r.GetFrames() {
			if err := c.tell(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *channelCall) tell(f *sluicev1.ServerFrame) error {
	switch f := f.GetFrame().(type) {
	case *sluicev1.ServerFrame_Opened:
		return c.to.opened()
	case *sluicev1.ServerFrame_Data:
		return c.to.data(f.Data)
	case *sluicev1.ServerFrame_ChannelState:
		return c.to.state(f.ChannelState)
	case *sluicev1.ServerFrame_Closed:
		c.closed = f.Closed
	}
	return nil
}

// end is how the channel has ended. The session has: it ends well only with its channel's Closed.
func (c *channelCall) end() error {
	if c.closed == nil {
		return status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "the session has ended, and its channel has not")
	}
	if e := status.FromProto(c.closed.GetStatus()); e != nil {
		return e
	}
	return nil
}
