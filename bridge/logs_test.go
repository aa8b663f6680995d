package bridge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// TestT_H5_AThousandLinesInASecond, with the upstream cut again and again: none is lost, none comes twice.
func TestT_H5_AThousandLinesInASecond(t *testing.T) {
	for name, later := range map[string]time.Duration{"apart": 900 * time.Microsecond, "at the same time": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := pipedLogNode(t)
				for i := range 40 {
					n.faults = append(n.faults, logFault{after: 20 * i * i})
				}
				c := openLog(t, n, logOf(nil), Options{}, nil)
				for i := range 1000 {
					n.write(later, fmt.Sprintf("line %d\n", i))
				}
				want := n.texts(false)[0]
				c.awaitText(anHour(t), want)
				if len(c.states(gap)) > 0 || len(n.asked()) < 40 {
					t.Errorf("%d gaps, %d upstreams", len(c.states(gap)), len(n.asked()))
				}
				n.change(func() { n.policy = "Never" })
				n.exit(0)
				c.waitWhole()
				if got := c.text(); got != want {
					t.Errorf("at the end %q", got)
				}
			})
		})
	}
}

// TestLogOfAContainerThatHasEnded is delivered whole, whether it is followed or not.
func TestLogOfAContainerThatHasEnded(t *testing.T) {
	for _, follow := range []bool{false, true} {
		for _, stamps := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				n := pipedLogNode(t)
				n.policy = "Never"
				for i := range 100 {
					n.write(time.Millisecond, strings.Repeat("x", i*i)+"\n")
				}
				n.exit(0)
				c := openLog(t, n, logOf(func(l *sluicev1.LogTarget) { l.Follow, l.Timestamps = follow, stamps }), Options{}, nil)
				c.waitWhole()
				if got := c.text(); got != n.texts(stamps)[0] {
					t.Errorf("%d bytes, want %d", len(got), len(n.texts(stamps)[0]))
				}
				if len(c.told()) > 0 || c.opened.GetSubprotocol() != logSubprotocol || !c.opened.GetCapabilities().GetResumable() {
					t.Errorf("heard %v, opened %v", c.told(), c.opened)
				}
			})
		}
	}
}

// TestT_E7_PodIsDeleted: what follows a log learns that its pod is gone, after all that it wrote, however soon the API server forgets it.
func TestT_E7_PodIsDeleted(t *testing.T) {
	for name, remove := range map[string]func(n *logNode){
		"being deleted": func(n *logNode) { n.deleting = true; n.last().ended = true },
		"gone":          func(n *logNode) { n.deleted = true },
		"replaced": func(n *logNode) {
			n.uid = "uid-2"
			n.last().ended = true
			n.runs = append(n.runs, &logRun{id: "containerd://another", records: []logRecord{{n.clock, "not ours\n"}}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := pipedLogNode(t)
				n.write(0, "first\n")
				c := openLog(t, n, logOf(nil), Options{}, nil)
				c.awaitText(anHour(t), "first\n")
				n.change(func() {
					n.last().records = append(n.last().records, logRecord{n.clock, "last\n"})
					remove(n)
				})
				began := time.Now()
				c.waitGone()
				if got := c.heard(); got != "first\nlast\n" || time.Since(began) > time.Second {
					t.Errorf("after %v heard %q", time.Since(began), got)
				}
			})
		})
	}
}

// TestT_E7_ContainerIsStartedAnew: the rest of its log comes first, then the client is told, then comes the new one's from its beginning.
func TestT_E7_ContainerIsStartedAnew(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "after a while": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := pipedLogNode(t)
				n.write(0, "a1\n")
				c := openLog(t, n, logOf(func(l *sluicev1.LogTarget) { l.TailLines = proto.Int64(1) }), Options{}, nil)
				c.awaitText(anHour(t), "a1\n")
				n.sever()
				n.write(time.Second, "a2\n")
				n.write(time.Second, "a3\n")
				n.exit(1)
				elapse(wait)
				n.start()
				n.write(time.Second, "b1\n")
				n.write(time.Second, "b2\n")
				c.awaitText(anHour(t), "a1\na2\na3\nb1\nb2\n")
				quiet := strings.NewReplacer("<RECONNECTING>", "", "<CONNECTED>", "")
				if got := quiet.Replace(c.heard()); got != "a1\na2\na3\n<RESTARTED>b1\nb2\n" {
					t.Errorf("heard %q", got)
				}
				if waited := len(c.states(reconnecting)) > 1; waited != (wait > 0) {
					t.Errorf("%d times RECONNECTING", len(c.states(reconnecting)))
				}
				c.halt()
			})
		})
	}
}

