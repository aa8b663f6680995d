package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

func newExec(sys system) *cobra.Command {
	var f *processFlags
	cmd := &cobra.Command{
		Use:   "exec POD|TYPE/NAME -- COMMAND [ARGUMENT...]",
		Short: "Run a command in a container",
		Long: `Run a command in a container, with the exit code of the command.

-i passes the standard input on, -t gives the command this terminal: -it is a shell to work in. A lost link to the gateway does not end it: a line
says so, what is typed meanwhile is sent when the gateway is back, and nothing is lost or doubled. Only when the gateway has waited in vain, or is
gone itself, the command ends with "exit status unknown". It is never run again by itself.

TYPE/NAME is one of the pods of a deployment, service, or whatever else selects pods. Without -c it is the pod's only container, or the one that
its annotation kubectl.kubernetes.io/default-container names, or its first.`,
		Example: `  sluice exec -it shell -- sh                     # a shell
  sluice exec shell -- sh -c 'echo "$0 of $1"' one two   # what is after -- is not looked at
  seq 100 | sluice exec -i shell -- wc -l         # the end of the input is passed on too
  sluice exec shell -c main -- true && echo fine  # the exit code is the command's
  sluice exec -n kube-system deploy/coredns -- env   # in one of the pods of a deployment`,
		Args: execArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := f.named(cmd, args[0])
			if err != nil {
				return err
			}
			defer p.client.Close()
			return f.run(cmd, p, "exec", func(ctx context.Context, j joint) error { return p.client.Exec(ctx, f.execRequest(p, args[1:], j)) })
		},
	}
	f = newProcessFlags(cmd, sys)
	return cmd
}

func (f *processFlags) execRequest(p *podTarget, command []string, j joint) client.ExecRequest {
	return client.ExecRequest{
		Cluster: p.access.Cluster,
		Target: &sluicev1.ExecTarget{
			Namespace: p.access.Namespace, Pod: p.name, Container: j.container, Command: command, Tty: j.tty,
		},
		OnDetachExpiry: sluicev1.DetachPolicy(f.onExpiry), Streams: j.streams, OnOpened: j.onOpened, OnState: (&upstreamNotices{n: p.n, what: "the process"}).state,
	}
}

// execArguments wants POD -- COMMAND: without the dashes it would be a matter of luck whose flag a flag is.
func execArguments(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0 || dash == 0:
		return usage(cmd, "POD is missing: sluice exec POD -- COMMAND")
	case dash < 0 && len(args) == 1:
		return usage(cmd, "the command is missing: sluice exec %s -- sh", args[0])
	case dash < 0:
		return usage(cmd, "put -- before the command: sluice exec %s -- %s", args[0], args[1])
	case dash > 1:
		return usage(cmd, "it takes one POD before --, and no more, such as %q", args[1])
	case len(args) == 1:
		return usage(cmd, "the command is missing after --")
	}
	return nil
}
