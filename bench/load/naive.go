//go:build unix

package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/bench/process"
	"github.com/sluice-gateway/sluice/bench/upstream"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// perSession is how many watches go into one session: what a gateway allows by default, with some room.
const perSession = 1000

// openNaive opens plain sessions with the generated code, and reads each in one loop.
func openNaive(ctx context.Context, g *group, c Config) error {
	first := 0
	for part := range slices.Chunk(c.Watches, perSession) {
		stream, err := connect(ctx, g, c)
		if err != nil {
			return err
		}
		n := &naive{m: g.meter, first: first, stream: stream}
		for i, w := range part {
			if w.Role == Stalled {
				n.stalled = append(n.stalled, stalled{channel: uint32(i + 1), queue: make(chan []byte, stalledQueue)})
			}
		}
		if err := stream.Send(opening(nil, part, 0)); err != nil {
			return fmt.Errorf("open: %w", err)
		}
		g.watch(func() error { return n.read(ctx) })
		first += len(part)
	}
	return nil
}

type stream = grpc.BidiStreamingClient[sluicev1.ConnectRequest, sluicev1.ConnectResponse]

// connect begins a call over a transport of its own.
func connect(ctx context.Context, g *group, c Config) (stream, error) {
	conn, err := grpc.NewClient("passthrough:///"+c.Address, grpc.WithTransportCredentials(credentials.NewTLS(process.Trust(c.CA))))
	if err != nil {
		return nil, fmt.Errorf("dial the gateway: %w", err)
	}
	g.later(func() { _ = conn.Close() })
	s, err := sluicev1.NewGatewayServiceClient(conn).Connect(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+c.Token))
	if err != nil {
		return nil, fmt.Errorf("call the gateway: %w", err)
	}
	return s, nil
}

// opening are the frames that open watches in channels from 1 on, behind hello unless that is nil.
func opening(hello *sluicev1.Hello, watches []Watch, window uint64) *sluicev1.ConnectRequest {
	r := &sluicev1.ConnectRequest{}
	if hello != nil {
		r.Frames = append(r.Frames, &sluicev1.ClientFrame{Frame: &sluicev1.ClientFrame_Hello{Hello: hello}})
	}
	for i, w := range watches {
		open := &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: w.target()}}, Window: window}
		f := &sluicev1.ClientFrame{Channel: uint32(i + 1), Frame: &sluicev1.ClientFrame_Open{Open: open}}
		if hello != nil {
			f.Seq = 1
		}
		r.Frames = append(r.Frames, f)
	}
	return r
}

// target is the watch as a gateway is asked for it.
func (w Watch) target() *sluicev1.WatchTarget {
	return &sluicev1.WatchTarget{
		Version: "v1", Resource: "pods", Namespace: w.Namespace, LabelSelector: upstream.Selector(w.Size, w.Rate),
	}
}

// naive is one session. All its watches are read by one loop, so that a full queue of one stops all.
type naive struct {
	m       *meter
	first   int // index of channel 1's watch
	stream  stream
	stalled []stalled
}

// stalled is a channel whose consumer has stopped.
type stalled struct {
	channel uint32
	queue   chan []byte // whose reader never comes
}

// stalledQueue is how many events wait for a consumer.
const stalledQueue = 256

func (n *naive) read(ctx context.Context) error {
	for {
		r, err := n.stream.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		for _, f := range r.GetFrames() {
			if closed := f.GetClosed(); closed != nil {
				return fmt.Errorf("channel %d was closed: %s", f.GetChannel(), closed.GetStatus().GetMessage())
			}
			if err := n.event(ctx, f.GetChannel(), f.GetData().GetBinary()); err != nil {
				return err
			}
		}
	}
}

func (n *naive) event(ctx context.Context, channel uint32, ev []byte) error {
	i := n.first + int(channel) - 1
	for _, s := range n.stalled {
		if s.channel != channel || n.m.tallies[i].last.Load() == 0 {
			continue
		}
		select {
		case s.queue <- ev:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	n.m.deliver(i, ev)
	return nil
}

// unreadWindow is the credit of a channel that nobody reads: all that a gateway gives.
const unreadWindow = 1 << 20

// unreadWatches is how many watches go into one session that nobody reads.
const unreadWatches = 100

// openUnread opens sessions, full ones for Sluice, and never receives.
func openUnread(ctx context.Context, g *group, c Config) error {
	var hello *sluicev1.Hello
	if c.Way == Sluice {
		hello = &sluicev1.Hello{Protocol: 1, Client: "bench"}
	}
	for part := range slices.Chunk(c.Watches, unreadWatches) {
		s, err := connect(ctx, g, c)
		if err != nil {
			return err
		}
		if err := s.Send(opening(hello, part, unreadWindow)); err != nil {
			return errors.Join(errors.New("open what nobody reads"), err)
		}
		g.watch(func() error { return ended(ctx, s) })
	}
	return nil
}

// ended waits for ctx's end, or the call's.
func ended(ctx context.Context, s stream) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.Context().Done():
		return context.Cause(s.Context())
	}
}

// openTimeout bounds the opening of all watches.
const openTimeout = 2 * time.Minute
