package server

import (
	"context"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/bridge"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

var (
	_ mux.Acceptor   = (*session)(nil)
	_ bridge.Channel = (*mux.Channel)(nil)
)

// Accept implements mux.Acceptor: each channel is a goroutine of its own, so that no dial delays another.
func (ses *session) Accept(c *mux.Channel, o *sluicev1.Open) {
	if n := ses.server.channels.Add(1); n > int64(ses.server.cfg.Limits.Channels) {
		ses.server.channels.Add(-1)
		c.Finish(status.Limit("limits.channels", "%d channels are open in this replica", n-1), nil, true)
		return
	}
	ses.channels.Add(1)
	go ses.run(c, o)
}

// run is the life of a channel. Started by Accept; ends with the bridge, which ends with the channel's context; watchEnd waits for it.
func (ses *session) run(c *mux.Channel, o *sluicev1.Open) {
	defer ses.channels.Done()
	defer ses.server.channels.Add(-1)
	r := ses.server.opened(ses, c, o)
	err := ses.guarded(c, o)
	aborted := err != nil
	c.Finish(err, nil, aborted)
	r.closed(c, err)
}

// guarded bridges the channel; a panic in it ends this channel and nothing else.
func (ses *session) guarded(c *mux.Channel, o *sluicev1.Open) (err *status.Error) {
	defer func() {
		if r := recover(); r != nil {
			ses.server.metrics.panics.Inc()
			ses.log.Error("a channel panicked", "channel", c.ID(), "panic", r, "stack", string(debug.Stack()))
			err = status.New(codes.Internal, sluicev1.Reason_REASON_UNSPECIFIED, "internal error; the request id finds it in the gateway's log")
		}
	}()
	if e := ses.bridge(c.Context(), c, o); e != nil {
		return status.From(e)
	}
	return nil
}

func (ses *session) bridge(ctx context.Context, c *mux.Channel, o *sluicev1.Open) error {
	up, err := ses.server.clusters.Resolve(o.GetCluster(), ses.principal.Load)
	if err != nil {
		return err
	}
	err = bridge.Run(ctx, up, o, c, ses.server.cfg.Bridge)
	if ctx.Err() != nil { // why the channel ended says more than what the end did to the upstream
		return context.Cause(ctx)
	}
	return err
}

// record is the audit of one channel.
type record struct {
	server *Server
	log    *slog.Logger
	kind   string
	began  time.Time
}

// opened writes the audit line of a channel's beginning.
func (s *Server) opened(ses *session, c *mux.Channel, o *sluicev1.Open) *record {
	kind := kindOf(o.GetTarget())
	r := &record{server: s, kind: kind, began: time.Now()}
	r.log = s.audit.With("request_id", ses.requestID, "session", ses.id, "channel", c.ID(), "principal", ses.principal.Load(),
		"client", ses.client, "cluster", o.GetCluster(), "kind", kind, "target", targetOf(o.GetTarget()))
	s.metrics.opened.WithLabelValues(kind).Inc()
	s.metrics.channels.WithLabelValues(kind).Inc()
	r.log.Info("channel opened", "cursor", o.GetCursor() != "")
	return r
}

// closed writes the audit line of a channel's end.
func (r *record) closed(c *mux.Channel, err *status.Error) {
	in, out := c.Bytes()
	code, reason := codes.OK, sluicev1.Reason_REASON_UNSPECIFIED
	if err != nil {
		code, reason = err.Code, err.Reason
	}
	m := r.server.metrics
	m.channels.WithLabelValues(r.kind).Dec()
	m.closed.WithLabelValues(r.kind, code.String()).Inc()
	m.bytes.WithLabelValues(r.kind, "in").Add(float64(in))
	m.bytes.WithLabelValues(r.kind, "out").Add(float64(out))
	attrs := []any{
		"code", code.String(), "reason", status.ReasonName(reason), "bytes_in", in, "bytes_out", out,
		"duration", time.Since(r.began).Round(time.Millisecond).String(),
	}
	if err != nil {
		attrs = append(attrs, "error", err.Error())
	}
	r.log.Info("channel closed", attrs...)
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
	case *sluicev1.Target_Logs:
		return podValue(t.Logs)
	case *sluicev1.Target_Exec:
		return podValue(t.Exec)
	case *sluicev1.Target_Attach:
		return podValue(t.Attach)
	case *sluicev1.Target_PortForward:
		return slog.GroupValue(slog.String("namespace", t.PortForward.GetNamespace()), slog.String("pod", t.PortForward.GetPod()),
			slog.Uint64("port", uint64(t.PortForward.GetPort())))
	}
	return slog.GroupValue()
}

// ofPod is a target that is a container.
type ofPod interface {
	GetNamespace() string
	GetPod() string
	GetContainer() string
}

func podValue(p ofPod) slog.Value {
	return slog.GroupValue(slog.String("namespace", p.GetNamespace()), slog.String("pod", p.GetPod()), slog.String("container", p.GetContainer()))
}
