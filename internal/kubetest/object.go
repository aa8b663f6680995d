package kubetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// Object is a Kubernetes object as decoded JSON: maps, slices, strings,
// numbers, booleans and nil, or whatever encoding/json turns into those.
type Object map[string]any

// String returns the string at path, or "" where there is none.
func (o Object) String(path ...string) string {
	s, _ := o.at(path).(string)
	return s
}

// text is the value at path as a field selector compares it.
func (o Object) text(path []string) (string, bool) {
	switch v := o.at(path).(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case json.Number:
		return v.String(), true
	default:
		return "", false
	}
}

func (o Object) at(path []string) any {
	var v any = map[string]any(o)
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

// metadata is the object's metadata, made if there is none.
func (o Object) metadata() map[string]any {
	m, ok := o["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		o["metadata"] = m
	}
	return m
}

// decodeObject reads one JSON object and keeps its numbers as they are written.
func decodeObject(data []byte) (Object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var o map[string]any
	if err := d.Decode(&o); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("decode object: %s is no object", bytes.TrimSpace(data))
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("decode object: something follows the object")
	}
	return o, nil
}

// normalize is a deep copy of o that holds only what decoding JSON yields.
func (o Object) normalize() (Object, error) {
	v, err := normalize(map[string]any(o))
	if err != nil {
		return nil, fmt.Errorf("encode object: %w", err)
	}
	return v.(map[string]any), nil
}

// normalize copies a value, and takes only what is no JSON value yet through
// its encoding.
func normalize(v any) (any, error) {
	switch v := v.(type) {
	case nil, string, bool, json.Number:
		return v, nil
	case Object:
		return normalize(map[string]any(v))
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, member := range v {
			n, err := normalize(member)
			if err != nil {
				return nil, err
			}
			out[key] = n
		}
		return out, nil
	case []any:
		out := make([]any, len(v))
		for i, element := range v {
			n, err := normalize(element)
			if err != nil {
				return nil, err
			}
			out[i] = n
		}
		return out, nil
	default:
		return throughJSON(v)
	}
}

func throughJSON(v any) (out any, err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&out)
	return out, err
}

// revision is an object as it was at one resource version. Immutable.
type revision struct {
	kind      *Kind
	namespace string
	name      string
	path      string // namespace/name, or name: what lists are ordered by
	uid       string
	version   uint64
	labels    map[string]string
	object    Object
	encoded   []byte // whole, as a get or an event shows it
	item      []byte // as a list shows it
}

// key orders and names an object within its kind.
func (r *revision) key() key { return key{r.namespace, r.name} }

// newRevision takes o over, stamps version into it and encodes it once for
// everybody who will be sent it.
func newRevision(k *Kind, o Object, version uint64) (*revision, error) {
	metadata := o.metadata()
	metadata["resourceVersion"] = strconv.FormatUint(version, 10)
	o["kind"], o["apiVersion"] = k.Kind, k.groupVersion()
	r := &revision{
		kind: k, version: version, object: o,
		namespace: o.String("metadata", "namespace"),
		name:      o.String("metadata", "name"),
		uid:       o.String("metadata", "uid"),
		labels:    stringMap(metadata["labels"]),
	}
	r.path = r.key().String()
	if err := r.encode(); err != nil {
		return nil, err
	}
	return r, nil
}

// equals says whether writing o over r, as a whole, would change nothing.
func (r *revision) equals(o Object) bool {
	o["kind"], o["apiVersion"] = r.kind.Kind, r.kind.groupVersion()
	o.metadata()["resourceVersion"] = strconv.FormatUint(r.version, 10)
	return reflect.DeepEqual(o, r.object)
}

// at is the same object as if it had been written at another version: what an
// event shows of an object that left a selector.
func (r *revision) at(version uint64) (*revision, error) {
	o := maps.Clone(r.object)
	o["metadata"] = maps.Clone(r.object.metadata())
	return newRevision(r.kind, o, version)
}

// encode prints a custom resource with sorted keys, and a built-in kind with
// kind, apiVersion and metadata first, as the API server does.
func (r *revision) encode() error {
	if !r.kind.builtin {
		data, err := json.Marshal(r.object)
		r.encoded, r.item = data, data
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `{"kind":%q,"apiVersion":%q,`, r.kind.Kind, r.kind.groupVersion())
	head := b.Len()
	if err := encodeMembers(&b, r.object); err != nil {
		return err
	}
	b.WriteByte('}')
	r.encoded = b.Bytes()
	r.item = append([]byte{'{'}, r.encoded[head:]...)
	return nil
}

func encodeMembers(b *bytes.Buffer, o Object) error {
	keys := []string{"metadata"}
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if key != "metadata" && key != "kind" && key != "apiVersion" {
			keys = append(keys, key)
		}
	}
	for i, key := range keys {
		member, err := json.Marshal(map[string]any{key: o[key]})
		if err != nil {
			return fmt.Errorf("encode %s: %w", key, err)
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(member[1 : len(member)-1])
	}
	return nil
}

func stringMap(v any) map[string]string {
	m, _ := v.(map[string]any)
	out := make(map[string]string, len(m))
	for key, value := range m {
		out[key], _ = value.(string)
	}
	return out
}
