package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/bridge"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

var (
	_ mux.Acceptor   = (*session)(nil)
	_ bridge.Channel = (*channel)(nil)
)

// Accept implements mux.Acceptor: each channel begins on a goroutine of its own, so that no dial delays another.
func (ses *session) Accept(c *mux.Channel, o *sluicev1.Open) {
	if n := ses.server.channels.Add(1); n > int64(ses.server.cfg.Limits.Channels) {
		ses.server.channels.Add(-1)
		err := status.Limit("limits.channels", "%d channels are open in this replica", n-1)
		ses.server.metrics.openRefused(err)
		c.Finish(err, nil, true)
		return
	}
	ses.channels.Add(1)
	go ses.begin(c, o)
}

// begin begins a channel. Started by Accept; ends with the channel, or before, when the bridge has left it to a loop; either way over follows.
func (ses *session) begin(c *mux.Channel, o *sluicev1.Open) {
	ctx, span := ses.server.spans.open(c.Context(), ses.call, ses.mux.Plain(), o)
	span.identify(ses.id, ses.requestID, c.ID())
	r := ses.opened(c, o)
	r.span = span
	up, err := ses.server.clusters.Resolve(o.GetCluster(), kindOf(o.GetTarget()), ses.principal.Load)
	if err != nil {
		r.over(bridge.Outcome{Err: err})
		return
	}
	bridge.Start(ctx, up, o, r, ses.server.bridge, r.over)
}

// channel is an open channel as its bridge sees it. What the bridge tells the client is counted on its way.
type channel struct {
	*mux.Channel // Immutable, as the rest up to began.
	session      *session
	open         *sluicev1.Open
	principal    *auth.Principal // who opened it
	began        time.Time

	// Owned by the bridge.
	span  *opening // nil once it stands, and without a trace
	stood bool

	input mux.Event // Owned by the bridge's reader of inputs: what Next has returned last.
}

// Opened implements bridge.Channel.
func (r *channel) Opened(o *sluicev1.Opened) {
	r.stood = true
	r.span.stands()
	r.span = nil
	r.Channel.Opened(o)
}

// State implements bridge.Channel.
func (r *channel) State(s *sluicev1.ChannelState) {
	r.session.server.metrics.channelState(kindOf(r.open.GetTarget()), s)
	r.span.state(s)
	r.Channel.State(s)
}

// Next implements bridge.Channel.
func (r *channel) Next(ctx context.Context) (in data.Input, err error) {
	if r.input, err = r.Channel.Next(ctx); err != nil {
		return in, err
	}
	switch r.input.Kind {
	case mux.EventCloseSend:
		return data.Input{Kind: data.InputCloseSend}, nil
	case mux.EventResize:
		m, _ := r.input.Message.(*sluicev1.Resize) // what EventResize carries
		return data.Input{Kind: data.InputResize, Width: m.GetWidth(), Height: m.GetHeight()}, nil
	}
	return data.Input{Kind: data.InputData, Bytes: r.input.Data}, nil
}

// Used implements bridge.Channel.
func (r *channel) Used() { r.Channel.Used(&r.input) }

// opened notes a channel's beginning in audit and metrics.
func (ses *session) opened(c *mux.Channel, o *sluicev1.Open) *channel {
	s := ses.server
	r := &channel{Channel: c, session: ses, open: o, principal: ses.principal.Load(), began: time.Now()}
	kind := kindOf(o.GetTarget())
	s.metrics.channelOpened(kind, c)
	s.audit.LogAttrs(context.Background(), slog.LevelInfo, "channel opened", append(r.attrs(kind), slog.Bool("cursor", o.GetCursor() != ""))...)
	return r
}

// over ends the channel, of which nothing runs any more. watchEnd waits for it.
func (r *channel) over(o bridge.Outcome) {
	ses, err, whole := r.session, o.Err, o.Whole
	defer ses.channels.Done()
	defer ses.server.channels.Add(-1)
	if _, bug := errors.AsType[*bridge.PanicError](err); !bug && r.Context().Err() != nil {
		err, whole = context.Cause(r.Context()), false // why the channel ended says more than what the end did to the upstream
	}
	e := ses.explain(r.ID(), err)
	r.span.done(e.OrNil())
	r.Finish(e, o.Exit, e != nil && !whole)
	r.closed(e, o.Exit)
}

