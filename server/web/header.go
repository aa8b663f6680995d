package web

import (
	"net/http"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// forwarded are the headers that become a call's metadata. Everything else is the protocols' or nobody's.
var forwarded = []string{"Authorization", "Sluice-Cluster-Authorization", "X-Request-Id", "Traceparent"}

// spoken are the headers that the protocols of the port consist of.
var spoken = []string{
	"Accept", "Content-Encoding", "Content-Type", "Last-Event-Id",
	"Connect-Content-Encoding", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Grpc-Encoding", "Grpc-Timeout",
}

// fields is how many header fields there are.
func fields(h http.Header) int {
	n := 0
	for _, values := range h {
		n += len(values)
	}
	return n
}

// forwardable says whether a configuration may forward a header: whether it means nothing to a protocol of the port and is no way to pretend
// something.
func forwardable(name string) bool {
	name = http.CanonicalHeaderKey(name)
	return httpguts.ValidHeaderFieldName(name) && !strings.Contains(name, "_") && !slices.Contains(forwarded, name) && !protocols(name) &&
		!slices.Contains([]string{"Cookie", "Origin", "Forwarded", "Host", "Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade"}, name)
}

// protocols says whether a header is a protocol's own.
func protocols(name string) bool {
	if slices.Contains(spoken, name) {
		return true
	}
	return slices.ContainsFunc([]string{"Access-Control-", "Connect-", "Content-", "Grpc-", "Impersonate-", "Proxy-", "Sec-", "Trailer-", "X-Forwarded-"},
		func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// filter is what passes the guard: a new header with the fields of the lists and no other. Cookies, X-Forwarded-*, Impersonate-*,
// Grpc-Metadata-* and names in other spellings are not on them.
func (h *Handler) filter(in http.Header) http.Header {
	out := http.Header{}
	for _, list := range [...][]string{h.forwarded, spoken} {
		for _, name := range list {
			if values, ok := in[name]; ok {
				out[name] = values
			}
		}
	}
	return out
}
