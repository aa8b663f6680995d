package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sluice-gateway/sluice/cmd/sluice/config"
)

const kubernetesDir = "deploy/kubernetes"

// namespaced applies for real what the other objects need around them.
func namespaced(a *api) map[string]manifest {
	a.Helper()
	all := manifests(a.T, kubernetesDir)
	for _, file := range []string{"namespace.yaml", "serviceaccount.yaml"} {
		if _, err := a.apply(all[file].Unstructured, forReal); err != nil {
			a.Fatalf("%s: %v", file, err)
		}
	}
	return all
}

func TestTheAPIServerTakesEveryManifest(t *testing.T) {
	a := newAPI(t)
	for file, m := range namespaced(a) {
		if warnings, err := a.apply(m.Unstructured, dryRun); err != nil || len(warnings) > 0 {
			t.Errorf("%s: %v, warnings %q", file, err, warnings)
		}
	}
}

// TestAMisspeltFieldIsNotTaken: without this the test above would prove little.
func TestAMisspeltFieldIsNotTaken(t *testing.T) {
	a := newAPI(t)
	d := namespaced(a)["deployment.yaml"]
	if err := unstructured.SetNestedField(d.Object, "65532", "spec", "template", "spec", "securityContext", "runAsUsr"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.apply(d.Unstructured, dryRun); err == nil {
		t.Error("it was taken")
	}
}

func TestTheKustomizationNamesEveryManifest(t *testing.T) {
	for _, dir := range []string{kubernetesDir, kubernetesDir + "/cert-manager", kubernetesDir + "/prometheus-operator"} {
		k := object(t, dir, text(t, dir+"/kustomization.yaml"))
		named := into[[]string](t, k["resources"])
		slices.Sort(named)
		if there := slices.Sorted(maps.Keys(manifests(t, dir))); !slices.Equal(named, there) {
			t.Errorf("%s: the kustomization names %v, there are %v", dir, named, there)
		}
	}
}

// pod is the pod that the Deployment makes.
func pod(t *testing.T, d manifest) *corev1.Pod {
	t.Helper()
	template := at[corev1.PodTemplateSpec](t, d.Unstructured, "spec", "template")
	p := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	p.APIVersion, p.Kind, p.Namespace, p.Name = "v1", "Pod", d.GetNamespace(), "sluice-0"
	return p
}

// plain is an object without its type.
func plain(t *testing.T, o any) unstructured.Unstructured {
	t.Helper()
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	return unstructured.Unstructured{Object: m}
}

func TestThePodIsAdmittedWhereOnlyRestrictedPodsAre(t *testing.T) {
	a := newAPI(t)
	p := pod(t, namespaced(a)["deployment.yaml"])
	if warnings, err := a.create(plain(t, p), dryRun); err != nil || len(warnings) > 0 {
		t.Errorf("%v, warnings %q", err, warnings)
	}
}

// TestThePodNeedsEveryRestriction: with one taken away the API server refuses the pod, so it is these that let it in.
func TestThePodNeedsEveryRestriction(t *testing.T) {
	a := newAPI(t)
	d := namespaced(a)["deployment.yaml"]
	for name, change := range map[string]func(*corev1.PodSpec, *corev1.SecurityContext){
		"runs as root":          func(p *corev1.PodSpec, _ *corev1.SecurityContext) { *p.SecurityContext.RunAsUser = 0 },
		"may run as root":       func(p *corev1.PodSpec, _ *corev1.SecurityContext) { *p.SecurityContext.RunAsNonRoot = false },
		"any system call":       func(p *corev1.PodSpec, _ *corev1.SecurityContext) { p.SecurityContext.SeccompProfile = nil },
		"the network of a node": func(p *corev1.PodSpec, _ *corev1.SecurityContext) { p.HostNetwork = true },
		"may gain privileges":   func(_ *corev1.PodSpec, c *corev1.SecurityContext) { *c.AllowPrivilegeEscalation = true },
		"capabilities":          func(_ *corev1.PodSpec, c *corev1.SecurityContext) { c.Capabilities = nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := pod(t, d)
			change(&p.Spec, p.Spec.Containers[0].SecurityContext)
			_, err := (&api{t, a.rest}).create(plain(t, p), dryRun)
			if !apierrors.IsForbidden(err) {
				t.Errorf("error: %v", err)
			}
		})
	}
}

// TestThePodHasNoRightAndNoToken in the cluster that it runs in.
func TestThePodHasNoRightAndNoToken(t *testing.T) {
	all := manifests(t, kubernetesDir)
	for file, m := range all {
		if strings.HasSuffix(m.GroupVersionKind().Group, "rbac.authorization.k8s.io") {
			t.Errorf("%s gives rights", file)
		}
	}
	p := pod(t, all["deployment.yaml"]).Spec
	if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken || at[bool](t, all["serviceaccount.yaml"].Unstructured, "automountServiceAccountToken") {
		t.Error("the pod is given a token")
	}
	if c := p.Containers[0].SecurityContext; c.ReadOnlyRootFilesystem == nil || !*c.ReadOnlyRootFilesystem {
		t.Error("the root file system can be written to")
	}
}

