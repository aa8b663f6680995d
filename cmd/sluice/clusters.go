package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

func newClusters(sys system) *cobra.Command {
	var output string
	var access *accessFlags
	cmd := &cobra.Command{
		Use:   "clusters",
		Short: "List the clusters that your credential may be used for",
		Long: `List the clusters behind the gateway that your credential may be used for, and whose credential each of them sees: passthrough is your
own token, kubeconfig the gateway's.`,
		Example: "  sluice clusters\n  sluice clusters -o name",
		Args:    arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" && output != "name" {
				return usage(cmd, "-o %q is none of json, name", output)
			}
			a, err := access.resolve(cmd)
			if err != nil {
				return err
			}
			clusters, err := listClusters(cmd.Context(), a, newNotices(sys.stderr))
			if err != nil {
				return err
			}
			return printClusters(sys, clusters, output)
		},
	}
	access = newAccessFlags(cmd, sys)
	cmd.Flags().StringVarP(&output, "output", "o", "", "the `FORM`: json or name; a table without it")
	fixed(cmd, "output", word("json", "an object a line"), word("name", "the names alone"))
	return cmd
}

func listClusters(ctx context.Context, a access, n *notices) ([]*sluicev1.Cluster, error) {
	c, err := a.dial(nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	defer n.waiting(a.Server + " to list its clusters").Stop()
	return c.Clusters(ctx)
}

// clusterLine is a cluster as -o json prints it.
type clusterLine struct {
	Name       string `json:"name"`
	Credential string `json:"credential"`
}

// credentialName is whose credential a cluster sees, as the configuration says it.
func credentialName(c *sluicev1.Cluster) string {
	return strings.ToLower(strings.TrimPrefix(c.GetCredential().String(), "CREDENTIAL_"))
}

func printClusters(sys system, clusters []*sluicev1.Cluster, output string) error {
	t := newTable(sys.stdout)
	if output == "" {
		t.line("NAME", "CREDENTIAL")
	}
	for _, c := range clusters {
		line := clusterLine{c.GetName(), credentialName(c)}
		switch output {
		case "json":
			if err := json.NewEncoder(sys.stdout).Encode(line); err != nil {
				return fmt.Errorf("print cluster %s: %w", c.GetName(), err)
			}
		case "name":
			fmt.Fprintln(sys.stdout, printable(line.Name))
		default:
			t.line(line.Name, line.Credential)
		}
	}
	if len(clusters) == 0 {
		newNotices(sys.stderr).sayf("no cluster takes your credential")
	}
	return t.err
}
