package kubetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Status is metav1.Status as the API server prints it: the body of every
// refusal, the object of an ERROR event, and the error of the in-process writes.
type Status struct { //nolint:errname // it is metav1.Status, which happens to be an error
	Kind       string         `json:"kind,omitempty"`       // empty only at the end of an exec
	APIVersion string         `json:"apiVersion,omitempty"` // likewise
	Metadata   StatusMeta     `json:"metadata"`
	Status     string         `json:"status,omitempty"`
	Message    string         `json:"message,omitempty"`
	Reason     string         `json:"reason,omitempty"`
	Details    *StatusDetails `json:"details,omitempty"`
	Code       int            `json:"code,omitempty"`
}

// StatusMeta is the metadata of a [Status]. Continue is set by one answer
// only: an expired list that can go on inconsistently.
type StatusMeta struct {
	Continue string `json:"continue,omitempty"`
}

// StatusDetails says what a [Status] is about. RetryAfterSeconds is repeated
// in the Retry-After header.
type StatusDetails struct {
	Name              string        `json:"name,omitempty"`
	Group             string        `json:"group,omitempty"`
	Kind              string        `json:"kind,omitempty"`
	UID               string        `json:"uid,omitempty"`
	Causes            []StatusCause `json:"causes,omitempty"`
	RetryAfterSeconds int           `json:"retryAfterSeconds,omitempty"`
}

// StatusCause is one of several things wrong with a request.
type StatusCause struct {
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	Field   string `json:"field,omitempty"`
}

// Error is the message, as the API server's own clients print it.
func (s *Status) Error() string { return s.Message }

func failure(code int, reason, message string, details *StatusDetails) *Status {
	return &Status{
		Kind: "Status", APIVersion: "v1", Status: "Failure",
		Code: code, Reason: reason, Message: message, Details: details,
	}
}

func about(k *Kind, name string) *StatusDetails {
	return &StatusDetails{Name: name, Group: k.Group, Kind: k.Resource}
}

func notFound(k *Kind, name string) *Status {
	return failure(http.StatusNotFound, "NotFound", fmt.Sprintf("%s %q not found", k.qualified(), name), about(k, name))
}

// noSuchResource is the answer to an unknown resource of a group and version
// that are served; where those are not, the answer is plain text.
func noSuchResource() *Status {
	return failure(http.StatusNotFound, "NotFound", "the server could not find the requested resource", &StatusDetails{})
}

func alreadyExists(k *Kind, name string) *Status {
	return failure(http.StatusConflict, "AlreadyExists", fmt.Sprintf("%s %q already exists", k.qualified(), name), about(k, name))
}

func conflict(k *Kind, name string) *Status {
	return failure(http.StatusConflict, "Conflict",
		fmt.Sprintf("Operation cannot be fulfilled on %s %q: the object has been modified; please apply your changes to the latest version and try again", k.qualified(), name),
		about(k, name))
}

func badRequest(format string, args ...any) *Status {
	return failure(http.StatusBadRequest, "BadRequest", fmt.Sprintf(format, args...), nil)
}

// unclassified is how the API server reports an error that is no Status:
// code 500 and no reason.
func unclassified(message string) *Status {
	return failure(http.StatusInternalServerError, "", message, nil)
}

func unauthorized() *Status {
	return failure(http.StatusUnauthorized, "Unauthorized", "Unauthorized", nil)
}

// forbidden repeats the API server's wording, whose name and resource come
// from the request and not from what exists. A reason is the authorizer's.
func forbidden(user User, a Attributes, reason string) *Status {
	text := sanitize(forbiddenText(user, a))
	if reason != "" {
		text += ": " + reason
	}
	return forbiddenBecause(a, text)
}

// forbiddenBecause is a refusal in other words, or in none.
func forbiddenBecause(a Attributes, text string) *Status {
	if a.Resource == "" {
		return failure(http.StatusForbidden, "Forbidden", "forbidden: "+text, &StatusDetails{})
	}
	subject := a.Resource
	if a.Group != "" {
		subject += "." + a.Group
	}
	if a.Name != "" {
		subject += " " + strconv.Quote(a.Name)
	}
	return failure(http.StatusForbidden, "Forbidden", subject+" is forbidden: "+text,
		&StatusDetails{Name: a.Name, Group: a.Group, Kind: a.Resource})
}

