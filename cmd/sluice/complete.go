package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
)

// What completes a word while somebody waits for it.
const (
	completeWithin = 2 * time.Second
	completeMost   = 1000 // words
)

// asking completes words with what a gateway answers. Whatever goes wrong, or takes too long, completes nothing and says nothing: it would be
// written into the line that is being typed.
func (f *accessFlags) asking(ask func(context.Context, *client.Client, access, []string) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return f.askingWith(func(ctx context.Context, c *client.Client, a access, args []string, _ string) ([]cobra.Completion, error) {
		return ask(ctx, c, a, args)
	})
}

// askingWith is asking, of a gateway that is also told how the word begins.
func (f *accessFlags) askingWith(ask func(context.Context, *client.Client, access, []string, string) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		a, err := f.resolve(cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := a.dial(nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), completeWithin)
		defer cancel()
		words, err := ask(ctx, c, a, args, begun)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		words = slices.DeleteFunc(words, func(w cobra.Completion) bool { return !strings.HasPrefix(w, begun) })
		return words[:min(len(words), completeMost)], cobra.ShellCompDirectiveNoFileComp
	}
}

// clusterWords are the clusters that the credential may be used for.
func clusterWords(ctx context.Context, c *client.Client, _ access, _ []string) ([]cobra.Completion, error) {
	clusters, err := c.Clusters(ctx)
	var words []cobra.Completion
	for _, one := range clusters {
		words = append(words, word(one.GetName(), credentialName(one)))
	}
	return words, err
}

// namespaceWords are the cluster's namespaces.
func namespaceWords(ctx context.Context, c *client.Client, a access, _ []string) ([]cobra.Completion, error) {
	return nameWords(ctx, c, a, &sluicev1.WatchTarget{Version: "v1", Resource: "namespaces"})
}

// watchWords are the resources that can be watched, and after one of them the names of its objects.
func (f *watchFlags) watchWords(ctx context.Context, c *client.Client, a access, args []string) ([]cobra.Completion, error) {
	if len(args) > 1 {
		return nil, nil
	}
	served, err := c.Resources(ctx, a.Cluster)
	if err != nil {
		return nil, err
	}
	if len(args) == 0 {
		return resourceWords(served), nil
	}
	resource, err := parseWanted(args[0]).find(served)
	if err != nil {
		return nil, err
	}
	t := &sluicev1.WatchTarget{
		Group: resource.GetGroup(), Version: resource.GetVersion(), Resource: resource.GetResource(), LabelSelector: f.labels, FieldSelector: f.fields,
	}
	if resource.GetNamespaced() && !f.allNamespaces {
		t.Namespace = a.Namespace
	}
	return nameWords(ctx, c, a, t)
}

// resourceWords are the resources that can be watched, by the names that find them again.
func resourceWords(served *sluicev1.ListResourcesResponse) []cobra.Completion {
	var words []cobra.Completion
	for _, r := range served.GetResources() {
		if slices.Contains(r.GetVerbs(), "watch") {
			words = append(words, word(qualified(r), r.GetKind()))
		}
	}
	return words
}

