package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build is what the binary knows of itself.
type build struct {
	Version   string `json:"version"`
	Commit    string `json:"commit,omitempty"`
	Modified  bool   `json:"modified,omitempty"`
	GoVersion string `json:"goVersion"`
	Platform  string `json:"platform"`
}

// thisBuild reads what the go command has stamped into the binary.
func thisBuild() build {
	b := build{Version: "devel", GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

func (b build) String() string {
	s := "sluice " + b.Version + " (" + b.GoVersion + ", " + b.Platform
	if b.Commit != "" {
		s += ", commit " + b.Commit
	}
	if b.Modified {
		s += ", modified"
	}
	return s + ")"
}

func newVersion(sys system) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this binary",
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
	cmd.Flags().StringVarP(&output, "output", "o", "", "json for programs; a line for people without it")
	return cmd
}