func forbiddenText(user User, a Attributes) string {
	if a.Resource == "" {
		return fmt.Sprintf("User %q cannot %s path %q", user.Name, a.Verb, a.Path)
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	scope := "at the cluster scope"
	if a.Namespace != "" {
		scope = fmt.Sprintf("in the namespace %q", a.Namespace)
	}
	return fmt.Sprintf("User %q cannot %s resource %q in API group %q %s", user.Name, a.Verb, resource, a.Group, scope)
}

// sanitize keeps the texts of a refusal from looking like HTML.
func sanitize(text string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(text)
}

func methodNotAllowed() *Status {
	return failure(http.StatusMethodNotAllowed, "MethodNotAllowed",
		"the server does not allow this method on the requested resource", &StatusDetails{})
}

func notAcceptable() *Status {
	return failure(http.StatusNotAcceptable, "NotAcceptable",
		"only the following media types are accepted: application/json", nil)
}

func unsupportedMediaType(accepted ...string) *Status {
	return failure(http.StatusUnsupportedMediaType, "UnsupportedMediaType",
		"the body of the request was in an unknown format - accepted media types include: "+strings.Join(accepted, ", "), nil)
}

func tooLarge(limit int64) *Status {
	return failure(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge",
		fmt.Sprintf("Request entity too large: limit is %d", limit), nil)
}

func expired(message string) *Status {
	return failure(http.StatusGone, "Expired", message, nil)
}

// futureVersion is the answer to a list newer than the store.
func futureVersion(asked, current uint64) *Status {
	return failure(http.StatusGatewayTimeout, "Timeout",
		fmt.Sprintf("Timeout: Too large resource version: %d, current: %d", asked, current),
		&StatusDetails{
			Causes:            []StatusCause{{Reason: "ResourceVersionTooLarge", Message: "Too large resource version"}},
			RetryAfterSeconds: 1,
		})
}

// invalid is a failed validation. kind is what was validated, which for list
// options is no resource.
func invalid(group, kind, name string, causes ...StatusCause) *Status {
	qualified := kind
	if group != "" {
		qualified += "." + group
	}
	texts := make([]string, len(causes))
	for i, c := range causes {
		texts[i] = c.Field + ": " + c.Message
	}
	text := strings.Join(texts, ", ")
	if len(texts) > 1 {
		text = "[" + text + "]"
	}
	return failure(http.StatusUnprocessableEntity, "Invalid",
		fmt.Sprintf("%s %q is invalid: %s", qualified, name, text),
		&StatusDetails{Name: name, Group: group, Kind: kind, Causes: causes})
}

func forbiddenField(field, text string) StatusCause {
	return StatusCause{Reason: "FieldValueForbidden", Message: "Forbidden: " + text, Field: field}
}

func unsupportedValue(field, value string, supported ...string) StatusCause {
	quoted := make([]string, len(supported))
	for i, s := range supported {
		quoted[i] = strconv.Quote(s)
	}
	return StatusCause{
		Reason:  "FieldValueNotSupported",
		Message: fmt.Sprintf("Unsupported value: %q: supported values: %s", value, strings.Join(quoted, ", ")),
		Field:   field,
	}
}

func requiredValue(field, text string) StatusCause {
	return StatusCause{Reason: "FieldValueRequired", Message: "Required value: " + text, Field: field}
}

func invalidValue(field, value, text string) StatusCause {
	return StatusCause{
		Reason:  "FieldValueInvalid",
		Message: fmt.Sprintf("Invalid value: %q: %s", value, text),
		Field:   field,
	}
}

// deleted is the answer to a DELETE of a kind that does not answer the object.
func deleted(k *Kind, name, uid string) *Status {
	details := about(k, name)
	details.UID = uid
	return &Status{Kind: "Status", APIVersion: "v1", Status: "Success", Details: details}
}

// writeStatus answers a request with s.
func writeStatus(w http.ResponseWriter, r *http.Request, s *Status) {
	if s.Code == http.StatusForbidden || s.Code == http.StatusUnauthorized {
		w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(s.Details.RetryAfterSeconds))
	}
	code := s.Code
	if code == 0 {
		code = http.StatusOK
	}
	body, err := json.Marshal(s)
	if err != nil {
		http.Error(w, "encode status", http.StatusInternalServerError)
		return
	}
	writeJSON(w, r, code, body)
}
