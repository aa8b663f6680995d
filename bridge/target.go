package bridge

import (
	"net/url"
	"strings"

	"google.golang.org/grpc/codes"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// maxSelector is how long a label or field selector may be, in bytes.
const maxSelector = 4 << 10

// maxName is how long an object's name may be, in bytes.
const maxName = 253

// Validate reports the first field of a target that no API server could mean: INVALID_ARGUMENT with REASON_INVALID_TARGET, naming the
// field. The rules are those of
// https://kubernetes.io/docs/concepts/overview/working-with-objects/names/.
func Validate(t *sluicev1.Target) error {
	switch t := t.GetTarget().(type) {
	case *sluicev1.Target_Watch:
		return validateWatch(t.Watch)
	case *sluicev1.Target_Logs:
		return validateLogs(t.Logs)
	case *sluicev1.Target_Exec:
		return validateExec(t.Exec)
	case *sluicev1.Target_Attach:
		return validateAttach(t.Attach)
	case *sluicev1.Target_PortForward:
		return validatePortForward(t.PortForward)
	}
	return invalidField("target", "nothing is named")
}

// validatePod checks what names a container, or a pod where container is empty, in a target of a kind.
func validatePod(kind, namespace, pod, container string) error {
	switch {
	case len(validation.IsDNS1123Label(namespace)) > 0:
		return invalidField(kind+".namespace", "a namespace is a DNS label")
	case len(validation.IsDNS1123Subdomain(pod)) > 0:
		return invalidField(kind+".pod", "a pod's name is a DNS name")
	case container != "" && len(validation.IsDNS1123Label(container)) > 0:
		return invalidField(kind+".container", "a container's name is a DNS label, or empty for the pod's only one")
	}
	return nil
}

// podPath is the path of a valid pod's subresource, or of the pod itself where subresource is empty.
func podPath(namespace, pod, subresource string) string {
	p := "/api/v1/namespaces/" + namespace + "/pods/" + pod
	if subresource != "" {
		p += "/" + subresource
	}
	return p
}

func validateWatch(t *sluicev1.WatchTarget) error {
	switch {
	case t.GetGroup() != "" && len(validation.IsDNS1123Subdomain(t.GetGroup())) > 0:
		return invalidField("watch.group", "a group is a DNS name, or empty for the core group")
	case len(validation.IsDNS1035Label(t.GetVersion())) > 0:
		return invalidField("watch.version", "a version is a DNS label, such as v1")
	case len(validation.IsDNS1123Label(t.GetResource())) > 0:
		return invalidField("watch.resource", "a resource is a DNS label in the plural, such as pods")
	case reserved(t.GetResource()):
		return invalidField("watch.resource", "%q means something else in a path", t.GetResource())
	case t.GetNamespace() != "" && len(validation.IsDNS1123Label(t.GetNamespace())) > 0:
		return invalidField("watch.namespace", "a namespace is a DNS label, or empty for all")
	case t.GetName() != "" && !validName(t.GetName()):
		return invalidField("watch.name", "a name has at most %d printable characters without space, / and %%", maxName)
	}
	if err := validateSelector("watch.label_selector", t.GetLabelSelector()); err != nil {
		return err
	}
	return validateSelector("watch.field_selector", t.GetFieldSelector())
}

// reserved reports whether the API server reads a word in the place of a resource as something else: a verb of old, or a subresource of
// the namespace (k8s.io/apiserver/pkg/endpoints/request, RequestInfoFactory).
func reserved(resource string) bool {
	switch resource {
	case "watch", "proxy", "status", "finalize":
		return true
	}
	return false
}

// validName accepts what the API server accepts as part of a path; a name in RBAC may hold a colon.
func validName(name string) bool {
	return len(name) <= maxName && printable(name) && len(content.IsPathSegmentName(name)) == 0
}

func validateSelector(field, selector string) error {
	if len(selector) > maxSelector {
		return invalidField(field, "it is longer than %d bytes", maxSelector)
	}
	if strings.ContainsFunc(selector, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return invalidField(field, "it holds a control character")
	}
	return nil
}

// printable reports whether s consists of ASCII characters that show, and not of spaces.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func invalidField(field, format string, args ...any) error {
	e := status.New(codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_TARGET, format, args...)
	e.Message = field + ": " + e.Message
	return e
}

// watchPath is the path of a valid target's objects. It is built of validated labels alone, so that nothing in it needs an escape.
func watchPath(t *sluicev1.WatchTarget) string {
	var b strings.Builder
	if t.GetGroup() == "" {
		b.WriteString("/api/")
	} else {
		b.WriteString("/apis/" + t.GetGroup() + "/")
	}
	b.WriteString(t.GetVersion())
	if t.GetNamespace() != "" {
		b.WriteString("/namespaces/" + t.GetNamespace())
	}
	b.WriteString("/" + t.GetResource())
	return b.String()
}

// selection is the part of the query that says which objects are meant.
func selection(t *sluicev1.WatchTarget) url.Values {
	q := url.Values{}
	if t.GetLabelSelector() != "" {
		q.Set("labelSelector", t.GetLabelSelector())
	}
	if s := fieldSelector(t); s != "" {
		q.Set("fieldSelector", s)
	}
	return q
}

// fieldSelector joins the one name a target may ask for to its field selector; all requirements of a selector must hold.
func fieldSelector(t *sluicev1.WatchTarget) string {
	if t.GetName() == "" {
		return t.GetFieldSelector()
	}
	named := "metadata.name=" + fields.EscapeValue(t.GetName())
	if t.GetFieldSelector() == "" {
		return named
	}
	return named + "," + t.GetFieldSelector()
}
