package kubetest

import (
	"encoding/base64"
	"mime"
	"net/http"
	"strings"
)

// Attributes are what a request asks for, as the API server's authorizers see
// it. Resource is empty for paths that are no resource, such as /version.
type Attributes struct {
	// Verb is get, list, watch, create, update, patch, delete or
	// deletecollection; for other paths the method in lower case. Who impersonates
	// is asked about by impersonate, and by the verbs of KEP-5284.
	Verb        string
	Group       string
	Version     string
	Resource    string
	Subresource string
	Namespace   string // empty for all, and for cluster-wide kinds
	Name        string // also where a field selector demands it
	Path        string
}

// parseAttributes reads /api/VERSION/... and /apis/GROUP/VERSION/... the way
// the API server's request info does.
func parseAttributes(r *http.Request) Attributes {
	a := Attributes{Verb: strings.ToLower(r.Method), Path: r.URL.Path}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case parts[0] == "api" && len(parts) > 2:
		a.Version, parts = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		a.Group, a.Version, parts = parts[1], parts[2], parts[3:]
	default:
		return a
	}
	a = a.place(parts)
	a.Verb = resourceVerb(r, a.Name != "")
	if a.Verb == "list" || a.Verb == "watch" {
		a.Name = selectedName(r.URL.Query().Get("fieldSelector"))
	}
	return a
}

// place reads what follows the version: namespaces/NS/RESOURCE/NAME/SUBRESOURCE
// or RESOURCE/NAME/SUBRESOURCE.
func (a Attributes) place(parts []string) Attributes {
	if parts[0] == "namespaces" && len(parts) > 1 {
		a.Namespace = parts[1]
		if len(parts) > 2 && parts[2] != "status" && parts[2] != "finalize" {
			parts = parts[2:]
		}
	}
	a.Resource = parts[0]
	if len(parts) > 1 {
		a.Name = parts[1]
	}
	if len(parts) > 2 {
		a.Subresource = strings.Join(parts[2:], "/")
	}
	return a
}

func resourceVerb(r *http.Request, named bool) string {
	switch {
	case r.Method == http.MethodPost:
		return "create"
	case r.Method == http.MethodPut:
		return "update"
	case r.Method == http.MethodPatch:
		return "patch"
	case r.Method == http.MethodDelete && named:
		return "delete"
	case r.Method == http.MethodDelete:
		return "deletecollection"
	case named:
		return "get"
	case truthy(r.URL.Query(), "watch"):
		return "watch"
	default:
		return "list"
	}
}

// selectedName is the one name a field selector demands, if it does.
func selectedName(fieldSelector string) string {
	for term := range strings.SplitSeq(fieldSelector, ",") {
		if q, ok := parseField(term); ok && q.field == "metadata.name" && !q.negated {
			return q.value
		}
	}
	return ""
}

// key is where the object of a get, update, patch or delete is.
func (a Attributes) key(k *Kind) key {
	if !k.Namespaced {
		return key{name: a.Name}
	}
	return key{a.Namespace, a.Name}
}

// wantsWebSocket says whether r asks for an upgrade (RFC 6455, 4.1).
func wantsWebSocket(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
		strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade")
}

// bearerProtocol begins a subprotocol that carries a token, for browsers.
const bearerProtocol = "base64url.bearer.authorization.k8s.io." //nolint:gosec // the name of a protocol is no credential

// bearerToken is the token of a request, from its Authorization header or from
// the subprotocols of a WebSocket, where it counts only beside another one and
// is taken out of the offer.
func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if strings.EqualFold(scheme, "bearer") && token != "" {
		return strings.TrimSpace(token)
	}
	if !wantsWebSocket(r) {
		return ""
	}
	rest, encoded := splitBearer(subprotocols(r))
	if encoded == "" || len(rest) == 0 {
		return ""
	}
	decoded, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return ""
	}
	r.Header.Set("Sec-WebSocket-Protocol", strings.Join(rest, ","))
	return string(decoded)
}

func splitBearer(offered []string) (rest []string, encoded string) {
	for _, p := range offered {
		if token, ok := strings.CutPrefix(p, bearerProtocol); ok {
			encoded = token
		} else {
			rest = append(rest, p)
		}
	}
	return rest, encoded
}

func subprotocols(r *http.Request) []string {
	var out []string
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}

// acceptsJSON says whether one of the media types a request accepts is plain
// JSON. Conversions (as=Table) are not offered, so a clause that asks for one
// does not count; clients name plain JSON after it.
func acceptsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	if accept == "" {
		return true
	}
	for clause := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(clause)
		if err != nil || params["as"] != "" {
			continue
		}
		if media == "*/*" || media == "application/*" || media == "application/json" {
			return true
		}
	}
	return false
}
