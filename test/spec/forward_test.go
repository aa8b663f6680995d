package spec

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// portOf is the Open of a TCP connection into a pod.
func portOf(pod string, port uint32) *sluicev1.Open {
	return &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_PortForward{
		PortForward: &sluicev1.PortForwardTarget{Namespace: "default", Pod: pod, Port: port},
	}}}
}

// payloadOf is Data of a channel with one stream.
func payloadOf(s string) *sluicev1.Data {
	return &sluicev1.Data{Payload: &sluicev1.Data_Binary{Binary: []byte(s)}}
}

// listening gives a pod a port.
func listening(port uint16, serve func(net.Conn)) func(*kubetest.Pod) {
	return func(p *kubetest.Pod) {
		if p.Ports == nil {
			p.Ports = map[uint16]func(net.Conn){}
		}
		p.Ports[port] = serve
	}
}

// [PFW-1].
func TestSPEC_PortsThatNoPodCouldHaveAreNotDialled(t *testing.T) {
	r := rig.New(t, rig.Options{})
	c, _ := full(t, r)
	for i, tc := range []struct {
		open  *sluicev1.Open
		field string
	}{
		{portOf("p", 0), "port_forward.port"},
		{portOf("p", 65536), "port_forward.port"},
		{portOf("", 80), "port_forward.pod"},
		{portOf("p/../q", 80), "port_forward.pod"},
	} {
		e := status.FromProto(c.hold(uint32(i+1), tc.open).end().GetStatus())
		if e == nil || e.Code != codes.InvalidArgument || e.Reason != sluicev1.Reason_REASON_INVALID_TARGET || !strings.HasPrefix(e.Message, tc.field) {
			t.Errorf("%v: %v", tc.open.GetTarget(), e)
		}
	}
	if n := r.Kube.Counts().Dials; n != 0 {
		t.Errorf("the API server was dialled %d times", n)
	}
}

// [PFW-2].
func TestSPEC_EitherHalfOfAConnectionEndsByItself(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil,
		listening(80, func(nc net.Conn) { // says what it has heard, once all of it was said
			all, _ := io.ReadAll(nc)
			_, _ = nc.Write(append([]byte("heard "), all...))
		}),
		listening(81, func(nc net.Conn) { // says all it has, and goes on to hear
			_, _ = io.WriteString(nc, "hello")
			_ = nc.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, nc)
		}))
	c, _ := full(t, r)
	h := c.hold(1, portOf("p", 80))
	if can := h.stands(); !can.GetHalfClose() || can.GetResize() || can.GetResumable() {
		t.Errorf("opened by %v", h.opened)
	}
	h.say(payloadOf("one "), payloadOf("two"), &sluicev1.CloseSend{})
	if closed := h.end(); h.bytes() != "heard one two" || closed.GetStatus() != nil || closed.GetAborted() || closed.GetBytesIn() != 7 || closed.GetBytesOut() != 13 {
		t.Errorf("came %q, closed by %v", h.bytes(), closed)
	}
	h = c.hold(2, portOf("p", 81))
	h.until(func() bool { return h.halfDone })
	if h.bytes() != "hello" {
		t.Errorf("before CloseSend came %q", h.bytes())
	}
	h.say(payloadOf("and now I"))
	h.until(func() bool { return h.acked == h.seq })
	h.say(&sluicev1.CloseSend{})
	if closed := h.end(); closed.GetStatus() != nil || closed.GetBytesIn() != 9 {
		t.Errorf("closed by %v", closed)
	}
}

// [PFW-3].
func TestSPEC_AResetInThePodIsTold(t *testing.T) {
	r := rig.New(t, rig.Options{})
	runPod(t, r, "p", nil, listening(80, func(nc net.Conn) {
		_, _ = io.WriteString(nc, "before the reset")
		_, _ = bufio.NewReader(nc).ReadString('\n')
		_ = nc.(*net.TCPConn).SetLinger(0)
		_ = nc.Close()
	}))
	c, _ := full(t, r)
	h := c.hold(1, portOf("p", 80))
	h.until(func() bool { return h.bytes() == "before the reset" })
	h.say(payloadOf("now\n"))
	refused := c.hold(2, portOf("p", 81))
	for name, h := range map[string]*held{"reset": h, "refused": refused} {
		closed := h.end()
		if e := status.FromProto(closed.GetStatus()); e == nil || e.Code != codes.Aborted || e.Reason != sluicev1.Reason_REASON_RESET || !closed.GetAborted() {
			t.Errorf("%s: closed by %v", name, closed)
		}
	}
}

