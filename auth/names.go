package auth

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// maxKeyBytes bounds the key of an extra attribute, which becomes part of a header's name.
const maxKeyBytes = 253

// cleanName reports whether s means the same wherever it is written: no control
// characters, no line ends, nothing invisible, nothing that was not valid text,
// and no outer spaces, which HTTP would cut off.
func cleanName(s string) bool {
	for _, r := range s {
		if r == unicode.ReplacementChar || !unicode.IsGraphic(r) {
			return false
		}
	}
	return s != "" && strings.TrimSpace(s) == s
}

func cleanNames(list []string) bool {
	for _, s := range list {
		if !cleanName(s) {
			return false
		}
	}
	return true
}

// cleanKey reports whether s can be the key of an extra attribute: visible ASCII
// in lower case, as the names of headers do not tell cases apart, and no percent
// sign, with which an API server has the rest of such a name written.
func cleanKey(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '%' || 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return s != "" && len(s) <= maxKeyBytes
}

// reservedKey reports whether only an API server may give an extra attribute of
// this key: with those, it ties a service account's token to a pod or a node.
func reservedKey(key string) bool {
	domain, _, _ := strings.Cut(key, "/")
	for _, reserved := range []string{"k8s.io", "kubernetes.io"} {
		if domain == reserved || strings.HasSuffix(domain, "."+reserved) {
			return true
		}
	}
	return false
}

// checkPrefixes returns an error for a prefix that would spoil a clean name.
func checkPrefixes(prefixes ...string) error {
	for _, prefix := range prefixes {
		if prefix != "" && !cleanName(prefix+".") {
			return fmt.Errorf("prefix %q has characters that names cannot have", prefix)
		}
	}
	return nil
}

// checkIssuerName returns an error unless name can be the Issuer of principals
// that no URL vouches for.
func checkIssuerName(name string) error {
	if !cleanName(name) {
		return errors.New("a name for who vouches is required, without characters that names cannot have")
	}
	return nil
}

// prefixed returns the list with the prefix before each name; nil for none.
func prefixed(prefix string, list []string) []string {
	var out []string
	for _, name := range list {
		out = append(out, prefix+name)
	}
	return out
}
