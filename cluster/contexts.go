package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
)

// Context is a context of a kubeconfig and the cluster name that it gets.
type Context struct {
	// Context is its name in the file.
	Context string
	// Name is the same where that is a cluster name, and otherwise derived from it.
	Name string
	// Current says that it is the file's current one.
	Current bool
}

// Contexts lists the contexts of a kubeconfig by name. Derived names are distinct and stay the same as long as the contexts do.
func Contexts(kubeconfig string) ([]Context, error) {
	cfg, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	taken := map[string]bool{}
	for name := range cfg.Contexts {
		taken[name] = ValidName(name)
	}
	var out []Context
	for _, context := range slices.Sorted(maps.Keys(cfg.Contexts)) {
		name := context
		if !ValidName(context) {
			name = derive(context, taken)
		}
		taken[name] = true
		out = append(out, Context{Context: context, Name: name, Current: context == cfg.CurrentContext})
	}
	return out, nil
}

// derive makes a cluster name of a context's, such as an ARN's last part; a hash tells apart those that become alike.
func derive(context string, taken map[string]bool) string {
	last := context[strings.LastIndexAny(context, "/:@")+1:]
	name := clean(last)
	if name != "" && !taken[name] {
		return name
	}
	sum := sha256.Sum256([]byte(context))
	return strings.TrimLeft(clean(name)+"-", "-") + hex.EncodeToString(sum[:4])
}

// clean keeps what a cluster name may hold, with room for a hash.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '-', r == '.':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '-'
	}, s)
	if len(s) > maxName-9 {
		s = s[:maxName-9]
	}
	return strings.Trim(s, "-.")
}
