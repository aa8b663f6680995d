package main

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sluice-gateway/sluice/client"
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

// One session drains and lives on for the processes in it, and another has taken over: whoever is not in the first one hears nothing of it.
func TestAFormerSessionIsNotTheLink(t *testing.T) {
	reset := grpcstatus.Error(codes.Unavailable, "reset")
	story := []client.State{
		{Phase: client.Connecting},
		{Phase: client.Connected, Session: "one"},
		{Phase: client.Draining, Session: "one"},
		{Phase: client.Connecting},
		{Phase: client.Connected, Session: "two"},
		{Phase: client.Waiting, Session: "one", Former: true, Err: reset, Attempt: 1, Next: time.Second},
		{Phase: client.Connected, Session: "one", Former: true, Resumed: true},
	}
	for _, tc := range []struct {
		name   string
		pinned bool
		want   string
	}{
		{"a watch", false, "sluice: the gateway goes away; moving to another replica\n"},
		{"a process", true, "sluice: the gateway is going away; the process stays here until it has gone\n" +
			"sluice: no link to the gateway (reset); attempt 2 in 1s\nsluice: linked to the gateway again; the session goes on, nothing is missing\n"},
	} {
		out := newOutput()
		n := newNotices(out)
		for _, s := range story {
			n.session(s)
			if s.Session == "one" && s.Phase == client.Connected && !s.Former && tc.pinned {
				n.pin()
			}
		}
		if got := out.String(); got != tc.want || n.away() {
			t.Errorf("%s: said %q, away %v; want %q", tc.name, got, n.away(), tc.want)
		}
	}
}

// A link that was lost before another session took over is told to be there again by that session, and by no other.
func TestALostLinkIsBackWithTheNextSession(t *testing.T) {
	out := newOutput()
	n := newNotices(out)
	reset := grpcstatus.Error(codes.Unavailable, "reset")
	for _, s := range []client.State{
		{Phase: client.Connected, Session: "one"},
		{Phase: client.Waiting, Session: "one", Err: reset, Attempt: 1, Next: time.Second},
		{Phase: client.Connected, Session: "one", Former: true, Resumed: true},
		{Phase: client.Connected, Session: "two"},
	} {
		n.session(s)
	}
	if want := "sluice: no link to the gateway (reset); attempt 2 in 1s\nsluice: linked to the gateway again; in a new session\n"; out.String() != want {
		t.Errorf("said %q, want %q", out, want)
	}
}

func TestAnInterruptionSaysWhatIsInterruptedAndWhy(t *testing.T) {
	waiting := &sluicev1.ChannelState{
		Kind: sluicev1.ChannelState_KIND_RECONNECTING, Attempt: 2, NextTry: durationpb.New(1500 * time.Millisecond),
		Status: status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the container does not run; it is waited for").Proto(),
	}
	back := &sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_CONNECTED}
	const lost = "sluice: the log is interrupted (the container does not run; it is waited for); attempt 2 in 1.5s\n"
	for once, want := range map[bool]string{false: lost + lost + "sluice: the log goes on\n" + lost, true: lost + "sluice: the log goes on\n" + lost} {
		out := newOutput()
		u := &upstreamNotices{n: newNotices(out), what: "the log", once: once}
		for _, s := range []*sluicev1.ChannelState{waiting, waiting, back, waiting} {
			u.state(s)
		}
		if got := out.String(); got != want {
			t.Errorf("once %v: said %q, want %q", once, got, want)
		}
	}
}
