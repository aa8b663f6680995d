package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

func newAttach(sys system) *cobra.Command {
	var f *processFlags
	cmd := &cobra.Command{
		Use:   "attach POD|TYPE/NAME",
		Short: "Join the main process of a container",
		Long: `Join the process that a container runs: what it prints from now on, and with -i what it reads.

-t gives it this terminal, if the container was made with one. The process goes on when this command ends, and the end of the input ends this
command alone, unless the container was made for one input (stdinOnce). A lost link to the gateway is waited for, as by sluice exec. What was
printed before is told by sluice logs.`,
		Example: `  sluice attach talker -c main        # what it prints, until Ctrl-C
  sluice attach -it term              # a process that has a terminal`,
		Args: arguments(1, 1, "POD"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.named(cmd, args[0])
			if err != nil {
				return err
			}
			defer p.client.Close()
			return f.run(cmd, p, "attach", func(ctx context.Context, j joint) error { return p.client.Attach(ctx, f.attachRequest(p, j)) })
		},
	}
	f = newProcessFlags(cmd, sys)
	return cmd
}

func (f *processFlags) attachRequest(p *podTarget, j joint) client.AttachRequest {
	return client.AttachRequest{
		Cluster: p.access.Cluster,
		Target: &sluicev1.AttachTarget{
			Namespace: p.access.Namespace, Pod: p.name, Container: j.container, Tty: j.tty,
		},
		OnDetachExpiry: sluicev1.DetachPolicy(f.onExpiry), Streams: j.streams, OnOpened: j.onOpened, OnState: (&upstreamNotices{n: p.n, what: "the process"}).state,
	}
}
