package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
)

// TestBackoffDoublesBelowItsBound and starts anew once the upstream has stood.
func TestBackoffDoublesBelowItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{})
		down := c.Faults.Add(kubetest.Fault{Action: kubetest.ResetRequest()})
		began := time.Now()
		r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{Jitter: func() float64 { return 0.5 }})
		elapse(90 * time.Second)
		want := []int{0, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 15000, 15000, 15000, 15000, 15000}
		at := time.Duration(0)
		for i, tried := range c.up.attempts() {
			at += time.Duration(want[i]) * time.Millisecond
			if since(began, tried) != at {
				t.Errorf("attempt %d after %v, want %v", i+1, since(began, tried), at)
			}
		}
		for i, s := range r.states(reconnecting) {
			if got := s.GetNextTry().AsDuration(); got != time.Duration(want[i+1])*time.Millisecond || int(s.GetAttempt()) != i+1 {
				t.Errorf("attempt %d is announced as %d, in %v", i+1, s.GetAttempt(), got)
			}
			if s.GetStatus().GetReason() != sluicev1.Reason_REASON_UPSTREAM_UNREACHABLE {
				t.Errorf("because of %v", s.GetStatus())
			}
		}
		down()
		elapse(15*time.Second + time.Second)
		if got := summary(r.told()[len(r.states(reconnecting)):]); got != "CONNECTED RESYNC_END" || r.opened == nil {
			t.Fatalf("then heard %s", got)
		}
		elapse(4 * time.Second) // the watch has stood for five
		n := len(c.up.attempts())
		c.EndWatches()
		elapse(time.Millisecond)
		if len(c.up.attempts()) != n+1 || len(r.states(reconnecting)) != n-1 {
			t.Errorf("the end of a steady watch is not followed by another at once")
		}
	})
}

// TestBackoffIsRandom: what was lost together does not return together, and never before the API server's wish.
func TestBackoffIsRandom(t *testing.T) {
	o := WithDefaults(Options{})
	seen := map[time.Duration]bool{}
	for range 100 {
		wait := o.backoff(40, 0)
		if wait < 0 || wait > 30*time.Second {
			t.Fatalf("wait of %v", wait)
		}
		seen[wait] = true
		if wait := o.backoff(1, 3*time.Second); wait < 3*time.Second || wait > 3100*time.Millisecond {
			t.Fatalf("wait of %v after Retry-After: 3", wait)
		}
	}
	if len(seen) < 90 {
		t.Errorf("only %d of 100 waits differ", len(seen))
	}
}

func TestRetryAfterIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{})
		c.Faults.Add(kubetest.Fault{Action: kubetest.TooManyRequests(7), Times: 1, Match: kubetest.Watches})
		began := time.Now()
		r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{Jitter: func() float64 { return 0 }})
		must(t, r.awaitState(within(t), resyncEnd, 1))
		if took := since(began, time.Now()); took != 7*time.Second {
			t.Errorf("the second attempt after %v", took)
		}
		s := r.states(reconnecting)[0].GetStatus()
		if s.GetHttpCode() != 429 || s.GetKubernetes().GetReason() != "TooManyRequests" || s.GetRetryAfter().AsDuration() != 7*time.Second {
			t.Errorf("RECONNECTING because of %v", s)
		}
	})
}

// TestErrorEventIsRetriedAsItAsks: a 429 inside the watch.
func TestErrorEventIsRetriedAsItAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := newRawUpstream(t, sent(`{"type":"ERROR","object":{"kind":"Status","code":429,"details":{"retryAfterSeconds":9}}}`))
		cursor := watchCursors(up.Identity(), pods()).at("1")
		began := time.Now()
		r := start(t, up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{Jitter: func() float64 { return 0 }})
		must(t, r.awaitState(within(t), reconnecting, 3))
		if took := since(began, time.Now()); took != 18*time.Second {
			t.Errorf("the third attempt is announced after %v", took)
		}
		r.halt()
	})
}

