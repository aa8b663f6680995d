package server

import (
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// A log that was not told to its end must not look whole: the call ends well with its channel's Closed, and with nothing else.
func TestACallEndsWellOnlyAsItsChannelDid(t *testing.T) {
	refused := status.New(codes.NotFound, sluicev1.Reason_REASON_TARGET_GONE, "gone")
	for _, tc := range []struct {
		closed *sluicev1.Closed
		code   codes.Code
	}{{nil, codes.Internal}, {&sluicev1.Closed{}, codes.OK}, {&sluicev1.Closed{Status: refused.Proto()}, codes.NotFound}} {
		c := &channelCall{closed: tc.closed}
		if err := c.end(); status.Code(err) != tc.code {
			t.Errorf("%v ends the call with %v", tc.closed, err)
		}
	}
}
