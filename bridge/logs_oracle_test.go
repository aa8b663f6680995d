package bridge

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// logStory is what happens to a container and to the one who reads its log, drawn beforehand.
type logStory struct {
	Before, Steps   []step
	Faults          []logFault
	Seed            uint64
	Stamps, Text    bool
	Follow, Deleted bool
	Blind           bool // the reader may not see the pod
	Waits           bool // a container that has ended waits before it is started anew
	Window, Piece   int
	Cursors         []int
}

func logStories() *rapid.Generator[logStory] {
	number := rapid.IntRange(0, 1<<16)
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.IntRange(0, 19).Draw(t, "what"), number.Draw(t, "a"), number.Draw(t, "b"), number.Draw(t, "c")}
	}), 0, 50)
	fault := rapid.Custom(func(t *rapid.T) logFault {
		after := rapid.OneOf(rapid.Just(-1), rapid.IntRange(0, 300), rapid.IntRange(0, 50_000)).Draw(t, "after")
		return logFault{after, rapid.Bool().Draw(t, "proper")}
	})
	return rapid.Custom(func(t *rapid.T) logStory {
		s := logStory{
			Before: steps.Draw(t, "before"), Steps: steps.Draw(t, "steps"), Faults: rapid.SliceOfN(fault, 0, 12).Draw(t, "faults"),
			Seed: rapid.Uint64().Draw(t, "seed"), Stamps: rapid.Bool().Draw(t, "stamps"), Text: rapid.Bool().Draw(t, "text"),
			Follow: rapid.Bool().Draw(t, "follow"), Deleted: rapid.Bool().Draw(t, "deleted"), Blind: rapid.IntRange(0, 3).Draw(t, "blind") == 0,
			Waits: rapid.Bool().Draw(t, "waits"),
			Piece: rapid.SampledFrom([]int{100, 16 << 10}).Draw(t, "piece"), Cursors: rapid.SliceOfN(number, 0, 4).Draw(t, "cursors"),
		}
		s.Window = s.Piece + pieceCost + rapid.SampledFrom([]int{0, 1, 5000, 60_000}).Draw(t, "window")
		before := false
		for i := range s.Faults { // an end that only looks proper can be told from one, not from two
			f := &s.Faults[i]
			f.proper = f.proper && !before
			before = f.proper || before && f.after < 0 // an upstream that the reader gives back does not end
		}
		return s
	})
}

// logOracle lets a story happen and checks what a client has against what was written.
type logOracle struct {
	t       testing.TB
	story   logStory
	node    *logNode
	lines   int
	excused bool // something may be missing, or seem so: the log was rotated, or the container started anew more than once
	cut     bool // the last record is not the end of its line
}

// run lets the story happen, ends it, and opens the log again at some of the cursors.
func (o *logOracle) run() (err error) {
	defer func() {
		if b, ok := recover().(broken); ok {
			err = b.error
		}
	}()
	s := o.story
	o.node.seed, o.node.faults, o.node.blind, o.node.waits = s.Seed, slices.Clone(s.Faults), s.Blind, s.Waits
	for _, x := range s.Before {
		if x.What >= 8 {
			o.write(x)
		}
	}
	if !s.Follow {
		o.finish()
	}
	c := o.open("")
	synctest.Wait()
	for _, x := range s.Steps {
		o.step(c, x)
	}
	o.finish()
	c.hold(false)
	o.settle(c)
	o.check(c, 0, 0)
	o.reopen(c)
	return nil
}

func (o *logOracle) fatalf(format string, args ...any) { panic(broken{fmt.Errorf(format, args...)}) }

func (o *logOracle) open(cursor string) *logClient {
	open := logOf(func(l *sluicev1.LogTarget) { l.Follow, l.Timestamps = o.story.Follow, o.story.Stamps })
	open.Text, open.Cursor = o.story.Text, cursor
	jitter := rand.New(rand.NewPCG(o.story.Seed, 2))
	return openLog(o.t, o.node, open, Options{Jitter: jitter.Float64}, func(c *testChannel) { c.piece, c.window = o.story.Piece, o.story.Window })
}

// settle waits for the log's end.
func (o *logOracle) settle(c *logClient) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*time.Hour)
	defer cancel()
	select {
	case end := <-c.over:
		c.over <- end
		if gone := end.Err != nil; gone != (o.story.Deleted && o.story.Follow && !o.story.Blind) {
			o.fatalf("the log ends with %v", end.Err)
		}
	case <-ctx.Done():
		o.fatalf("the log does not end; heard %.2000q", c.heard())
	}
}

// step is one thing that happens.
func (o *logOracle) step(c *logClient, s step) {
	switch s.What {
	case 0:
		c.hold(true)
	case 1:
		c.hold(false)
	case 2:
		c.consume(s.A)
	case 3:
		elapse(time.Duration(s.A%20_000) * time.Millisecond)
	case 4:
		o.node.sever()
	case 5:
		if !o.ended() && !o.cut {
			o.node.rotate()
			o.node.clock = o.node.clock.Add(time.Second) // what begins alike, at the same time, is the same
			o.excused = true
		}
	case 6:
		o.restart(c, s)
	case 7:
		o.node.change(func() { o.node.stale = s.A%2 == 0 })
	default:
		o.write(s)
	}
}

func (o *logOracle) ended() bool { return o.node.phase != "Running" || o.node.deleting }

