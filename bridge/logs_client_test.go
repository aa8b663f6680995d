package bridge

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

const (
	gap       = sluicev1.ChannelState_KIND_GAP
	restarted = sluicev1.ChannelState_KIND_RESTARTED
)

// logPart is a piece of a log as its client has it.
type logPart struct {
	bytes  string
	cursor string
	text   bool
	states int // that were heard before
}

// logClient is the client of a log.
type logClient struct {
	*testChannel
	parts []logPart // guarded by the channel's mu
	size  int       // of all parts
	stop  context.CancelCauseFunc
	over  chan Outcome
}

// openLog opens a log and collects what comes.
func openLog(t testing.TB, up Upstream, open *sluicev1.Open, o Options, change func(*testChannel)) *logClient {
	ctx, cancel := context.WithCancelCause(context.Background())
	o.PingEvery = 24 * time.Hour // the node answers none
	c := &logClient{testChannel: newTestChannel(t, open.GetCursor()), stop: cancel, over: make(chan Outcome, 1)}
	c.testChannel.bytes = func(p data.Piece) {
		if p.More || p.Text && !utf8.Valid(p.Bytes) || len(p.Bytes) == 0 && (p.Cursor == "" || len(c.parts) > 0) || p.Stream != 0 {
			t.Errorf("a piece of a log is %+v", p)
		}
		c.parts = append(c.parts, logPart{string(p.Bytes), p.Cursor, p.Text, len(c.log)})
		c.size += len(p.Bytes)
	}
	if change != nil {
		change(c.testChannel)
	}
	go func() { c.over <- Run(ctx, up, open, c.testChannel, WithDefaults(o)) }()
	t.Cleanup(func() {
		cancel(nil)
		<-c.over
	})
	return c
}

// wait returns how the log has ended.
func (c *logClient) wait() error {
	o := <-c.over
	c.over <- o
	return o.Err
}

// waitWhole fails the test unless the log ends well.
func (c *logClient) waitWhole() {
	c.t.Helper()
	if err := c.wait(); err != nil {
		c.t.Errorf("the log ends with %v; heard %s", err, c.heard())
	}
}

// waitGone fails the test unless the log ends since its container is gone.
func (c *logClient) waitGone() {
	c.t.Helper()
	if err := c.wait(); status.Reason(err) != sluicev1.Reason_REASON_TARGET_GONE {
		c.t.Errorf("the log ends with %v; heard %s", err, c.heard())
	}
}

// awaitText waits until the client has all of a text, whatever was said in between.
func (c *logClient) awaitText(ctx context.Context, text string) {
	c.t.Helper()
	if err := c.await(ctx, func() bool { return c.size >= len(text) }); err != nil {
		c.t.Fatalf("%v; heard %s", err, c.heard())
	}
	if got := c.text(); got != text {
		c.t.Fatalf("heard %q, want %q", got, text)
	}
}

// text is what the client has.
func (c *logClient) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, p := range c.parts {
		b.WriteString(p.bytes)
	}
	return b.String()
}

// heard is what came, in order: runs of bytes and states.
func (c *logClient) heard() string {
	var b strings.Builder
	for _, s := range c.segments() {
		for _, k := range s.after {
			b.WriteString("<" + strings.TrimPrefix(k.String(), "KIND_") + ">")
		}
		b.WriteString(s.text)
	}
	return b.String()
}

// logSegment is what came in one, after some states.
type logSegment struct {
	after []sluicev1.ChannelState_Kind
	text  string
	parts []logPart
}

// segments are what came.
func (c *logClient) segments() (all []logSegment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	said := 0
	add := func(states int) *logSegment {
		if len(all) == 0 || states > said {
			s := logSegment{}
			for ; said < states; said++ {
				s.after = append(s.after, c.log[said].state.GetKind())
			}
			all = append(all, s)
		}
		return &all[len(all)-1]
	}
	for _, p := range c.parts {
		s := add(p.states)
		s.text += p.bytes
		s.parts = append(s.parts, p)
	}
	add(len(c.log))
	return all
}

// cursors are those of all pieces, with how many bytes the client had there.
func (c *logClient) cursorsAt() (cursors []string, sizes []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := 0
	for _, p := range c.parts {
		size += len(p.bytes)
		if p.cursor != "" {
			cursors, sizes = append(cursors, p.cursor), append(sizes, size)
		}
	}
	return cursors, sizes
}

// halt ends the log from outside.
func (c *logClient) halt() {
	c.t.Helper()
	c.stop(nil)
	if err := c.wait(); !errors.Is(err, context.Canceled) {
		c.t.Errorf("the log ends with %v", err)
	}
}

func logOf(change func(*sluicev1.LogTarget)) *sluicev1.Open {
	t := &sluicev1.LogTarget{Namespace: "default", Pod: "p", Container: "main", Follow: true}
	if change != nil {
		change(t)
	}
	return &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Logs{Logs: t}}}
}
