package kube

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const testTimeout = 30 * time.Second

func newTestRecorder(t *testing.T, target *Cluster) *Recorder {
	t.Helper()
	r, err := NewRecorder(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("close the recorder: %v", err)
		}
	})
	return r
}

// standIn is a cluster whose API server is only the handler.
func standIn(t *testing.T, handler http.Handler) *Cluster {
	t.Helper()
	ca, err := newAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.server("stand-in")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(handler)
	if server.TLS, err = cert.tls(); err != nil {
		t.Fatal(err)
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return &Cluster{addr: server.Listener.Addr().String(), ca: ca}
}

func dialTLS(t *testing.T, r *Recorder) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", r.Addr(), &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: r.target.CertPool()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestRecorderPassesOnWhatItRecords writes requests by hand, so that no client
// adds anything, and compares what came, what was recorded and what went on.
func TestRecorderPassesOnWhatItRecords(t *testing.T) {
	requests := map[string]string{
		"plain": "GET /a%2Fb/c?x=1;2&y=%zz HTTP/1.1\r\nHost: the.host\r\nAuthorization: Bearer one\r\n" +
			"X-Many: a\r\nX-Many: b\r\nX-Forwarded-For: 192.0.2.1\r\nImpersonate-User: bob\r\nConnection: close\r\n\r\n",
		"upgrade": "GET /a%2Fb/c?x=1;2&y=%zz HTTP/1.1\r\nHost: the.host\r\nAuthorization: Bearer one\r\nAuthorization: Bearer two\r\n" +
			"Origin: https://o\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-Websocket-Version: 13\r\nSec-Websocket-Key: x\r\n\r\n",
	}
	for name, text := range requests {
		t.Run(name, func(t *testing.T) {
			came := make(chan *http.Request, 1)
			r := newTestRecorder(t, standIn(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				came <- q
				w.WriteHeader(http.StatusTeapot)
			})))
			conn := dialTLS(t, r)
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			upstream := <-came
			await(t, r, func(q Request) bool { return q.Ended && q.Status == http.StatusTeapot })
			recorded := r.Requests()[0]
			if recorded.Path != "/a/b/c" || recorded.RawQuery != "x=1;2&y=%zz" || recorded.Host != "the.host" {
				t.Errorf("recorded %+v", recorded)
			}
			if upstream.RequestURI != "/a%2Fb/c?x=1;2&y=%zz" || upstream.Host != "the.host" {
				t.Errorf("passed on %s of %s", upstream.RequestURI, upstream.Host)
			}
			if want := fieldsOf(text); !reflect.DeepEqual(recorded.Header, want) {
				t.Errorf("recorded %v, want %v", recorded.Header, want)
			}
			want := recorded.Header.Clone()
			if name == "plain" { // which is between two neighbours only
				want.Del("Connection")
			}
			if !reflect.DeepEqual(upstream.Header, want) {
				t.Errorf("passed on %v, want %v", upstream.Header, want)
			}
		})
	}
}

// fieldsOf reads the header fields, without Host, out of a request's text.
func fieldsOf(text string) http.Header {
	header := http.Header{}
	for _, line := range strings.Split(text, "\r\n")[2:] {
		if name, value, found := strings.Cut(line, ": "); found {
			header.Add(name, value)
		}
	}
	return header
}

// await returns once one recorded request matches.
func await(t *testing.T, r *Recorder, match func(Request) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	err := r.Await(ctx, func(all []Request) bool { return slices.ContainsFunc(all, match) })
	if err != nil {
		t.Fatalf("%v; recorded: %+v", err, r.Requests())
	}
}

func TestRecorderIsLikeADeadServerWhenThereIsNone(t *testing.T) {
	target := standIn(t, http.NotFoundHandler())
	gone, err := loopbackAddrs(1)
	if err != nil {
		t.Fatal(err)
	}
	target.addr = gone[0]
	r := newTestRecorder(t, target)
	conn := dialTLS(t, r)
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); len(answer) > 0 {
		t.Errorf("answered %q, %v", answer, err)
	}
	await(t, r, func(q Request) bool { return q.Ended && q.Status == 0 })
}

// mustWatch opens a watch of the target's configmaps at base.
func mustWatch(t *testing.T, base string, target AnswersTarget, q string) *websocket.Conn {
	t.Helper()
	dialer := websocket.Dialer{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: target.Roots}}
	header := bearer(target.Tokens.Permitted)
	header.Set("Origin", base)
	url := "wss" + strings.TrimPrefix(base, "https") + "/api/v1/namespaces/" + target.Namespace + "/configmaps?watch=1&" + q
	socket, _, err := dialer.DialContext(t.Context(), url, header)
	if err != nil {
		t.Fatalf("watch %s: %v", q, err)
	}
	t.Cleanup(func() { socket.Close() })
	if err := socket.SetReadDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	return socket
}

func TestRecorderCutsAllWithResets(t *testing.T) {
	target := answersTarget(t, Shared(t))
	r := newTestRecorder(t, Shared(t))
	var sockets []*websocket.Conn
	for range 3 {
		sockets = append(sockets, mustWatch(t, r.URL(), target, "resourceVersion=0&labelSelector=no%3Dsuch"))
	}
	if live := r.Live(); live != 3 {
		t.Errorf("%d connections, want 3", live)
	}
	if cut := r.CutAll(); cut != 3 || r.Live() != 0 {
		t.Errorf("cut %d, %d are left", cut, r.Live())
	}
	for _, socket := range sockets {
		if _, _, err := socket.ReadMessage(); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a cut watch ends with %v", err)
		}
	}
	err := r.Await(t.Context(), func(all []Request) bool {
		return !slices.ContainsFunc(all, func(q Request) bool { return !q.Ended })
	})
	if err != nil {
		t.Fatal(err)
	}
	mustWatch(t, r.URL(), target, "")
}

func TestRecorderNotesTokenAnd410(t *testing.T) {
	cluster := Shared(t)
	target := answersTarget(t, cluster)
	r := newTestRecorder(t, cluster)
	version := currentVersion(t, cluster)
	if err := cluster.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	socket := mustWatch(t, r.URL(), target, "resourceVersion="+version)
	if _, _, err := socket.ReadMessage(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := socket.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("the watch ended with %v", err)
	}
	expiries := r.Expired410()
	if len(expiries) != 1 || expiries[0].Message == "" {
		t.Fatalf("expiries: %+v", expiries)
	}
	watched := expiries[0].Request
	want := []string{"Bearer " + target.Tokens.Permitted}
	if got := watched.Header.Values("Authorization"); !slices.Equal(got, want) || watched.Status != http.StatusSwitchingProtocols {
		t.Errorf("%d Authorization values, status %d", len(got), watched.Status)
	}
	if want := "watch=1&resourceVersion=" + version; watched.RawQuery != want {
		t.Errorf("query %q, want %q", watched.RawQuery, want)
	}
	r.Reset()
	if len(r.Requests()) != 0 || len(r.Expired410()) != 0 {
		t.Errorf("after Reset: %+v", r.Requests())
	}
}

func TestRecorderEndsWhileWatched(t *testing.T) {
	target := answersTarget(t, Shared(t))
	r, err := NewRecorder(Shared(t))
	if err != nil {
		t.Fatal(err)
	}
	socket := mustWatch(t, r.URL(), target, "")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for err == nil {
		_, _, err = socket.ReadMessage()
	}
	if _, err := net.Dial("tcp", r.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed recorder: %v", err)
	}
}
