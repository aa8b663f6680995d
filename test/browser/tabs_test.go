package browser

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// TestT_J5_ClosedTabsLeaveNothing: a hundred tabs watch and end, as tabs do, in every way there is. Each time the upstreams of those that
// are gone end at once, and those of the others go on.
func TestT_J5_ClosedTabsLeaveNothing(t *testing.T) {
	const groups, each = 4, 25
	s := newSetup(t)
	s.apply("pod", note)
	var contexts [groups]int
	var tabs [groups][]*tab
	for g := range groups {
		contexts[g] = s.context()
		tabs[g] = s.watchers(contexts[g], each)
	}
	live := groups * each
	for _, end := range []struct {
		how string
		do  func()
	}{
		{"nothing", func() { live += each }},
		{"closing a tab after the other", func() {
			for _, page := range tabs[0] {
				page.close()
			}
		}},
		{"closing a context", func() { s.do(question{Do: "closeContext", On: contexts[1]}, nil) }},
		{"a crash of what draws the tabs", func() {
			for _, page := range tabs[2] {
				page.crash()
			}
		}},
		{"a crash of the browser", func() { s.do(question{Do: "crash"}, nil) }},
	} {
		end.do()
		live -= each
		began := time.Now()
		if err := s.untilLive(within(t, 10*time.Second), live); err != nil {
			t.Fatalf("after %s: %v", end.how, err)
		}
		t.Logf("after %s %d watches are left, %v later", end.how, live, time.Since(began).Round(time.Millisecond))
	}
	s.untilNothingIsLeft()
}

// watchers are so many tabs of a context that all watch and show the pod.
func (s *setup) watchers(in, n int) (tabs []*tab) {
	s.t.Helper()
	for i := range n {
		if i == 0 {
			tabs = append(tabs, s.open(in, s.origin("console.example")+"/index.html"))
		} else {
			tabs = append(tabs, tabs[0].openAnother())
		}
		tabs[i].call(nil, "watch", s.watching("pods", s.embedded))
		tabs[i].call(nil, "shown", "pod")
	}
	return tabs
}

// untilLive waits until so many watches run at the embedded API server; fewer are too few.
func (s *setup) untilLive(ctx context.Context, want int) error {
	live := 0
	err := s.Kube.Await(ctx, func(c kubetest.Counts) bool {
		live = c.Live
		return live <= want
	})
	if err == nil && live < want {
		err = errors.New("too many have ended")
	}
	if err != nil {
		return fmt.Errorf("%d watches run at the embedded API server, want %d: %w", live, want, err)
	}
	return nil
}
