package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// watchFlags are the flags of `sluice watch`.
type watchFlags struct {
	sys           system
	access        *accessFlags
	output        string
	allNamespaces bool
	changesOnly   bool
	labels        string
	fields        string
}

func newWatch(sys system) *cobra.Command {
	f := &watchFlags{sys: sys}
	cmd := &cobra.Command{
		Use:   "watch RESOURCE [NAME]",
		Short: "Follow the objects of a resource: those there are, then every change",
		Long: `Follow the objects of a resource: those there are (ADDED), then every change, until Ctrl-C.

RESOURCE is what kubectl takes: pods, po, pod, deployments.apps, deployments.v1.apps, pods.v1. - of whatever the cluster serves, custom
resources included. Objects go to the standard output; what becomes of the watch (a lost gateway, a resync) is told on the standard error.
A lost gateway or API server is waited for, and the watch goes on where it was.`,
		Example: `  sluice watch pods                               # of all namespaces
  sluice watch po -n shop -l app=web -o wide      # with node and address
  sluice watch deploy web -n shop                 # one object
  sluice watch pods -o json | head -n 3           # the first events, as the API server sent them`,
		Args: arguments(1, 2, "RESOURCE [NAME]"),
		RunE: f.run,
	}
	f.access = newAccessFlags(cmd, sys)
	f.access.withCluster(cmd)
	f.access.withNamespace(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "all namespaces, also when SLUICE_NAMESPACE or the client configuration names one")
	flags.StringVarP(&f.labels, "selector", "l", "", "only objects whose labels match this `SELECTOR`, such as app=web,tier!=test")
	flags.StringVar(&f.fields, "field-selector", "", "only objects whose fields match this `SELECTOR`, such as status.phase=Running")
	flags.BoolVar(&f.changesOnly, "changes-only", false, "leave out the objects there are already")
	flags.StringVarP(&f.output, "output", "o", "", "the `FORM`: wide, json (each event as the API server sent it, one a line) or name; a table without it")
	fixed(cmd, "output", word("wide", "a table with more columns"), word("json", "each event, one a line"), word("name", "what happened to whom"))
	cmd.ValidArgsFunction = f.access.asking(f.watchWords)
	return cmd
}

func (f *watchFlags) run(cmd *cobra.Command, args []string) error {
	newPrinter, ok := printers[f.output]
	if !ok {
		return usage(cmd, "-o %q is none of wide, json, name", f.output)
	}
	if err := oneOfFlags(cmd, "namespace", "all-namespaces"); err != nil {
		return err
	}
	a, err := f.access.resolve(cmd)
	if err != nil {
		return err
	}
	n := newNotices(f.sys.stderr)
	c, err := a.dial(n.session)
	if err != nil {
		return err
	}
	defer c.Close()
	resource, err := resolveResource(cmd.Context(), c, a, n, args[0])
	if err == nil {
		var target *sluicev1.WatchTarget
		if target, err = f.target(cmd, a, resource, args); err == nil {
			w := c.Watch(client.WatchRequest{Cluster: a.Cluster, Target: target})
			err = follow(cmd.Context(), w, newPrinter(f.sys.stdout, resource), n)
		}
	}
	if errors.Is(err, context.Canceled) && cmd.Context().Err() != nil {
		return nil // Ctrl-C is how a watch ends
	}
	return err
}

// answerWithin is how long a gateway may take to answer a question.
const answerWithin = 15 * time.Second

// resolveResource asks the cluster which resource a person means. RESOURCE/NAME is cut at the slash by the caller.
func resolveResource(ctx context.Context, c *client.Client, a access, n *notices, text string) (*sluicev1.Resource, error) {
	name, _, _ := strings.Cut(text, "/")
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	defer n.waiting(a.Server + " to tell the cluster's resources").Stop()
	served, err := c.Resources(ctx, a.Cluster)
	if err != nil {
		return nil, err
	}
	return parseWanted(name).find(served)
}

// target is what to watch. A name may follow the resource after a space or a slash.
func (f *watchFlags) target(cmd *cobra.Command, a access, r *sluicev1.Resource, args []string) (*sluicev1.WatchTarget, error) {
	t := &sluicev1.WatchTarget{
		Group: r.GetGroup(), Version: r.GetVersion(), Resource: r.GetResource(), LabelSelector: f.labels, FieldSelector: f.fields,
		ChangesOnly: f.changesOnly,
	}
	_, name, slash := strings.Cut(args[0], "/")
	switch {
	case slash && (len(args) == 2 || name == ""):
		return nil, usage(cmd, "name the object once: %s NAME or %s/NAME", r.GetResource(), r.GetResource())
	case slash:
		t.Name = name
	case len(args) == 2:
		t.Name = args[1]
	}
	switch {
	case r.GetNamespaced() && !f.allNamespaces:
		t.Namespace = a.Namespace
	case !r.GetNamespaced() && f.access.flag.Namespace != "":
		return nil, usage(cmd, "%s live in no namespace; leave -n out", qualified(r))
	}
	return t, nil
}

// follow prints a watch until it ends.
func follow(ctx context.Context, w *client.Watch, p printer, n *notices) error {
	defer w.Close()
	first := newFirstList(n)
	for {
		ev, err := w.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ev.State != nil:
			first.state(ev.State)
			continue
		}
		first.object()
		if err := p.print(ev); err != nil {
			return fmt.Errorf("print a %s event: %w", ev.Type, err)
		}
	}
}

// firstList keeps the end of the first list quiet, unless there was nothing in it.
type firstList struct {
	n           *notices
	upstream    upstreamNotices
	ended, seen bool
}

func newFirstList(n *notices) *firstList {
	return &firstList{n: n, upstream: upstreamNotices{n: n, what: "the watch"}}
}

func (f *firstList) object() { f.seen = true }

func (f *firstList) state(s *sluicev1.ChannelState) {
	if f.ended || s.GetKind() != sluicev1.ChannelState_KIND_RESYNC_END {
		f.upstream.state(s)
		return
	}
	f.ended = true
	if !f.seen {
		f.n.sayf("there is no such object yet; waiting for changes")
	}
}
