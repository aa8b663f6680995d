package kube

import (
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// How a refusal's body looks.
const (
	asStatus = iota // a metav1.Status in JSON
	asText          // plain text
	asNothing
)

// refusal is a request that is not answered with what it asks for.
type refusal struct {
	name  string
	token func(AnswersTokens) string
	path  func(*asker) string
	body  int
	code  int
	// Of the Status only:
	reason     metav1.StatusReason
	retryAfter int32
}

// Whose token is shown.
func permitted(t AnswersTokens) string     { return t.Permitted }
func unpermitted(t AnswersTokens) string   { return t.Unpermitted }
func expired(t AnswersTokens) string       { return t.Expired }
func wrongAudience(t AnswersTokens) string { return t.WrongAudience }
func noToken(AnswersTokens) string         { return "" }
func noJWT(AnswersTokens) string           { return "neither.a.token" }

// query asks about the collection.
func query(q string) func(*asker) string {
	return func(a *asker) string { return a.collection() + "?" + q }
}

func sibling(resource, q string) func(*asker) string {
	return func(a *asker) string { return "/api/v1/namespaces/" + a.Namespace + "/" + resource + q }
}

func fixed(path string) func(*asker) string { return func(*asker) string { return path } }

const (
	unauthorized = http.StatusUnauthorized
	forbidden    = http.StatusForbidden
	notFound     = http.StatusNotFound
	badRequest   = http.StatusBadRequest
)

// anyRefusals answer a plain request and a WebSocket handshake alike.
var anyRefusals = []refusal{
	{name: "a watch without a token", token: noToken, path: query("watch=1"), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
	{name: "a watch with what is no token", token: noJWT, path: query("watch=1"), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
	{name: "a watch with an expired token", token: expired, path: query("watch=1"), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
	{name: "a watch with a token for another audience", token: wrongAudience, path: query("watch=1"), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
	{name: "a watch by a user without permission", token: unpermitted, path: query("watch=1"), code: forbidden, reason: metav1.StatusReasonForbidden},
	{name: "a list by a user without permission", token: unpermitted, path: query("limit=1"), code: forbidden, reason: metav1.StatusReasonForbidden},
	{name: "a watch of a resource that does not exist", token: permitted, path: sibling(UnknownResource, "?watch=1"), code: notFound, reason: metav1.StatusReasonNotFound},
	{name: "a watch in an API group that does not exist", token: permitted, path: fixed("/apis/" + unknownGroup + "/v1/" + UnknownResource + "?watch=1"), code: notFound, body: asText},
	{name: "a watch from a malformed resourceVersion", token: permitted, path: query("watch=1&resourceVersion=abc"), code: http.StatusInternalServerError},
	{name: "sendInitialEvents without resourceVersionMatch", token: permitted, path: query("watch=1&sendInitialEvents=true"), code: http.StatusUnprocessableEntity, reason: metav1.StatusReasonInvalid},
}

// plainRefusals answer requests that are no watches.
var plainRefusals = []refusal{
	{name: "a list at a malformed resourceVersion", token: permitted, path: query("resourceVersion=abc"), code: badRequest, reason: metav1.StatusReasonBadRequest},
	{name: "a list at a future resourceVersion", token: permitted, path: query("resourceVersion=999999999999"), code: http.StatusGatewayTimeout, reason: metav1.StatusReasonTimeout, retryAfter: 1},
	{name: "a list with a limit that is no number", token: permitted, path: query("limit=x"), code: badRequest, reason: metav1.StatusReasonBadRequest},
	{name: "a list with a continue token that is none", token: permitted, path: query("limit=1&continue=garbage"), code: badRequest, reason: metav1.StatusReasonBadRequest},
	{name: "an object that does not exist", token: permitted, path: func(a *asker) string { return a.collection() + "/no-such-object" }, code: notFound, reason: metav1.StatusReasonNotFound},
	{name: "discovery without a token", token: noToken, path: fixed("/api/v1"), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
}

// handshakeRefusals are the WebSocket server's own: bare, without any Status.
var handshakeRefusals = []struct {
	name string
	say  func(*asker) handshake
	code int
}{
	{"without an Origin", func(a *asker) handshake { return handshake{token: a.Tokens.Permitted} }, forbidden},
	{"with the Origin null", func(a *asker) handshake { return handshake{token: a.Tokens.Permitted, origin: "null"} }, forbidden},
	{"with two subprotocols", func(a *asker) handshake {
		return handshake{token: a.Tokens.Permitted, origin: a.URL, protocols: []string{"one.example", "two.example"}}
	}, badRequest},
}

func refusalAnswers() []answer {
	var rows []answer
	for _, r := range append(anyRefusals, plainRefusals...) {
		rows = append(rows, answer{r.name, func(a *asker) { r.check(a, a.get(r.token(a.Tokens), r.path(a))) }})
	}
	for _, r := range anyRefusals {
		rows = append(rows, answer{r.name + " over WebSocket", func(a *asker) {
			_, answer := a.dial(handshake{token: r.token(a.Tokens), origin: a.URL}, r.path(a))
			r.check(a, answer)
		}})
	}
	for _, r := range handshakeRefusals {
		rows = append(rows, answer{"a WebSocket watch " + r.name, func(a *asker) {
			_, answer := a.dial(r.say(a), a.collection()+"?watch=1")
			refusal{code: r.code, body: asNothing}.check(a, answer)
		}})
	}
	return append(rows,
		answer{"authentication comes before the WebSocket handshake", refusesTokenBeforeOrigin},
		answer{"oddly spelt paths are not redirected", neverRedirects})
}

func (r refusal) check(a *asker, answer got) {
	a.Helper()
	if answer.code != r.code {
		a.Fatalf("answered %d %q, want %d", answer.code, answer.body, r.code)
	}
	switch r.body {
	case asNothing:
		if len(answer.body) != 0 {
			a.Errorf("a body: %q, want none", answer.body)
		}
	case asText:
		if kind := answer.header.Get("Content-Type"); kind != "text/plain; charset=utf-8" {
			a.Errorf("Content-Type %q, want text", kind)
		}
	case asStatus:
		r.checkStatus(a, answer)
	}
}

func (r refusal) checkStatus(a *asker, answer got) {
	a.Helper()
	if kind := answer.header.Get("Content-Type"); kind != "application/json" {
		a.Errorf("Content-Type %q, want application/json", kind)
	}
	status := a.status(answer)
	want := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure}
	if status.TypeMeta != want.TypeMeta || status.Status != want.Status || status.Message == "" {
		a.Errorf("no whole Status: %s", answer.body)
	}
	if int(status.Code) != r.code || status.Reason != r.reason {
		a.Errorf("Status of code %d and reason %q, want %d and %q", status.Code, status.Reason, r.code, r.reason)
	}
	var after int32
	if status.Details != nil {
		after = status.Details.RetryAfterSeconds
	}
	if after != r.retryAfter || (after != 0) != (answer.header.Get("Retry-After") != "") {
		a.Errorf("to be retried after %d s, header %q; want %d", after, answer.header.Get("Retry-After"), r.retryAfter)
	}
}

func refusesTokenBeforeOrigin(a *asker) {
	_, answer := a.dial(handshake{token: a.Tokens.Expired}, a.collection()+"?watch=1")
	refusal{code: unauthorized, reason: metav1.StatusReasonUnauthorized}.check(a, answer)
}

func neverRedirects(a *asker) {
	for _, path := range []string{"/api", "/api/", "/apis/", "/api/v1/", "//api/v1", "/api//v1", "/api/../api/v1"} {
		answer := a.get(a.Tokens.Permitted, path)
		if answer.code >= 300 && answer.code < 400 || answer.header.Get("Location") != "" {
			a.Errorf("GET %s: %d to %q", path, answer.code, answer.header.Get("Location"))
		}
	}
}
