package server

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/link"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// firstFrameWithin is how long a Connect may say nothing at all.
const firstFrameWithin = 30 * time.Second

// Connect implements GatewayService.
func (s *Server) Connect(stream grpc.BidiStreamingServer[sluicev1.ConnectRequest, sluicev1.ConnectResponse]) error {
	ctx := stream.Context()
	l := link.NewStream(stream)
	g, err := s.greet(ctx, l)
	if err != nil {
		return err
	}
	return s.carry(ctx, l, g)
}

// greet waits for the first batch of a link.
func (s *Server) greet(ctx context.Context, l mux.Link) (*mux.Greeting, error) {
	wait, cancel := context.WithTimeoutCause(ctx, firstFrameWithin, status.New(codes.DeadlineExceeded,
		sluicev1.Reason_REASON_UNSPECIFIED, "no frame arrived within %v of the call's beginning", firstFrameWithin))
	defer cancel()
	stop := context.AfterFunc(s.ending, cancel)
	defer stop()
	g, err := mux.Greet(wait, l)
	if err != nil && wait.Err() != nil && ctx.Err() == nil {
		if s.ending.Err() != nil {
			return nil, errDraining
		}
		return nil, context.Cause(wait)
	}
	return g, err
}

// carry carries a session over a link, a new one or the one that the greeting resumes, until either ends.
func (s *Server) carry(ctx context.Context, l mux.Link, g *mux.Greeting) error {
	ses, err := s.sessions.of(ctx, g.Hello())
	if err != nil {
		return err
	}
	s.spans.attached(ctx, ses.id)
	err = ses.mux.ServeServer(ctx, l, g)
	if ses.mux.Plain() {
		ses.mux.End(nil)
		return asError(err)
	}
	s.sessions.detached(ses)
	return asError(err)
}

// asError is err as the call's status tells it.
func asError(err error) error {
	if err == nil {
		return nil
	}
	return status.From(err)
}
