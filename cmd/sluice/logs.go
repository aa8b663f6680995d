package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// logsFlags are the flags of `sluice logs`.
type logsFlags struct {
	*podFlags

	follow, previous, timestamps bool
	since                        time.Duration
	sinceTime                    string
	tail                         int64
}

func newLogs(sys system) *cobra.Command {
	_, cmd := newLogsFlags(sys)
	return cmd
}

func newLogsFlags(sys system) (*logsFlags, *cobra.Command) {
	f := &logsFlags{}
	cmd := &cobra.Command{
		Use:   "logs POD|TYPE/NAME",
		Short: "Print a container's log",
		Long: `Print a container's log, byte for byte; with -f whatever is written from then on, until the container ends or Ctrl-C.

A lost gateway or API server is waited for, and the log goes on where it was, no line lost or doubled. What nobody can give back, because the log
was rotated or the pod deleted meanwhile, is told on the standard error, and the exit code is 3. A container that is started anew is told too.

TYPE/NAME is one of the pods of a deployment, service, or whatever else selects pods. Without -c it is the pod's only container, or the one that
its annotation kubectl.kubernetes.io/default-container names, or its first.`,
		Example: `  sluice logs done                                # all there is
  sluice logs -f --tail 20 talker -c main         # the last lines, and what is written from now on
  sluice logs --since 1h --timestamps talker -c main
  sluice logs -f talker -c main | head -n 3       # a log that goes on, cut`,
		Args: arguments(1, 1, "POD"),
		RunE: f.run,
	}
	f.podFlags = newPodFlags(cmd, sys)
	f.withContainer(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with what is written from now on")
	flags.BoolVarP(&f.previous, "previous", "p", false, "the log of the container's previous instance")
	flags.DurationVar(&f.since, "since", 0, "only lines younger than this `DURATION`, such as 90s or 2h")
	flags.StringVar(&f.sinceTime, "since-time", "", "only lines after this `TIME`, such as 2026-01-02T15:04:05Z")
	flags.Int64Var(&f.tail, "tail", -1, "only so many `LINES` from the end; all of them if negative")
	flags.BoolVar(&f.timestamps, "timestamps", false, "put each line's time before it")
	return f, cmd
}

func (f *logsFlags) run(cmd *cobra.Command, args []string) error {
	target, err := f.target(cmd)
	if err != nil {
		return err
	}
	p, err := f.named(cmd, args[0])
	if err != nil {
		return err
	}
	defer p.client.Close()
	defer p.n.waitingForLink(p.access.Server).Stop()
	target.Namespace, target.Pod = p.access.Namespace, p.name
	err = p.orDefault(cmd.Context(), f.container, func(container string) error {
		target.Container = container
		return f.print(cmd.Context(), p.client.Logs(client.LogsRequest{Cluster: p.access.Cluster, Target: target}), p.n)
	})
	return p.advised(ended(cmd.Context(), err), "get pods/log")
}

// target is which lines are wanted.
func (f *logsFlags) target(cmd *cobra.Command) (*sluicev1.LogTarget, error) {
	if err := oneOfFlags(cmd, "since", "since-time"); err != nil {
		return nil, err
	}
	t := &sluicev1.LogTarget{Previous: f.previous, Follow: f.follow, Timestamps: f.timestamps}
	switch {
	case cmd.Flags().Changed("since") && f.since <= 0:
		return nil, usage(cmd, "--since %s is no time that has passed", f.since)
	case f.since > 0:
		t.Since = durationpb.New(f.since)
	}
	if f.sinceTime != "" {
		at, err := time.Parse(time.RFC3339Nano, f.sinceTime)
		if err != nil {
			return nil, usage(cmd, "--since-time %q is no time such as 2026-01-02T15:04:05Z", f.sinceTime)
		}
		t.SinceTime = timestamppb.New(at)
	}
	if f.tail >= 0 {
		t.TailLines = &f.tail
	}
	return t, nil
}

// print prints a log until it ends. Its end is no success when something of it is missing.
func (f *logsFlags) print(ctx context.Context, l *client.Log, n *notices) error {
	defer l.Close()
	missed := false
	for {
		chunk, err := l.Next(ctx)
		switch {
		case errors.Is(err, io.EOF) && missed:
			return exitError(exitMissed)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case chunk.State == nil:
			if _, err := f.sys.stdout.Write(chunk.Data); err != nil {
				return fmt.Errorf("print the log: %w", err)
			}
		case chunk.State.GetKind() == sluicev1.ChannelState_KIND_GAP:
			missed = true
			n.sayf("lines of the log were missed: %s", brief(status.FromProto(chunk.State.GetStatus())))
		default:
			n.upstream(chunk.State)
		}
	}
}
