package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"

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

// Follow the log of a pod. Where bytes are missing, WriteTo says so.
func ExampleClient_Logs() {
	c, err := client.Dial(client.Config{Address: "gateway.example:8443", Token: client.StaticToken(os.Getenv("SLUICE_TOKEN"))})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	l := c.Logs(client.LogsRequest{Cluster: "dev", Target: &sluicev1.LogTarget{Namespace: "shop", Pod: "web-0", Follow: true}})
	defer l.Close()
	for {
		_, err := l.WriteTo(os.Stdout)
		gap, ok := errors.AsType[*client.GapError](err)
		if !ok {
			fmt.Fprintln(os.Stderr, "the log has ended:", err) // nil: it is whole
			return
		}
		fmt.Fprintln(os.Stderr, "lines are missing here:", gap)
	}
}

// Run a command in a pod and tell how it ended.
func ExampleClient_Exec() {
	c, err := client.Dial(client.Config{Address: "gateway.example:8443", Token: client.StaticToken(os.Getenv("SLUICE_TOKEN"))})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	err = c.Exec(context.Background(), client.ExecRequest{
		Cluster: "dev",
		Target:  &sluicev1.ExecTarget{Namespace: "shop", Pod: "db-0", Command: []string{"tar", "-C", "/data", "-cf", "-", "."}},
		Streams: client.Streams{Stdout: os.Stdout, Stderr: os.Stderr},
	})
	exit, exited := errors.AsType[*client.ExitError](err)
	switch {
	case err == nil:
		fmt.Fprintln(os.Stderr, "exit code 0, and all of the output is here")
	case exited:
		fmt.Fprintln(os.Stderr, "exit code", exit.Code)
	default:
		fmt.Fprintln(os.Stderr, "refused, or exit status unknown:", err)
	}
}

// Talk to a port of a pod with what speaks over a net.Conn: here HTTP.
func ExampleClient_PortForward() {
	c, err := client.Dial(client.Config{Address: "gateway.example:8443", Token: client.StaticToken(os.Getenv("SLUICE_TOKEN"))})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return c.PortForward(ctx, client.PortForwardRequest{
			Cluster: "dev", Target: &sluicev1.PortForwardTarget{Namespace: "shop", Pod: "web-0", Port: 80},
		})
	}}}
	defer web.CloseIdleConnections()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://web-0/healthz", nil)
	if err != nil {
		panic(err)
	}
	answer, err := web.Do(req)
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	fmt.Println(answer.Status)
}

// Offer a port of a pod on this machine, until Ctrl-C.
func ExampleClient_ForwardListener() {
	c, err := client.Dial(client.Config{Address: "gateway.example:8443", Token: client.StaticToken(os.Getenv("SLUICE_TOKEN"))})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:8080")
	if err != nil {
		panic(err)
	}
	err = c.ForwardListener(ctx, l, client.PortForwardRequest{
		Cluster: "dev", Target: &sluicev1.PortForwardTarget{Namespace: "shop", Pod: "web-0", Port: 80},
	}, func(remote net.Addr, err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, remote, err)
		}
	})
	fmt.Fprintln(os.Stderr, err)
}