// [PFW-4].
func TestSPEC_CloseEndsTheConnectionInThePod(t *testing.T) {
	r := rig.New(t, rig.Options{})
	ended := make(chan struct{})
	runPod(t, r, "p", nil, listening(80, func(nc net.Conn) {
		defer close(ended)
		_, _ = io.WriteString(nc, "ready")
		_, _ = io.Copy(io.Discard, nc) // whether the pod sees a reset is up to its node
	}))
	c, _ := full(t, r)
	h := c.hold(1, portOf("p", 80))
	h.until(func() bool { return h.bytes() == "ready" })
	h.say(&sluicev1.Close{})
	if e := status.FromProto(h.end().GetStatus()); e == nil || e.Reason != sluicev1.Reason_REASON_CLOSED_BY_PEER {
		t.Errorf("closed by %v", h.closed)
	}
	select {
	case <-ended:
	case <-within(t).Done():
		t.Error("the pod's connection lives on")
	}
}

// [PFW-5].
func TestSPEC_ForwardsEndWithTheirPod(t *testing.T) {
	r := rig.New(t, rig.Options{})
	hold := func(nc net.Conn) {
		_, _ = io.WriteString(nc, "ready")
		_, _ = io.Copy(io.Discard, nc)
	}
	runPod(t, r, "p", nil, listening(80, hold))
	runPod(t, r, "q", nil, listening(80, hold))
	c, _ := full(t, r)
	one, two, other := c.hold(1, portOf("p", 80)), c.hold(2, portOf("p", 80)), c.hold(3, portOf("q", 80))
	for _, h := range []*held{one, two, other} {
		h.until(func() bool { return h.bytes() == "ready" })
	}
	pod, err := r.Kube.Get("", "pods", "default", "p")
	if err != nil {
		t.Fatal(err)
	}
	pod["status"] = map[string]any{"phase": "Failed"} // its connections stand: nothing but the object tells that it has ended
	if _, err := r.Kube.Apply(pod); err != nil {
		t.Fatal(err)
	}
	for _, h := range []*held{one, two} {
		closed := h.end()
		if e := status.FromProto(closed.GetStatus()); e == nil || e.Reason != sluicev1.Reason_REASON_TARGET_GONE || !closed.GetAborted() {
			t.Errorf("closed by %v", closed)
		}
	}
	other.say(payloadOf("x"))
	other.until(func() bool { return other.acked == other.seq })
}

// [PFW-6].
func TestSPEC_AConnectionThatIsNotReadHoldsUpNoOther(t *testing.T) {
	r := rig.New(t, rig.Options{})
	stuck := make(chan struct{})
	runPod(t, r, "p", nil,
		listening(80, func(nc net.Conn) { // until it is not taken any more
			b := make([]byte, 64<<10)
			for {
				if _, err := nc.Write(b); err != nil {
					close(stuck)
					return
				}
			}
		}),
		listening(81, func(nc net.Conn) { _, _ = io.Copy(nc, nc) }))
	c, _ := full(t, r)
	c.send(clientFrame(1, 1, portOf("p", 80))) // of which nothing is ever acknowledged
	h := c.hold(2, portOf("p", 81))
	h.stands()
	want := ""
	for range 50 {
		h.say(payloadOf("round and round"))
		want += "round and round"
		h.until(func() bool { return h.bytes() == want })
	}
	c.send(clientFrame(1, 2, &sluicev1.Close{}))
	select {
	case <-stuck:
	case <-within(t).Done():
		t.Error("the pod's connection lives on")
	}
}
