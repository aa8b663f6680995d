package bridge

import (
	"context"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

func startPortForward(_ context.Context, _ Upstream, _ *sluicev1.Open, _ Channel, _ *Options, done func(Outcome)) {
	done(Outcome{Err: status.New(codes.Unimplemented, sluicev1.Reason_REASON_NOT_IMPLEMENTED, "skeleton")})
}

func validatePortForward(*sluicev1.PortForwardTarget) error { return nil }
