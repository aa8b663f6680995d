//go:build unix

package load

import (
	"context"
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/bench/process"
	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// openSluice opens the watches with the SDK, raw, in as few sessions as the gateway's default limits allow.
func openSluice(_ context.Context, g *group, c Config) error {
	first := 0
	for part := range slices.Chunk(c.Watches, perSession) {
		cl, err := client.Dial(client.Config{
			Address: c.Address, TLS: process.Trust(c.CA), Token: client.StaticToken(c.Token), Name: "bench",
		})
		if err != nil {
			return fmt.Errorf("dial the gateway: %w", err)
		}
		g.later(func() { _ = cl.Close() })
		for i, w := range part {
			s := &sluice{m: g.meter, i: first + i, c: cl, req: client.WatchRequest{Target: w.target()}}
			if w.Role == Stalled {
				g.watch(func() error { return s.stall(g.ctx) })
				continue
			}
			g.watch(func() error { return s.read(g.ctx) })
		}
		first += len(part)
	}
	return nil
}

// sluice is one watch through Sluice.
type sluice struct {
	m   *meter
	i   int
	c   *client.Client
	req client.WatchRequest
}

func (s *sluice) read(ctx context.Context) error {
	err := s.c.WatchRaw(ctx, s.req, func(ev client.Raw) {
		if ev.State != nil {
			s.state(ev.State)
			return
		}
		s.m.deliver(s.i, ev.Data)
	})
	return fmt.Errorf("watch: %w", err)
}

// stall reads until the first event.
func (s *sluice) stall(ctx context.Context) error {
	w := s.c.Watch(s.req)
	defer w.Close()
	for {
		ev, err := w.Next(ctx)
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
		if ev.State == nil {
			s.m.deliver(s.i, ev.Raw)
			<-ctx.Done()
			return ctx.Err()
		}
	}
}

// state notes what should not happen to a watch that is read, before an upstream that does not break.
func (s *sluice) state(st *sluicev1.ChannelState) {
	switch st.GetKind() {
	case sluicev1.ChannelState_KIND_RECONNECTING, sluicev1.ChannelState_KIND_RESYNC_BEGIN, sluicev1.ChannelState_KIND_GAP:
		s.m.interrupt(s.i)
	default:
	}
}