// TestT_E7_AKubeletThatHasJustStartedIsWaitedFor: it does not know the pod that the API server has; neither the pod nor any of its log is gone.
func TestT_E7_AKubeletThatHasJustStartedIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.write(0, "a1\n")
		c := openLog(t, n, logOf(nil), Options{}, nil)
		c.awaitText(anHour(t), "a1\n")
		n.change(func() { n.unready = 3 })
		n.sever()
		n.write(time.Second, "a2\n")
		n.exit(137)
		n.start()
		n.write(time.Second, "b1\n")
		c.awaitText(anHour(t), "a1\na2\nb1\n")
		quiet := strings.NewReplacer("<RECONNECTING>", "", "<CONNECTED>", "")
		if got := quiet.Replace(c.heard()); got != "a1\na2\n<RESTARTED>b1\n" {
			t.Errorf("heard %q", got)
		}
		c.halt()
	})
}

// TestT_E7_WhatIsMissingIsAnnounced, and nothing else is.
func TestT_E7_WhatIsMissingIsAnnounced(t *testing.T) {
	for name, c := range map[string]struct {
		lost   bool // the upstream was lost before
		happen func(n *logNode)
		want   string
	}{
		"rotated under a follower": {false, func(n *logNode) {
			n.rotate()
			n.write(time.Second, "a2\n")
		}, "a1\na2\n"},
		"rotated, nothing before": {true, func(n *logNode) {
			n.last().records = append([]logRecord{{n.clock.Add(-time.Minute), "a0\n"}}, n.last().records...)
			n.last().start = 1
			n.write(time.Second, "a2\n")
		}, "a1\na2\n"},
		"rotated": {true, func(n *logNode) {
			n.write(time.Second, "a2\n")
			n.rotate()
			n.write(time.Second, "a3\n")
		}, "a1\n<GAP>a3\n"},
		"rotated, at the same time": {true, func(n *logNode) {
			n.write(0, "a2\n")
			n.rotate()
			n.write(0, "a3\n")
			n.write(1, "a4\n")
		}, "a1\n<GAP>a4\n"},
		"truncated": {true, func(n *logNode) {
			n.last().records = nil
			n.policy = "Never"
			n.exit(0)
		}, "a1\n<GAP>"},
		"started anew twice": {true, func(n *logNode) {
			n.start()
			n.write(time.Second, "b1\n")
			n.start()
			n.write(time.Second, "c1\n")
		}, "a1\n<GAP><RESTARTED>c1\n"},
		"started anew, the earlier log gone": {true, func(n *logNode) {
			n.last().removed = true
			n.start()
			n.write(time.Second, "b1\n")
		}, "a1\n<GAP><RESTARTED>b1\n"},
		"started anew, the earlier log rotated": {true, func(n *logNode) {
			n.write(time.Second, "a2\n")
			n.rotate()
			n.write(time.Second, "a3\n")
			n.start()
			n.write(time.Second, "b1\n")
		}, "a1\n<GAP>a3\n<RESTARTED>b1\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := pipedLogNode(t)
				n.write(0, "a1\n")
				l := openLog(t, n, logOf(nil), Options{}, nil)
				l.awaitText(anHour(t), "a1\n")
				if c.lost {
					n.change(func() { n.down = true })
					n.sever()
					synctest.Wait()
				}
				c.happen(n)
				n.change(func() { n.down = false })
				elapse(time.Minute)
				quiet := strings.NewReplacer("<RECONNECTING>", "", "<CONNECTED>", "")
				if got := quiet.Replace(l.heard()); got != c.want {
					t.Errorf("heard %q, want %q", got, c.want)
				}
				for _, s := range l.states(gap) {
					if s.GetStatus().GetReason() != sluicev1.Reason_REASON_DATA_LOSS || s.GetStatus().GetMessage() == "" {
						t.Errorf("a gap says %v", s)
					}
				}
			})
		})
	}
}

