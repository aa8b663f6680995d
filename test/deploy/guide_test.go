package deploy

import (
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluice-gateway/sluice/cmd/sluice/config"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

const guide = "docs/deploying.md"

// example is a file that the guide shows.
func example(t *testing.T, name string) []byte {
	t.Helper()
	m := regexp.MustCompile("(?s)```yaml file=" + regexp.QuoteMeta(name) + "\n(.*?)```").FindSubmatch(text(t, guide))
	if m == nil {
		t.Fatalf("%s shows no %s", guide, name)
	}
	return m[1]
}

func TestTheAPIServerTakesTheGuidesExamples(t *testing.T) {
	a := newAPI(t)
	namespaced(a)
	for _, name := range []string{"config.yaml", "rbac.yaml"} {
		for doc := range strings.SplitSeq(string(example(t, name)), "\n---\n") {
			o := unstructured.Unstructured{Object: object(t, name, []byte(doc))}
			if warnings, err := a.apply(o, dryRun); err != nil || len(warnings) > 0 {
				t.Errorf("%s: %v, warnings %q", name, err, warnings)
			}
		}
	}
}

// TestTheGuidesConfigurationIsOneForThePod: it is valid, and it names files where the pod has them.
func TestTheGuidesConfigurationIsOneForThePod(t *testing.T) {
	data := into[map[string]string](t, object(t, guide, example(t, "config.yaml"))["data"])
	shown, err := config.Parse([]byte(data["sluice.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	if err := shown.Validate(); err != nil {
		t.Error(err)
	}
	own := configuration(t, manifests(t, kubernetesDir)["config.yaml"])
	if shown.TLS != own.TLS || shown.AdminAddr != own.AdminAddr || shown.DrainTimeout != own.DrainTimeout || shown.Clusters[0].CAFile != own.Clusters[0].CAFile {
		t.Errorf("the guide shows %+v, deploy has %+v", shown, own)
	}
}

// TestTheGuideExplainsEveryReason that a refusal can have.
func TestTheGuideExplainsEveryReason(t *testing.T) {
	_, table, found := strings.Cut(string(text(t, guide)), "## Troubleshooting")
	if !found {
		t.Fatal("there is no chapter on troubleshooting")
	}
	for number := range sluicev1.Reason_name {
		if name := status.ReasonName(sluicev1.Reason(number)); number != 0 && !strings.Contains(table, "`"+name+"`") {
			t.Errorf("it does not say what to do about %s", name)
		}
	}
}
