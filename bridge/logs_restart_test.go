package bridge

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// heardOfLog is what came but for what was said of the upstream.
func (c *logClient) heardOfLog() string {
	return strings.NewReplacer("<RECONNECTING>", "", "<CONNECTED>", "").Replace(c.heard())
}

// TestT_E7_TheAPIServerMayBeLateToLearnOfARestart: the kubelet has the new container's log at once. Nothing is told until it is clear which of the two it is.
func TestT_E7_TheAPIServerMayBeLateToLearnOfARestart(t *testing.T) {
	for _, late := range []time.Duration{0, 50 * time.Millisecond, time.Second, 9 * time.Second} {
		for name, lose := range map[string]func(n *logNode){
			"ended": func(n *logNode) { n.write(time.Second, "a2\n") },
			"severed": func(n *logNode) {
				n.sever()
				n.write(time.Second, "a2\n")
			},
		} {
			t.Run(fmt.Sprint(name, ", ", late), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := pipedLogNode(t)
					n.write(0, "a1\n")
					c := openLog(t, n, logOf(nil), Options{}, nil)
					c.awaitText(anHour(t), "a1\n")
					n.change(func() { n.stale = true })
					lose(n)
					n.start()
					n.write(time.Second, "b1\n")
					elapse(late)
					if got := c.heardOfLog(); late > 0 && got != "a1\na2\n" && got != "a1\n" {
						t.Errorf("before anything is clear: %q", got)
					}
					n.change(func() { n.stale = false })
					c.awaitText(anHour(t), "a1\na2\nb1\n")
					if got := c.heardOfLog(); got != "a1\na2\n<RESTARTED>b1\n" {
						t.Errorf("heard %q", got)
					}
					c.halt()
				})
			})
		}
	}
}

// TestT_E7_AnAPIServerThatNeverLearnsOfARestart is not waited for without end: what comes does not follow what was read, and the client is told.
func TestT_E7_AnAPIServerThatNeverLearnsOfARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.write(0, "a1\n")
		c := openLog(t, n, logOf(nil), Options{}, nil)
		c.awaitText(anHour(t), "a1\n")
		n.change(func() { n.stale = true })
		n.start()
		n.write(time.Second, "b1\n")
		began := time.Now()
		c.awaitText(anHour(t), "a1\nb1\n")
		if waited := time.Since(began); waited < newsTime || waited > newsTime+10*time.Second {
			t.Errorf("after %v", waited)
		}
		n.write(time.Second, "b2\n")
		n.change(func() { n.stale = false })
		n.sever()
		n.write(time.Second, "b3\n")
		elapse(time.Minute)
		if got := c.heardOfLog(); got != "a1\n<GAP>b1\nb2\nb3\n" {
			t.Errorf("heard %q", got)
		}
		c.halt()
	})
}

// TestT_E7_ARotationIsToldAtOnce when no restart can be behind it, and only after the API server has had its time when one can.
func TestT_E7_ARotationIsToldAtOnce(t *testing.T) {
	for _, c := range []struct {
		name             string
		before           func(n *logNode)
		soonest, longest time.Duration
	}{
		{"the first run", func(*logNode) {}, 0, time.Second},
		{"a later run", func(n *logNode) { n.start() }, newsTime, newsTime + 10*time.Second},
		{"its last", func(n *logNode) { n.start(); n.policy = "Never" }, 0, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := pipedLogNode(t)
				c.before(n)
				n.write(0, "a1\n")
				l := openLog(t, n, logOf(nil), Options{}, nil)
				l.awaitText(anHour(t), "a1\n")
				n.change(func() { n.down = true })
				n.sever()
				n.write(time.Second, "a2\n")
				n.rotate()
				n.write(time.Second, "a3\n")
				if n.policy == "Never" {
					n.exit(0)
				}
				n.change(func() { n.down = false })
				l.awaitText(anHour(t), "a1\n")
				began := time.Now()
				must(t, l.awaitState(anHour(t), gap, 1))
				if waited := time.Since(began); waited < c.soonest || waited > c.longest {
					t.Errorf("told after %v", waited)
				}
				elapse(time.Minute)
				if got := l.heardOfLog(); got != "a1\n<GAP>a3\n" {
					t.Errorf("heard %q", got)
				}
			})
		})
	}
}

// TestT_E7_ACrashLoopIsReadRunForRun: while a container waits to be started anew, its kubelet has the log of its last run and no other.
func TestT_E7_ACrashLoopIsReadRunForRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.waits = true
		n.write(0, "0\n")
		c := openLog(t, n, logOf(nil), Options{}, nil)
		c.awaitText(anHour(t), "0\n")
		var want strings.Builder
		want.WriteString("0\n")
		for run, pause := range []time.Duration{time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second, 5 * time.Minute, 5 * time.Minute} {
			n.exit(1)
			elapse(pause)
			n.start()
			n.write(time.Second, fmt.Sprintln(run+1)) // and ends before anybody has asked for it
			fmt.Fprintf(&want, "<RESTARTED>%d\n", run+1)
		}
		n.exit(1)
		elapse(time.Minute)
		if got := c.heardOfLog(); got != want.String() {
			t.Errorf("heard %q, want %q", got, want.String())
		}
		c.halt()
	})
}

