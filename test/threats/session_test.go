package threats

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// session is a plain session as somebody writes it by hand: frame by frame.
type session struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[sluicev1.ConnectRequest, sluicev1.ConnectResponse]
	end    context.CancelFunc
	queue  []*sluicev1.ServerFrame
	next   uint32 // channel
}

func newSession(t *testing.T, r *rig.Rig, user string) *session {
	t.Helper()
	ctx, cancel := context.WithCancel(r.As(within(t), user))
	t.Cleanup(cancel)
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &session{t: t, stream: stream, end: cancel, next: 1}
}

// open opens channels in one batch and returns the number of the first.
func (s *session) open(opens ...*sluicev1.Open) (first uint32) {
	s.t.Helper()
	first = s.next
	var frames []*sluicev1.ClientFrame
	for _, o := range opens {
		frames = append(frames, &sluicev1.ClientFrame{Channel: s.next, Frame: &sluicev1.ClientFrame_Open{Open: o}})
		s.next++
	}
	s.send(frames...)
	return first
}

func (s *session) close(channel uint32) {
	s.t.Helper()
	s.send(&sluicev1.ClientFrame{Channel: channel, Frame: &sluicev1.ClientFrame_Close{Close: &sluicev1.Close{}}})
}

func (s *session) send(frames ...*sluicev1.ClientFrame) {
	s.t.Helper()
	if err := s.stream.Send(&sluicev1.ConnectRequest{Frames: frames}); err != nil && !errors.Is(err, io.EOF) { // Recv says why it ended
		s.t.Fatal(err)
	}
}

// recv is the next frame; an error is the end of the session.
func (s *session) recv() (*sluicev1.ServerFrame, error) {
	for len(s.queue) == 0 {
		res, err := s.stream.Recv()
		if err != nil {
			return nil, err
		}
		s.queue = res.GetFrames()
	}
	f := s.queue[0]
	s.queue = s.queue[1:]
	return f, nil
}

// settle waits until each channel from first on has opened or was closed, and returns how the latter ended.
func (s *session) settle(first uint32) map[uint32]*status.Error {
	s.t.Helper()
	closed, opened := map[uint32]*status.Error{}, map[uint32]bool{}
	for len(closed)+len(opened) < int(s.next-first) {
		f, err := s.recv()
		if err != nil {
			s.t.Fatalf("%d channels were opened, %d closed: %v", len(opened), len(closed), err)
		}
		switch id := f.GetChannel(); {
		case id < first:
		case f.GetClosed() != nil:
			delete(opened, id)
			closed[id] = status.FromProto(f.GetClosed().GetStatus())
		case f.GetOpened() != nil:
			opened[id] = true
		}
	}
	return closed
}

// ended waits until a channel was closed.
func (s *session) ended(channel uint32) {
	s.t.Helper()
	for {
		f, err := s.recv()
		if err != nil {
			s.t.Fatal(err)
		}
		if f.GetChannel() == channel && f.GetClosed() != nil {
			return
		}
	}
}

// gone waits until each channel from first on was closed.
func (s *session) gone(first uint32) {
	s.t.Helper()
	for left := int(s.next - first); left > 0; {
		f, err := s.recv()
		if err != nil {
			s.t.Fatalf("%d channels are left: %v", left, err)
		}
		if f.GetChannel() >= first && f.GetClosed() != nil {
			left--
		}
	}
}

// watching is the Open of a watch.
func watching(cluster, namespace string) *sluicev1.Open {
	target := pods()
	target.Namespace = namespace
	return &sluicev1.Open{Cluster: cluster, Text: true, Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: target}}}
}

// times is the same Open several times.
func times(n int, o *sluicev1.Open) []*sluicev1.Open {
	all := make([]*sluicev1.Open, n)
	for i := range all {
		all[i] = o
	}
	return all
}
