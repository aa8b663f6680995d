package main

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

func TestANoticeIsShort(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, "it ended"},
		{fmt.Errorf("session: %w", grpcstatus.Error(codes.Unavailable, "error reading from server: EOF")), "error reading from server: EOF"},
		{status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "this replica is going away"), "this replica is going away"},
	} {
		if got := brief(c.err); got != c.want {
			t.Errorf("%v is told as %q, want %q", c.err, got, c.want)
		}
	}
}
