package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// help prints all there is to know about a command.
func help(cmd *cobra.Command, _ []string) {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nUsage:\n  %s\n", strings.TrimSpace(cmd.Long), synopsis(cmd))
	for _, g := range cmd.Groups() {
		fmt.Fprintf(&b, "\n%s:\n", g.Title)
		for _, c := range cmd.Commands() {
			if c.GroupID == g.ID {
				fmt.Fprintf(&b, "  %-12s %s\n", c.Name(), c.Short)
			}
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	m := manuals[cmd.CommandPath()]
	for _, g := range m.groups {
		fmt.Fprintf(&b, "\n%s:\n%s", g.title, usages(cmd, g))
	}
	helpEntries(&b, "Environment", m.environment)
	helpEntries(&b, "Files", m.files)
	helpEntries(&b, "Exit codes", m.exits)
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n`%s COMMAND --help` tells more of a command.\n", cmd.CommandPath())
	}
	fmt.Fprint(cmd.OutOrStdout(), b.String())
}

// synopsis is how a command line of the command looks.
func synopsis(cmd *cobra.Command) string {
	line := strings.TrimSpace(strings.TrimSuffix(cmd.CommandPath(), cmd.Name()) + cmd.Use)
	switch {
	case cmd.HasAvailableSubCommands():
		return line + " COMMAND"
	case cmd.HasAvailableLocalFlags() && len(manuals[cmd.CommandPath()].groups) > 0:
		return line + " [FLAGS]"
	}
	return line
}

// usages are the flags of a group, a line each.
func usages(cmd *cobra.Command, g flagGroup) string {
	set := pflag.NewFlagSet(g.title, pflag.ContinueOnError)
	set.SortFlags = false
	for _, name := range g.flags {
		set.AddFlag(cmd.Flags().Lookup(name))
	}
	return set.FlagUsages()
}

// helpEntries prints entries, unless there are none: names that are short beside what they mean, others above it.
func helpEntries(b *strings.Builder, title string, entries []entry) {
	if len(entries) == 0 {
		return
	}
	longest := 0
	for _, e := range entries {
		longest = max(longest, len(e.name))
	}
	fmt.Fprintf(b, "\n%s:\n", title)
	for _, e := range entries {
		if longest > 24 {
			fmt.Fprintf(b, "  %s\n      %s\n", e.name, e.meaning)
			continue
		}
		fmt.Fprintf(b, "  %-*s   %s\n", longest, e.name, e.meaning)
	}
}

// newHelp is the command that is another way to say --help.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Tell what a command does and takes",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(cmd.Root(), args)
			}
			return about.Help()
		},
	}
}
