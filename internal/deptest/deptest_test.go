package deptest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/source"
)

// imports lists what the main module's packages import, tests left out.
func imports(files []source.File) []Import {
	var list []Import
	for _, f := range files {
		if f.Module != "." || f.Test() {
			continue
		}
		for _, spec := range f.Syntax.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				panic(err) // the parser has accepted it
			}
			list = append(list, Import{File: f.Path, Line: f.Line(spec), From: f.Dir(), Path: path})
		}
	}
	return list
}

func TestImportDirections(t *testing.T) {
	root, err := source.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := source.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	all := imports(files)
	if len(all) == 0 {
		t.Fatal("found no import at all: the check would accept anything")
	}
	for _, violation := range Check(Rules, all) {
		t.Error(violation)
	}
}

func TestRulesAreWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rules {
		if seen[r.Package] {
			t.Errorf("%s has two rules", r.Package)
		}
		seen[r.Package] = true
		if r.Because == "" {
			t.Errorf("the rule of %s gives no reason", r.Package)
		}
		for _, ban := range r.Bans {
			if ban.Because == "" {
				t.Errorf("%s bans %s without a reason", r.Package, ban.Path)
			}
			if listed(r.Ours, ban.Path) || listed(r.Others, ban.Path) {
				t.Errorf("%s both allows and bans %s", r.Package, ban.Path)
			}
		}
	}
}

// What the design forbids must be found, with the place and the reason, and what it allows must not.
func TestCheckFindsPlantedImports(t *testing.T) {
	for _, c := range []struct {
		from, path string
		reason     string // a part of the sentence, "" if allowed
	}{
		{"mux", Module + "/gen/sluice/v1", ""},
		{"mux", "google.golang.org/protobuf/encoding/protowire", ""},
		{"mux", "google.golang.org/grpc/codes", ""},
		{"mux", "google.golang.org/grpc", "the adapter lives with the transport"},
		{"mux", "google.golang.org/grpc/mem", "the adapter lives with the transport"},
		{"mux", Module + "/bridge", "do not know each other"},
		{"mux", "k8s.io/apimachinery/pkg/watch", "cluster and bridge alone"},
		{"mux", "github.com/nobody/nothing", "for any link, on either end"},
		{"bridge", Module + "/mux", "server introduces them"},
		{"bridge", "k8s.io/client-go/rest", ""},
		{"auth", "k8s.io/client-go/rest", "cluster and bridge alone"},
		{"cluster", Module + "/bridge", "never the other way"},
		{"server", "k8s.io/client-go/rest", "cluster and bridge alone"},
		{"server", Module + "/client", "proto/SPEC.md"},
		{"server/door", Module + "/client", "proto/SPEC.md"},
		{"server", Module + "/server/door", ""},
		{"server", Module + "/test/kube", "decided in cmd/sluice"},
		{"client", Module + "/server", "proto/SPEC.md"},
		{"client", "k8s.io/api/core/v1", "its own version of client-go"},
		{"internal/status", "google.golang.org/grpc/codes", ""},
		{"internal/status", "google.golang.org/grpc", "not its transport"},
		{"auth", "google.golang.org/grpc/metadata", "share one Authenticate"},
		{"internal/kubetest", Module + "/bridge", "share its mistakes"},
		{"cmd/sluice", "k8s.io/client-go/tools/clientcmd", "cluster offers"},
		{"cmd/sluice", Module + "/test/kube", "belongs in one of them"},
		{"test/kube", Module + "/server", ""},
		{"novelty", "fmt", "has no rule"},
		{"muxer", "fmt", "has no rule"},
	} {
		found := Check(Rules, []Import{{File: "x.go", Line: 7, From: c.from, Path: c.path}})
		switch {
		case c.reason == "" && len(found) != 0:
			t.Errorf("%s importing %s is allowed, but: %s", c.from, c.path, found[0])
		case c.reason != "" && len(found) != 1:
			t.Errorf("%s importing %s gives %d violations, want 1", c.from, c.path, len(found))
		case c.reason == "":
		case !strings.HasPrefix(found[0], "x.go:7: "):
			t.Errorf("does not name the place: %s", found[0])
		case !strings.Contains(found[0], c.reason):
			t.Errorf("%s importing %s is refused without %q: %s", c.from, c.path, c.reason, found[0])
		}
	}
}
