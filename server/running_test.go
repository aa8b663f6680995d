package server_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// running is a channel into a pod, of a call that has no other: what was received on it so far.
type running struct {
	*call
	seq uint64 // of the last frame that was sent; a plain session's have none

	received uint64 // the number of the last frame
	out, err []byte // of whatever has one stream, out
	states   []*sluicev1.ChannelState
	opened   *sluicev1.Opened
	closed   *sluicev1.Closed
	goodbye  *sluicev1.Goodbye
}

// run opens channel 1 of a session, a full one after its Welcome.
func (c *call) run(o *sluicev1.Open) *running {
	c.t.Helper()
	r := &running{call: c}
	r.say(o)
	return r
}

// say sends the channel's next frames in one batch.
func (r *running) say(bodies ...any) {
	r.t.Helper()
	var frames []*sluicev1.ClientFrame
	for _, b := range bodies {
		r.seq++
		f := &sluicev1.ClientFrame{Channel: 1, Seq: r.seq}
		switch b := b.(type) {
		case *sluicev1.Open:
			f.Frame = &sluicev1.ClientFrame_Open{Open: b}
		case string:
			f.Frame = &sluicev1.ClientFrame_Data{Data: &sluicev1.Data{
				Stream: sluicev1.Stream_STREAM_STDIN, Payload: &sluicev1.Data_Binary{Binary: []byte(b)},
			}}
		case *sluicev1.Resize:
			f.Frame = &sluicev1.ClientFrame_Resize{Resize: b}
		case *sluicev1.CloseSend:
			f.Frame = &sluicev1.ClientFrame_CloseSend{CloseSend: b}
		case *sluicev1.Close:
			f.Frame = &sluicev1.ClientFrame_Close{Close: b}
		default:
			r.t.Fatalf("%T is no frame of these tests", b)
		}
		frames = append(frames, f)
	}
	r.send(frames...)
}

// until takes frames, and acknowledges them, until ok, or until the channel or the session has ended.
func (r *running) until(ok func() bool) {
	r.t.Helper()
	for !ok() {
		if r.closed != nil || r.goodbye != nil {
			r.t.Fatalf("it ended with %v, %v; received %.2000q", r.closed, r.goodbye, r.out)
		}
		f, err := r.next()
		if err != nil {
			r.t.Fatalf("the call ended: %v; received %.2000q", err, r.out)
		}
		r.take(f)
	}
}

func (r *running) take(f *sluicev1.ServerFrame) {
	if f.GetChannel() != 0 && f.GetSeq() != 0 {
		r.received = f.GetSeq()
		r.send(&sluicev1.ClientFrame{Channel: 1, Frame: &sluicev1.ClientFrame_Ack{Ack: &sluicev1.Ack{Seq: f.GetSeq(), Window: 64 << 10}}})
	}
	switch f := f.GetFrame().(type) {
	case *sluicev1.ServerFrame_Opened:
		r.opened = f.Opened
	case *sluicev1.ServerFrame_Data:
		to := &r.out
		if f.Data.GetStream() == sluicev1.Stream_STREAM_STDERR {
			to = &r.err
		}
		*to = append(append(*to, f.Data.GetBinary()...), f.Data.GetText()...)
	case *sluicev1.ServerFrame_ChannelState:
		r.states = append(r.states, f.ChannelState)
	case *sluicev1.ServerFrame_Closed:
		r.closed = f.Closed
	case *sluicev1.ServerFrame_Goodbye:
		r.goodbye = f.Goodbye
	}
}

// says waits until the output is exactly this.
func (r *running) says(want string) {
	r.t.Helper()
	r.until(func() bool { return string(r.out) == want })
}

// ended waits for the channel's end.
func (r *running) ended() (*sluicev1.Closed, *status.Error) {
	r.t.Helper()
	r.until(func() bool { return r.closed != nil })
	return r.closed, status.FromProto(r.closed.GetStatus())
}

// resume goes on with the session over another call.
func (r *running) resume(g *rig.Rig, w *sluicev1.Welcome) *sluicev1.Welcome {
	r.t.Helper()
	r.call = connect(r.t, g, "alice")
	next := r.hello(&sluicev1.Resume{Session: w.GetSession(), Secret: w.GetSecret(), LastLink: w.GetLink()},
		&sluicev1.ChannelPosition{Channel: 1, Received: r.received, Consumed: r.received, Window: 64 << 10})
	if !next.GetResumed() {
		r.t.Fatalf("Welcome is %v", next)
	}
	next.Secret = w.GetSecret() // it is said once
	return next
}

// runPod runs a pod with one container, main, and a port 80 that echoes.
func runPod(t *testing.T, r *rig.Rig, name string, run kubetest.Program) {
	t.Helper()
	err := r.Kube.RunPod(kubetest.Pod{
		Name: name, Restart: "Never", Containers: []kubetest.Container{{Run: run, Stdin: true}}, Ports: map[uint16]func(net.Conn){80: echo},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// echo says what it hears, until nothing more comes.
func echo(nc net.Conn) { _, _ = io.Copy(nc, nc) } // the end of either side ends it

// targets are one of each kind that leads into a pod, by the names that metrics and the audit have for them.
func targets(pod string) map[string]*sluicev1.Open {
	open := func(t *sluicev1.Target) *sluicev1.Open { return &sluicev1.Open{Cluster: rig.Cluster, Target: t} }
	return map[string]*sluicev1.Open{
		"logs": open(&sluicev1.Target{Target: &sluicev1.Target_Logs{Logs: &sluicev1.LogTarget{Namespace: "default", Pod: pod, Container: "main", Follow: true}}}),
		"exec": executing(pod, "cat"),
		"attach": open(&sluicev1.Target{Target: &sluicev1.Target_Attach{Attach: &sluicev1.AttachTarget{
			Namespace: "default", Pod: pod, Container: "main", Stdin: true, Stdout: true, Stderr: true,
		}}}),
		"port-forward": open(&sluicev1.Target{Target: &sluicev1.Target_PortForward{PortForward: &sluicev1.PortForwardTarget{
			Namespace: "default", Pod: pod, Port: 80,
		}}}),
	}
}

// executing is the Open of a process that a shell runs.
func executing(pod, script string) *sluicev1.Open {
	return &sluicev1.Open{Cluster: rig.Cluster, Target: &sluicev1.Target{Target: &sluicev1.Target_Exec{Exec: &sluicev1.ExecTarget{
		Namespace: "default", Pod: pod, Container: "main", Command: []string{"sh", "-c", script}, Stdin: true, Stdout: true, Stderr: true,
	}}}}
}

// streams waits until so many logs, processes and forwards run at the API server.
func streams(t *testing.T, r *rig.Rig, want int) {
	t.Helper()
	if err := r.Kube.Await(within(t), func(c kubetest.Counts) bool { return c.Streams == want }); err != nil {
		t.Fatalf("%d streams run, want %d: %v", r.Kube.Counts().Streams, want, err)
	}
}

// eventually waits for what tells nobody when it changes: the audit and the metrics have a channel's end a little after its client has.
func eventually(t *testing.T, ok func() bool) bool {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// metric is the value of a series as the admin port tells it; "" when it is not there.
func metric(t *testing.T, r *rig.Rig, series string) string {
	t.Helper()
	_, text := r.Admin("/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return value
		}
	}
	return ""
}
