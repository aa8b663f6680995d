package spec

import (
	"testing"

	"google.golang.org/protobuf/proto"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/test/rig"
)

// The rules of the kinds that lead into a pod are proved with programs that run in the embedded cluster.

// runPod runs a pod with one container.
func runPod(t *testing.T, r *rig.Rig, name string, run kubetest.Program, change ...func(*kubetest.Pod)) {
	t.Helper()
	p := kubetest.Pod{Name: name, Restart: "Never", Containers: []kubetest.Container{{Run: run, Stdin: true}}}
	for _, f := range change {
		f(&p)
	}
	if err := r.Kube.RunPod(p); err != nil {
		t.Fatal(err)
	}
}

// held is a channel of a call as its client holds it: what was received on it so far.
type held struct {
	*call
	id  uint32
	seq uint64 // of the last frame that was sent

	received uint64 // the number of the last frame
	opened   *sluicev1.Opened
	data     map[sluicev1.Stream][]byte
	cursor   string // the last
	states   []*sluicev1.ChannelState
	acked    uint64 // the number of the last frame of ours that was consumed
	halfDone bool   // CloseSend has come
	closed   *sluicev1.Closed
}

// hold opens a channel of a full session.
func (c *call) hold(id uint32, o *sluicev1.Open) *held {
	c.t.Helper()
	h := &held{id: id, data: map[sluicev1.Stream][]byte{}}
	c.carry(h)
	h.say(o)
	return h
}

// carry makes c the call that a channel's frames come on.
func (c *call) carry(h *held) {
	if c.channels == nil {
		c.channels = map[uint32]*held{}
	}
	h.call, c.channels[h.id] = c, h
}

// say sends the next frames of the channel, in one batch.
func (h *held) say(bodies ...proto.Message) {
	h.t.Helper()
	var frames []*sluicev1.ClientFrame
	for _, b := range bodies {
		h.seq++
		frames = append(frames, clientFrame(h.id, h.seq, b))
	}
	h.send(frames...)
}

// until takes frames, and acknowledges them, until ok. The channel must not end before.
func (h *held) until(ok func() bool) {
	h.t.Helper()
	for !ok() {
		if h.closed != nil {
			h.t.Fatalf("channel %d was closed: %v; received %.2000q", h.id, h.closed, h.data)
		}
		f, err := h.frame()
		if err != nil {
			h.t.Fatalf("channel %d: the call ended: %v; received %.2000q", h.id, err, h.data)
		}
		if f.GetGoodbye() != nil {
			h.t.Fatalf("the session ended: %v", f)
		}
		if f.GetPing() != nil {
			h.send(clientFrame(0, 0, &sluicev1.Pong{Nonce: f.GetPing().GetNonce()}))
		}
		if of := h.channels[f.GetChannel()]; of != nil {
			of.take(f)
		}
	}
}

// take notes a frame of the channel and acknowledges it, if it has a number.
func (h *held) take(f *sluicev1.ServerFrame) {
	if f.GetSeq() != 0 {
		h.received = f.GetSeq()
		h.send(clientFrame(h.id, 0, &sluicev1.Ack{Seq: f.GetSeq(), Window: firstWindow}))
	}
	switch f := f.GetFrame().(type) {
	case *sluicev1.ServerFrame_Opened:
		h.opened = f.Opened
	case *sluicev1.ServerFrame_Data:
		h.data[f.Data.GetStream()] = append(append(h.data[f.Data.GetStream()], f.Data.GetBinary()...), f.Data.GetText()...)
		if f.Data.GetCursor() != "" {
			h.cursor = f.Data.GetCursor()
		}
	case *sluicev1.ServerFrame_ChannelState:
		h.states = append(h.states, f.ChannelState)
	case *sluicev1.ServerFrame_Ack:
		h.acked = f.Ack.GetSeq()
	case *sluicev1.ServerFrame_CloseSend:
		h.halfDone = true
	case *sluicev1.ServerFrame_Closed:
		h.closed = f.Closed
	}
}

// stands waits until the channel is open.
func (h *held) stands() *sluicev1.Capabilities {
	h.t.Helper()
	h.until(func() bool { return h.opened != nil })
	return h.opened.GetCapabilities()
}

// end waits for the channel's end.
func (h *held) end() *sluicev1.Closed {
	h.t.Helper()
	h.until(func() bool { return h.closed != nil })
	return h.closed
}

// has reports whether a state was said.
func (h *held) has(kind sluicev1.ChannelState_Kind) bool {
	for _, s := range h.states {
		if s.GetKind() == kind {
			return true
		}
	}
	return false
}

func (h *held) stdout() string { return string(h.data[sluicev1.Stream_STREAM_STDOUT]) }
func (h *held) stderr() string { return string(h.data[sluicev1.Stream_STREAM_STDERR]) }

// bytes is what came on a channel that has one stream.
func (h *held) bytes() string { return string(h.data[sluicev1.Stream_STREAM_UNSPECIFIED]) }

// stdin is Data of standard input.
func stdin(s string) *sluicev1.Data {
	return &sluicev1.Data{Stream: sluicev1.Stream_STREAM_STDIN, Payload: &sluicev1.Data_Binary{Binary: []byte(s)}}
}

// full begins a full session of alice's.
func full(t *testing.T, r *rig.Rig) (*call, *sluicev1.Welcome) {
	t.Helper()
	c := connect(t, r, r.Token("alice"))
	w := c.hello(&sluicev1.Hello{Protocol: 1})
	return c, w
}

// again resumes the session over another call, with the channels at what they have.
func again(t *testing.T, r *rig.Rig, w *sluicev1.Welcome, channels ...*held) *sluicev1.Welcome {
	t.Helper()
	c := connect(t, r, r.Token("alice"))
	hello := &sluicev1.Hello{Protocol: 1, Resume: &sluicev1.Resume{Session: w.GetSession(), Secret: w.GetSecret(), LastLink: w.GetLink()}}
	for _, h := range channels {
		c.carry(h)
		hello.Channels = append(hello.Channels, &sluicev1.ChannelPosition{Channel: h.id, Received: h.received, Consumed: h.received, Window: firstWindow})
	}
	next := c.hello(hello)
	if !next.GetResumed() {
		t.Fatalf("Welcome is %v", next)
	}
	next.Secret = w.GetSecret() // it is said once
	return next
}

// executing is the Open of a process that a shell runs.
func executing(pod, script string, change ...func(*sluicev1.ExecTarget)) *sluicev1.Open {
	e := &sluicev1.ExecTarget{Namespace: "default", Pod: pod, Command: []string{"sh", "-c", script}, Stdin: true, Stdout: true, Stderr: true}
	for _, f := range change {
		f(e)
	}
	return &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Exec{Exec: e}}}
}

// onTerminal gives a process a terminal.
func onTerminal(e *sluicev1.ExecTarget) { e.Tty, e.Stderr = true, false }

// attaching is the Open of a pod's main process.
func attaching(pod string, tty bool) *sluicev1.Open {
	return &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Attach{Attach: &sluicev1.AttachTarget{
		Namespace: "default", Pod: pod, Stdin: true, Stdout: true, Stderr: !tty, Tty: tty,
	}}}}
}
