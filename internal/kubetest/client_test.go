package kubetest

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience bounds what should happen at once.
const patience = 30 * time.Second

// client talks to a server under test.
type client struct {
	*testing.T
	*Server
	ctx  context.Context
	http *http.Client
	tls  *tls.Config
}

// serve starts a server with the objects and a client of it.
func serve(t *testing.T, o Options, objects ...Object) *client {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := s.Listen(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.CAPEM()) {
		t.Fatal("no CA")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c := &client{T: t, Server: s, ctx: ctx, tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	transport := &http.Transport{TLSClientConfig: c.tls}
	t.Cleanup(transport.CloseIdleConnections)
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for _, o := range objects {
		c.apply(o)
	}
	return c
}

func (c *client) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func (c *client) apply(o Object) Object {
	c.Helper()
	stored, err := c.Apply(o)
	c.must(err)
	return stored
}

func (c *client) await(ok func(Counts) bool) {
	c.Helper()
	if err := c.Await(c.ctx, ok); err != nil {
		c.Fatalf("%v with %+v", err, c.Counts())
	}
}

// configMap is an object of the default namespace.
func configMap(name, value string, labels ...string) Object {
	m := map[string]any{"name": name, "namespace": "default"}
	if len(labels) > 0 {
		set := map[string]any{}
		for _, l := range labels {
			key, value, _ := strings.Cut(l, "=")
			set[key] = value
		}
		m["labels"] = set
	}
	return Object{"apiVersion": "v1", "kind": "ConfigMap", "metadata": m, "data": map[string]any{"value": value}}
}

const configMaps = "/api/v1/namespaces/default/configmaps"

// do sends a request; header are pairs of name and value.
func (c *client) do(method, path, body string, header ...string) (int, http.Header, string) {
	c.Helper()
	r, err := http.NewRequestWithContext(c.ctx, method, c.URL()+path, strings.NewReader(body))
	c.must(err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := c.http.Do(r)
	c.must(err)
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	c.must(err)
	return resp.StatusCode, resp.Header, string(data)
}

func (c *client) get(path string, header ...string) (int, string) {
	c.Helper()
	code, _, body := c.do(http.MethodGet, path, "", header...)
	return code, body
}

// dial opens a WebSocket, as it should be done unless header says otherwise.
func (c *client) dial(path string, header http.Header, protocols ...string) (*websocket.Conn, *http.Response, error) {
	if header == nil {
		header = http.Header{"Origin": {c.URL()}}
	}
	d := websocket.Dialer{TLSClientConfig: c.tls, Subprotocols: protocols, WriteBufferSize: 64 << 10} // a message in one frame
	conn, resp, err := d.DialContext(c.ctx, strings.Replace(c.URL(), "https", "wss", 1)+path, header)
	if conn != nil {
		c.Cleanup(func() { conn.Close() })
		c.must(conn.SetReadDeadline(time.Now().Add(patience)))
	}
	return conn, resp, err
}

// watch opens a watch of the default namespace's config maps.
func (c *client) watch(query string) *websocket.Conn {
	c.Helper()
	conn, _, err := c.dial(configMaps+"?watch=1&"+query, nil)
	c.must(err)
	return conn
}

// event is a watch event as a test looks at it.
type event struct {
	Type   string
	Object Object
}

func (e event) name() string    { return e.Object.String("metadata", "name") }
func (e event) version() string { return e.Object.String("metadata", "resourceVersion") }

func decodeEvent(t *testing.T, message []byte) event {
	t.Helper()
	var raw struct {
		Type   string          `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	if err := json.Unmarshal(message, &raw); err != nil {
		t.Fatalf("%v in %q", err, message)
	}
	o, err := decodeObject(raw.Object)
	if err != nil {
		t.Fatal(err)
	}
	return event{raw.Type, o}
}

func (c *client) next(conn *websocket.Conn) event {
	c.Helper()
	kind, message, err := conn.ReadMessage()
	c.must(err)
	if kind != websocket.TextMessage {
		c.Fatalf("message of type %d", kind)
	}
	return decodeEvent(c.T, message)
}

func (c *client) want(conn *websocket.Conn, kind, name string) event {
	c.Helper()
	e := c.next(conn)
	if e.Type != kind || e.name() != name {
		c.Fatalf("%s of %q, want %s of %q", e.Type, e.name(), kind, name)
	}
	return e
}

func (c *client) wantClose(conn *websocket.Conn, code int) {
	c.Helper()
	_, message, err := conn.ReadMessage()
	if !websocket.IsCloseError(err, code) {
		c.Fatalf("%v after %q, want close %d", err, message, code)
	}
}

func (c *client) version() string { return strconv.FormatUint(c.Version(), 10) }

// raw sends a request byte by byte as given and returns everything answered.
func (c *client) raw(request string) string {
	c.Helper()
	conn, err := tls.Dial("tcp", c.Addr(), &tls.Config{RootCAs: c.tls.RootCAs, NextProtos: []string{"http/1.1"}})
	c.must(err)
	defer conn.Close()
	c.must(conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, request)
	c.must(err)
	answer, err := io.ReadAll(conn)
	c.must(err)
	return string(answer)
}

// lines reads the events of a watch over plain HTTP.
func (c *client) lines(query string) (*bufio.Scanner, func()) {
	c.Helper()
	r, err := http.NewRequestWithContext(c.ctx, http.MethodGet, c.URL()+configMaps+"?watch=1&"+query, nil)
	c.must(err)
	resp, err := c.http.Do(r)
	c.must(err)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
		c.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	return bufio.NewScanner(resp.Body), func() { resp.Body.Close() }
}

func asStatus(t *testing.T, err error) *Status {
	t.Helper()
	var s *Status
	if !errors.As(err, &s) {
		t.Fatalf("%T %v is no Status", err, err)
	}
	return s
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
