// Command kube builds and runs the Kubernetes API that tests use.
//
//	go run ./test/kube/cmd/kube build            makes etcd, kube-apiserver and the node unless they are in the cache
//	go run ./test/kube/cmd/kube up               runs a cluster until interrupted, and prints how to use it
//	go run ./test/kube/cmd/kube up -node=false   the same without a node, so that no pod ever runs
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sluice-gateway/sluice/test/kube"
)

const usage = "usage: kube build | up [-node=false]"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kube:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	flags := flag.NewFlagSet("kube "+args[0], flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error and the usage are told once
	withNode := args[0] == "up"
	if withNode {
		flags.BoolVar(&withNode, "node", true, "run a node and the sample pods")
	}
	if err := flags.Parse(args[1:]); err != nil || flags.NArg() > 0 {
		return errors.Join(err, errors.New(usage))
	}
	switch args[0] {
	case "build":
		return build(ctx, out)
	case "up":
		return up(ctx, out, withNode)
	default:
		return errors.New(usage)
	}
}

// build prints the paths of the binaries.
func build(ctx context.Context, out io.Writer) error {
	etcd, apiserver, err := kube.Binaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	node, err := kube.NodeBinary(ctx, os.Stderr)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n%s\n%s\n", etcd, apiserver, node)
	return err
}

const summary = `KUBECONFIG=%s
API server  %s
issuer      %s   audience %s
alice       may watch, read logs, exec, attach and port-forward everywhere (group %s); token, valid for an hour:
%s
bob         may only see the pods of namespace %s (group %s); token, valid for an hour:
%s
`

const samples = `pods in namespace default, whose containers are processes of this host:
%-12sprints each line of its stdin (attach); the same on a terminal is %s
%-12stwo containers: main prints numbered lines, quiet prints nothing
%-12shas printed 100 lines and ended
%-12sserves HTTP on port 80
`

// up runs a cluster until ctx ends.
func up(ctx context.Context, out io.Writer, withNode bool) error {
	c, err := kube.Start(ctx, kube.Options{})
	if err != nil {
		return err
	}
	if withNode {
		if err := runPods(ctx, c); err != nil {
			return errors.Join(err, c.Stop())
		}
	}
	fmt.Fprintf(out, summary, c.Kubeconfig(), c.URL(), c.Issuer().URL(), kube.Audience,
		kube.Streamers, c.Token("alice", kube.Streamers),
		kube.Namespace, kube.Viewers, c.Token("bob", kube.Viewers))
	if withNode {
		fmt.Fprintf(out, samples, kube.ShellPod, kube.TermPod, kube.TalkerPod, kube.DonePod, kube.WebPod)
	}
	fmt.Fprintln(out, "Interrupt to stop and remove everything.")
	<-ctx.Done()
	return c.Stop()
}

func runPods(ctx context.Context, c *kube.Cluster) error {
	if _, err := c.StartNode(ctx); err != nil {
		return err
	}
	return c.RunSamplePods(ctx)
}
