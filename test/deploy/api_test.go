package deploy

import (
	"encoding/json"
	"path"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/sluice-gateway/sluice/test/kube"
)

// manifest is an object of deploy/kubernetes.
type manifest struct {
	file string // from the root of the repository
	unstructured.Unstructured
}

// manifests are the objects in a folder, without those below it, by file.
func manifests(t *testing.T, dir string) map[string]manifest {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), filepath.FromSlash(dir), "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("manifests of %s: %v, %v", dir, files, err)
	}
	out := map[string]manifest{}
	for _, f := range files {
		name := filepath.Base(f)
		if name == "kustomization.yaml" {
			continue
		}
		m := manifest{file: path.Join(dir, name)}
		m.Object = object(t, m.file, text(t, m.file))
		out[name] = m
	}
	return out
}

// object is YAML that says nothing twice.
func object(t *testing.T, name string, b []byte) map[string]any {
	t.Helper()
	var o map[string]any
	if err := yaml.UnmarshalStrict(b, &o); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return o
}

// into converts an object, or a part of one; a field that the type does not know is an error.
func into[T any](t *testing.T, from any) T {
	t.Helper()
	var out T
	b, err := json.Marshal(from)
	if err == nil {
		err = yaml.UnmarshalStrict(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// at is the part of an object that a path of fields leads to.
func at[T any](t *testing.T, o unstructured.Unstructured, fields ...string) T {
	t.Helper()
	v, ok, err := unstructured.NestedFieldNoCopy(o.Object, fields...)
	if err != nil || !ok {
		t.Fatalf("%s %s has no %s: %v", o.GetKind(), o.GetName(), strings.Join(fields, "."), err)
	}
	return into[T](t, v)
}

// api puts objects to the real API server.
type api struct {
	*testing.T
	rest rest.Interface
}

func newAPI(t *testing.T) *api {
	t.Helper()
	return &api{t, kube.Shared(t).Admin().Discovery().RESTClient()}
}

// modes of apply.
const (
	dryRun  = true
	forReal = false
)

// apply applies an object as `kubectl apply --server-side --validate=strict` does.
func (a *api) apply(o unstructured.Unstructured, dry bool) (warnings []string, err error) {
	a.Helper()
	body, err := json.Marshal(o.Object)
	if err != nil {
		a.Fatal(err)
	}
	r := a.rest.Patch(types.ApplyYAMLPatchType).AbsPath(a.path(o)).Param("fieldManager", "test").Param("fieldValidation", "Strict").Body(body)
	return done(r, dry, a)
}

// create creates an object.
func (a *api) create(o unstructured.Unstructured, dry bool) (warnings []string, err error) {
	a.Helper()
	body, err := json.Marshal(o.Object)
	if err != nil {
		a.Fatal(err)
	}
	r := a.rest.Post().AbsPath(path.Dir(a.path(o))).Param("fieldValidation", "Strict").SetHeader("Content-Type", "application/json").Body(body)
	return done(r, dry, a)
}

func done(r *rest.Request, dry bool, a *api) (warnings []string, err error) {
	if dry {
		r = r.Param("dryRun", metav1.DryRunAll)
	}
	result := r.Do(a.Context())
	for _, w := range result.Warnings() {
		warnings = append(warnings, w.Text)
	}
	return warnings, result.Error()
}

// path is an object's own path, by what the API server says of its kind.
func (a *api) path(o unstructured.Unstructured) string {
	a.Helper()
	gv := o.GroupVersionKind().GroupVersion()
	prefix := "/apis/" + gv.String()
	if gv.Group == "" {
		prefix = "/api/" + gv.Version
	}
	var list metav1.APIResourceList
	b, err := a.rest.Get().AbsPath(prefix).DoRaw(a.Context())
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		a.Fatalf("the resources of %s: %v", gv, err)
	}
	for _, r := range list.APIResources {
		if r.Kind != o.GetKind() || strings.Contains(r.Name, "/") {
			continue
		}
		if r.Namespaced {
			prefix = path.Join(prefix, "namespaces", o.GetNamespace())
		}
		return path.Join(prefix, r.Name, o.GetName())
	}
	a.Fatalf("%s has no kind %s", gv, o.GetKind())
	return ""
}
