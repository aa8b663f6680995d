package websocket

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// answerWith makes a Handshake against a server that reads the request and writes what answer says, and returns what happened
// and what the server read after that until the end.
func answerWith(t *testing.T, answer func(req *http.Request) string, subprotocols ...string) (after string, err error) {
	t.Helper()
	ours, theirs := net.Pipe()
	rest := make(chan string, 1)
	go func() {
		defer theirs.Close()
		r := bufio.NewReader(theirs)
		req, err := http.ReadRequest(r)
		if err != nil {
			rest <- err.Error()
			return
		}
		_, _ = io.WriteString(theirs, answer(req))
		b, _ := io.ReadAll(r) // what arrived before the reset
		rest <- string(b)
	}()
	req, _ := http.NewRequest(http.MethodGet, "http://peer/path", nil)
	c, err := Handshake(t.Context(), ours, req, subprotocols...)
	if err == nil {
		c.Close(CodeNormal)
	}
	return <-rest, err
}

// upgrade is a correct answer.
func upgrade(req *http.Request, more ...string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\nSec-WebSocket-Accept: " +
		acceptFor(req.Header.Get("Sec-WebSocket-Key")) + "\r\n" + strings.Join(more, "\r\n") + "\r\n"
}

func TestHandshakeTakesCorrectAnswer(t *testing.T) {
	keys := map[string]bool{}
	for range 2 {
		var seen *http.Request
		_, err := answerWith(t, func(req *http.Request) string {
			seen = req
			return "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + upgrade(req, "Sec-WebSocket-Protocol: b", "")
		}, "a", "b")
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"Upgrade": "websocket", "Connection": "Upgrade", "Sec-Websocket-Version": "13", "Sec-Websocket-Protocol": "a, b"}
		for name, value := range want {
			if got := seen.Header.Get(name); got != value {
				t.Errorf("%s: %q", name, got)
			}
		}
		keys[seen.Header.Get("Sec-WebSocket-Key")] = true
	}
	if len(keys) != 2 {
		t.Errorf("keys %v", keys)
	}
}

// The example of RFC 6455 section 1.3.
func TestAcceptOfRFC6455(t *testing.T) {
	if got := acceptFor("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("got %s", got)
	}
}

// TestT_B6_FailedUpgradeEndsTheConnection proves for every kind of answer that is no correct 101 that it is refused, told, and
// that not one byte follows on the connection.
func TestT_B6_FailedUpgradeEndsTheConnection(t *testing.T) {
	answers := map[string]struct {
		answer func(req *http.Request) string
		code   int
	}{
		"200": {func(*http.Request) string { return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" }, 200},
		"301": {func(*http.Request) string {
			return "HTTP/1.1 301 M\r\nLocation: http://other/\r\nContent-Length: 0\r\n\r\n"
		}, 301},
		"400": {func(*http.Request) string { return "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" }, 400},
		"403 chunked": {func(*http.Request) string {
			return "HTTP/1.1 403 F\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"
		}, 403},
		"500":                  {func(*http.Request) string { return "HTTP/1.1 500 E\r\nRetry-After: 3\r\nContent-Length: 0\r\n\r\n" }, 500},
		"no upgrade":           {func(r *http.Request) string { return strings.Replace(upgrade(r, ""), "Upgrade: WebSocket\r\n", "", 1) }, 101},
		"upgrade to other":     {func(r *http.Request) string { return strings.Replace(upgrade(r, ""), "WebSocket", "SPDY/3.1", 1) }, 101},
		"no connection":        {func(r *http.Request) string { return strings.Replace(upgrade(r, ""), "upgrade\r\n", "x\r\n", 1) }, 101},
		"wrong accept":         {func(r *http.Request) string { r.Header.Set("Sec-WebSocket-Key", "x"); return upgrade(r, "") }, 101},
		"protocol not offered": {func(r *http.Request) string { return upgrade(r, "Sec-WebSocket-Protocol: c", "") }, 101},
		"two protocols": {func(r *http.Request) string {
			return upgrade(r, "Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b", "")
		}, 101},
		"extension": {func(r *http.Request) string { return upgrade(r, "Sec-WebSocket-Extensions: permessage-deflate", "") }, 101},
	}
	for name, c := range answers {
		t.Run(name, func(t *testing.T) {
			after, err := answerWith(t, c.answer, "a", "b")
			var refused *HandshakeError
			if !errors.As(err, &refused) || refused.StatusCode != c.code {
				t.Errorf("got %v", err)
			}
			if after != "" {
				t.Errorf("followed by %q", after)
			}
			if name == "500" && refused.Header.Get("Retry-After") != "3" {
				t.Errorf("header %v", refused.Header)
			}
		})
	}
}

func TestHandshakeBoundsTheAnswer(t *testing.T) {
	_, err := answerWith(t, func(*http.Request) string { return "HTTP/1.1 101 S\r\nX: " + strings.Repeat("x", 1<<20) })
	var refused *HandshakeError
	if !errors.As(err, &refused) || !strings.Contains(refused.Error(), "64 KiB") {
		t.Errorf("long header: %v", err)
	}
	_, err = answerWith(t, func(*http.Request) string {
		return "HTTP/1.1 403 F\r\nContent-Length: 1048576\r\n\r\n" + strings.Repeat("x", 1<<20)
	})
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusForbidden || !bytes.Equal(refused.Body, bytes.Repeat([]byte("x"), maxAnswer)) {
		t.Errorf("long body: %v, %d bytes", err, len(refused.Body))
	}
	_, err = answerWith(t, func(*http.Request) string { return strings.Repeat("HTTP/1.1 102 P\r\n\r\n", 100) })
	if err == nil || errors.As(err, &refused) && refused.StatusCode == http.StatusSwitchingProtocols {
		t.Errorf("interim answers: %v", err)
	}
}

// TestT_E4_SilentServerIsGivenUp: a server that takes the connection and never answers, or one byte a second.
func TestT_E4_SilentServerIsGivenUp(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"takes nothing": func(net.Conn) {},
		"silent":        func(nc net.Conn) { _, _ = io.Copy(io.Discard, nc) },
		"trickles": func(nc net.Conn) {
			go func() { _, _ = io.Copy(io.Discard, nc) }()
			for _, b := range []byte("HTTP/1.1 101 " + strings.Repeat("x", 1000)) {
				<-time.After(time.Second)
				if _, err := nc.Write([]byte{b}); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				var server sync.WaitGroup
				server.Go(func() { serve(theirs) })
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				begin := time.Now()
				req, _ := http.NewRequest(http.MethodGet, "http://peer/", nil)
				if _, err := Handshake(ctx, ours, req); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				if d := time.Since(begin); d != 10*time.Second {
					t.Errorf("after %v", d)
				}
				_ = theirs.Close()
				server.Wait()
			})
		})
	}
}
