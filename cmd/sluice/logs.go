package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// logsFlags are the flags of `sluice logs`.
type logsFlags struct {
	*podFlags

	selector                       string
	allPods, allContainers, prefix bool
	maxRequests                    int

	follow, previous, timestamps bool
	since                        time.Duration
	sinceTime                    string
	tail                         int64
}

// maxLogRequests is how many logs are followed at once unless somebody says otherwise: channels of one stream cost a client little, but each is a
// connection of the API server and of a node.
const maxLogRequests = 50

func newLogs(sys system) *cobra.Command {
	_, cmd := newLogsFlags(sys)
	return cmd
}

func newLogsFlags(sys system) (*logsFlags, *cobra.Command) {
	f := &logsFlags{}
	cmd := &cobra.Command{
		Use:   "logs POD|TYPE/NAME|-l SELECTOR",
		Short: "Print the logs of containers",
		Long: `Print a container's log, byte for byte; with -f whatever is written from then on, until the container ends or Ctrl-C.

A lost gateway or API server is waited for, and the log goes on where it was, no line lost or doubled. What nobody can give back, because the log
was rotated or the pod deleted meanwhile, is told on the standard error, and the exit code is 3. A container that is started anew is told too.

TYPE/NAME is one of the pods of a deployment, service, or whatever else selects pods. Without -c it is the pod's only container, or the one that
its annotation kubectl.kubernetes.io/default-container names, or its first.

-l, --all-pods and --all-containers print several logs: one after the other, or with -f all at once, on one stream, and then also those of pods and
containers that come later. No line is mixed with another's; --prefix says whose it is. A pod that is gone does not end the command: that ends
when all pods that there are have finished.`,
		Example: `  sluice logs done                                # all there is
  sluice logs -f --tail 20 talker -c main         # the last lines, and what is written from now on
  sluice logs --since 1h --timestamps talker -c main
  sluice logs -f talker -c main | head -n 3       # a log that goes on, cut
  sluice logs -n shop deploy/web --tail 5         # one pod of a deployment
  sluice logs -n shop deploy/web --all-pods -f    # all of them, and those that a roll-out brings
  sluice logs -f -n shop -l 'app in (web,cart)' --prefix
  sluice logs talker --all-containers --tail 3    # one pod, whole`,
		Args: arguments(0, 2, "POD [CONTAINER]"),
		RunE: f.run,
	}
	f.podFlags = newPodFlags(cmd, sys)
	f.withContainer(cmd)
	cmd.ValidArgsFunction = f.access.askingWith(logWords)
	flags := cmd.Flags()
	flags.StringVarP(&f.selector, "selector", "l", "", "the logs of all pods whose labels match this `SELECTOR`, such as app=web,tier!=test")
	flags.BoolVar(&f.allPods, "all-pods", false, "the logs of all pods of TYPE/NAME, with --prefix unless that is false")
	flags.BoolVar(&f.allContainers, "all-containers", false, "the logs of all containers of a pod")
	flags.BoolVar(&f.prefix, "prefix", false, "put each line's pod and container before it, as [pod/NAME/CONTAINER]")
	flags.IntVar(&f.maxRequests, "max-log-requests", maxLogRequests, "follow at most so `MANY` logs at once; more are refused, or wait if they come later")
	flags.BoolVarP(&f.follow, "follow", "f", false, "go on with what is written from now on")
	flags.BoolVarP(&f.previous, "previous", "p", false, "the log of the container's previous instance")
	flags.DurationVar(&f.since, "since", 0, "only lines younger than this `DURATION`, such as 90s or 2h")
	flags.StringVar(&f.sinceTime, "since-time", "", "only lines after this `TIME`, such as 2026-01-02T15:04:05Z")
	flags.Int64Var(&f.tail, "tail", -1, "only so many `LINES` from the end of each log; all of them if negative, but 10 with -l")
	flags.BoolVar(&f.timestamps, "timestamps", false, "put each line's time before it")
	return f, cmd
}

func (f *logsFlags) run(cmd *cobra.Command, args []string) error {
	if err := f.check(cmd, args); err != nil {
		return err
	}
	target, err := f.target(cmd)
	if err != nil {
		return err
	}
	p, err := f.reach(cmd)
	if err != nil {
		return err
	}
	defer p.client.Close()
	defer p.n.waitingForLink(p.access.Server).Stop()
	target.Namespace = p.access.Namespace
	return ended(cmd.Context(), f.printWanted(cmd.Context(), p, target, args))
}

// check refuses flags and arguments that make no sense together, and takes POD CONTAINER for what it is.
func (f *logsFlags) check(cmd *cobra.Command, args []string) error {
	if err := errors.Join(oneOfFlags(cmd, "selector", "all-pods"), oneOfFlags(cmd, "container", "all-containers")); err != nil {
		return err
	}
	switch selects := cmd.Flags().Changed("selector"); {
	case selects && f.selector == "":
		return usage(cmd, "-l needs a selector, such as app=web")
	case selects && len(args) > 0:
		return usage(cmd, "-l and %q contradict each other: the selector says whose logs; give one", args[0])
	case !selects && len(args) == 0:
		return usage(cmd, "POD is missing, or a selector: -l app=web")
	case f.allPods && !strings.Contains(args[0], "/"):
		return usage(cmd, "--all-pods goes with TYPE/NAME, such as deployment/web")
	case f.maxRequests < 1:
		return usage(cmd, "--max-log-requests %d lets no log be followed", f.maxRequests)
	case len(args) == 2 && (f.container != "" || f.allContainers):
		return usage(cmd, "name the container once: %q, -c or --all-containers", args[1])
	case len(args) == 2:
		f.container = args[1]
	}
	if !cmd.Flags().Changed("prefix") {
		f.prefix = f.allPods
	}
	if f.selector != "" && !cmd.Flags().Changed("tail") {
		f.tail = tailOfSelected
	}
	return nil
}

// tailOfSelected is how many lines of each log are printed if a selector selects the pods, and nobody says how many.
const tailOfSelected = 10

// printWanted prints the log of one container, or those of several.
func (f *logsFlags) printWanted(ctx context.Context, p *podTarget, target *sluicev1.LogTarget, args []string) (err error) {
	of := &sluicev1.WatchTarget{LabelSelector: f.selector}
	switch {
	case f.selector != "":
	case f.allPods:
		of.Name, of.LabelSelector, err = p.read(ctx, args[0])
	default:
		p.name, err = p.find(ctx, args[0])
		of.Name = p.name
	}
	switch {
	case err != nil:
		return err
	case of.GetLabelSelector() != "" || f.allContainers || f.prefix:
		err = f.newLogSet(p, of, target).print(ctx)
	default:
		target.Pod = p.name
		err = f.print(ctx, p, target)
	}
	return p.advised(err, "get pods/log")
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

// print prints the log of one container.
func (f *logsFlags) print(ctx context.Context, p *podTarget, target *sluicev1.LogTarget) error {
	notices := &upstreamNotices{n: p.n, what: "the log", container: "the container"}
	return p.orDefault(ctx, f.container, func(container string) error {
		target.Container = container
		l := p.client.Logs(client.LogsRequest{Cluster: p.access.Cluster, Target: target})
		missed, err := printLog(ctx, l, f.sys.stdout, func(s *sluicev1.ChannelState) error { notices.state(s); return nil })
		if err == nil && missed {
			return exitError(exitMissed)
		}
		return err
	})
}