// TestTailGoesOnWhereItWas: what a tail leaves out stays out, also when its first line was written at the same time as those before.
func TestTailGoesOnWhereItWas(t *testing.T) {
	for _, tail := range []int64{0, 1, 3} {
		for _, before := range []int{0, 1, 10} {
			synctest.Test(t, func(t *testing.T) {
				n := pipedLogNode(t)
				var all []string
				write := func(i int) {
					all = append(all, fmt.Sprintln("line", i))
					n.write(0, all[i])
				}
				for i := range before {
					write(i)
				}
				first := max(0, before-int(tail))
				c := openLog(t, n, logOf(func(l *sluicev1.LogTarget) { l.TailLines = &tail }), Options{}, nil)
				elapse(10 * time.Second)
				for i := before; i < before+5; i++ {
					n.sever()
					write(i)
					elapse(time.Minute)
				}
				want := strings.Join(all[first:], "")
				if got := c.heard(); strings.NewReplacer("<RECONNECTING>", "", "<CONNECTED>", "").Replace(got) != want {
					t.Errorf("the last %d of %d lines: heard %q, want %q", tail, before, got, want)
				}
				c.halt()
			})
		}
	}
}

// TestSinceIsCountedFromTheFirstRequest: a log that is asked for again before it has brought anything does not begin later for that.
func TestSinceIsCountedFromTheFirstRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		c := openLog(t, n, logOf(func(l *sluicev1.LogTarget) { l.Since = durationpb.New(1500 * time.Millisecond) }), Options{}, nil)
		synctest.Wait()
		elapse(time.Minute)
		n.sever()
		elapse(time.Second)
		if got := n.asked(); len(got) != 2 || got[0].Get("sinceSeconds") != "2" || got[1].Get("sinceSeconds") != "62" {
			t.Errorf("asked %v", got)
		}
		c.halt()
	})
}

// TestLogOfARunningContainerEnds when it is not followed, though the container writes on and on.
func TestLogOfARunningContainerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.onDial = func() { n.last().records = append(n.last().records, logRecord{n.clock, fmt.Sprintln(len(n.queries))}) }
		c := openLog(t, n, logOf(func(l *sluicev1.LogTarget) { l.Follow = false }), Options{}, nil)
		c.waitWhole()
		if got, want := c.text(), n.texts(false)[0]; got != want || len(n.asked()) != manyEnds {
			t.Errorf("%d upstreams brought %q of %q", len(n.asked()), got, want)
		}
	})
}

// TestT_E7_TruncatedLogDoesNotLookWhole: an API server that fails in the middle of a log ends it as if it were complete.
func TestT_E7_TruncatedLogDoesNotLookWhole(t *testing.T) {
	for _, after := range []int{0, 10, 40, 100, 5000} {
		synctest.Test(t, func(t *testing.T) {
			n := pipedLogNode(t)
			n.faults = []logFault{{after, true}, {-1, false}, {after, true}}
			if after >= 40 { // one that does not even bring what the client has proves nothing
				n.faults = []logFault{{after, true}, {10, true}}
			}
			for i := range 1000 {
				n.write(time.Millisecond, fmt.Sprintln(i))
			}
			c := openLog(t, n, logOf(func(l *sluicev1.LogTarget) { l.Follow = false }), Options{}, nil)
			c.waitWhole()
			if got, want := c.heard(), n.texts(false)[0]; got != want {
				t.Errorf("cut after %d: %d bytes, want %d", after, len(got), len(want))
			}
		})
	}
}

