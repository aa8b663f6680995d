package kubetest

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

const jsonType = "application/json"

func TestWritesOverHTTP(t *testing.T) {
	c := serve(t, Options{}, configMap("there", "1", "keep=me"))
	big := `{"metadata":{"name":"big"},"data":{"v":"` + strings.Repeat("x", bodyLimit) + `"}}`
	for _, tc := range []struct {
		name, method, path, media, body string
		code                            int
		answer                          string // contained in the answer
	}{
		{"create", "POST", configMaps, jsonType, `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"new"},"data":{"a":"1"}}`, 201, `"name":"new","namespace":"default"`},
		{"create again", "POST", configMaps, jsonType, `{"metadata":{"name":"new"}}`, 409, `configmaps \"new\" already exists`},
		{"create by prefix", "POST", configMaps, jsonType, `{"metadata":{"generateName":"pre-"}}`, 201, `"name":"pre-`},
		{"create nameless", "POST", configMaps, jsonType, `{}`, 422, `ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required`},
		{"create misnamed", "POST", configMaps, jsonType, `{"metadata":{"name":"No_Way"}}`, 422, `metadata.name: Invalid value: \"No_Way\": a lowercase RFC 1123 subdomain`},
		{"create elsewhere", "POST", configMaps, jsonType, `{"metadata":{"name":"a","namespace":"other"}}`, 400, `does not match the namespace`},
		{"create in no namespace", "POST", "/api/v1/namespaces/none/configmaps", jsonType, `{"metadata":{"name":"a"}}`, 404, `namespaces \"none\" not found`},
		{"create at a version", "POST", configMaps, jsonType, `{"metadata":{"name":"a","resourceVersion":"1"}}`, 500, `should not be set on objects to be created`},
		{"create another kind", "POST", configMaps, jsonType, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"a"}}`, 400, `cannot be handled as a ConfigMap`},
		{"create from YAML", "POST", configMaps, "application/yaml", `metadata: {name: a}`, 415, `UnsupportedMediaType`},
		{"create from junk", "POST", configMaps, jsonType, `{"metadata":`, 400, `BadRequest`},
		{"create two", "POST", configMaps, jsonType, `{"metadata":{"name":"a"}} {}`, 400, `something follows`},
		{"create too much", "POST", configMaps, jsonType, big, 413, `limit is 3145728`},
		{"create a dry run", "POST", configMaps + "?dryRun=All", jsonType, `{"metadata":{"name":"a"}}`, 400, `dryRun`},
		{"create everywhere", "POST", "/api/v1/configmaps", jsonType, `{"metadata":{"name":"a"}}`, 405, `MethodNotAllowed`},
		{"create a namespace", "POST", "/api/v1/namespaces", jsonType, `{"metadata":{"name":"lab"}}`, 201, `"kind":"Namespace"`},
		{"update", "PUT", configMaps + "/there", jsonType, `{"metadata":{"name":"there"},"data":{"value":"2"}}`, 200, `"value":"2"`},
		{"update nothing", "PUT", configMaps + "/nope", jsonType, `{"metadata":{"name":"nope"}}`, 404, `NotFound`},
		{"update a version that is gone", "PUT", configMaps + "/there", jsonType, `{"metadata":{"name":"there","resourceVersion":"1"}}`, 409, `Operation cannot be fulfilled on configmaps \"there\"`},
		{"rename", "PUT", configMaps + "/there", jsonType, `{"metadata":{"name":"here"}}`, 400, `does not match the name on the URL`},
		{"merge", "PATCH", configMaps + "/there", mergePatch, `{"data":{"value":null,"more":"3"},"metadata":{"labels":{"x":"y"}}}`, 200, `"data":{"more":"3"}`},
		{"merge strategically", "PATCH", configMaps + "/there", strategicPatch, `{"data":{"most":"4"}}`, 200, `"data":{"more":"3","most":"4"}`},
		{"merge lists strategically", "PATCH", configMaps + "/there", strategicPatch, `{"x":[1]}`, 415, `UnsupportedMediaType`},
		{"apply on the server", "PATCH", configMaps + "/there", "application/apply-patch+yaml", `{}`, 415, `UnsupportedMediaType`},
		{"merge into nothing", "PATCH", configMaps + "/nope", mergePatch, `{}`, 404, `NotFound`},
		{"merge a new name", "PATCH", configMaps + "/there", mergePatch, `{"metadata":{"name":"z"}}`, 400, `does not match`},
		{"merge at a version that is gone", "PATCH", configMaps + "/there", mergePatch, `{"metadata":{"resourceVersion":"1"}}`, 409, `Conflict`},
		{"delete somebody else", "DELETE", configMaps + "/there", jsonType, `{"preconditions":{"uid":"x"}}`, 409, `Conflict`},
		{"delete", "DELETE", configMaps + "/there", "", "", 200, `"status":"Success","details":{"name":"there","kind":"configmaps","uid":"`},
		{"delete again", "DELETE", configMaps + "/there", "", "", 404, `NotFound`},
		{"delete all", "DELETE", configMaps, "", "", 405, `MethodNotAllowed`},
	} {
		code, _, body := c.do(tc.method, tc.path, tc.body, "Content-Type", tc.media)
		if code != tc.code || !strings.Contains(body, tc.answer) {
			t.Errorf("%s: %d %s, want %d with %s", tc.name, code, body, tc.code, tc.answer)
		}
	}
}

