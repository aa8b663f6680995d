package client_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// logOf is a log of these bytes: in chunks that its seed decides, each with its end as the cursor, and lost in a way that a new channel
// continues after each so many bytes; 0 for never.
func logOf(b []byte, lostAfter int) script {
	return func(ch *served, o *sluicev1.Open) {
		pos := 0
		if c := o.GetCursor(); c != "" {
			var err error
			if pos, err = strconv.Atoi(c); err != nil {
				ch.Finish(status.New(codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_CURSOR, "%q", c), nil, true)
				return
			}
		}
		ch.Opened(&sluicev1.Opened{Capabilities: &sluicev1.Capabilities{Resumable: true}})
		for end := pos + lostAfter; pos < len(b); {
			n := min(1+pos*7919%5000, len(b)-pos)
			if !ch.send(0, strconv.Itoa(pos+n), b[pos:pos+n]) {
				return
			}
			if pos += n; lostAfter > 0 && pos > end {
				ch.Finish(status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "lost").WithResumable(true), nil, true)
				return
			}
		}
		ch.Finish(nil, nil, false)
	}
}

func logs() client.LogsRequest {
	return client.LogsRequest{Target: &sluicev1.LogTarget{Namespace: "default", Pod: "p"}}
}

// A log that was read whole is the log: whatever became of links, sessions, gateways and upstreams meanwhile.
func TestLogsAreByteExactOverEveryLoss(t *testing.T) {
	content := all(t, newSeeded(1, 400<<10))
	g, relay, c := relayed(t, mux.Config{}, logOf(content, 0))
	flaky := newGateway(t, mux.Config{}, logOf(content, 60<<10))
	ctx := within(t)
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.IntRange(0, len(content)).Draw(t, "from")
		faults := rapid.SliceOfN(rapid.IntRange(0, len(content)), 0, 4).Draw(t, "at")
		what := rapid.SliceOfN(rapid.SampledFrom([]string{"cut", "forget", "drain", "move"}), 4, 4).Draw(t, "what")
		k := 0
		req := logs()
		if from > 0 {
			req.Cursor = strconv.Itoa(from)
		}
		l := c.Logs(req)
		defer l.Close()
		var got bytes.Buffer
		_, err := l.WriteTo(cutter(&got, faults, func() {
			k++
			switch what[k-1] {
			case "drain":
				g.drainOnce()
			case "forget":
				g.forget()
			case "move":
				relay.Retarget([]string{flaky.addr(), g.addr()}[k%2])
			}
			relay.Cut()
		}))
		if err != nil || ctx.Err() != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), content[from:]) {
			t.Fatalf("%d bytes, or others, of %d", got.Len(), len(content)-from)
		}
	})
}

// From the cursor of every chunk another Log continues after it.
func TestEveryCursorOfALogContinues(t *testing.T) {
	content := all(t, newSeeded(2, 60<<10))
	_, _, c := relayed(t, mux.Config{}, logOf(content, 0))
	ctx := within(t)
	l := c.Logs(logs())
	defer l.Close()
	for pos := 0; ; {
		chunk, err := l.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		pos += len(chunk.Data)
		req := logs()
		req.Cursor = chunk.Cursor
		var rest bytes.Buffer
		if _, err := c.Logs(req).WriteTo(&rest); err != nil || !bytes.Equal(rest.Bytes(), content[pos:]) {
			t.Fatalf("from %d: %d bytes of %d, %v", pos, rest.Len(), len(content)-pos, err)
		}
	}
	if _, err := l.Next(ctx); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
}

// What is missing is never passed over in silence.
func TestAGapIsTold(t *testing.T) {
	gap := &sluicev1.ChannelState{
		Kind:   sluicev1.ChannelState_KIND_GAP,
		Status: status.New(codes.DataLoss, sluicev1.Reason_REASON_DATA_LOSS, "the log was rotated").Proto(),
	}
	_, _, c := relayed(t, mux.Config{}, func(ch *served, _ *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{})
		ch.send(0, "1", []byte("one "))
		ch.State(gap)
		ch.send(0, "2", []byte("three "))
		ch.State(&sluicev1.ChannelState{Kind: sluicev1.ChannelState_KIND_RESTARTED})
		ch.send(0, "3", []byte("four"))
		ch.Finish(nil, nil, false)
	})
	var out strings.Builder
	l := c.Logs(logs())
	n, err := l.WriteTo(&out)
	var g *client.GapError
	if !errors.As(err, &g) || g.Status.Message != "the log was rotated" || n != 4 || out.String() != "one " {
		t.Errorf("%d bytes %q, then %v", n, &out, err)
	}
	if _, err := l.WriteTo(&out); err != nil || out.String() != "one three four" {
		t.Errorf("after the gap: %q, %v", &out, err)
	}
	req, told := logs(), ""
	req.OnState = func(s *sluicev1.ChannelState) { told += s.GetKind().String() + " after " + out.String() + "; " }
	out.Reset()
	if _, err := c.Logs(req).WriteTo(&out); err != nil || told != "KIND_GAP after one ; KIND_RESTARTED after one three ; " {
		t.Errorf("told %q, %v", told, err)
	}
}

// A log whose gateway gives no cursor is not continued: it would repeat what is known, or lose it.
func TestALogWithoutCursorsIsNotContinued(t *testing.T) {
	g, relay, c := relayed(t, mux.Config{}, func(ch *served, _ *sluicev1.Open) {
		ch.Opened(&sluicev1.Opened{})
		ch.send(0, "", []byte("once"))
		<-ch.Context().Done()
		ch.Finish(status.From(context.Cause(ch.Context())), nil, true)
	})
	ctx := within(t)
	l := c.Logs(logs())
	if chunk, err := l.Next(ctx); err != nil || string(chunk.Data) != "once" {
		t.Fatal(chunk, err)
	}
	g.forget()
	relay.Cut()
	chunk, err := l.Next(ctx)
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Reason != sluicev1.Reason_REASON_UPSTREAM_LOST || e.Resumable {
		t.Errorf("got %q, %v", chunk.Data, err)
	}
}

// A refused log says why, closing one ends who waits, and a writer's error is the writer's.
func TestHowALogEnds(t *testing.T) {
	_, _, c := relayed(t, mux.Config{}, func(ch *served, o *sluicev1.Open) {
		if o.GetTarget().GetLogs().GetPrevious() {
			refuse(ch, o)
			return
		}
		ch.Opened(&sluicev1.Opened{})
		ch.send(0, "1", []byte("x"))
		<-ch.Context().Done()
		ch.Finish(status.From(context.Cause(ch.Context())), nil, true)
	})
	ctx := within(t)
	req := logs()
	req.Target.Previous = true
	_, err := c.Logs(req).Next(ctx)
	if e, ok := errors.AsType[*client.Error](err); !ok || e.HTTPCode != 404 {
		t.Errorf("refused with %v", err)
	}
	l := c.Logs(logs())
	if _, err := l.WriteTo(writes(func([]byte) (int, error) { return 0, errBroken })); !errors.Is(err, errBroken) {
		t.Errorf("a broken writer: %v", err)
	}
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := l.Next(short); !errors.Is(err, context.Canceled) {
		t.Errorf("the end of ctx: %v", err)
	}
	ended := make(chan error, 1)
	go func() { _, err := l.WriteTo(io.Discard); ended <- err }()
	l.Close()
	if e, ok := errors.AsType[*client.Error](<-ended); !ok || e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("closed: %v", e)
	}
}
