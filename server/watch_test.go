package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/test/rig"
)

// within bounds what a test waits for; it only ever ends one that has failed.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func pods() *sluicev1.WatchTarget { return &sluicev1.WatchTarget{Version: "v1", Resource: "pods"} }

func TestWatchRPCTellsEventsAsText(t *testing.T) {
	r := rig.New(t, rig.Options{})
	for i := range 3 {
		apply(t, r, fmt.Sprintf("p%d", i), "")
	}
	ctx, cancel := context.WithCancel(r.As(within(t), "alice"))
	defer cancel()
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Watch(ctx, &sluicev1.WatchRequest{Cluster: rig.Cluster, Watch: pods()})
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for {
		res, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if res.GetState().GetKind() == sluicev1.ChannelState_KIND_RESYNC_END {
			break
		}
		if res.GetCursor() != "" {
			t.Errorf("an event of the list has a cursor: %v", res)
		}
		if res.GetEvent() != "" {
			listed++
		}
	}
	if listed != 3 {
		t.Fatalf("the list has %d objects, want 3", listed)
	}
	apply(t, r, "p9", "new")
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var ev struct {
		Type   string
		Object struct{ Metadata struct{ Name string } }
	}
	if err := json.Unmarshal([]byte(res.GetEvent()), &ev); err != nil || ev.Type != "ADDED" || ev.Object.Metadata.Name != "p9" || res.GetCursor() == "" {
		t.Fatalf("got %v, %v", res, err)
	}
}

func TestClientWatchFollows(t *testing.T) {
	r := rig.New(t, rig.Options{})
	apply(t, r, "a", "")
	w := r.Client("alice").Watch(client.WatchRequest{Target: pods()})
	ctx := within(t)
	ev, err := w.Next(ctx)
	if err != nil || ev.Type != "ADDED" {
		t.Fatal(ev, err)
	}
	ev, err = w.Next(ctx)
	if err != nil || ev.State.GetKind() != sluicev1.ChannelState_KIND_RESYNC_END {
		t.Fatal(ev, err)
	}
	for i := range 100 {
		apply(t, r, "b", fmt.Sprint(i))
	}
	for i := range 100 {
		ev, err := w.Next(ctx)
		if err != nil {
			t.Fatal(i, err)
		}
		var pod struct {
			Metadata struct{ Annotations map[string]string }
		}
		if err := ev.Into(&pod); err != nil || pod.Metadata.Annotations["note"] != fmt.Sprint(i) {
			t.Fatalf("event %d: %s, %v", i, ev.Raw, err)
		}
	}
}

func apply(t *testing.T, r *rig.Rig, name, note string) {
	t.Helper()
	if _, err := r.Kube.Apply(rig.Pod("default", name, note)); err != nil {
		t.Fatal(err)
	}
}
