package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// What the linker may be told with -X, as tools/stamp.sh says it: it wins over what the go command knows, which is nothing where the source is
// no repository.
var version, commit, date string

// build is what the binary knows of itself.
type build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Date      string `json:"date,omitempty"` // of the commit, RFC 3339
	Modified  bool   `json:"modified,omitempty"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// thisBuild is what the linker was told, and for the rest what the go command has stamped.
func thisBuild() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return buildOf(info, build{Version: version, Commit: commit, Date: date})
}

// buildOf puts what the linker was told over what the go command has stamped.
func buildOf(info *debug.BuildInfo, told build) build {
	b := build{Version: "devel", GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Date = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	if told.Version != "" {
		b.Version = told.Version
		b.Modified = strings.HasSuffix(told.Version, "-dirty")
	}
	if told.Commit != "" {
		b.Commit, b.Date = told.Commit, told.Date
	}
	return b
}

func (b build) String() string {
	details := []string{b.GoVersion, b.Platform}
	if b.Commit != "" {
		details = append(details, "commit "+b.Commit)
	}
	if b.Date != "" {
		details = append(details, b.Date)
	}
	if b.Modified {
		details = append(details, "modified")
	}
	return "sluice " + b.Version + " (" + strings.Join(details, ", ") + ")"
}

func newVersion(sys system) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this binary",
		Long: `Print the version of this binary, the commit it was built from and the commit's time, the version of Go, and the platform. It asks nobody:
what a gateway runs, its log says when it starts.`,
		Example: "  sluice version\n  sluice version -o json",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch output {
			case "":
				fmt.Fprintln(sys.stdout, thisBuild())
				return nil
			case "json":
				return json.NewEncoder(sys.stdout).Encode(thisBuild())
			}
			return usage(cmd, "-o %q is not json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "the `FORM`: json for programs; a line for people without it")
	fixed(cmd, "output", word("json", "an object"))
	return cmd
}
