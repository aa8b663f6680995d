package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// Follow the pods of a namespace, over lost links, lost gateways and ended upstreams.
func ExampleClient_Watch() {
	c, err := client.Dial(client.Config{
		Address: "gateway.example:8443",
		Token:   client.StaticToken(os.Getenv("SLUICE_TOKEN")),
		Name:    "example/1.0",
		OnState: func(s client.State) { fmt.Println("the session is", s.Phase) },
	})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	w := c.Watch(client.WatchRequest{
		Cluster: "dev",
		Target:  &sluicev1.WatchTarget{Version: "v1", Resource: "pods", Namespace: "shop"},
	})
	known := map[string]bool{} // by UID; a list that follows RESYNC_BEGIN replaces it
	for {
		ev, err := w.Next(context.Background())
		if err != nil {
			if e, ok := errors.AsType[*client.Error](err); ok {
				fmt.Println("the watch has ended:", e.Code, e.Reason)
			}
			return
		}
		if ev.State.GetKind() == sluicev1.ChannelState_KIND_RESYNC_BEGIN {
			clear(known)
		}
		if ev.State != nil {
			continue
		}
		var pod struct {
			Metadata struct {
				UID  string `json:"uid"`
				Name string `json:"name"`
			} `json:"metadata"`
		}
		if err := ev.Into(&pod); err != nil {
			panic(err)
		}
		known[pod.Metadata.UID] = ev.Type != "DELETED"
		fmt.Println(ev.Type, pod.Metadata.Name)
	}
}

// Count events without a copy and without a hand-off, for those who count microseconds.
func ExampleClient_WatchRaw() {
	c, err := client.Dial(client.Config{Address: "gateway.example:8443", Token: client.StaticToken(os.Getenv("SLUICE_TOKEN"))})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	bytes := 0
	err = c.WatchRaw(context.Background(), client.WatchRequest{
		Cluster: "dev", Target: &sluicev1.WatchTarget{Version: "v1", Resource: "pods"},
	}, func(r client.Raw) { bytes += len(r.Data) })
	fmt.Println(bytes, err)
}