func TestUnchangedWritesAreNoChange(t *testing.T) {
	c := serve(t, Options{}, configMap("a", "1"))
	before := c.Version()
	c.apply(configMap("a", "1"))
	c.do(http.MethodPatch, configMaps+"/a", `{"data":{"value":"1"}}`, "Content-Type", mergePatch)
	if c.Version() != before {
		t.Errorf("version %d, was %d", c.Version(), before)
	}
}

func TestObjectsKeepTheirIdentity(t *testing.T) {
	c := serve(t, Options{})
	first := c.apply(configMap("a", "1"))
	second := c.apply(configMap("a", "2"))
	for _, field := range []string{"uid", "creationTimestamp"} {
		if got, want := second.String("metadata", field), first.String("metadata", field); got != want || want == "" {
			t.Errorf("%s %q, was %q", field, got, want)
		}
	}
	second.metadata()["name"] = "changed by the caller"
	if got, err := c.Get("", "configmaps", "default", "a"); err != nil || got.String("metadata", "name") != "a" {
		t.Errorf("stored: %v %v", got, err)
	}
}

func TestNumbersKeepTheirDigits(t *testing.T) {
	c := serve(t, Options{})
	code, _, body := c.do(http.MethodPost, configMaps, `{"metadata":{"name":"n"},"big":12345678901234567890,"small":1.50}`, "Content-Type", jsonType)
	if code != 201 || !strings.Contains(body, `"big":12345678901234567890,"small":1.50`) {
		t.Errorf("%d %s", code, body)
	}
}

func TestDeletingANamespaceEmptiesIt(t *testing.T) {
	c := serve(t, Options{}, namespace("lab"))
	o := configMap("a", "1")
	o.metadata()["namespace"] = "lab"
	c.apply(o)
	conn, _, err := c.dial("/api/v1/configmaps?watch=1", nil)
	c.must(err)
	c.want(conn, "ADDED", "a")
	if code, _, body := c.do(http.MethodDelete, "/api/v1/namespaces/lab", ""); code != 200 || !strings.Contains(body, `"kind":"Namespace"`) {
		t.Errorf("%d %s", code, body)
	}
	c.want(conn, "DELETED", "a")
	if _, err := c.Apply(o); asStatus(t, err).Code != 404 {
		t.Errorf("%v", err)
	}
}

func TestInProcessErrorsAreStatuses(t *testing.T) {
	c := serve(t, Options{})
	_, unknownKind := c.Apply(Object{"kind": "X", "apiVersion": "v1"})
	_, unencodable := c.Apply(Object{"kind": func() {}})
	_, unknownGet := c.Get("", "xs", "", "a")
	if unencodable == nil {
		t.Error("a function was encoded")
	}
	for want, err := range map[int]error{
		400: unknownKind,
		404: c.Delete("", "configmaps", "default", "nope"),
	} {
		if s := asStatus(t, err); s.Code != want || s.Error() == "" {
			t.Errorf("%+v, want %d", s, want)
		}
	}
	if asStatus(t, unknownGet).Code != 400 || asStatus(t, c.Delete("", "xs", "", "a")).Code != 400 {
		t.Error("an unknown resource was found")
	}
}

func FuzzMerge(f *testing.F) {
	f.Add(`{"a":{"b":1}}`, `{"a":{"b":null,"c":[1]}}`)
	f.Fuzz(func(t *testing.T, target, patch string) {
		o, err := decodeObject([]byte(target))
		p, perr := decodeObject([]byte(patch))
		if err != nil || perr != nil {
			return
		}
		before, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		once := merge(map[string]any(o), map[string]any(p))
		twice := merge(once, map[string]any(p))
		a, aerr := json.Marshal(once)
		b, berr := json.Marshal(twice)
		after, err := json.Marshal(o)
		if aerr != nil || berr != nil || err != nil || string(a) != string(b) {
			t.Fatalf("not idempotent: %s and %s", a, b)
		}
		if string(before) != string(after) {
			t.Fatalf("the target changed from %s to %s", before, after)
		}
	})
}