// TestThePartsFitTogether: names that one manifest says and another must have.
func TestThePartsFitTogether(t *testing.T) {
	all := manifests(t, kubernetesDir)
	p := pod(t, all["deployment.yaml"])
	c := p.Spec.Containers[0]
	ports := map[string]int32{}
	for _, port := range c.Ports {
		ports[port.Name] = port.ContainerPort
	}
	f := configuration(t, all["config.yaml"])
	for name, addr := range map[string]string{"grpc": f.GRPCAddr, "web": f.WebAddr, "admin": f.AdminAddr} {
		if want := fmt.Sprintf(":%d", ports[name]); addr != want {
			t.Errorf("the configuration has %s at %q, the container at %q", name, addr, want)
		}
	}
	for _, port := range at[[]corev1.ServicePort](t, all["service.yaml"].Unstructured, "spec", "ports") {
		if ports[port.TargetPort.StrVal] == 0 {
			t.Errorf("the Service leads to port %v, which the container has not", port.TargetPort)
		}
		if port.TargetPort.StrVal == "admin" {
			t.Error("the Service leads to the admin port")
		}
	}
	for _, rule := range at[[]networkingv1.NetworkPolicyIngressRule](t, all["networkpolicy.yaml"].Unstructured, "spec", "ingress") {
		for _, port := range rule.Ports {
			if ports[port.Port.StrVal] == 0 {
				t.Errorf("the NetworkPolicy admits to port %v, which the container has not", port.Port)
			}
			if port.Port.StrVal == "admin" && len(rule.From) == 0 {
				t.Error("the NetworkPolicy admits everybody to the admin port")
			}
		}
	}
	for _, probe := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
		if ports[probe.HTTPGet.Port.StrVal] == 0 {
			t.Errorf("a probe asks port %v, which the container has not", probe.HTTPGet.Port)
		}
	}
	for file, selector := range map[string][]string{
		"deployment.yaml": {"spec", "selector", "matchLabels"}, "service.yaml": {"spec", "selector"},
		"networkpolicy.yaml": {"spec", "podSelector", "matchLabels"}, "poddisruptionbudget.yaml": {"spec", "selector", "matchLabels"},
	} {
		for k, v := range at[map[string]string](t, all[file].Unstructured, selector...) {
			if p.Labels[k] != v {
				t.Errorf("%s selects pods with %s=%s, this one has %q", file, k, v, p.Labels[k])
			}
		}
	}
}

// TestTheOptionalPartsFitTogether with the pod: the certificate's Secret and the port that is scraped.
func TestTheOptionalPartsFitTogether(t *testing.T) {
	p := pod(t, manifests(t, kubernetesDir)["deployment.yaml"])
	secret := at[string](t, manifests(t, kubernetesDir+"/cert-manager")["certificate.yaml"].Unstructured, "spec", "secretName")
	if !slices.ContainsFunc(p.Spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == secret }) {
		t.Errorf("the certificate comes in the Secret %s, which the pod does not mount", secret)
	}
	monitor := manifests(t, kubernetesDir+"/prometheus-operator")["podmonitor.yaml"].Unstructured
	for _, e := range at[[]struct{ Port, Path, Interval string }](t, monitor, "spec", "podMetricsEndpoints") {
		if !slices.ContainsFunc(p.Spec.Containers[0].Ports, func(c corev1.ContainerPort) bool { return c.Name == e.Port }) {
			t.Errorf("the PodMonitor scrapes port %s, which the container has not", e.Port)
		}
	}
}

// endsWithin is what the gateway may take to end after its drain: server.stopWithin, and some time for what is around it.
const endsWithin = 10 * time.Second

func TestTheDrainFitsIntoTheGracePeriod(t *testing.T) {
	all := manifests(t, kubernetesDir)
	grace := time.Duration(*pod(t, all["deployment.yaml"]).Spec.TerminationGracePeriodSeconds) * time.Second
	if drain := time.Duration(configuration(t, all["config.yaml"]).DrainTimeout); drain+endsWithin > grace {
		t.Errorf("a drain of %v does not fit into %v", drain, grace)
	}
}

// TestTheHeapHasHeadroom: GOMEMLIMIT is the request, which is about four fifths of what the container may use.
func TestTheHeapHasHeadroom(t *testing.T) {
	c := pod(t, manifests(t, kubernetesDir)["deployment.yaml"]).Spec.Containers[0]
	requested, limit := c.Resources.Requests.Memory().Value(), c.Resources.Limits.Memory().Value()
	if share := float64(requested) / float64(limit); share < 0.75 || share > 0.85 {
		t.Errorf("the request is %.0f %% of the limit", share*100)
	}
	if got := environment(t, c)["GOMEMLIMIT"]; got != strconv.FormatInt(requested, 10) {
		t.Errorf("GOMEMLIMIT is %q, the request %d", got, requested)
	}
}

// environment is what a kubelet gives the container.
func environment(t *testing.T, c corev1.Container) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, e := range c.Env {
		ref := e.ValueFrom
		if ref == nil || ref.ResourceFieldRef == nil || ref.ResourceFieldRef.Resource != "requests.memory" {
			t.Fatalf("the test cannot tell the value of %s", e.Name)
		}
		out[e.Name] = strconv.FormatInt(c.Resources.Requests.Memory().Value(), 10)
	}
	return out
}

// configuration is the gateway's, as the ConfigMap has it.
func configuration(t *testing.T, m manifest) *config.Config {
	t.Helper()
	c, err := config.Parse([]byte(at[map[string]string](t, m.Unstructured, "data")["sluice.yaml"]))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