// restart ends the container and starts it again, at once or later.
func (o *logOracle) restart(c *logClient, s step) {
	c.mu.Lock()
	unread := c.size == 0
	c.mu.Unlock()
	if o.ended() || o.story.Blind || unread && (o.node.waits || o.node.stale) { // who may not see the pod, or has read nothing, does not know of it
		return
	}
	if len(o.node.runs) > 1 || o.node.stale {
		o.excused = true
	}
	if s.A%2 == 0 {
		o.node.exit(1)
		elapse(time.Duration(s.B%100_000) * time.Millisecond)
	}
	o.cut = false
	late := s.C%3 == 0 && !o.node.stale && len(o.node.runs) == 1 && !unread // the API server learns of it in time, not at once
	o.node.change(func() { o.node.stale = o.node.stale || late })
	o.node.start()
	if late {
		o.write(s)
		elapse(time.Duration(s.C%9000) * time.Millisecond)
		o.node.change(func() { o.node.stale = false })
	}
}

// write has the container write a record: at about the time of the last, out of order, or later.
func (o *logOracle) write(s step) {
	if o.ended() {
		return
	}
	o.lines++
	text := fmt.Sprintf("%d/%d ä☃🙂 %s\n", len(o.node.runs), o.lines, strings.Repeat("ü", []int{0, 3, 50, 500, 20_000}[s.B%5]))
	if s.B%7 == 0 && !o.rotates() {
		text = "\n" // which could be anywhere
	}
	goesOn := o.cut
	if o.cut = s.C%5 == 0 && len(text) > 1; o.cut {
		text = strings.TrimSuffix(text, "\n")
	}
	later := []time.Duration{0, 0, 1, time.Microsecond, -50 * time.Microsecond, time.Millisecond, 400 * time.Millisecond, 3 * time.Second}[s.A%8]
	if goesOn {
		later = min(later, time.Millisecond)
	}
	o.node.write(later, text)
}

// rotates reports whether the log is rotated in the story.
func (o *logOracle) rotates() bool {
	return slices.ContainsFunc(o.story.Steps, func(s step) bool { return s.What == 5 || s.What == 6 })
}

// finish ends the container for good.
func (o *logOracle) finish() {
	if o.ended() {
		return
	}
	o.node.change(func() {
		o.node.stale, o.node.last().ended = false, true
		if o.node.deleting = o.story.Deleted; !o.node.deleting {
			o.node.phase = "Succeeded"
		}
	})
}

// check walks along what a client heard, from a byte of a run on: all of it was written, in this order, and nothing is missing where nothing was
// announced.
func (o *logOracle) check(c *logClient, run, at int) {
	texts := o.node.texts(o.story.Stamps)
	for i, s := range c.segments() {
		jump := false
		for _, k := range s.after {
			switch k {
			case gap:
				if jump = true; !o.excused {
					o.fatalf("%d: a gap where nothing is missing, after %d of run %d; heard %.3000q", i, at, run, c.heard())
				}
			case restarted:
				if !jump && at != len(texts[run]) && (at > 0 || o.node.runs[run].start == 0) {
					o.fatalf("%d: the container was started anew after %d of %d bytes", i, at, len(texts[run]))
				}
				if !jump {
					run, at = run+1, 0
				}
			}
		}
		jump = jump || at == 0 && o.node.runs[run].start > 0 // a log begins where the API server has it begin
		if jump {
			run, at = o.find(texts, run, at, s.text)
		}
		if !strings.HasPrefix(texts[run][at:], s.text) {
			o.fatalf("%d: after %d of run %d comes %.200q, want %.200q; heard %.3000q", i, at, run, s.text, texts[run][at:], c.heard())
		}
		at += len(s.text)
		if jump && s.text == "" {
			run, at = len(texts)-1, len(texts[len(texts)-1]) // what is missing is all
		}
	}
	if run != len(texts)-1 || at != len(texts[run]) {
		o.fatalf("the log stops after %d of %d bytes of run %d of %d; heard %.3000q", at, len(texts[run]), run, len(texts), c.heard())
	}
}

// find is where a text is, not before a byte of a run.
func (o *logOracle) find(texts []string, run, at int, text string) (inRun, from int) {
	for ; run < len(texts); run, at = run+1, 0 {
		if i := strings.Index(texts[run][at:], text); i >= 0 {
			return run, at + i
		}
	}
	o.fatalf("after a gap comes what was not written, or not then: %.200q", text)
	return 0, 0
}

// reopen checks that a new channel at a cursor has exactly the rest.
func (o *logOracle) reopen(c *logClient) {
	texts := o.node.texts(o.story.Stamps)
	segments := c.segments()
	type place struct {
		cursor  string
		run, at int
	}
	var places []place
	run, at := 0, 0
	for _, s := range segments {
		missed := slices.Contains(s.after, gap)
		if slices.Contains(s.after, restarted) && !missed {
			run, at = run+1, 0
		}
		if missed || at == 0 && o.node.runs[run].start > 0 {
			run, at = o.find(texts, run, at, s.text)
		}
		for _, p := range s.parts {
			if at += len(p.bytes); p.cursor != "" {
				places = append(places, place{p.cursor, run, at})
			}
		}
	}
	for _, n := range o.story.Cursors {
		if len(places) == 0 {
			return
		}
		p := places[n%len(places)]
		o.excused = o.excused || len(texts) > p.run+2
		again := o.open(p.cursor)
		o.settle(again)
		o.check(again, p.run, p.at)
	}
}

// TestT_H5_LogIsExact is the oracle.
func TestT_H5_LogIsExact(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		story, err := logStories().Draw(rt, "story"), error(nil)
		synctest.Test(t, func(t *testing.T) {
			o := logOracle{t: t, story: story, node: pipedLogNode(t)}
			err = o.run()
		})
		if err != nil {
			rt.Fatal(err)
		}
	})
}
