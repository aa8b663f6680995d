package server

import (
	"google.golang.org/grpc"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// Logs implements GatewayService.
func (s *Server) Logs(r *sluicev1.LogsRequest, stream grpc.ServerStreamingServer[sluicev1.LogsResponse]) error {
	return s.oneChannel(stream.Context(), &sluicev1.Open{
		Cluster: r.GetCluster(), Cursor: r.GetCursor(), Text: true,
		Target: &sluicev1.Target{Target: &sluicev1.Target_Logs{Logs: r.GetLogs()}},
	}, logResponses{stream})
}

// logResponses tells a log. It is a stream of bytes, so each part is a response at once, wherever the upstream has cut it.
type logResponses struct {
	stream grpc.ServerStreamingServer[sluicev1.LogsResponse]
}

var _ responses = logResponses{}

// opened says that the log is open. It may say nothing for a long time, and who asked for it by HTTP is not even answered before the first response.
func (l logResponses) opened() error {
	return l.state(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED})
}

func (l logResponses) state(s *sluicev1.ChannelState) error {
	return l.stream.Send(&sluicev1.LogsResponse{State: s, Cursor: s.GetCursor()})
}

func (l logResponses) data(d *sluicev1.Data) error {
	return l.stream.Send(&sluicev1.LogsResponse{Text: d.GetText(), Binary: d.GetBinary(), Cursor: d.GetCursor()})
}
