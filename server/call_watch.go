package server

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Watch implements GatewayService.
func (s *Server) Watch(r *sluicev1.WatchRequest, stream grpc.ServerStreamingServer[sluicev1.WatchResponse]) error {
	return s.oneChannel(stream.Context(), &sluicev1.Open{
		Cluster: r.GetCluster(), Cursor: r.GetCursor(), Text: true,
		Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: r.GetWatch()}},
	}, &watchResponses{stream: stream, limit: s.cfg.Limits.MessageBytes})
}

// watchResponses tells a watch: an event or a state a response.
type watchResponses struct {
	stream grpc.ServerStreamingServer[sluicev1.WatchResponse]
	limit  int // bytes of the largest event

	event []byte // the beginning of an event
}

var _ responses = (*watchResponses)(nil)

// opened says nothing: the end of the list follows.
func (*watchResponses) opened() error { return nil }

func (w *watchResponses) state(s *sluicev1.ChannelState) error {
	w.event = nil // an event that was begun will not be completed
	return w.stream.Send(&sluicev1.WatchResponse{State: s, Cursor: s.GetCursor()})
}

func (w *watchResponses) data(d *sluicev1.Data) error {
	if len(d.GetBinary()) > 0 {
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL, "an event of the API server is not valid UTF-8")
	}
	if !d.GetMore() && len(w.event) == 0 {
		return w.stream.Send(&sluicev1.WatchResponse{Event: d.GetText(), Cursor: d.GetCursor()})
	}
	if len(w.event)+len(d.GetText()) > w.limit {
		return status.Limit("limits.message_bytes", "an event is longer than %d bytes", w.limit)
	}
	w.event = append(w.event, d.GetText()...)
	if d.GetMore() {
		return nil
	}
	r := &sluicev1.WatchResponse{Event: string(w.event), Cursor: d.GetCursor()}
	w.event = nil
	return w.stream.Send(r)
}
