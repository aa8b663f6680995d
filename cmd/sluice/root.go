package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// system is what a command has of the world besides its arguments.
type system struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // refused, unreachable, or ended with an error
	exitUsage  = 2 // the command line or the configuration is wrong
	exitMissed = 3 // a log ended well, but lines of it were missed
)

// run runs one command line and returns the exit code. It ends with ctx.
func run(ctx context.Context, args []string, sys system) int {
	root := newRoot(sys)
	root.SetArgs(args)
	return report(root.ExecuteContext(ctx), sys.stderr)
}

// Groups of commands.
const (
	groupGateway = "gateway"
	groupClient  = "client"
	groupAbout   = "about"
)

func newRoot(sys system) *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "A gRPC streaming gateway in front of Kubernetes API servers",
		Long: `Sluice carries many Kubernetes watches, logs, shells and forwarded ports on one authenticated gRPC stream, each over a WebSocket of its own to
the API server.

Begin with ` + "`sluice dev`" + `, a gateway with an embedded cluster that needs nothing and prints lines to paste. ` + "`sluice serve`" + ` is a gateway for
your clusters. Through a gateway, ` + "`sluice watch pods`" + ` shows what happens in a cluster, and ` + "`sluice exec -it POD -- sh`" + ` is a shell in a pod that
survives a lost network.`,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
	}
	root.SetOut(sys.stdout)
	root.SetErr(sys.stderr)
	root.SetHelpFunc(help)
	root.SetHelpCommand(newHelp())
	root.SetHelpCommandGroupID(groupAbout)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%w", err) })
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{groupGateway, "A gateway", []*cobra.Command{newDev(sys), newServe(sys)}},
		{groupClient, "Through a gateway", []*cobra.Command{newWatch(sys), newLogs(sys), newExec(sys), newAttach(sys), newPortForward(sys), newClusters(sys)}},
		{groupAbout, "This command", []*cobra.Command{newCompletion(sys), newMan(sys), newVersion(sys)}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.id
			root.AddCommand(cmd)
		}
	}
	root.InitDefaultHelpCmd() // now, so that the manual has it too
	return root
}

// unknownCommand refuses what is no command, naming those that look like it.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		return usage(cmd, "there is no command %q; did you mean %s?", args[0], strings.Join(like, " or "))
	}
	return usage(cmd, "there is no command %q", args[0])
}

// arguments wants between least and most arguments, which say what.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage(cmd, "%s is missing", what)
		case len(args) > most && most == 0:
			return usage(cmd, "it takes no argument, such as %q", args[0])
		case len(args) > most:
			return usage(cmd, "it takes %s and no more, such as %q", what, args[most])
		}
		return nil
	}
}

// oneOfFlags refuses two flags that contradict each other.
func oneOfFlags(cmd *cobra.Command, a, b string) error {
	if cmd.Flags().Changed(a) && cmd.Flags().Changed(b) {
		return usage(cmd, "--%s and --%s contradict each other; give one", a, b)
	}
	return nil
}

// usageError is a command line that cannot be run.
type usageError struct {
	command string // its path, such as "sluice watch"
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }

func (e *usageError) Unwrap() error { return e.err }

func usage(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{cmd.CommandPath(), fmt.Errorf(format, args...)}
}
