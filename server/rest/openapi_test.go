package rest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/gnostic-models/openapiv2"

	"github.com/sluice-gateway/sluice/gen/openapi"
	"github.com/sluice-gateway/sluice/internal/issuer"
	"github.com/sluice-gateway/sluice/internal/kubetest"
)

// otherAudience makes a token good for the gateway, but for none of its clusters.
func otherAudience(c *issuer.Claims) { c.Audience = []string{"other-cluster"} }

// description is the document as a client's generator reads it.
type description struct {
	Paths       map[string]map[string]operation
	Definitions map[string]schema
}

type operation struct {
	OperationID string
	Produces    []string
	Parameters  []struct {
		Name, In string
		Required bool
	}
	Responses map[string]struct{ Schema schema }
}

type schema struct {
	Ref        string `json:"$ref"`
	Type       string
	Properties map[string]schema
	Items      *schema
	Enum       []string
}

func described(t *testing.T) description {
	t.Helper()
	var d description
	if err := json.Unmarshal(openapi.Document, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTheDocumentIsValidOpenAPI(t *testing.T) {
	if _, err := openapi_v2.ParseDocument(openapi.Document); err != nil { // the grammar of OpenAPI 2.0, strictly
		t.Fatal(err)
	}
	d := described(t)
	for path, operations := range d.Paths {
		for method, o := range operations {
			seen := map[string]bool{}
			for _, p := range o.Parameters {
				if seen[p.Name] {
					t.Errorf("%s %s has two parameters %s", method, path, p.Name)
				}
				seen[p.Name] = true
				if in := strings.Contains(path, "{"+p.Name+"}"); in != (p.In == "path") {
					t.Errorf("%s %s: parameter %s is in the %s", method, path, p.Name, p.In)
				}
			}
			if strings.Count(path, "{") != len(slices.DeleteFunc(slices.Clone(o.Parameters), func(p struct {
				Name, In string
				Required bool
			},
			) bool {
				return p.In != "path"
			})) {
				t.Errorf("%s %s: a variable of the path is no parameter", method, path)
			}
			if o.Responses["default"].Schema.Ref != "#/definitions/sluiceV1Status" {
				t.Errorf("%s %s: errors are %q", method, path, o.Responses["default"].Schema.Ref)
			}
		}
	}
	for _, ref := range refs(openapi.Document) {
		if _, ok := d.Definitions[strings.TrimPrefix(ref, "#/definitions/")]; !ok {
			t.Errorf("%s leads nowhere", ref)
		}
	}
}

// refs are all references of a document.
func refs(text []byte) (found []string) {
	for _, part := range strings.Split(string(text), `"$ref": "`)[1:] {
		ref, _, _ := strings.Cut(part, `"`)
		found = append(found, ref)
	}
	return found
}

// Every route of the document is called as it says, and answers what it says.
func TestEveryRouteOfTheDocumentAnswersAsItSays(t *testing.T) {
	d := open(t, kubetest.Options{})
	d.apply("shop", "a", "")
	d.run("talker")
	calls := map[string]struct {
		path, body string
		code       int
	}{
		"ListClusters":  {"/v1/clusters", "", 200},
		"ListResources": {"/v1/clusters/dev/resources", "", 200},
		"Watch":         {"/v1/clusters/dev/watch/v1/pods", "", 200},
		"CheckAccess":   {"/v1/clusters/dev/access", `{"watch":{"version":"v1","resource":"pods"}}`, 501},
		"Logs":          {"/v1/clusters/dev/logs/default/talker?container=main&follow=true", "", 200},
		"ListSessions":  {"/v1/sessions", "", 501},
		"GetSession":    {"/v1/sessions/0123", "", 501},
		"Revoke":        {"/v1/sessions:revoke", `{"session":"0123"}`, 501},
	}
	doc := described(t)
	for _, operations := range doc.Paths {
		for method, o := range operations {
			c, ok := calls[o.OperationID]
			if !ok {
				t.Errorf("no test calls %s", o.OperationID)
				continue
			}
			res := d.send(d.request(strings.ToUpper(method), c.path, c.body, header("Accept", "application/json, application/x-ndjson")))
			if res.StatusCode != c.code {
				t.Errorf("%s: %d, want %d", o.OperationID, res.StatusCode, c.code)
			}
			answer := o.Responses["200"].Schema
			if res.StatusCode != http.StatusOK {
				answer = o.Responses["default"].Schema
			}
			line, _ := d.lines(res).next()
			var v any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("%s: %q: %v", o.OperationID, line, err)
			}
			if err := doc.conforms(v, answer); err != nil {
				t.Errorf("%s answers otherwise than it says: %v: %.500s", o.OperationID, err, line)
			}
		}
	}
}

// conforms says how a value departs from its schema.
func (d description) conforms(v any, s schema) error {
	if s.Ref != "" {
		return d.conforms(v, d.Definitions[strings.TrimPrefix(s.Ref, "#/definitions/")])
	}
	switch v := v.(type) {
	case map[string]any:
		for name, field := range v {
			p, ok := s.Properties[name]
			if !ok || s.Type != "object" {
				return fmt.Errorf("there is no %s", name)
			}
			if err := d.conforms(field, p); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	case []any:
		if s.Type != "array" {
			return fmt.Errorf("an array is no %s", s.Type)
		}
		for i, item := range v {
			if err := d.conforms(item, *s.Items); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		}
	case string:
		if s.Type != "string" || (s.Enum != nil && !slices.Contains(s.Enum, v)) {
			return fmt.Errorf("%q is no %s of %v", v, s.Type, s.Enum)
		}
	case float64:
		if s.Type != "integer" {
			return fmt.Errorf("%v is no %s", v, s.Type)
		}
	case bool:
		if s.Type != "boolean" {
			return fmt.Errorf("%v is no %s", v, s.Type)
		}
	default:
		return fmt.Errorf("%v is nothing that is described", v)
	}
	return nil
}
