package auth

import (
	"bytes"
	"encoding/base64"
	"strings"
)

// maxIssuerBytes bounds the `iss` that is looked at, as it is written.
const maxIssuerBytes = 1 << 10

// strict64 refuses the padding and the stray bits by which one value could be
// written in several ways.
var strict64 = base64.RawURLEncoding.Strict()

// token is a JWS in compact serialisation (RFC 7515 section 7.1), taken apart
// but not verified: everything in it is merely claimed.
type token struct {
	algorithm string
	keyID     string // empty when the header names none
	issuer    string

	signed    string // what the signature covers
	signature string // in base64url
	payload   []byte
}

// parseToken takes raw apart. What it refuses costs less than twice its length.
func parseToken(raw string) (token, bool) {
	if len(raw) > MaxTokenBytes || strings.Count(raw, ".") != 2 {
		return token{}, false
	}
	lastDot := strings.LastIndexByte(raw, '.')
	header, payload, _ := strings.Cut(raw[:lastDot], ".")
	t := token{signed: raw[:lastDot], signature: raw[lastDot+1:]}
	if !base64url(header) || !base64url(payload) || !base64url(t.signature) {
		return token{}, false
	}
	ok := t.readHeader(header) && t.readPayload(payload)
	return t, ok
}

// base64url reports whether s is of that alphabet; the decoder would skip line ends.
func base64url(s string) bool {
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return s != ""
}

// readHeader reads what the header says about how to verify. Key material in it
// (jwk, jku, x5u, x5c) is not read at all; extensions that must be understood
// (crit, RFC 7515 section 4.1.11) are not, so they are refused.
func (t *token) readHeader(encoded string) bool {
	header, err := strict64.DecodeString(encoded)
	if err != nil || !isObject(header) {
		return false
	}
	var tokenType string
	wanted := map[string]*string{"alg": &t.algorithm, "kid": &t.keyID, "typ": &tokenType}
	for quoted, value := range members(header) {
		name := quoted[1 : len(quoted)-1]
		if bytes.IndexByte(name, '\\') >= 0 || string(name) == "crit" {
			return false
		}
		field, isWanted := wanted[string(name)]
		if !isWanted {
			continue
		}
		if field == nil || !decodeInto(field, value) {
			return false
		}
		wanted[string(name)] = nil // a second one is refused
	}
	return t.algorithm != "" && acceptable(tokenType)
}

func decodeInto(field *string, value []byte) bool {
	var ok bool
	*field, ok = decodeString(value)
	return ok && *field != ""
}

// acceptable reports whether a token of this type, if any, speaks for its
// subject. Others that issuers sign with the same keys, such as logout tokens,
// do not (RFC 8725 section 3.11).
func acceptable(tokenType string) bool {
	switch strings.ToLower(tokenType) {
	case "", "jwt", "at+jwt", "application/at+jwt":
		return true
	}
	return false
}

// readPayload keeps the payload and reads who is said to have issued it.
func (t *token) readPayload(encoded string) bool {
	var err error
	if t.payload, err = strict64.DecodeString(encoded); err != nil || !isObject(t.payload) {
		return false
	}
	for name, value := range members(t.payload) {
		if string(name) == `"iss"` {
			return len(value) <= maxIssuerBytes && decodeInto(&t.issuer, value)
		}
	}
	return false
}
