package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// follower takes what one watch tells and keeps it.
type follower struct {
	selection
	watch *client.Watch
	told  []event
	fold  state // what is known; the last list that was complete and what followed
	list  state // the list that is being told; nil outside of one
}

func follow(c *client.Client, clusterName string, s selection) *follower {
	return &follower{selection: s, list: state{}, fold: state{}, watch: c.Watch(client.WatchRequest{
		Cluster: clusterName,
		Target:  &sluicev1.WatchTarget{Version: "v1", Resource: s.resource, Namespace: s.namespace, LabelSelector: s.labels()},
	})}
}

// until takes events until enough says so, which is asked after each, or until ctx ends.
func (f *follower) until(ctx context.Context, enough func() bool) error {
	for !enough() {
		ev, err := f.watch.Next(ctx)
		if err != nil {
			return err
		}
		if err := f.take(ev); err != nil {
			return fmt.Errorf("watch %v: after %d events: %w", f.selection, len(f.told), err)
		}
	}
	return nil
}

func (f *follower) take(ev client.Event) error {
	if ev.State != nil {
		switch ev.State.GetKind() {
		case sluicev1.ChannelState_KIND_RESYNC_BEGIN:
			f.list = state{}
			f.told = append(f.told, event{kind: listBegins})
		case sluicev1.ChannelState_KIND_RESYNC_END:
			if f.list == nil {
				return errors.New("a list ended that did not begin")
			}
			if ev.Cursor == "" {
				return errors.New("a list ended without a cursor")
			}
			f.fold, f.list = f.list, nil
			f.told = append(f.told, event{kind: listEnds})
		case sluicev1.ChannelState_KIND_GAP:
			return fmt.Errorf("a gap: %v", ev.State)
		}
		return nil
	}
	e, err := read(ev.Type, f.resource, ev.Object)
	if err != nil {
		return err
	}
	f.told = append(f.told, e)
	if f.list != nil {
		if ev.Cursor != "" {
			return fmt.Errorf("%v of a list has a cursor", e)
		}
		return f.list.fold(e)
	}
	return f.fold.fold(e)
}

// knows reports whether the watch has told exactly what there is.
func (f *follower) knows(want state) bool { return f.list == nil && maps.Equal(f.fold, want) }

// each runs do for every follower, all at a time, and returns the first failure.
func each(all []*follower, do func(*follower) error) error {
	failed := make(chan error, len(all))
	var running sync.WaitGroup
	for _, f := range all {
		running.Go(func() {
			if err := do(f); err != nil {
				failed <- err
			}
		})
	}
	running.Wait()
	close(failed)
	return <-failed
}