// TestWhatTheKubeletSays in a log, without a time, is delivered as it is, and moves nothing.
func TestWhatTheKubeletSays(t *testing.T) {
	const said = "unable to retrieve container logs for containerd://x"
	up := newRawUpstream(t, func(nc net.Conn) {
		_, _ = io.WriteString(nc, serverFrame(0x82, "2026-11-23T12:00:00.1Z a\n2026-11")+serverFrame(0x82, " b\n")+serverFrame(0x82, said)+serverFrame(0x88, "\x03\xe8"))
	})
	up.get = func(context.Context, url.Values) (*http.Response, error) {
		return nil, answered(http.StatusForbidden, nil, nil)
	}
	c := openLog(t, up, logOf(func(l *sluicev1.LogTarget) { l.Follow = false }), Options{}, nil)
	c.waitWhole()
	cursors, sizes := c.cursorsAt()
	if got, want := c.text(), "a\n2026-11 b\n"+said; !strings.HasPrefix(got, want) || len(cursors) == 0 {
		t.Errorf("heard %q, cursors at %d", got, sizes)
	}
	for _, cursor := range cursors {
		p, err := logCursors(up.Identity(), logOf(nil).GetTarget().GetLogs()).position(cursor)
		if err != nil || p.at != 1 || p.offset != 0 {
			t.Errorf("a cursor is at %+v, %v", p, err)
		}
	}
}

// TestLogAsText: what is UTF-8 goes as text; a rune that is cut by time goes in two parts, as bytes, and holds nothing back.
func TestLogAsText(t *testing.T) {
	const stamp = "2026-11-23T12:00:00.1Z "
	next := make(chan string)
	up := newRawUpstream(t, func(nc net.Conn) {
		for m := range next {
			_, _ = io.WriteString(nc, serverFrame(0x82, m)) // the client may be gone
		}
	})
	defer close(next)
	open := logOf(nil)
	open.Text = true
	c := openLog(t, up, open, Options{}, nil)
	var want strings.Builder
	for _, m := range []string{stamp + "ä☃\xf0\x9f", "\x99", "\x82🙂\n" + stamp + "\xff\n", stamp + "ä\n" + stamp + "☃"} {
		next <- m
		want.WriteString(strings.ReplaceAll(m, stamp, ""))
		c.awaitText(within(t), want.String())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, p := range c.parts {
		fmt.Fprintf(&b, "%v:%x ", p.text, p.bytes)
	}
	got := b.String()
	if want := fmt.Sprintf("true:%x false:f09f false:99 false:82 false:%x true:%x ", "ä☃", "🙂\n\xff\n", "ä\n☃"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestStalledLogGivesItsUpstreamBack, and goes on where it was when something is taken again.
func TestStalledLogGivesItsUpstreamBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		c := openLog(t, n, logOf(nil), Options{}, func(c *testChannel) { c.held = true })
		for i := range 3000 {
			n.write(time.Millisecond, fmt.Sprintln(i, strings.Repeat("x", i%100)))
		}
		want := n.texts(false)[0]
		elapse(9 * time.Second)
		if live := n.live(); live != 1 {
			t.Fatalf("%d upstreams after 9 s", live)
		}
		elapse(3 * time.Second)
		if live := n.live(); live != 0 {
			t.Fatalf("%d upstreams after 12 s", live)
		}
		elapse(time.Hour)
		c.hold(false)
		c.awaitText(anHour(t), want)
		if len(c.told()) > 0 || len(n.asked()) != 2 || n.asked()[1].Get("sinceTime") == "" {
			t.Errorf("heard %v by %d upstreams", c.told(), len(n.asked()))
		}
		c.halt()
	})
}

// TestLogsAreLeftToTheLoop as watches are.
func TestLogsAreLeftToTheLoop(t *testing.T) {
	n := newLogNode(t, func() (net.Conn, net.Conn) { return socketPair(context.Background(), t) })
	for i := range 20 {
		n.faults = append(n.faults, logFault{50 * i * i, i%2 == 0})
	}
	c := openLog(t, n, logOf(nil), Options{Loops: loopsFor(t), FirstBackoff: 1, LastBackoff: 1}, func(c *testChannel) { c.window = c.piece + pieceCost })
	for i := range 2000 {
		n.write(time.Millisecond, fmt.Sprintln(i, strings.Repeat("x", i%300)))
	}
	c.awaitText(within(t), n.texts(false)[0])
	n.change(func() { n.phase = "Succeeded" })
	n.exit(0)
	c.waitWhole()
}

