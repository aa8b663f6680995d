package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// asks is a request for gateway.example:8444 with headers, name and value in turn.
func asks(method string, fields ...string) *http.Request {
	r := httptest.NewRequest(method, "https://gateway.example:8444/", http.NoBody)
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	return r
}

var (
	asked  = host{"gateway.example", "8444"}
	listed = Config{Origins: []string{"https://console.example", "https://[fd00::1]:8443", "http://localhost:5173"}}
)

// T-J2: an origin is one of the list, byte for byte, or the port's own.
func TestT_J2_OriginsAreExact(t *testing.T) {
	o := newOrigins(listed)
	for _, good := range []string{"https://console.example", "https://[fd00::1]:8443", "http://localhost:5173", "https://gateway.example:8444"} {
		if !o.allow(asks("POST", "Origin", good), asked) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{
		"", "null", "*", "https://", "https://evil.example", "http://console.example", "https://console.example:443", "https://console.example:8443",
		"https://console.example/", "https://console.example?", "https://console.example#", "https://console.example.", "https://CONSOLE.example",
		"HTTPS://console.example", " https://console.example", "https://console.example ", "https://console.example,https://evil.example",
		"https://console.example https://evil.example", "https://console.example.evil.example", "https://evilconsole.example",
		"https://evil.example/https://console.example", "https://console.example@evil.example", "https://console.example:x@evil.example",
		"https://user@console.example", "https://console.exampl", "https://onsole.example", "https://sub.console.example", "https://[fd00::1]",
		"https://[fd00:0::1]:8443", "https://[fd00::2]:8443", "http://localhost", "https://localhost:5173", "http://localhost:5174",
		"http://127.0.0.1:5173", "https://gateway.example", "https://gateway.example:8445", "http://gateway.example:8444", "https://Gateway.example:8444",
		"https://gateway.example.:8444", "https://gateway.example:8444/", "file://", "data:", "chrome-extension://gateway.example", "https://console.example\x00",
		"https://\u0441onsole.example", strings.Repeat("https://console.example", 1000),
	} {
		if o.allow(asks("POST", "Origin", bad), asked) {
			t.Errorf("%q is allowed", bad)
		}
	}
	if o.allow(asks("POST", "Origin", "https://console.example", "Origin", "https://console.example"), asked) {
		t.Error("two origins are allowed")
	}
	if newOrigins(Config{}).allow(asks("POST", "Origin", "https://console.example"), asked) {
		t.Error("without a list, a page is allowed")
	}
}

// T-J1: what a page of another origin can send without an Origin says where it comes from, and reaches nothing.
func TestT_J1_FetchMetadata(t *testing.T) {
	o := newOrigins(listed)
	for _, c := range []struct {
		origin, site string
		allowed      bool
	}{
		{"", "", true}, // no browser
		{"", "none", true},
		{"", "same-origin", true},
		{"", "same-site", false},
		{"", "cross-site", false},
		{"", "Same-Origin", false},
		{"", "something-new", false},
		{"https://gateway.example:8444", "", true},
		{"https://gateway.example:8444", "same-origin", true},
		{"https://gateway.example:8444", "cross-site", false},
		{"https://gateway.example:8444", "none", false},
		{"https://console.example", "same-site", true},
		{"https://console.example", "cross-site", true},
		{"https://evil.example", "same-origin", false},
		{"https://evil.example", "none", false},
		{"null", "cross-site", false},
		{"null", "same-origin", false},
	} {
		r := asks("GET")
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if c.site != "" {
			r.Header.Set("Sec-Fetch-Site", c.site)
		}
		if got := o.allow(r, asked); got != c.allowed {
			t.Errorf("origin %q, site %q: %v", c.origin, c.site, got)
		}
	}
	if o.allow(asks("GET", "Sec-Fetch-Site", "same-origin", "Sec-Fetch-Site", "same-origin"), asked) {
		t.Error("two are allowed")
	}
}

// T-J2: no answer lets a page use the credentials of the browser, and none lets every page in.
func TestT_J2_SharingIsForListedPages(t *testing.T) {
	o := newOrigins(listed)
	for _, origin := range []string{"https://console.example", "https://gateway.example:8444", ""} {
		for _, method := range []string{"POST", "OPTIONS"} {
			r := asks(method, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-evil", "Access-Control-Request-Private-Network", "true")
			if origin != "" {
				r.Header.Set("Origin", origin)
			}
			w := httptest.NewRecorder()
			o.share(w, r)
			if asked := o.preflight(w, r); asked != (method == "OPTIONS") {
				t.Errorf("%s is a preflight: %v", method, asked)
			}
			h := w.Result().Header
			want := ""
			if origin == "https://console.example" {
				want = origin
			}
			if got := h.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s from %q: allowed is %q", method, origin, got)
			}
			for name, values := range h {
				value := strings.Join(values, ",")
				if strings.Contains(value, "*") || name == "Access-Control-Allow-Credentials" || name == "Access-Control-Allow-Private-Network" ||
					strings.Contains(value, "evil") {
					t.Errorf("%s from %q: %s: %s", method, origin, name, value)
				}
			}
			if allowed := h.Get("Access-Control-Allow-Headers"); (allowed != "") != (want != "" && method == "OPTIONS") ||
				(allowed != "" && !strings.HasPrefix(allowed, "authorization, ")) {
				t.Errorf("%s from %q: headers %q", method, origin, allowed)
			}
		}
	}
}

// T-D11: what a preflight asks for costs nothing, however much it is.
func TestT_D11_APreflightIsNotParsed(t *testing.T) {
	o := newOrigins(listed)
	cost := func(headers string) float64 {
		r := asks("OPTIONS", "Origin", "https://console.example", "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", headers)
		return testing.AllocsPerRun(10, func() {
			w := &discard{http.Header{}}
			o.share(w, r)
			o.preflight(w, r)
		})
	}
	if small, bomb := cost("a"), cost(strings.Repeat(",", 1<<20)); bomb > small {
		t.Errorf("one name costs %v allocations, a million commas %v", small, bomb)
	}
}

// discard is a response that nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header       { return d.header }
func (*discard) Write(p []byte) (int, error) { return len(p), nil }
func (*discard) WriteHeader(int)             {}

func TestConfigIsChecked(t *testing.T) {
	good := Config{Origins: []string{"https://a.example", "http://localhost:5173", "https://[::1]:8443"}, Hosts: []string{"a", "b:1", "[::1]"}}
	if err := good.Validate(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("nothing: %v", err)
	}
	for _, o := range []string{
		"", "*", "null", "a.example", "https://", "https://*.example", "https://a.example/", "https://A.example", "https://a.example:443", "http://a.example:80",
		"https://user@a.example", "ftp://a.example", "https://a.example?", "https://a.example#", "https://[0::1]", "https://a.example.", "https://a_b.example",
	} {
		if err := (Config{Origins: []string{o}}).Validate(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", o)) {
			t.Errorf("origin %q: %v", o, err)
		}
	}
	for _, h := range []string{"", "*", "a:", "a:b", "https://a", "*.example", "a b"} {
		if err := (Config{Hosts: []string{h}}).Validate(); err == nil || !strings.Contains(err.Error(), "web.hosts") {
			t.Errorf("host %q: %v", h, err)
		}
	}
	for _, name := range []string{
		"", "a b", "a_b", "authorization", "cookie", "origin", "x-forwarded-for", "grpc-status", "Connect-Anything", "sec-fetch-site", "content-length",
		"impersonate-user", "te", "access-control-allow-origin",
	} {
		if err := (Config{Forward: []string{name}}).Validate(); err == nil {
			t.Errorf("%q can be forwarded", name)
		}
	}
	all := (Config{Origins: []string{"x"}, Hosts: []string{"*"}, BodyBytes: 1, Headers: 1, Forward: []string{"cookie"}}).Validate()
	for _, name := range []string{"web.origins", "web.hosts", "web.body_bytes", "web.headers", "web.forward"} {
		if !strings.Contains(fmt.Sprint(all), name) {
			t.Errorf("%s is not named: %v", name, all)
		}
	}
}

func FuzzOrigin(f *testing.F) {
	for _, s := range []string{"https://console.example", "null", "", "https://gateway.example:8444", "https://console.example:443"} {
		f.Add(s, "", "gateway.example:8444")
	}
	o := newOrigins(listed)
	f.Fuzz(func(t *testing.T, origin, site, to string) {
		h, ok := parseHost(to)
		if !ok {
			return
		}
		r := &http.Request{Header: http.Header{"Origin": {origin}}}
		if site != "" {
			r.Header["Sec-Fetch-Site"] = []string{site}
		}
		inList := false
		for _, l := range listed.Origins {
			inList = inList || l == origin
		}
		want := inList || (origin == "https://"+h.String() && (site == "" || site == "same-origin"))
		if got := o.allow(r, h); got != want {
			t.Errorf("origin %q, site %q, host %q: %v", origin, site, to, got)
		}
	})
}