// TestFutureVersionIsFound: to a version that its store has not reached (etcd was restored) the API server says 101 and nothing. After three
// minutes the bridge asks, and begins anew.
func TestFutureVersionIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{})
		c.put(t, "a", "1")
		cursor := watchCursors(c.up.Identity(), pods()).at("1000000")
		began := time.Now()
		r := start(t, c.up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{})
		must(t, r.awaitState(anHour(t), resyncEnd, 1))
		if took := since(began, time.Now()); took != 3*time.Minute {
			t.Errorf("found after %v", took)
		}
		if got, want := summary(r.told()), "RESYNC_BEGIN ADDED:a RESYNC_END"; got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
		if n := c.Counts().Lists; n != 1 {
			t.Errorf("%d lists", n)
		}
	})
}

// TestQuietWatchIsLeftAlone, with bookmarks and without.
func TestQuietWatchIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct {
		bookmarks time.Duration
		lists     int
	}{"bookmarks": {time.Minute, 0}, "none": {24 * time.Hour, 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t, kubetest.Options{BookmarkInterval: c.bookmarks, MinRequestTimeout: 48 * time.Hour})
				cursor := watchCursors(s.up.Identity(), pods()).at(s.put(t, "a", "1"))
				r := start(t, s.up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{})
				elapse(time.Hour)
				if n := s.Counts(); n.Lists != c.lists || n.Watches != 1 || len(r.told()) > 0 {
					t.Errorf("%+v, and the client heard %s", n, summary(r.told()))
				}
			})
		})
	}
}

// TestSilenceIsAskedAgainWhenTheAnswerSaysNothing about the version.
func TestSilenceIsAskedAgainWhenTheAnswerSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{})
		c.Faults.Add(kubetest.Fault{Action: kubetest.Respond(503, nil, ""), Match: kubetest.Lists, Times: 2})
		cursor := watchCursors(c.up.Identity(), pods()).at("1000000")
		began := time.Now()
		r := start(t, c.up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{})
		must(t, r.awaitState(anHour(t), resyncEnd, 1))
		if took := since(began, time.Now()); took != 9*time.Minute {
			t.Errorf("found after %v", took)
		}
	})
}

// TestSilentListIsAskedForInPages: an API server that grants a streamed list and does not begin it.
func TestSilentListIsAskedForInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{})
		c.put(t, "a", "1")
		c.Faults.Add(kubetest.Fault{Action: kubetest.StallAfter(0), Match: kubetest.Watches, Times: 1})
		r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{})
		must(t, r.awaitState(anHour(t), resyncEnd, 1))
		if got, want := summary(r.told()), "ADDED:a RESYNC_END"; got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
	})
}

// TestBookmarkMovesTheWatch: a watch that had no event for long goes on at its last bookmark, not at a version that is long compacted.
func TestBookmarkMovesTheWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{Record: true})
		target := pods()
		target.Name = "a"
		r := start(t, c.up, openOf(target, ""), newTestChannel(t, ""), Options{})
		must(t, r.awaitState(anHour(t), resyncEnd, 1))
		newest := ""
		for i := range 5 {
			newest = c.put(t, "b", fmt.Sprint(i)) // of no interest to this watch
		}
		elapse(70 * time.Second)
		c.Compact(c.Version() - 1)
		c.EndWatches()
		must(t, c.Await(anHour(t), func(n kubetest.Counts) bool { return n.Watches == 2 }))
		requests := c.Requests()
		u, err := url.Parse(requests[len(requests)-1].URI)
		if err != nil || u.Query().Get("resourceVersion") != newest {
			t.Errorf("the watch goes on with %s, want version %s", u, newest)
		}
		must(t, r.awaitEvent(anHour(t), "a", c.put(t, "a", "1")))
		if got, want := summary(r.told()), "RESYNC_END ADDED:a"; got != want {
			t.Errorf("heard %s, want %s", got, want)
		}
	})
}

// TestDeadUpstreamIsNoticed by a ping that is not answered, while a live one that has nothing to say is left alone.
func TestDeadUpstreamIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := newRawUpstream(t, func(net.Conn) {}) // never answers a ping
		cursor := watchCursors(up.Identity(), pods()).at("1")
		began := time.Now()
		r := start(t, up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{})
		for len(up.asked()) < 2 {
			elapse(time.Second)
		}
		if took := since(began, time.Now()); took < 24*time.Second || took > 27*time.Second {
			t.Errorf("noticed after %v", took)
		}
		r.halt()
	})
}