// TestLogOfAPodThatMayNotBeSeen ends when two upstreams in a row have ended and brought nothing.
func TestLogOfAPodThatMayNotBeSeen(t *testing.T) {
	for _, follow := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := pipedLogNode(t)
			n.blind = true
			n.faults = []logFault{{20, false}, {50, true}, {70, false}}
			n.write(0, "first\n")
			n.write(time.Second, "last\n")
			if !follow {
				n.exit(0)
			}
			c := openLog(t, n, logOf(func(l *sluicev1.LogTarget) { l.Follow = follow }), Options{}, nil)
			c.awaitText(anHour(t), "first\nlast\n")
			if follow {
				n.exit(0)
			}
			c.waitWhole()
			if got := c.text(); got != "first\nlast\n" {
				t.Errorf("heard %q", got)
			}
		})
	}
}

// TestRefusedLogs: what the API server refuses at first is its answer; later it may be that the container does not run.
func TestRefusedLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.last().removed = true
		if e := status.From(openLog(t, n, logOf(nil), Options{}, nil).wait()); e == nil || e.HTTPCode != http.StatusBadRequest {
			t.Errorf("a container that waits to start: %v", e)
		}
		n.deleted = true
		if e := status.From(openLog(t, n, logOf(nil), Options{}, nil).wait()); e == nil || e.HTTPCode != http.StatusNotFound {
			t.Errorf("no pod: %v", e)
		}
		n.deleted, n.last().removed = false, false
		n.write(0, "first\n")
		c := openLog(t, n, logOf(nil), Options{}, nil)
		c.awaitText(anHour(t), "first\n")
		n.change(func() { n.last().removed = true })
		n.sever()
		elapse(time.Minute)
		n.change(func() { n.last().removed = false })
		n.write(time.Second, "second\n")
		c.awaitText(anHour(t), "first\nsecond\n")
		if len(c.states(reconnecting)) < 3 || len(c.states(gap)) > 0 {
			t.Errorf("heard %q", c.heard())
		}
		c.halt()
	})
}

// TestLogsAreValidated, naming the field.
func TestLogsAreValidated(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*sluicev1.LogTarget)
		field  string
	}{
		"as it is":        {func(*sluicev1.LogTarget) {}, ""},
		"every container": {func(l *sluicev1.LogTarget) { l.Container = "" }, ""},
		"no tail":         {func(l *sluicev1.LogTarget) { l.TailLines = proto.Int64(0) }, ""},
		"namespace":       {func(l *sluicev1.LogTarget) { l.Namespace = "" }, "logs.namespace"},
		"pod":             {func(l *sluicev1.LogTarget) { l.Pod = "a/b" }, "logs.pod"},
		"container":       {func(l *sluicev1.LogTarget) { l.Container = "a&b" }, "logs.container"},
		"tail":            {func(l *sluicev1.LogTarget) { l.TailLines = proto.Int64(-1) }, "logs.tail_lines"},
		"since":           {func(l *sluicev1.LogTarget) { l.Since = durationpb.New(0) }, "logs.since"},
		"since nonsense":  {func(l *sluicev1.LogTarget) { l.Since = &durationpb.Duration{Seconds: 1, Nanos: -1} }, "logs.since"},
		"since time":      {func(l *sluicev1.LogTarget) { l.SinceTime = &timestamppb.Timestamp{Nanos: -1} }, "logs.since_time"},
		"both": {func(l *sluicev1.LogTarget) {
			l.Since, l.SinceTime = durationpb.New(time.Second), timestamppb.Now()
		}, "logs.since_time"},
	} {
		err := Validate(logOf(c.change).GetTarget())
		if c.field == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if e := status.From(err); e == nil || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET || !strings.HasPrefix(e.Message, c.field+": ") {
			t.Errorf("%s: %v, want an invalid %s", name, err, c.field)
		}
	}
}

// TestLineThatIsOlderThanTheOneBefore is not forgotten: what writes to two streams may be out of order by a little, and API servers cut the time
// from which on a log is asked for to seconds.
func TestLineThatIsOlderThanTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		c := openLog(t, n, logOf(nil), Options{}, nil)
		for range 10 {
			for _, later := range []time.Duration{1000 * time.Microsecond, -10 * time.Microsecond, time.Second - 990*time.Microsecond} {
				n.write(later, fmt.Sprintln(len(n.last().records)))
				elapse(time.Second)
				n.sever()
			}
		}
		elapse(time.Minute)
		c.awaitText(anHour(t), n.texts(false)[0])
		if len(c.states(gap)) > 0 {
			t.Errorf("heard %q", c.heard())
		}
		c.halt()
	})
}

