package auth

import (
	"strings"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// MaxTokenBytes is the length of the longest bearer token that is looked at.
const MaxTokenBytes = 8 << 10

// errInvalid is the only thing that is ever said of a token whose signature has
// not verified.
var errInvalid = status.Unauthenticated(sluicev1.Reason_REASON_INVALID_TOKEN, "the token was not accepted")

// Bearer returns the token in the values of one call's `authorization`
// metadata: exactly one value, of the form `Bearer` token68 (RFC 6750 section
// 2.1, RFC 7235 section 2.1), the scheme in any case, the token no longer than
// MaxTokenBytes. Otherwise the error is a status.Error of UNAUTHENTICATED with
// MISSING_CREDENTIAL, MULTIPLE_CREDENTIALS, TOKEN_TOO_LARGE or INVALID_TOKEN.
func Bearer(values []string) (Secret, error) {
	switch len(values) {
	case 0:
		return Secret{}, status.Unauthenticated(sluicev1.Reason_REASON_MISSING_CREDENTIAL,
			"the call has no authorization metadata; send `authorization: Bearer <token>`")
	case 1:
		return bearer(values[0])
	default:
		return Secret{}, status.Unauthenticated(sluicev1.Reason_REASON_MULTIPLE_CREDENTIALS,
			"the call has %d values of authorization metadata; send exactly one", len(values))
	}
}

func bearer(value string) (Secret, error) {
	scheme, token, _ := strings.Cut(value, " ")
	token = strings.TrimLeft(token, " ")
	if !strings.EqualFold(scheme, "bearer") {
		return Secret{}, errInvalid
	}
	if err := checkLength(token); err != nil {
		return Secret{}, err
	}
	if !token68(token) {
		return Secret{}, errInvalid
	}
	return NewSecret(token), nil
}

func checkLength(token string) error {
	if len(token) > MaxTokenBytes {
		return status.Unauthenticated(sluicev1.Reason_REASON_TOKEN_TOO_LARGE,
			"the token is %d bytes long; at most %d are accepted", len(token), MaxTokenBytes)
	}
	return nil
}

// token68 reports whether s is 1*( ALPHA / DIGIT / "-._~+/" ) *"=".
func token68(s string) bool {
	s = strings.TrimRight(s, "=")
	for i := range len(s) {
		if !alphanumeric(s[i]) && !strings.ContainsRune("-._~+/", rune(s[i])) {
			return false
		}
	}
	return s != ""
}

func alphanumeric(c byte) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}
