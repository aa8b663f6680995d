package server

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/bridge"
	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// idleChannel is the channel of a port-forward on which nothing comes.
type idleChannel struct{ opened chan struct{} }

func (idleChannel) Credit() int                            { return 1 << 20 }
func (idleChannel) AwaitCredit(context.Context, int) error { return nil }
func (idleChannel) NotifyCredit(int, func()) (bool, error) { return false, nil }
func (idleChannel) MaxPiece() int                          { return 16 << 10 }
func (idleChannel) Offer(pieces []data.Piece) int          { return len(pieces) }
func (c idleChannel) Opened(*sluicev1.Opened)              { close(c.opened) }
func (idleChannel) State(*sluicev1.ChannelState)           {}
func (idleChannel) CloseSend()                             {}
func (idleChannel) Used()                                  {}
func (idleChannel) Next(ctx context.Context) (data.Input, error) {
	<-ctx.Done()
	return data.Input{}, ctx.Err()
}

// soleUpstream is one that no other shares.
type soleUpstream struct{ *cluster.Upstream }

func (soleUpstream) Sharing() string { return "alice" }

// TestWatchesOfPodsEndBeforeTheirLoops: the watch that forwards share ends a moment after the last of them, and a loop that is closed under one
// panics. Here the forward is still on.
func TestWatchesOfPodsEndBeforeTheirLoops(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // which bounds a failure
	defer cancel()
	kube, err := kubetest.New(kubetest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer kube.Close()
	if err := kube.Listen(ctx, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if err := kube.RunPod(kubetest.Pod{Name: "p", Ports: map[uint16]func(net.Conn){80: func(nc net.Conn) { _, _ = io.Copy(nc, nc) }}}); err != nil {
		t.Fatal(err)
	}
	set, err := cluster.New([]cluster.Config{{
		Name: "dev", Server: kube.URL(), CA: kube.CAPEM(), Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{"kubernetes"},
	}}, "sluice/test", cluster.Timeouts{})
	if err != nil {
		t.Fatal(err)
	}
	defer set.Close()
	alice := &auth.Principal{Issuer: "https://issuer.test", Subject: "1", Username: "alice", Audiences: []string{"kubernetes"}}
	up, err := set.Resolve("dev", alice.WithCredential(auth.NewSecret("alice")))
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{}
	if err := s.wait(); err != nil {
		t.Fatal(err)
	}
	open := &sluicev1.Open{Cluster: "dev", Target: &sluicev1.Target{Target: &sluicev1.Target_PortForward{
		PortForward: &sluicev1.PortForwardTarget{Namespace: "default", Pod: "p", Port: 80},
	}}}
	ch := idleChannel{make(chan struct{})}
	over := make(chan bridge.Outcome, 1)
	forward, stop := context.WithCancel(ctx)
	defer stop()
	go func() { over <- bridge.Run(forward, soleUpstream{up}, open, ch, s.bridge) }()
	select {
	case <-ch.opened:
	case o := <-over:
		t.Fatalf("the forward ends with %v", o.Err)
	}
	live := func(want int) {
		t.Helper()
		if err := kube.Await(ctx, func(c kubetest.Counts) bool { return c.Live == want }); err != nil {
			t.Fatalf("%d watches run, want %d", kube.Counts().Live, want)
		}
	}
	live(1)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for s.loops != nil && s.loops.Len() == 0 { // the watch is left to one as soon as it has nothing to say
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatal("the watch is not left to a loop")
		}
	}
	s.endWait()
	live(0)
	stop()
	<-over
}