// TestAPIServerMayBeLate: a container was started anew before the API server says so. The log is then taken for the earlier one's, and neither
// comes twice nor seems to have been started anew again.
func TestAPIServerMayBeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.write(0, "a1\n")
		n.change(func() { n.stale = true })
		n.start()
		n.write(time.Second, "b1\n")
		c := openLog(t, n, logOf(nil), Options{}, nil)
		c.awaitText(anHour(t), "b1\n")
		n.change(func() { n.stale = false })
		n.sever()
		n.write(time.Second, "b2\n")
		elapse(time.Minute)
		if got := strings.NewReplacer("<RECONNECTING>", "", "<CONNECTED>", "").Replace(c.heard()); got != "b1\nb2\n" {
			t.Errorf("heard %q", got)
		}
		c.halt()
	})
}

// TestEndOfAContainerIsNoDisturbance, though the API server learns of it half a second later.
func TestEndOfAContainerIsNoDisturbance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.policy = "OnFailure"
		n.write(0, "a1\n")
		c := openLog(t, n, logOf(nil), Options{Jitter: func() float64 { return 0.5 }}, nil)
		c.awaitText(anHour(t), "a1\n")
		n.change(func() { n.stale = true })
		n.exit(0)
		elapse(500 * time.Millisecond)
		n.change(func() { n.stale = false })
		c.waitWhole()
		if got := c.heard(); got != "a1\n" || len(c.told()) > 0 {
			t.Errorf("heard %q", got)
		}
	})
}

// TestEmptyLogIsNotATail: what a container writes while its upstream is lost is more than a tail, if it had written nothing before.
func TestEmptyLogIsNotATail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		c := openLog(t, n, logOf(func(l *sluicev1.LogTarget) { l.TailLines = proto.Int64(2) }), Options{}, nil)
		elapse(time.Minute)
		n.change(func() { n.down = true })
		n.sever()
		for i := range 5 {
			n.write(time.Second, fmt.Sprintln(i))
		}
		n.change(func() { n.down = false })
		elapse(time.Minute)
		c.awaitText(anHour(t), "0\n1\n2\n3\n4\n")
		c.halt()
	})
}

// TestWhoStartsAgain: by the pod's policy, the container's own and how it has ended.
func TestWhoStartsAgain(t *testing.T) {
	const states = `"containerStatuses":[{"name":"c","state":{"terminated":{"exitCode":%d}}}],` +
		`"initContainerStatuses":[{"name":"i","state":{"terminated":{"exitCode":%[1]d}}},{"name":"s","state":{"terminated":{"exitCode":%[1]d}}}],` +
		`"ephemeralContainerStatuses":[{"name":"e","state":{"terminated":{"exitCode":%[1]d}}}]`
	for _, c := range []struct {
		policy, phase, meta string
		code                int
		want                string
	}{
		{"Always", "Running", ``, 0, "cs"},
		{"Always", "Running", ``, 1, "cis"},
		{"OnFailure", "Running", ``, 0, "s"},
		{"OnFailure", "Running", ``, 1, "cis"},
		{"Never", "Running", ``, 1, "s"},
		{"Always", "Failed", ``, 1, ""},
		{"Always", "Running", `"deletionTimestamp":"2026-11-23T12:00:00Z"`, 1, ""},
	} {
		var p pod
		must(t, json.Unmarshal(fmt.Appendf(nil, `{"metadata":{%s},"spec":{"restartPolicy":%q,"containers":[{"name":"c"}],"initContainers":[{"name":"i"},`+
			`{"name":"s","restartPolicy":"Always"}],"ephemeralContainers":[{"name":"e"}]},"status":{"phase":%q,%s}}`,
			c.meta, c.policy, c.phase, fmt.Sprintf(states, c.code)), &p))
		var again strings.Builder
		for _, name := range []string{"c", "i", "s", "e"} {
			if p.standing(name).returns {
				again.WriteString(name)
			}
		}
		if got := again.String(); got != c.want || p.standing("").returns != p.standing("c").returns {
			t.Errorf("%+v: %q start again", c, got)
		}
	}
}
