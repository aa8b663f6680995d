package rest

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/internal/status"
)

// forwarded are the headers that reach a method, as metadata of the same names in lower case. There is no other.
var forwarded = []string{"Authorization", "Sluice-Cluster-Authorization", "X-Request-Id", "Traceparent"}

// incoming matches the headers that become metadata. Authorization is not among them: grpc-gateway passes it on by itself, and twice is refused.
func incoming(name string) (string, bool) {
	for _, h := range forwarded[1:] {
		if strings.EqualFold(name, h) {
			return strings.ToLower(h), true
		}
	}
	return "", false
}

// outgoing matches the metadata that becomes headers.
func outgoing(name string) (string, bool) {
	if name == "x-request-id" {
		return "X-Request-Id", true
	}
	return "", false
}

// rebuild is r with nothing in it that a method may not see. grpc-gateway would make metadata of more than headers: of the host, and of
// addresses that a caller claims to be.
func rebuild(r *http.Request, values []value, body []byte) *http.Request {
	out := (&http.Request{
		Method: r.Method, URL: &url.URL{Path: r.URL.Path}, Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}).WithContext(r.Context())
	for _, name := range forwarded {
		if v := r.Header.Values(name); v != nil {
			out.Header[name] = v
		}
	}
	query := url.Values{}
	for _, v := range values {
		query.Set(v.field, v.text)
	}
	out.URL.RawQuery = query.Encode()
	return out
}

// readBody reads the body of a route that has one. The error's HTTP code is returned beside it.
func (rt *route) readBody(r *http.Request) ([]byte, int, error) {
	if !rt.body {
		return nil, 0, nil
	}
	// A form of another page can send any text, but not call it JSON without asking first.
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != jsonType {
		return nil, http.StatusUnsupportedMediaType, invalid("the body must be %s", jsonType)
	}
	body, err := io.ReadAll(r.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, http.StatusRequestEntityTooLarge, status.Limit("web.body_bytes", "the body is longer than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, http.StatusBadRequest, invalid("the body could not be read").Wrap(err)
	}
	return body, 0, nil
}

// format is the media type to answer in: of those that the route produces, the one that the caller would rather have. Empty when it takes none.
func (rt *route) format(h http.Header) string {
	accept := h.Values("Accept")
	if len(accept) == 0 {
		return rt.produces[0]
	}
	best, most := "", 0.0
	for _, produced := range rt.produces {
		if q := quality(accept, produced); q > most {
			best, most = produced, q
		}
	}
	return best
}

func (rt *route) notAcceptable() error {
	return invalid("there is no such form of the answer; Accept one of: %s", strings.Join(rt.produces, ", "))
}

// quality is how much a caller would like a media type, 0 to 1, by the most specific range that names it (RFC 9110, 12.5.1).
func quality(accept []string, mediaType string) float64 {
	found, specific := 0.0, 0
	for one := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		name, parameters, err := mime.ParseMediaType(one)
		if err != nil {
			continue
		}
		s := specificity(name, mediaType)
		if s <= specific {
			continue
		}
		specific, found = s, 1
		if q, ok := parameters["q"]; ok {
			found, err = strconv.ParseFloat(q, 64)
			if err != nil || found < 0 || found > 1 { // NaN passes, and is more than nothing
				found = 0
			}
		}
	}
	return found
}

// specificity is how exactly a media range names a type: 0 is not at all.
func specificity(mediaRange, mediaType string) int {
	major, _, _ := strings.Cut(mediaType, "/")
	switch mediaRange {
	case mediaType:
		return 3
	case major + "/*":
		return 2
	case "*/*":
		return 1
	}
	return 0
}
