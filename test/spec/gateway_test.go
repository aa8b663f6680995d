package spec

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// The rules that bind a whole gateway are proved over gRPC.

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func pods() *sluicev1.WatchTarget { return &sluicev1.WatchTarget{Version: "v1", Resource: "pods"} }

func TestSPEC_TheCallWatchEndsWithTheStatusOfClosed(t *testing.T) {
	r := rig.New(t, rig.Options{})
	for name, tc := range map[string]struct {
		req    *sluicev1.WatchRequest
		code   codes.Code
		reason sluicev1.Reason
		http   int
	}{
		"target":  {&sluicev1.WatchRequest{Watch: &sluicev1.WatchTarget{Version: "v1", Resource: "../pods"}}, codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_TARGET, 0},
		"cursor":  {&sluicev1.WatchRequest{Watch: pods(), Cursor: "?"}, codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_CURSOR, 0},
		"cluster": {&sluicev1.WatchRequest{Watch: pods(), Cluster: "other"}, codes.NotFound, sluicev1.Reason_REASON_UNKNOWN_CLUSTER, 0},
		"resource": {
			&sluicev1.WatchRequest{Watch: &sluicev1.WatchTarget{Version: "v1", Resource: "nothings"}}, codes.NotFound, sluicev1.Reason_REASON_UPSTREAM_REFUSED, 404,
		},
	} {
		stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Watch(r.As(within(t), "alice"), tc.req)
		if err == nil {
			_, err = stream.Recv()
		}
		if e := status.From(err); e == nil || e.Code != tc.code || e.Reason != tc.reason || e.HTTPCode != tc.http || !e.FromPeer {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// call is one Connect call.
type call struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[sluicev1.ConnectRequest, sluicev1.ConnectResponse]
	cancel context.CancelFunc
	rest   []*sluicev1.ServerFrame

	channels map[uint32]*held
}

func connect(t *testing.T, r *rig.Rig, token string) *call {
	t.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(within(t), "authorization", "Bearer "+token))
	t.Cleanup(cancel)
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &call{t: t, stream: stream, cancel: cancel}
}

func (c *call) send(frames ...*sluicev1.ClientFrame) {
	c.t.Helper()
	if err := c.stream.Send(&sluicev1.ConnectRequest{Frames: frames}); err != nil {
		c.t.Fatal(err)
	}
}

// frame is the next frame.
func (c *call) frame() (*sluicev1.ServerFrame, error) {
	for len(c.rest) == 0 {
		res, err := c.stream.Recv()
		if err != nil {
			return nil, err
		}
		c.rest = res.GetFrames()
	}
	f := c.rest[0]
	c.rest = c.rest[1:]
	return f, nil
}

// until is the first frame that ok likes; the test fails on a Closed or Goodbye before it.
func (c *call) until(ok func(*sluicev1.ServerFrame) bool) *sluicev1.ServerFrame {
	c.t.Helper()
	for {
		f, err := c.frame()
		if err != nil {
			c.t.Fatalf("the call ended: %v", err)
		}
		if ok(f) {
			return f
		}
		if f.GetClosed() != nil || f.GetGoodbye() != nil {
			c.t.Fatalf("came %v", f)
		}
	}
}

func (c *call) hello(h *sluicev1.Hello) *sluicev1.Welcome {
	c.t.Helper()
	c.send(clientFrame(0, 0, h))
	return c.until(func(f *sluicev1.ServerFrame) bool { return f.GetWelcome() != nil }).GetWelcome()
}

func watchOf(channel uint32) *sluicev1.ClientFrame {
	return clientFrame(channel, 1, &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: pods()}}})
}

func listed(channel uint32) func(*sluicev1.ServerFrame) bool {
	return func(f *sluicev1.ServerFrame) bool {
		return f.GetChannel() == channel && f.GetChannelState().GetKind() == sluicev1.ChannelState_KIND_RESYNC_END
	}
}

func TestSPEC_ANewerCredentialExtendsTheSession(t *testing.T) {
	r := rig.New(t, rig.Options{})
	expiry := time.Now().Add(8 * time.Second).Truncate(time.Second) // late enough for all that comes before
	first := connect(t, r, r.Token("alice", func(c *issuer.Claims) { c.Expiry = expiry }))
	w := first.hello(&sluicev1.Hello{Protocol: 1})
	first.send(watchOf(1))
	first.until(listed(1))
	first.cancel()
	second := connect(t, r, r.Token("alice"))
	resumed := second.hello(&sluicev1.Hello{
		Protocol: 1, Resume: &sluicev1.Resume{Session: w.GetSession(), Secret: w.GetSecret(), LastLink: w.GetLink()},
		Channels: []*sluicev1.ChannelPosition{{Channel: 1, Received: 2, Consumed: 2, Window: firstWindow}},
	})
	if until := resumed.GetAuth()[0].GetExpiresAt().AsTime(); !resumed.GetResumed() || until.Before(expiry.Add(time.Minute)) {
		t.Fatalf("Welcome is %v", resumed)
	}
	<-time.After(time.Until(expiry.Add(time.Second)))
	second.send(watchOf(2))
	second.until(listed(2))
	r.Kube.ResetWatches() // what is opened now is opened with the newer credential
	if _, err := r.Kube.Apply(rig.Pod("default", "p", "")); err != nil {
		t.Fatal(err)
	}
	second.until(func(f *sluicev1.ServerFrame) bool { return f.GetChannel() == 2 && f.GetData() != nil })
}

func TestSPEC_TheCallWatchBeginsAnEventAnewToo(t *testing.T) {
	r := rig.New(t, rig.Options{})
	const begun = 40_000 // bytes of an event, in a frame that is not its message's last; what follows is no frame at all
	raw := append([]byte{0x01, 126, begun >> 8, begun & 0xff}, `{"type":"ADDED","object":{"kind":"`...)
	raw = append(raw, strings.Repeat("y", 4+begun-len(raw))...)
	r.Kube.Faults.Add(kubetest.Fault{Action: kubetest.RawAfter(1, append(raw, 0xff, 0xff)), Match: kubetest.Watches, Times: 1})
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Watch(r.As(within(t), "alice"), &sluicev1.WatchRequest{Watch: pods()})
	if err != nil {
		t.Fatal(err)
	}
	note := strings.Repeat("x", 100<<10) // in many pieces
	for reconnected := false; ; {
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		switch res.GetState().GetKind() {
		case sluicev1.ChannelState_KIND_RESYNC_END:
			if _, err := r.Kube.Apply(rig.Pod("default", "p", note)); err != nil {
				t.Fatal(err)
			}
		case sluicev1.ChannelState_KIND_RECONNECTING:
			reconnected = true
		}
		if res.GetEvent() == "" {
			continue
		}
		if !json.Valid([]byte(res.GetEvent())) || strings.Count(res.GetEvent(), note) != 1 || !reconnected {
			t.Errorf("came an event of %d bytes, valid %v; the upstream was cut: %v", len(res.GetEvent()), json.Valid([]byte(res.GetEvent())), reconnected)
		}
		return
	}
}