// explain makes a status of what ended a bridge. A panic ends this channel and nothing else.
func (ses *session) explain(channel uint32, err error) *status.Error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*bridge.PanicError](err); ok {
		ses.server.metrics.panics.Inc()
		ses.log.Error("a channel panicked", "channel", channel, "panic", p.Value, "stack", string(p.Stack))
		return status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "internal error; the request id finds it in the gateway's log")
	}
	return status.From(err)
}

// attrs is what both lines of a channel's audit say. They are made anew for each: what a logger keeps made lives as long as the channel.
func (r *channel) attrs(kind string) []slog.Attr {
	ses, o := r.session, r.open
	return []slog.Attr{
		slog.String("request_id", ses.requestID), slog.String("session", ses.id), slog.Uint64("channel", uint64(r.ID())),
		slog.Any("principal", r.principal), slog.String("client", ses.client), slog.String("cluster", o.GetCluster()),
		slog.String("kind", kind),
		{Key: "target", Value: targetOf(o.GetTarget())},
	}
}

// closed writes the audit line of a channel's end.
func (r *channel) closed(err *status.Error, exit *sluicev1.Exit) {
	in, out := r.Bytes()
	code, reason := codes.OK, sluicev1.Reason_REASON_UNSPECIFIED
	if err != nil {
		code, reason = err.Code, err.Reason
	}
	kind := kindOf(r.open.GetTarget())
	r.session.server.metrics.channelClosed(kind, r.Channel, r.stood, err)
	attrs := append(r.attrs(kind),
		slog.String("code", code.String()), slog.String("reason", status.ReasonName(reason)), slog.Uint64("bytes_in", in),
		slog.Uint64("bytes_out", out), slog.String("duration", time.Since(r.began).Round(time.Millisecond).String()))
	if exit != nil {
		attrs = append(attrs, slog.Int("exit", int(exit.GetCode())))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	r.session.server.audit.LogAttrs(context.Background(), slog.LevelInfo, "channel closed", attrs...)
}

// kindOf names a target's kind, for metrics and the audit. It is one of few words whatever a client sends.
func kindOf(t *sluicev1.Target) string {
	switch t.GetTarget().(type) {
	case *sluicev1.Target_Watch:
		return "watch"
	case *sluicev1.Target_Logs:
		return "logs"
	case *sluicev1.Target_Exec:
		return "exec"
	case *sluicev1.Target_Attach:
		return "attach"
	case *sluicev1.Target_PortForward:
		return "port-forward"
	}
	return "none"
}

// targetOf is what the audit says of a target.
func targetOf(t *sluicev1.Target) slog.Value {
	switch t := t.GetTarget().(type) {
	case *sluicev1.Target_Watch:
		w := t.Watch
		return slog.GroupValue(
			slog.String("group", w.GetGroup()), slog.String("version", w.GetVersion()), slog.String("resource", w.GetResource()),
			slog.String("namespace", w.GetNamespace()), slog.String("name", w.GetName()),
			slog.String("label_selector", w.GetLabelSelector()), slog.String("field_selector", w.GetFieldSelector()))
	case *sluicev1.Target_PortForward:
		return slog.GroupValue(append(podAttrs(t.PortForward), slog.Uint64("port", uint64(t.PortForward.GetPort())))...)
	}
	if c, ok := containerOf(t); ok {
		return slog.GroupValue(append(podAttrs(c), slog.String("container", c.GetContainer()))...)
	}
	return slog.GroupValue()
}

// ofPod is a target that is a pod, ofContainer one that is a container of it.
type (
	ofPod interface {
		GetNamespace() string
		GetPod() string
	}
	ofContainer interface {
		ofPod
		GetContainer() string
	}
)

// containerOf is a target that is a container.
func containerOf(t *sluicev1.Target) (ofContainer, bool) {
	switch t := t.GetTarget().(type) {
	case *sluicev1.Target_Logs:
		return t.Logs, true
	case *sluicev1.Target_Exec:
		return t.Exec, true
	case *sluicev1.Target_Attach:
		return t.Attach, true
	}
	return nil, false
}

// podOf is a target that is in a pod.
func podOf(t *sluicev1.Target) (ofPod, bool) {
	if f := t.GetPortForward(); f != nil {
		return f, true
	}
	return containerOf(t)
}

func podAttrs(p ofPod) []slog.Attr {
	return []slog.Attr{slog.String("namespace", p.GetNamespace()), slog.String("pod", p.GetPod())}
}
