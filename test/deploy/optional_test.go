package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// definitions are the CustomResourceDefinitions of the kinds that the optional manifests are of, in the modules of those who define them.
// The sum is what go.sum would have: the modules are read and nothing of them is compiled, so no go.mod of ours names them.
var definitions = []struct {
	manifests, module, sum string
	files                  []string
}{
	{
		manifests: kubernetesDir + "/cert-manager",
		module:    "github.com/cert-manager/cert-manager@v1.21.2", sum: "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
		files: []string{"deploy/charts/cert-manager/templates/crd-cert-manager.io_certificates.yaml"},
	},
	{
		manifests: kubernetesDir + "/prometheus-operator",
		module:    "github.com/prometheus-operator/prometheus-operator@v0.85.0", sum: "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
		files: []string{
			"jsonnet/prometheus-operator/podmonitors-crd.json", "jsonnet/prometheus-operator/prometheusrules-crd.json",
		},
	},
}

// module is the folder of a module, which is downloaded if need be.
func module(t *testing.T, version, sum string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", version)
	cmd.Dir = t.TempDir() // in no module
	out, err := cmd.Output()
	var m struct{ Dir, Sum, Error string }
	if decodeErr := json.Unmarshal(out, &m); decodeErr != nil {
		t.Fatalf("download %s: %v, %v", version, err, decodeErr)
	}
	if m.Error != "" {
		giveUp(t, fmt.Errorf("download %s: %s", version, m.Error))
	}
	if m.Sum != sum {
		t.Fatalf("%s has the sum %s, want %s", version, m.Sum, sum)
	}
	return m.Dir
}

// giveUp ends a test that needs what cannot be downloaded from here, as test/kube does.
func giveUp(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	fmt.Fprintf(os.Stderr, "\n*** SKIPPED %s: %v\n\n", t.Name(), err)
	t.Skip(err)
}

// ofHelm is a line that only Helm understands; without it the definition is plain YAML.
var ofHelm = regexp.MustCompile(`(?m)^.*\{\{.*\n`)

// TestTheAPIServerTakesTheOptionalManifests, once it knows their kinds.
func TestTheAPIServerTakesTheOptionalManifests(t *testing.T) {
	a := newAPI(t)
	namespaced(a)
	for _, d := range definitions {
		dir := module(t, d.module, d.sum)
		for _, f := range d.files {
			b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(f)))
			if err != nil {
				t.Fatal(err)
			}
			var crd unstructured.Unstructured
			if err := yaml.Unmarshal(ofHelm.ReplaceAll(b, nil), &crd.Object); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			if _, err := a.apply(crd, forReal); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
		}
		for file, m := range manifests(t, d.manifests) {
			a.awaitKind(m.Unstructured)
			if warnings, err := a.apply(m.Unstructured, dryRun); err != nil || len(warnings) > 0 {
				t.Errorf("%s: %v, warnings %q", file, err, warnings)
			}
			if err := unstructured.SetNestedField(m.Object, "x", "spec", "noSuchField"); err != nil {
				t.Fatal(err)
			}
			if _, err := a.apply(m.Unstructured, dryRun); err == nil {
				t.Errorf("%s is taken with a field that there is not", file)
			}
		}
	}
}

// awaitKind waits until the API server serves a kind that was defined just now.
func (a *api) awaitKind(o unstructured.Unstructured) {
	a.Helper()
	ctx := within(a.T)
	gv := o.GroupVersionKind().GroupVersion().String()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		b, err := a.rest.Get().AbsPath("/apis/" + gv).DoRaw(ctx)
		if err == nil && bytes.Contains(b, []byte(`"kind":"`+o.GetKind()+`"`)) {
			return
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			a.Fatalf("the API server does not serve %s %s: %v", gv, o.GetKind(), err)
		}
	}
}
