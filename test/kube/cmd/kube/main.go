// Command kube builds and runs the Kubernetes API that tests use.
//
//	go run ./test/kube/cmd/kube build    makes etcd and kube-apiserver unless they are in the cache
//	go run ./test/kube/cmd/kube up       runs a cluster until interrupted, and prints how to use it
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/sluice-gateway/sluice/test/kube"
)

const usage = "usage: kube build | up"

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
	if len(args) != 1 {
		return errors.New(usage)
	}
	switch args[0] {
	case "build":
		return build(ctx, out)
	case "up":
		return up(ctx, out)
	default:
		return errors.New(usage)
	}
}

// build prints the paths of the two binaries.
func build(ctx context.Context, out io.Writer) error {
	etcd, apiserver, err := kube.Binaries(ctx, os.Stderr)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n%s\n", etcd, apiserver)
	return err
}

const summary = `KUBECONFIG=%s
API server  %s
issuer      %s   audience %s
alice       may watch, read logs, exec, attach and port-forward everywhere (group %s); token, valid for an hour:
%s
bob         may only see the pods of namespace %s (group %s); token, valid for an hour:
%s
Interrupt to stop and remove everything.
`

// up runs a cluster until ctx ends.
func up(ctx context.Context, out io.Writer) error {
	c, err := kube.Start(ctx, kube.Options{})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, summary, c.Kubeconfig(), c.URL(), c.Issuer().URL(), kube.Audience,
		kube.Streamers, c.Token("alice", kube.Streamers),
		kube.Namespace, kube.Viewers, c.Token("bob", kube.Viewers))
	<-ctx.Done()
	return c.Stop()
}
