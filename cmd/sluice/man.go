package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

//go:generate go run . man ../../docs/man

func newMan(sys system) *cobra.Command {
	return &cobra.Command{
		Use:   "man FOLDER",
		Short: "Write the pages of the manual",
		Long: `Write the pages of the manual, one for each command, to a folder, which is made if there is none. They say what --help says, for man(1);
packages of sluice install them.`,
		Example: `  sluice man ~/.local/share/man/man1      # where man looks for them`,
		Args:    arguments(1, 1, "FOLDER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // a manual is for everybody
				return fmt.Errorf("make the folder: %w", err)
			}
			for name, text := range pages(cmd.Root()) {
				file := filepath.Join(args[0], name)
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // a manual is for everybody
					return fmt.Errorf("write a page: %w", err)
				}
			}
			fmt.Fprintf(sys.stdout, "wrote %d pages to %s\n", len(pages(cmd.Root())), args[0])
			return nil
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
	}
}

// pages are the pages of the manual by file name: that of a command and those of the ones below it.
func pages(cmd *cobra.Command) map[string]string {
	out := map[string]string{pageName(cmd) + ".1": page(cmd)}
	for _, c := range cmd.Commands() {
		if _, ok := manuals[c.CommandPath()]; !ok {
			continue // help has none: it is how to read the others
		}
		maps.Copy(out, pages(c))
	}
	return out
}

// pageName is a command's page, such as sluice-watch.
func pageName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// page is a command's page of the manual, in the macros of man(7).
func page(cmd *cobra.Command) string {
	m := manuals[cmd.CommandPath()]
	var r roff
	r.macro("TH", strings.ToUpper(pageName(cmd)), "1", "", "sluice", "Manual of Sluice")
	r.macro("SH", "NAME")
	r.text(pageName(cmd) + ` - ` + lower(cmd.Short))
	r.macro("SH", "SYNOPSIS")
	r.text("`" + synopsis(cmd) + "`")
	r.macro("SH", "DESCRIPTION")
	r.paragraphs(cmd.Long)
	for _, g := range cmd.Groups() {
		r.macro("SH", strings.ToUpper(g.Title))
		for _, c := range cmd.Commands() {
			if c.GroupID == g.ID {
				r.entry(entry{c.Name(), c.Short})
			}
		}
	}
	if len(m.groups) > 0 {
		r.macro("SH", "OPTIONS")
	}
	for _, g := range m.groups {
		r.macro("SS", g.title)
		for _, name := range g.flags {
			r.entry(optionOf(cmd.Flags().Lookup(name)))
		}
	}
	if cmd.Example != "" {
		r.macro("SH", "EXAMPLES")
		r.verbatim(cmd.Example)
	}
	r.entries("ENVIRONMENT", m.environment)
	r.entries("FILES", m.files)
	r.entries("EXIT STATUS", m.exits)
	r.macro("SH", "SEE ALSO")
	r.text(strings.Join(m.see, ", "))
	return r.String()
}

// optionOf is a flag as the manual names it.
func optionOf(f *pflag.Flag) entry {
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	kind, meaning := pflag.UnquoteUsage(f)
	if kind != "" {
		name += " " + kind
	}
	if f.DefValue != "" && f.DefValue != "false" {
		meaning += " (" + f.DefValue + " if it is not given)"
	}
	return entry{name, meaning}
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

// roff writes a page in the macros of man(7).
type roff struct{ strings.Builder }

// macro writes a request with its arguments.
func (r *roff) macro(name string, args ...string) {
	r.WriteString("." + name)
	for _, a := range args {
		r.WriteString(` "` + strings.ReplaceAll(escape(a), `"`, `\(dq`) + `"`)
	}
	r.WriteString("\n")
}

// code is what documents write between backticks.
var code = regexp.MustCompile("`([^`]+)`")

// text writes a paragraph, what is between backticks in bold.
func (r *roff) text(s string) {
	s = code.ReplaceAllString(escape(strings.Join(strings.Fields(s), " ")), `\fB$1\fR`)
	r.WriteString(s + "\n")
}

// paragraphs writes text whose paragraphs an empty line separates.
func (r *roff) paragraphs(s string) {
	for i, p := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if i > 0 {
			r.macro("PP")
		}
		r.text(p)
	}
}

// entries writes a section of names and what they mean, unless there are none.
func (r *roff) entries(title string, entries []entry) {
	if len(entries) == 0 {
		return
	}
	r.macro("SH", title)
	for _, e := range entries {
		r.entry(e)
	}
}

func (r *roff) entry(e entry) {
	r.macro("TP")
	r.text("`" + e.name + "`")
	r.text(e.meaning)
}

// verbatim writes lines as they are.
func (r *roff) verbatim(s string) {
	r.macro("EX")
	for line := range strings.Lines(s) {
		r.WriteString(escape(strings.TrimRight(strings.TrimPrefix(line, "  "), "\n")) + "\n")
	}
	r.macro("EE")
}

// escape writes text so that it means itself: a backslash and a dash are characters, and no line begins as a request does.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, `-`, `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
