package kubetest

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"mime"
	"net/http"
	"slices"
	"strings"
)

// bodyLimit bounds the body of a write, in bytes, as in the API server.
const bodyLimit = 3 << 20

// The media types of patches (https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply).
const (
	mergePatch     = "application/merge-patch+json"
	strategicPatch = "application/strategic-merge-patch+json"
)

// serveWrite serves create, update, patch and delete. Dry runs, server-side
// apply and finalizers are not offered.
func (s *Server) serveWrite(c *call, k *Kind) error {
	if c.r.URL.Query().Has("dryRun") {
		return badRequest("dryRun is not supported by this server")
	}
	if k.Namespaced && c.attributes.Namespace == "" {
		return methodNotAllowed()
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	switch c.attributes.Verb {
	case "create":
		return s.serveCreate(c, k, body)
	case "update":
		return s.serveUpdate(c, k, body)
	case "patch":
		return s.servePatch(c, k, body)
	default:
		return s.serveDelete(c, k, body)
	}
}

// readBody is the body of a request, whole.
func readBody(c *call) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(c.w, c.r.Body, bodyLimit))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, tooLarge(bodyLimit)
	case err != nil:
		return nil, badRequest("read body: %v", err)
	}
	return body, nil
}

func (s *Server) serveCreate(c *call, k *Kind, body []byte) error {
	if c.attributes.Name != "" && k.Resource != "namespaces" {
		return methodNotAllowed()
	}
	o, err := readObject(c.r, k, body)
	if err != nil {
		return err
	}
	m := o.metadata()
	delete(m, "uid")
	delete(m, "creationTimestamp")
	if o.String("metadata", "resourceVersion") != "" {
		return unclassified("resourceVersion should not be set on objects to be created")
	}
	if prefix := o.String("metadata", "generateName"); prefix != "" && o.String("metadata", "name") == "" {
		m["name"] = prefix + suffix()
	}
	if err := identify(k, o, c.attributes.key(k).namespace); err != nil {
		return err
	}
	return s.answerPut(c, k, o, write{mustNotExist: true}, http.StatusCreated)
}

func (s *Server) serveUpdate(c *call, k *Kind, body []byte) error {
	o, err := readObject(c.r, k, body)
	if err != nil {
		return err
	}
	at := c.attributes.key(k)
	if name := o.String("metadata", "name"); name != at.name {
		return badRequest("the name of the object (%s) does not match the name on the URL (%s)", name, at.name)
	}
	if err := identify(k, o, at.namespace); err != nil {
		return err
	}
	return s.answerPut(c, k, o, write{
		mustExist: true,
		version:   o.String("metadata", "resourceVersion"),
		uid:       o.String("metadata", "uid"),
	}, http.StatusOK)
}

// servePatch merges the body into the object (RFC 7396), once more if somebody
// else wrote in between. A strategic patch is the same unless it has lists or
// directives; then it is refused, because only the kind's schema could merge them.
func (s *Server) servePatch(c *call, k *Kind, body []byte) error {
	media, _, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || media != mergePatch && media != strategicPatch {
		return unsupportedMediaType(mergePatch, strategicPatch)
	}
	patch, err := decodeObject(body)
	if err != nil {
		return badRequest("%v", err)
	}
	if media == strategicPatch && needsSchema(map[string]any(patch)) {
		return unsupportedMediaType(mergePatch)
	}
	at := c.attributes.key(k)
	for {
		err := s.tryPatch(c, k, at, patch)
		var status *Status
		if patch.String("metadata", "resourceVersion") != "" || !errors.As(err, &status) || status.Reason != "Conflict" {
			return err
		}
	}
}

func (s *Server) tryPatch(c *call, k *Kind, at key, patch Object) error {
	existing, err := s.store.get(k, at)
	if err != nil {
		return err
	}
	merged, err := Object(merge(map[string]any(existing.object), map[string]any(patch)).(map[string]any)).normalize()
	if err != nil {
		return err
	}
	if err := unmoved(merged, k, at); err != nil {
		return err
	}
	return s.answerPut(c, k, merged, write{mustExist: true, version: merged.String("metadata", "resourceVersion")}, http.StatusOK)
}

// unmoved refuses a patch that would make the object another one.
func unmoved(o Object, k *Kind, at key) error {
	if o.String("metadata", "name") != at.name {
		return badRequest("the name of the object (%s) does not match the name on the URL (%s)", o.String("metadata", "name"), at.name)
	}
	return identify(k, o, at.namespace)
}

