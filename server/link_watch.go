package server

import (
	"context"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// watchLink is the stream of one Watch call: a plain session of one channel, whose frames it tells as responses.
type watchLink struct {
	stream grpc.ServerStreamingServer[sluicev1.WatchResponse]
	limit  int // bytes of the largest event

	open []byte // Owned by Recv: the only batch, until it is received.

	event  []byte           // Owned by Send: the beginning of an event.
	closed *sluicev1.Closed // Owned by Send until the session has ended.
}

var _ mux.Link = (*watchLink)(nil)

func newWatchLink(stream grpc.ServerStreamingServer[sluicev1.WatchResponse], r *sluicev1.WatchRequest, limit int) (*watchLink, error) {
	open := &sluicev1.Open{
		Cluster: r.GetCluster(), Cursor: r.GetCursor(), Text: true,
		Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: r.GetWatch()}},
	}
	b, err := proto.Marshal(&sluicev1.ConnectRequest{Frames: []*sluicev1.ClientFrame{
		{Channel: 1, Frame: &sluicev1.ClientFrame_Open{Open: open}},
	}})
	if err != nil {
		return nil, status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "encode the request").Wrap(err)
	}
	return &watchLink{stream: stream, limit: limit, open: b}, nil
}

// Recv implements mux.Link: the caller has said everything with the request.
func (l *watchLink) Recv() ([]byte, error) {
	if l.open == nil {
		return nil, io.EOF
	}
	b := l.open
	l.open = nil
	return b, nil
}

// Send implements mux.Link.
func (l *watchLink) Send(b mux.Batch) error {
	defer b.Free()
	for _, p := range b {
		var r sluicev1.ConnectResponse
		if err := proto.Unmarshal(p.Bytes(), &r); err != nil {
			return status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "decode our own frames").Wrap(err)
		}
		for _, f := range r.GetFrames() {
			if err := l.tell(f); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *watchLink) tell(f *sluicev1.ServerFrame) error {
	switch f := f.GetFrame().(type) {
	case *sluicev1.ServerFrame_Data:
		return l.tellData(f.Data)
	case *sluicev1.ServerFrame_ChannelState:
		l.event = nil // an event that was begun will not be completed
		return l.send(&sluicev1.WatchResponse{State: f.ChannelState, Cursor: f.ChannelState.GetCursor()})
	case *sluicev1.ServerFrame_Closed:
		l.closed = f.Closed
	}
	return nil
}

func (l *watchLink) tellData(d *sluicev1.Data) error {
	if len(d.GetBinary()) > 0 {
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, "an event of the API server is not valid UTF-8")
	}
	if !d.GetMore() && len(l.event) == 0 {
		return l.send(&sluicev1.WatchResponse{Event: d.GetText(), Cursor: d.GetCursor()})
	}
	if len(l.event)+len(d.GetText()) > l.limit {
		return status.Limit("limits.message_bytes", "an event is longer than %d bytes", l.limit)
	}
	l.event = append(l.event, d.GetText()...)
	if d.GetMore() {
		return nil
	}
	r := &sluicev1.WatchResponse{Event: string(l.event), Cursor: d.GetCursor()}
	l.event = nil
	return l.send(r)
}

func (l *watchLink) send(r *sluicev1.WatchResponse) error {
	return l.stream.Send(r)
}

// Watch implements GatewayService.
func (s *Server) Watch(r *sluicev1.WatchRequest, stream grpc.ServerStreamingServer[sluicev1.WatchResponse]) error {
	l, err := newWatchLink(stream, r, s.cfg.Limits.MessageBytes)
	if err != nil {
		return err
	}
	err = s.carryPlain(stream.Context(), l)
	if err == nil {
		err = closedError(l.closed)
	}
	return err
}

// closedError is the error in a Closed; nil for success.
func closedError(c *sluicev1.Closed) error {
	if e := status.FromProto(c.GetStatus()); e != nil {
		return e
	}
	return nil
}

// carryPlain carries a plain session over a link that says what it opens by itself.
func (s *Server) carryPlain(ctx context.Context, l mux.Link) error {
	g, err := mux.Greet(ctx, l)
	if err != nil {
		return err
	}
	return s.carry(ctx, l, g)
}