// TestT_E7_ACrashLoopThatWasNotReadToItsEnd: the rest of the earlier run cannot be had while the later one waits. It is told, and the later one's log does
// not come twice, as both.
func TestT_E7_ACrashLoopThatWasNotReadToItsEnd(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := pipedLogNode(t)
			n.waits = true
			n.write(0, "a1\n")
			c := openLog(t, n, logOf(nil), Options{}, nil)
			c.awaitText(anHour(t), "a1\n")
			n.change(func() { n.down = true })
			n.sever()
			n.write(time.Second, "a2\n")
			n.start()
			n.change(func() { n.stale = late }) // so it is believed that the kubelet has the earlier one's rest
			n.write(time.Second, "b1\n")
			n.exit(1)
			n.change(func() { n.down = false })
			elapse(5 * time.Second)
			n.change(func() { n.stale = false })
			elapse(time.Minute)
			if got := c.heardOfLog(); got != "a1\n<GAP><RESTARTED>b1\n" {
				t.Errorf("late %v: heard %q", late, got)
			}
			c.halt()
		})
	}
}

// TestT_E7_ANewContainerMaySayNothing: then its log lacks what was read of the earlier one's, and brings nothing in its place.
func TestT_E7_ANewContainerMaySayNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.write(0, "a1\n")
		c := openLog(t, n, logOf(nil), Options{}, nil)
		c.awaitText(anHour(t), "a1\n")
		n.change(func() { n.down = true })
		n.sever()
		n.exit(1)
		n.change(func() { n.stale = true })
		n.start()
		n.exit(1)
		n.change(func() { n.down = false })
		elapse(5 * time.Second)
		if got := c.heardOfLog(); got != "a1\n" {
			t.Errorf("before anything is clear: %q", got)
		}
		n.change(func() { n.stale = false })
		elapse(time.Minute)
		n.start()
		n.write(time.Second, "c1\n")
		c.awaitText(anHour(t), "a1\nc1\n")
		if got := c.heardOfLog(); got != "a1\n<RESTARTED><RESTARTED>c1\n" {
			t.Errorf("heard %q", got)
		}
		c.halt()
	})
}

// cursorOf is that of the only state of its kind.
func (c *logClient) cursorOf(kind sluicev1.ChannelState_Kind) string {
	c.t.Helper()
	all := c.states(kind)
	if len(all) != 1 || all[0].GetCursor() == "" {
		c.t.Fatalf("heard %s, with cursors %v", c.heard(), all)
	}
	return all[0].GetCursor()
}

// TestAStateOfALogHasACursor: who is lost after a restart was told, and before the new log's first line, is told of no other one.
func TestAStateOfALogHasACursor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pipedLogNode(t)
		n.write(0, "a1\n")
		open := logOf(func(l *sluicev1.LogTarget) { l.TailLines = proto.Int64(1) })
		c := openLog(t, n, open, Options{}, nil)
		c.awaitText(anHour(t), "a1\n")
		n.start()
		must(t, c.awaitState(anHour(t), restarted, 1))
		open.Cursor = c.cursorOf(restarted)
		c.halt()
		n.write(time.Second, "b1\n")
		n.write(time.Second, "b2\n")
		c = openLog(t, n, open, Options{}, nil)
		c.awaitText(anHour(t), "b1\nb2\n")
		n.change(func() { n.down = true })
		n.sever()
		n.rotate()
		n.write(time.Second, "b3\n")
		n.rotate()
		n.write(time.Second, "b4\n")
		n.change(func() { n.down = false })
		must(t, c.awaitState(anHour(t), gap, 1))
		open.Cursor = c.cursorOf(gap)
		if got := c.heardOfLog(); got != "b1\nb2\n<GAP>b4\n" && got != "b1\nb2\n<GAP>" {
			t.Errorf("heard %q", got)
		}
		c.halt()
		c = openLog(t, n, open, Options{}, nil) // where it was: before what is missing
		c.awaitText(anHour(t), "b4\n")
		if got := c.heardOfLog(); got != "<GAP>b4\n" {
			t.Errorf("heard %q", got)
		}
		c.halt()
	})
}

// TestTailOfNothingHasACursor at once: whoever is lost before the first line goes on where the log ended when it was asked for.
func TestTailOfNothingHasACursor(t *testing.T) {
	for _, before := range []int{0, 3} {
		synctest.Test(t, func(t *testing.T) {
			n := pipedLogNode(t)
			for i := range before {
				n.write(0, fmt.Sprintln("before", i))
			}
			open := logOf(func(l *sluicev1.LogTarget) { l.TailLines = proto.Int64(0) })
			c := openLog(t, n, open, Options{}, nil)
			elapse(time.Second)
			cursors, sizes := c.cursorsAt()
			if len(cursors) != 1 || sizes[0] != 0 {
				t.Fatalf("%d lines: cursors %q at %d", before, cursors, sizes)
			}
			c.halt()
			n.write(0, "first\n") // at the time of those before
			n.write(time.Second, "second\n")
			open.Cursor = cursors[0]
			c = openLog(t, n, open, Options{}, nil)
			c.awaitText(anHour(t), "first\nsecond\n")
			if got := c.heard(); got != "first\nsecond\n" {
				t.Errorf("%d lines: heard %q", before, got)
			}
			c.halt()
		})
	}
}
