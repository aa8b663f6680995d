package client_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/kubetest"
	"github.com/sluice-gateway/sluice/test/rig"
)

// withPods is a whole gateway in front of the embedded cluster and its pods, with a client behind a relay.
func withPods(t *testing.T) (*rig.Relay, *client.Client) {
	t.Helper()
	r := rig.New(t, rig.Options{})
	if err := kubetest.RunPods(r.Kube); err != nil {
		t.Fatal(err)
	}
	relay := rig.NewRelay(t, r.Server.GRPCAddr().String())
	return relay, r.Client("alice", func(c *client.Config) { c.Address = relay.Addr() })
}

// Every kind of channel, through a whole gateway to the cluster, while links are cut.
func TestEveryKindThroughAGateway(t *testing.T) {
	relay, c := withPods(t)
	ctx := within(t)
	t.Run("exec", func(t *testing.T) {
		const size = 1 << 20
		var out, errs bytes.Buffer
		err := c.Exec(ctx, client.ExecRequest{
			Cluster: rig.Cluster,
			Target:  &sluicev1.ExecTarget{Namespace: "default", Pod: "shell", Command: []string{"sh", "-c", "echo begins >&2; cat; exit 7"}},
			Streams: client.Streams{Stdin: newSeeded(1, size), Stdout: cutter(&out, []int{1, size / 3, size / 2}, relay.Cut), Stderr: &errs},
		})
		if e, ok := errors.AsType[*client.ExitError](err); !ok || e.Code != 7 || errs.String() != "begins\n" {
			t.Errorf("ended with %v, %q", err, &errs)
		}
		if !bytes.Equal(out.Bytes(), all(t, newSeeded(1, size))) {
			t.Errorf("%d bytes came back of %d, or others", out.Len(), size)
		}
	})
	t.Run("attach", func(t *testing.T) {
		ctx, cancel := context.WithCancel(ctx)
		in, typed := io.Pipe()
		shown, out := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			ended <- c.Attach(ctx, client.AttachRequest{
				Cluster: rig.Cluster, Target: &sluicev1.AttachTarget{Namespace: "default", Pod: "shell"},
				Streams: client.Streams{Stdin: in, Stdout: out},
			})
		}()
		lines := bufio.NewReader(shown)
		for i := range 20 {
			if i%5 == 3 {
				relay.Cut()
			}
			if _, err := fmt.Fprintf(typed, "line %d\n", i); err != nil {
				t.Fatal(err)
			}
			if got, err := lines.ReadString('\n'); err != nil || got != fmt.Sprintf("> line %d\n", i) {
				t.Fatalf("got %q, %v", got, err)
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("logs", func(t *testing.T) {
		var out bytes.Buffer
		l := c.Logs(client.LogsRequest{Cluster: rig.Cluster, Target: &sluicev1.LogTarget{Namespace: "default", Pod: "done", Follow: true}})
		if _, err := l.WriteTo(cutter(&out, []int{1, 100}, relay.Cut)); err != nil || strings.Count(out.String(), "\n") != 100 {
			t.Errorf("%d lines, %v", strings.Count(out.String(), "\n"), err)
		}
		_, err := c.Logs(client.LogsRequest{Cluster: rig.Cluster, Target: &sluicev1.LogTarget{Namespace: "default", Pod: "nobody"}}).Next(ctx)
		if e, ok := errors.AsType[*client.Error](err); !ok || e.HTTPCode != http.StatusNotFound {
			t.Errorf("the log of nobody: %v", err)
		}
	})
	t.Run("port-forward", func(t *testing.T) {
		web := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return c.PortForward(ctx, client.PortForwardRequest{
				Cluster: rig.Cluster, Target: &sluicev1.PortForwardTarget{Namespace: "default", Pod: "web", Port: 80},
			})
		}}}
		defer web.CloseIdleConnections()
		for i := range 9 {
			if i%3 == 1 {
				relay.Cut()
			}
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://web/", nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := web.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK || len(body) == 0 {
				t.Errorf("%s: %q, %v", answer.Status, body, err)
			}
			if err := answer.Body.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