// TestTwoAbruptEndsMeanTheVersionIsGone (kubernetes/kubernetes#104171): one may be chance.
func TestTwoAbruptEndsMeanTheVersionIsGone(t *testing.T) {
	for n, want := range []string{"ADDED:b", "RECONNECTING CONNECTED ADDED:b", "RECONNECTING CONNECTED RECONNECTING CONNECTED RESYNC_BEGIN ADDED:a ADDED:b RESYNC_END"} {
		synctest.Test(t, func(t *testing.T) {
			c := inMemory(t, kubetest.Options{})
			cursor := watchCursors(c.up.Identity(), pods()).at(c.put(t, "a", "1"))
			if n > 0 {
				c.Faults.Add(kubetest.Fault{Action: kubetest.EndAfter(0), Match: kubetest.Watches, Times: n})
			}
			version := c.put(t, "b", "1")
			r := start(t, c.up, openOf(pods(), cursor), newTestChannel(t, cursor), Options{})
			must(t, r.awaitEvent(anHour(t), "b", version))
			synctest.Wait()
			if got := summary(r.told()); got != want {
				t.Errorf("after %d abrupt ends heard %s, want %s", n, got, want)
			}
		})
	}
}

// TestSlowReceiverIsNotAStalledOne: it takes something every 9 seconds.
func TestSlowReceiverIsNotAStalledOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{})
		r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{})
		must(t, r.awaitState(anHour(t), resyncEnd, 1))
		r.hold(true)
		c.put(t, "big", strings.Repeat("x", 200<<10))
		for range 60 {
			elapse(9 * time.Second)
			r.consume(4 << 10)
		}
		synctest.Wait()
		if got, want := summary(r.told()), "RESYNC_END ADDED:big"; got != want || c.Counts().Watches != 1 {
			t.Errorf("heard %s by %d watches, want %s", got, c.Counts().Watches, want)
		}
	})
}

// TestStalledReceiverGivesItsUpstreamBack: an API server is not made to hold our backlog. When the receiver takes something again, the watch goes
// on behind what it has: no event is lost, none comes twice.
func TestStalledReceiverGivesItsUpstreamBack(t *testing.T) {
	for name, size := range map[string]int{"small events": 1 << 10, "long events": 100 << 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := inMemory(t, kubetest.Options{})
				r := start(t, c.up, openOf(pods(), ""), newTestChannel(t, ""), Options{})
				must(t, r.awaitState(anHour(t), resyncEnd, 1))
				r.hold(true)
				last, want := "", []string(nil)
				for i := range 100 {
					name := fmt.Sprintf("a%02d", i)
					last = c.put(t, name, strings.Repeat("x", size))
					want = append(want, name)
				}
				elapse(9 * time.Second)
				if n := c.Counts().Live; n != 1 {
					t.Fatalf("%d watches after 9 s", n)
				}
				elapse(3 * time.Second)
				if n := c.Counts().Live; n != 0 {
					t.Fatalf("%d watches after 12 s", n)
				}
				elapse(time.Hour)
				if n := c.Counts().Watches; n != 1 {
					t.Fatalf("%d watches while nothing is taken", n)
				}
				r.hold(false)
				must(t, r.awaitEvent(anHour(t), "a99", last))
				if got := names(r.events()); !slices.Equal(got, want) {
					t.Errorf("heard %v", got)
				}
				if n := len(r.states(resyncBegin)); n > 0 {
					t.Errorf("%d resyncs", n)
				}
				if n := len(r.states(reconnecting)); n != size>>16 || n != len(r.states(connected)) {
					t.Errorf("%d times RECONNECTING: it is said when, and only when, an event was cut", n)
				}
			})
		})
	}
}

func names(events []*delivered) (names []string) {
	for _, e := range events {
		names = append(names, e.Name)
	}
	return names
}

