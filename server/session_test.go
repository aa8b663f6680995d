package server_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// call is one Connect call as somebody writes it by hand: frame by frame, with the generated messages.
type call struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[sluicev1.ConnectRequest, sluicev1.ConnectResponse]
	cancel context.CancelFunc
	queue  []*sluicev1.ServerFrame
}

// connect begins a Connect call as user.
func connect(t *testing.T, r *rig.Rig, user string) *call {
	t.Helper()
	return connectWith(t, r, "Bearer "+r.Token(user))
}

func connectWith(t *testing.T, r *rig.Rig, authorization string) *call {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t))
	t.Cleanup(cancel)
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", authorization)
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &call{t: t, stream: stream, cancel: cancel}
}

func (c *call) send(frames ...*sluicev1.ClientFrame) {
	c.t.Helper()
	if err := c.stream.Send(&sluicev1.ConnectRequest{Frames: frames}); err != nil {
		c.t.Fatal(err)
	}
}

// next is the next frame that is no session frame of the background: a Ping or an AuthState.
func (c *call) next() (*sluicev1.ServerFrame, error) {
	for {
		for len(c.queue) > 0 {
			f := c.queue[0]
			c.queue = c.queue[1:]
			if f.GetPing() == nil && f.GetAuthState() == nil {
				return f, nil
			}
		}
		res, err := c.stream.Recv()
		if err != nil {
			return nil, err
		}
		c.queue = append(c.queue, res.GetFrames()...)
	}
}

// until is the first frame that ok likes.
func (c *call) until(ok func(*sluicev1.ServerFrame) bool) *sluicev1.ServerFrame {
	c.t.Helper()
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("the call ended: %v", err)
		}
		if ok(f) {
			return f
		}
	}
}

func (c *call) closed(channel uint32) *status.Error {
	c.t.Helper()
	f := c.until(func(f *sluicev1.ServerFrame) bool { return f.GetChannel() == channel && f.GetClosed() != nil })
	return status.FromProto(f.GetClosed().GetStatus())
}

// end is the error of a call that must end.
func (c *call) end() *status.Error {
	c.t.Helper()
	for {
		if _, err := c.next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return status.From(err)
		}
	}
}

// hello begins a full session.
func (c *call) hello(resume *sluicev1.Resume, channels ...*sluicev1.ChannelPosition) *sluicev1.Welcome {
	c.t.Helper()
	c.send(&sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: &sluicev1.Hello{Protocol: 1, Resume: resume, Channels: channels}}})
	return c.until(func(f *sluicev1.ServerFrame) bool { return f.GetWelcome() != nil }).GetWelcome()
}

func openFrame(channel uint32, seq uint64, o *sluicev1.Open) *sluicev1.ClientFrame {
	return &sluicev1.ClientFrame{Channel: channel, Seq: seq, Frame: &sluicev1.ClientFrame_Open{Open: o}}
}

// watching is the Open of a watch of pods.
func watching(change ...func(*sluicev1.WatchTarget)) *sluicev1.Open {
	target := pods()
	for _, f := range change {
		f(target)
	}
	return &sluicev1.Open{Cluster: rig.Cluster, Text: true, Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: target}}}
}

func listed(channel uint32) func(*sluicev1.ServerFrame) bool {
	return func(f *sluicev1.ServerFrame) bool {
		return f.GetChannel() == channel && f.GetChannelState().GetKind() == sluicev1.ChannelState_KIND_RESYNC_END
	}
}

func event(channel uint32) func(*sluicev1.ServerFrame) bool {
	return func(f *sluicev1.ServerFrame) bool { return f.GetChannel() == channel && f.GetData() != nil }
}

func withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

func containsLine(text, line string) bool {
	for l := range strings.Lines(text) {
		if strings.TrimSpace(l) == line {
			return true
		}
	}
	return false
}