// nameWords are the names of the objects that there are: a watch begins with them.
func nameWords(ctx context.Context, c *client.Client, a access, t *sluicev1.WatchTarget) ([]cobra.Completion, error) {
	var words []cobra.Completion
	err := eachThereIs(ctx, c, a.Cluster, t, func(ev client.Event) error {
		var o object
		if err := ev.Into(&o); err != nil {
			return err
		}
		if words = append(words, word(o.Metadata.Name, o.Metadata.Namespace)); len(words) == completeMost {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	slices.Sort(words)
	return slices.Compact(words), nil
}

// errEnough ends a list that is long enough.
var errEnough = errors.New("enough")

// podWords are the names of the pods, where the first argument is one, and after TYPE/ the names of its objects.
func podWords(ctx context.Context, c *client.Client, a access, args []string, begun string) ([]cobra.Completion, error) {
	if len(args) > 0 {
		return nil, nil
	}
	kind, _, slash := strings.Cut(begun, "/")
	if !slash {
		return nameWords(ctx, c, a, &sluicev1.WatchTarget{Version: "v1", Resource: "pods", Namespace: a.podNamespace()})
	}
	served, err := c.Resources(ctx, a.Cluster)
	if err != nil {
		return nil, err
	}
	r, err := parseWanted(kind).find(served)
	if err != nil {
		return nil, err
	}
	words, err := nameWords(ctx, c, a, &sluicev1.WatchTarget{
		Group: r.GetGroup(), Version: r.GetVersion(), Resource: r.GetResource(), Namespace: a.podNamespace(),
	})
	for i := range words {
		words[i] = kind + "/" + words[i]
	}
	return words, err
}

// logWords are those of a pod, and after it its containers.
func logWords(ctx context.Context, c *client.Client, a access, args []string, begun string) ([]cobra.Completion, error) {
	if len(args) == 1 {
		return containerWords(ctx, c, a, args)
	}
	return podWords(ctx, c, a, args, begun)
}

// containerWords are the containers of the pod that the first argument names, or of all pods before there is one.
func containerWords(ctx context.Context, c *client.Client, a access, args []string) ([]cobra.Completion, error) {
	p, t, err := targetOfWords(ctx, c, a, args)
	if err != nil {
		return nil, err
	}
	return p.words(ctx, t, func(o podObject) (words []cobra.Completion) {
		for _, one := range o.Spec.Containers {
			words = append(words, word(one.Name, o.Metadata.Name))
		}
		for _, one := range o.Spec.InitContainers {
			words = append(words, word(one.Name, o.Metadata.Name+", before it starts"))
		}
		return words
	})
}

// forwardWords are the names of pods, and after one of them its ports; after a service those of the service.
func forwardWords(ctx context.Context, c *client.Client, a access, args []string, begun string) ([]cobra.Completion, error) {
	if len(args) == 0 {
		return podWords(ctx, c, a, args, begun)
	}
	p, t, err := targetOfWords(ctx, c, a, args)
	if err != nil {
		return nil, err
	}
	if p.service != nil {
		var words []cobra.Completion
		for _, one := range p.service.Spec.Ports {
			if isTCP(one.Protocol) {
				words = append(words, word(strconv.Itoa(int(one.Port)), one.Name))
			}
		}
		return words, nil
	}
	return p.words(ctx, t, func(o podObject) (words []cobra.Completion) {
		for _, one := range o.Spec.Containers {
			for _, port := range one.Ports {
				if isTCP(port.Protocol) {
					words = append(words, word(strconv.Itoa(int(port.ContainerPort)), strings.TrimSpace(one.Name+" "+port.Name)))
				}
			}
		}
		return words
	})
}

// targetOfWords are the pods that the first argument names, or all before there is one.
func targetOfWords(ctx context.Context, c *client.Client, a access, args []string) (*podTarget, *sluicev1.WatchTarget, error) {
	a.Namespace = a.podNamespace()
	p := &podTarget{access: a, client: c, n: newNotices(io.Discard)}
	t := &sluicev1.WatchTarget{}
	switch {
	case len(args) == 0:
	case strings.Contains(args[0], "/"):
		var err error
		if t.Name, t.LabelSelector, err = p.read(ctx, args[0]); err != nil {
			return nil, nil, err
		}
	default:
		t.Name = args[0]
	}
	return p, t, nil
}

// words are words of the pods that a target names, each once.
func (p *podTarget) words(ctx context.Context, t *sluicev1.WatchTarget, of func(podObject) []cobra.Completion) ([]cobra.Completion, error) {
	all, err := p.pods(ctx, t)
	var words []cobra.Completion
	for _, o := range all {
		words = append(words, of(o)...)
	}
	slices.Sort(words)
	return slices.CompactFunc(words, func(a, b cobra.Completion) bool { return before(a) == before(b) }), err
}

// before is the word of a completion, without what a shell shows beside it.
func before(c cobra.Completion) string {
	text, _, _ := strings.Cut(c, "\t")
	return text
}

// word is a completion with what a shell shows beside it. Neither steers the terminal.
func word(text, beside string) cobra.Completion {
	return cobra.CompletionWithDesc(printable(text), printable(beside))
}

// fixed completes a flag with one of some words, each with its meaning after a tab.
func fixed(cmd *cobra.Command, flag string, words ...cobra.Completion) {
	complete(cmd, flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// complete completes a flag, which there must be.
func complete(cmd *cobra.Command, flag string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(flag, f); err != nil {
		panic(err)
	}
}

// files completes a flag with files, of some endings if there are any.
func files(cmd *cobra.Command, flag string, endings ...cobra.Completion) {
	directive := cobra.ShellCompDirectiveDefault
	if len(endings) > 0 {
		directive = cobra.ShellCompDirectiveFilterFileExt
	}
	complete(cmd, flag, cobra.FixedCompletions(endings, directive))
}

// shells are those that there is a completion for, and how they are given it.
var shells = map[string]func(root *cobra.Command, sys system) error{
	"bash":       func(root *cobra.Command, sys system) error { return root.GenBashCompletionV2(sys.stdout, true) },
	"zsh":        func(root *cobra.Command, sys system) error { return root.GenZshCompletion(sys.stdout) },
	"fish":       func(root *cobra.Command, sys system) error { return root.GenFishCompletion(sys.stdout, true) },
	"powershell": func(root *cobra.Command, sys system) error { return root.GenPowerShellCompletionWithDesc(sys.stdout) },
}

func newCompletion(sys system) *cobra.Command {
	names := []cobra.Completion{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion " + strings.Join(names, "|"),
		Short: "Print what makes a shell complete sluice's commands",
		Long: `Print a script that makes a shell complete commands, flags and their values. Clusters, namespaces, resources and names of objects are
asked of the gateway, with the settings that the command itself would use; one that does not answer within two seconds completes nothing.

For bash, the package bash-completion must be installed and loaded.`,
		Example: `  source <(sluice completion bash)                            # this bash only
  sluice completion bash > ~/.local/share/bash-completion/completions/sluice
  sluice completion zsh > ~/.zfunc/_sluice                    # a folder that $fpath names
  sluice completion fish > ~/.config/fish/completions/sluice.fish
  sluice completion powershell > sluice.ps1                   # and run it from $PROFILE`,
		ValidArgs: names,
		Args:      arguments(1, 1, "one of "+strings.Join(names, ", ")),
		RunE: func(cmd *cobra.Command, args []string) error {
			script := shells[args[0]]
			if script == nil {
				return usage(cmd, "there is no completion for %q; there are %s", args[0], strings.Join(names, ", "))
			}
			return script(cmd.Root(), sys)
		},
	}
}