// merge applies a JSON merge patch to a value without changing it (RFC 7396).
func merge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, _ := target.(map[string]any)
	out := maps.Clone(t)
	if out == nil {
		out = map[string]any{}
	}
	for key, value := range p {
		if value == nil {
			delete(out, key)
		} else {
			out[key] = merge(out[key], value)
		}
	}
	return out
}

// needsSchema says whether a strategic patch means something else than a merge patch.
func needsSchema(v any) bool {
	switch v := v.(type) {
	case []any:
		return true
	case map[string]any:
		for key, member := range v {
			if strings.HasPrefix(key, "$") || needsSchema(member) {
				return true
			}
		}
	}
	return false
}

// deleteOptions are what is heeded of metav1.DeleteOptions.
type deleteOptions struct {
	Preconditions struct {
		UID             string `json:"uid"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"preconditions"`
}

// serveDelete deletes at once, pods too: what runs in one is killed, and not
// waited for.
func (s *Server) serveDelete(c *call, k *Kind, body []byte) error {
	var o deleteOptions
	if len(body) > 0 {
		if err := json.Unmarshal(body, &o); err != nil {
			return badRequest("%v", err)
		}
	}
	last, err := s.store.remove(k, c.attributes.key(k), write{version: o.Preconditions.ResourceVersion, uid: o.Preconditions.UID})
	if err != nil {
		return err
	}
	s.node.collect()
	if slices.Contains([]string{"pods", "services", "namespaces", "serviceaccounts"}, k.Resource) {
		writeJSON(c.w, c.r, http.StatusOK, last.encoded)
		return nil
	}
	writeStatus(c.w, c.r, deleted(k, last.name, last.uid))
	return nil
}

func (s *Server) answerPut(c *call, k *Kind, o Object, w write, code int) error {
	r, err := s.store.put(k, o, w)
	if err != nil {
		return err
	}
	writeJSON(c.w, c.r, code, r.encoded)
	return nil
}

// readObject reads the object of a create or update, whose kind may be left out.
func readObject(r *http.Request, k *Kind, body []byte) (Object, error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && media != "application/json" {
		return nil, unsupportedMediaType("application/json")
	}
	o, err := decodeObject(body)
	if err != nil {
		return nil, badRequest("%v", err)
	}
	kind, version := o.String("kind"), o.String("apiVersion")
	if kind != "" && kind != k.Kind || version != "" && version != k.groupVersion() {
		return nil, badRequest("%s in version %q cannot be handled as a %s: no kind %q is registered for version %q here", kind, version, k.Kind, kind, version)
	}
	return o, nil
}

// identify checks the object's name and settles its namespace.
func identify(k *Kind, o Object, namespace string) error {
	m := o.metadata()
	if !k.Namespaced {
		delete(m, "namespace")
	} else if err := settleNamespace(m, namespace); err != nil {
		return err
	}
	name := o.String("metadata", "name")
	if name == "" {
		return invalid(k.Group, k.Kind, "", requiredValue("metadata.name", "name or generateName is required"))
	}
	if k.pathNames && validPathName(name) || validName(name) {
		return nil
	}
	return invalid(k.Group, k.Kind, name, invalidValue("metadata.name", name, nameRule))
}

// validPathName says whether name can stand between two slashes of a path.
func validPathName(name string) bool {
	return name != "." && name != ".." && !strings.ContainsAny(name, "/%")
}

func settleNamespace(metadata map[string]any, namespace string) error {
	switch own, _ := metadata["namespace"].(string); {
	case namespace == "" && own == "":
		metadata["namespace"] = "default"
	case own == "":
		metadata["namespace"] = namespace
	case own != namespace:
		return badRequest("the namespace of the provided object does not match the namespace sent on the request")
	}
	return nil
}

const nameRule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', " +
	"and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is " +
	`'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`

// validName says whether name is an RFC 1123 subdomain.
func validName(name string) bool {
	if len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || !labelText(label) || strings.ContainsFunc(label, func(c rune) bool {
			return c == '_' || 'A' <= c && c <= 'Z' || len(label) > 253
		}) {
			return false
		}
	}
	return true
}

// suffix is what the API server adds to a generateName: five characters
// without vowels, so that they spell nothing.
func suffix() string { return suffixFrom(rand.IntN) }

func suffixFrom(intn func(int) int) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	var b [5]byte
	for i := range b {
		b[i] = letters[intn(len(letters))]
	}
	return string(b[:])
}
