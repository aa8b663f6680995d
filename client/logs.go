package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// LogsRequest says which log to read.
type LogsRequest struct {
	// Cluster is the cluster's name; it may be empty when the gateway has one.
	Cluster string
	// Target names the container's log.
	Target *sluicev1.LogTarget
	// Cursor is where to continue: of an earlier LogChunk. Empty begins where Target says.
	Cursor string
	// OnState is told by [Log.WriteTo] of each State, in its place between the bytes. Without it a KIND_GAP ends WriteTo with a *[GapError].
	OnState func(*sluicev1.ChannelState)
}

// LogChunk is a part of a log, of any length and not cut at lines, or a change of the log's state.
type LogChunk struct {
	// Data is what the container wrote. It is the caller's. Empty when State is set.
	Data []byte
	// Cursor is where another Log continues after this chunk. Empty where nothing was said: the last one seen is then right.
	Cursor string
	// State is what became of the log: KIND_GAP says that bytes are missing here, KIND_RESTARTED that what follows is the log of the container
	// started anew.
	State *sluicev1.ChannelState
}

// Log reads a container's log, over lost links, lost sessions and ended upstreams: each byte once and in order, and a KIND_GAP where any
// are missing. One goroutine calls Next or WriteTo; Close may be called from any.
type Log struct {
	req LogsRequest // Immutable after Client.Logs.
	f   *follower

	// Owned by Next.
	cursor string // where to open it again
	beyond bool   // the caller has bytes that no cursor counts
}

var _ io.WriterTo = (*Log)(nil)

// Logs opens a log. It does not wait: refusals are told by Next.
func (c *Client) Logs(req LogsRequest) *Log {
	return &Log{req: req, f: newFollower(c, "log"), cursor: req.Cursor}
}

// Close ends the log. Next returns an error from then on.
func (l *Log) Close() { l.f.close() }

// Next waits for the next chunk. io.EOF says that the log has ended and the caller has the whole of it. An *[Error] is the end of the log; the
// end of ctx is not: Next may be called again.
func (l *Log) Next(ctx context.Context) (chunk LogChunk, err error) {
	err = l.f.steps(ctx, func(ctx context.Context) (last bool, err error) {
		chunk, last, err = l.next(ctx)
		return last, err
	})
	if err != nil {
		return LogChunk{}, err
	}
	return chunk, nil
}

// next is one step: a chunk, an error, or neither when there is to be another step.
func (l *Log) next(ctx context.Context) (LogChunk, bool, error) {
	if l.f.ch == nil {
		return LogChunk{}, false, l.open()
	}
	me, ok, err := l.f.next(ctx)
	if !ok {
		return LogChunk{}, false, err
	}
	defer l.f.used(&me)
	switch m := me.Message.(type) {
	case *sluicev1.ChannelState:
		if m.GetCursor() != "" {
			l.cursor, l.beyond = m.GetCursor(), false
		}
		return LogChunk{State: m, Cursor: m.GetCursor()}, true, nil
	case *sluicev1.Closed:
		if e := status.FromProto(m.GetStatus()); e != nil {
			return LogChunk{}, false, l.f.again(e)
		}
		return LogChunk{}, false, io.EOF
	}
	if me.Kind != mux.EventData || len(me.Data) == 0 && me.Cursor == "" {
		return LogChunk{}, false, nil
	}
	if l.beyond = l.beyond || len(me.Data) > 0; me.Cursor != "" {
		l.cursor, l.beyond = me.Cursor, false
	}
	return LogChunk{Data: me.Data, Cursor: me.Cursor}, true, nil
}

// open opens a channel where the log stands.
func (l *Log) open() error {
	if l.beyond {
		return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST,
			"the log was lost after bytes without a cursor: it cannot be continued without repeating or missing some")
	}
	return l.f.open(&sluicev1.Open{
		Cluster: l.req.Cluster, Target: &sluicev1.Target{Target: &sluicev1.Target_Logs{Logs: l.req.Target}}, Cursor: l.cursor,
	}, nil)
}

// GapError says that a part of the log is missing after what was written.
type GapError struct {
	// Status says what is missing, and why; nil when the gateway has not.
	Status *Error
}

// Error implements error.
func (e *GapError) Error() string {
	if e.Status == nil {
		return "a part of the log is missing"
	}
	return "a part of the log is missing: " + e.Status.Error()
}

// Unwrap returns Status.
func (e *GapError) Unwrap() error { return e.Status.OrNil() }

// WriteTo implements io.WriterTo: it writes the log to w until its end, which is no error, or until Close. Where bytes are missing it fails
// with a *[GapError], unless the request has an OnState; it may be called again to go on after the gap.
func (l *Log) WriteTo(w io.Writer) (n int64, err error) {
	for {
		chunk, err := l.Next(l.f.ctx)
		switch {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		case chunk.State != nil:
			if err := l.told(chunk.State); err != nil {
				return n, err
			}
			continue
		}
		k, err := writeAll(w, chunk.Data)
		n += int64(k)
		if err != nil {
			return n, fmt.Errorf("write the log: %w", err)
		}
	}
}

func (l *Log) told(s *sluicev1.ChannelState) error {
	switch {
	case l.req.OnState != nil:
		l.req.OnState(s)
	case s.GetKind() == sluicev1.ChannelState_KIND_GAP:
		return &GapError{Status: status.FromProto(s.GetStatus())}
	}
	return nil
}