// TestListThatStalledBeginsAnew: nobody can tell where it stopped, since its objects come in no order.
func TestListThatStalledBeginsAnew(t *testing.T) {
	for name, o := range map[string]kubetest.Options{"streamed": {}, "in pages": {WithoutWatchList: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := inMemory(t, o)
				want := map[string]bool{}
				for i := range 30 {
					name := fmt.Sprintf("a%02d", i)
					c.put(t, name, strings.Repeat("x", 20<<10))
					want[name] = i > 4
				}
				ch := newTestChannel(t, "")
				ch.hold(true)
				r := start(t, c.up, openOf(pods(), ""), ch, Options{PageSize: 7})
				elapse(time.Minute)
				if n := c.Counts().Live; n != 0 {
					t.Fatalf("%d watches", n)
				}
				for i := range 5 {
					c.remove(t, fmt.Sprintf("a%02d", i))
					delete(want, fmt.Sprintf("a%02d", i))
				}
				r.hold(false)
				must(t, r.awaitState(anHour(t), resyncEnd, 1))
				must(t, r.awaitEvent(anHour(t), "z", c.put(t, "z", "1")))
				want["z"] = true
				if n := len(r.states(resyncBegin)); n != 1 {
					t.Errorf("%d resyncs", n)
				}
				checkFold(t, r.told(), want)
			})
		})
	}
}

// TestNothingIsLeftWhenTheChannelEnds, in whatever the watch is doing.
func TestNothingIsLeftWhenTheChannelEnds(t *testing.T) {
	for name, state := range map[string]func(c *testCluster, ch *testChannel) time.Duration{
		"watching": func(*testCluster, *testChannel) time.Duration { return time.Hour },
		"stalled":  func(_ *testCluster, ch *testChannel) time.Duration { ch.hold(true); return 5 * time.Second },
		"parked":   func(_ *testCluster, ch *testChannel) time.Duration { ch.hold(true); return time.Minute },
		"waiting": func(c *testCluster, _ *testChannel) time.Duration {
			c.Faults.Add(kubetest.Fault{Action: kubetest.ResetRequest()})
			return time.Minute
		},
		"dialling": func(c *testCluster, _ *testChannel) time.Duration {
			c.Faults.Add(kubetest.Fault{Action: kubetest.Silence()})
			return time.Second
		},
		"in a list": func(c *testCluster, _ *testChannel) time.Duration { c.Faults.HoldList(); return time.Second },
		"cut short": func(c *testCluster, _ *testChannel) time.Duration {
			c.Faults.Add(kubetest.Fault{Action: kubetest.CutAfter(3)})
			return time.Second
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which fails when a goroutine is left
				c := inMemory(t, kubetest.Options{WithoutWatchList: name == "in a list"})
				c.fill(t, 1000)
				ch := newTestChannel(t, "")
				wait := state(c, ch)
				r := start(t, c.up, openOf(pods(), ""), ch, Options{})
				elapse(wait)
				r.halt()
				elapse(time.Second)
				if n := c.Counts().Live; n != 0 {
					t.Errorf("%d watches are left", n)
				}
			})
		})
	}
}

// TestChannelsEndIsReturned as the channel said it.
func TestChannelsEndIsReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := inMemory(t, kubetest.Options{})
		c.fill(t, 1000)
		ch := newTestChannel(t, "")
		ch.hold(true)
		r := start(t, c.up, openOf(pods(), ""), ch, Options{})
		elapse(time.Second)
		over := errors.New("over")
		ch.end(over)
		if err := r.wait(); !errors.Is(err, over) {
			t.Errorf("Run ends with %v", err)
		}
	})
}

// TestListThatStopsIsGivenUp: the API server grants a list and does not go on with it.
func TestListThatStopsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := newRawUpstream(t, sent(errorEvent(500, "InternalError")))
		asked := 0
		up.get = func(ctx context.Context, _ url.Values) (*http.Response, error) {
			asked++
			if asked > 1 {
				return nil, status.From(context.Canceled)
			}
			return &http.Response{Body: endless{ctx}}, nil
		}
		began := time.Now()
		r := start(t, up, openOf(pods(), ""), newTestChannel(t, ""), Options{})
		err := r.wait()
		if status.Reason(err) != sluicev1.Reason_REASON_CLOSED_BY_PEER || time.Since(began) < 30*time.Second || time.Since(began) > 31*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// endless is a body that does not go on.
type endless struct{ ctx context.Context }

func (e endless) Read([]byte) (int, error) {
	<-e.ctx.Done()
	return 0, e.ctx.Err()
}

func (endless) Close() error { return nil }

// elapse lets the time of the bubble pass.
func elapse(d time.Duration) { <-time.After(d) }

// since is the time between, without the moments that messages take.
func since(began, now time.Time) time.Duration { return now.Sub(began).Round(10 * time.Millisecond) }

// anHour bounds a wait in the time of the bubble.
func anHour(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	t.Cleanup(cancel)
	return ctx
}
