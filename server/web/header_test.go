package web

import (
	"bufio"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func FuzzFilter(f *testing.F) {
	f.Add("Authorization: a\r\nCookie: b\r\nConnection: Authorization\r\n")
	f.Add("grpc-metadata-authorization: a\r\nauthorization : b\r\n")
	f.Add("AUTHORIZATION: a\r\nauthorization: b\r\nX_Request_Id: c\r\n")
	h := &Handler{forwarded: forwarded}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: a\r\n" + s + "\r\n")))
		if err != nil {
			return
		}
		out := h.filter(r.Header)
		for name, values := range out {
			if !slices.Contains(forwarded, name) && !slices.Contains(spoken, name) {
				t.Errorf("%q passes", name)
			}
			if !slices.Equal(values, r.Header[name]) {
				t.Errorf("%q has %q, was %q", name, values, r.Header[name])
			}
		}
		if fields(out) > fields(r.Header) {
			t.Errorf("%d fields became %d", fields(r.Header), fields(out))
		}
	})
}

// T-A11: the names that credentials have in URLs, in the spellings that somebody's library makes of them.
func TestT_A11_QuerySecrets(t *testing.T) {
	for _, name := range []string{
		"token", "Token", "TOKEN", "access_token", "accessToken", "access-token", "id_token", "refresh_token", "authorization", "Authorization", "auth",
		"bearer", "jwt", "api_key", "apikey", "apiKey", "password", "client_secret", "credential", "sluice-cluster-authorization", "a.token", "a[token]",
		"a.b.access_token", "a.Authorization",
	} {
		if !holdsSecret(url.Values{"namespace": {"x"}, name: {"v"}}) {
			t.Errorf("%q passes", name)
		}
	}
	for _, name := range []string{"", "namespace", "cursor", "watch.labelSelector", "page_token", "nextPageToken", "continue", "tokens", "author"} {
		if holdsSecret(url.Values{name: {"token"}}) {
			t.Errorf("%q is refused", name)
		}
	}
}
