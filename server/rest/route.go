package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-gateway/sluice/internal/status"
)

// route is one operation of the OpenAPI document.
type route struct {
	operation  string // the method's name
	method     string
	path       string            // a pattern of http.ServeMux
	parameters map[string]string // in the path: the field that each fills
	queries    map[string]string // in the query: the field that each fills
	body       bool
	produces   []string // media types, the default first
	streams    bool
}

// document is what is read from the OpenAPI document.
type document struct {
	Produces []string `json:"produces"`
	Paths    map[string]map[string]struct {
		OperationID string      `json:"operationId"`
		Produces    []string    `json:"produces"`
		Parameters  []parameter `json:"parameters"`
	} `json:"paths"`
}

// parameter is one of an operation.
type parameter struct {
	Name  string `json:"name"`
	In    string `json:"in"`
	Field string `json:"x-field"` // of the message, when it is nested
}

// routesOf reads the routes from the OpenAPI document.
func routesOf(text []byte) ([]*route, error) {
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	var routes []*route
	for path, operations := range d.Paths {
		for method, o := range operations {
			rt := &route{
				operation: o.OperationID, method: strings.ToUpper(method), path: path, produces: o.Produces,
				parameters: map[string]string{}, queries: map[string]string{},
			}
			if rt.produces == nil {
				rt.produces = d.Produces
			}
			rt.streams = slices.Contains(rt.produces, ndjson)
			for _, p := range o.Parameters {
				if err := rt.add(p); err != nil {
					return nil, fmt.Errorf("OpenAPI document: %s: %w", o.OperationID, err)
				}
			}
			routes = append(routes, rt)
		}
	}
	return routes, nil
}

func (rt *route) add(p parameter) error {
	field := p.Field
	if field == "" {
		field = p.Name
	}
	switch p.In {
	case "path":
		rt.parameters[p.Name] = field
	case "query":
		rt.queries[p.Name] = field
	case "body":
		rt.body = true
	default:
		return fmt.Errorf("parameter %s is in the %s", p.Name, p.In)
	}
	return nil
}

// value is what one parameter of a query gives to a field.
type value struct{ name, field, text string }

// query reads a query. What the route does not know, or knows once and gets twice, is an error: a selector that was mistyped must not watch all.
func (rt *route) query(raw string) ([]value, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, invalid("the query is malformed").Wrap(err)
	}
	values := make([]value, 0, len(query))
	for name, texts := range query {
		field, known := rt.queries[name]
		switch {
		case !known:
			return nil, invalid("unknown query parameter %s; there are: %s", quoted(name), rt.queryNames())
		case len(texts) > 1:
			return nil, invalid("query parameter %s is given %d times", name, len(texts))
		case !utf8.ValidString(texts[0]):
			return nil, invalid("query parameter %s is not valid UTF-8", name)
		}
		values = append(values, value{name, field, texts[0]})
	}
	return values, nil
}

func (rt *route) queryNames() string {
	if len(rt.queries) == 0 {
		return "none"
	}
	names := make([]string, 0, len(rt.queries))
	for name := range rt.queries {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// fill sets the fields of a message from the path and the query.
func (rt *route) fill(m proto.Message, r *http.Request, values []value) error {
	for name, field := range rt.parameters {
		if err := runtime.PopulateFieldFromPath(m, field, r.PathValue(name)); err != nil {
			return invalid("%s in the path has a value that is none", name).Wrap(err)
		}
	}
	for _, v := range values {
		if err := runtime.PopulateFieldFromPath(m, v.field, v.text); err != nil {
			return invalid("query parameter %s has a value that is none of its type", v.name).Wrap(err)
		}
	}
	return nil
}

// secrets are the names by which others take credentials in a query. The value of one is in the logs of everything that the URL has passed.
var secrets = []string{"token", "access_token", "id_token", "authorization", "bearer_token", "api_key"}

// checkSecrets refuses a query with a credential. Its value is not repeated.
func checkSecrets(u *url.URL) *status.Error {
	query, _ := url.ParseQuery(u.RawQuery) // what can be read of it; the route refuses the rest
	for name := range query {
		if slices.Contains(secrets, strings.ToLower(name)) {
			return invalid("a credential must not be in a URL: query parameter %s is refused; send Authorization: Bearer", quoted(name))
		}
	}
	return nil
}

// quoted is what a caller wrote, as it may be said again.
func quoted(s string) string {
	const most = 64
	if len(s) > most {
		s = s[:most]
	}
	return fmt.Sprintf("%q", s)
}
