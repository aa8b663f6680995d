package auth

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// endOfTime is the last second of the year 9999, the last that RFC 3339 can write.
const endOfTime = 253402300799

// claims are what a genuine token says (RFC 7519 section 4), by name.
type claims map[string][]byte

// claimError refuses a genuine token whose claim cannot be used. The message
// names the claim, never its value.
func claimError(name, problem string) error {
	return status.Unauthenticated(sluicev1.Reason_REASON_INVALID_TOKEN, "claim %q of the token %s", name, problem)
}

// name returns the claim as a name fit for a header, a log line and an
// impersonation; empty if the token does not have it.
func (c claims) name(claim string) (string, error) {
	value, has := c[claim]
	if !has {
		return "", nil
	}
	s, ok := decodeString(value)
	if !ok {
		return "", claimError(claim, "is not a string")
	}
	if !cleanName(s) {
		return "", claimError(claim, "is empty or has characters that names cannot have")
	}
	return s, nil
}

// names returns the claim as a list of names, which it may also hold as a single
// string; empty if the token does not have it or has null.
func (c claims) names(claim string) ([]string, error) {
	value, has := c[claim]
	if !has || string(value) == "null" {
		return nil, nil
	}
	if value[0] == '"' {
		one, err := c.name(claim)
		return []string{one}, err
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(value, &elements); err != nil {
		return nil, claimError(claim, "is not a list of strings")
	}
	list := make([]string, len(elements))
	for i, element := range elements {
		var err error
		if list[i], err = (claims{claim: element}).name(claim); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// time returns the claim as a moment; zero if the token does not have it. Only
// whole seconds between 1970 and 9999 in plain decimals are accepted.
func (c claims) time(claim string) (time.Time, error) {
	value, has := c[claim]
	if !has {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil || value[0] == '-' || seconds > endOfTime {
		return time.Time{}, claimError(claim, "is not a number of whole seconds since 1970")
	}
	return time.Unix(seconds, 0), nil
}

// emailVerified refuses an address that the issuer says it has not verified, or
// that is not of the form local@domain.
func (c claims) emailVerified(email string) error {
	local, domain, _ := strings.Cut(email, "@")
	if local == "" || domain == "" || strings.Contains(domain, "@") || strings.ContainsFunc(email, unicode.IsSpace) {
		return claimError("email", "is not one address")
	}
	if verified, has := c["email_verified"]; has && string(verified) != "true" {
		return claimError("email_verified", "is not true")
	}
	return nil
}
