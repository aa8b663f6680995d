package web

import (
	"net/http"
	"slices"
	"strings"
)

// origins are the pages that may call. Immutable after newOrigins.
type origins struct {
	listed       map[string]bool
	allowHeaders string
}

func newOrigins(c Config) origins {
	o := origins{listed: map[string]bool{}, allowHeaders: strings.Join(slices.Concat(pageHeaders, c.Forward), ", ")}
	for _, s := range c.Origins {
		o.listed[s] = true
	}
	return o
}

// allow says whether the page that makes the request may, if it is a page that makes it. h is the name the request was sent to.
//
// Programs send neither Origin nor Sec-Fetch-Site. Browsers send an Origin with all that reads an answer or changes anything across
// origins, and the other with everything (W3C Fetch Metadata), so that a navigation or an image shows where it comes from.
func (o origins) allow(r *http.Request, h host) bool {
	from, site := r.Header.Values("Origin"), r.Header.Values("Sec-Fetch-Site")
	if len(from) > 1 || len(site) > 1 {
		return false
	}
	if len(from) == 1 && o.listed[from[0]] {
		return true
	}
	if len(from) == 1 && from[0] != "https://"+h.String() {
		return false
	}
	return len(site) == 0 || site[0] == "same-origin" || (site[0] == "none" && len(from) == 0)
}

// What pages of listed origins are told (CORS). None of it depends on what they ask, so nothing that they ask is read.
var (
	allowMethods = http.MethodGet + ", " + http.MethodPost
	pageHeaders  = []string{
		"authorization", "sluice-cluster-authorization", "content-type", "x-request-id", "traceparent",
		"x-grpc-web", "x-user-agent", "grpc-timeout", "connect-protocol-version", "connect-timeout-ms", "last-event-id",
	}
	exposeHeaders = strings.Join([]string{"grpc-status", "grpc-message", "grpc-status-details-bin", "retry-after", "x-request-id"}, ", ")
)

// preflightAge is how long, in seconds, a browser may remember the answer to a preflight.
const preflightAge = "600"

// share lets a listed page read the answer. Nothing is shared with credentials: the port knows no cookies.
func (o origins) share(w http.ResponseWriter, r *http.Request) {
	from := r.Header.Get("Origin")
	if !o.listed[from] {
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", from)
	w.Header().Set("Access-Control-Expose-Headers", exposeHeaders)
}

// preflight answers a browser that asks before it calls; false when it is something else.
func (o origins) preflight(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	if o.listed[r.Header.Get("Origin")] {
		w.Header().Set("Access-Control-Allow-Methods", allowMethods)
		w.Header().Set("Access-Control-Allow-Headers", o.allowHeaders)
		w.Header().Set("Access-Control-Max-Age", preflightAge)
	}
	w.WriteHeader(http.StatusNoContent)
	return true
}
