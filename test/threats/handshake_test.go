package threats

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/rig"
)

// T-C6: connections that say nothing, or begin a handshake and never end it (etcd CVE-2026-73500). A user is served while they are there, and
// all of them are closed by the gateway.
func TestT_C6_ConnectionsThatSayNothing(t *testing.T) {
	const silent = 1000 // on each port
	r := rig.New(t, rig.Options{})
	for _, p := range ports(r) {
		if err := p.call(within(t)); err != nil { // what is made once is made now
			t.Fatal(err)
		}
	}
	before := used(t)
	var conns []net.Conn
	defer func() {
		for _, nc := range conns {
			_ = nc.Close() // once more
		}
	}()
	var d net.Dialer
	for i := range 2 * silent {
		nc, err := d.DialContext(within(t), "tcp", ports(r)[i%2].addr)
		if err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
		conns = append(conns, nc)
		if i%4 < 2 {
			if _, err := nc.Write([]byte{22, 3, 1, 2, 0, 1}); err != nil { // the beginning of a ClientHello of 512 bytes
				t.Fatal(err)
			}
		}
	}
	for _, p := range ports(r) {
		if err := p.call(within(t)); err != nil {
			t.Errorf("%s, beside %d silent connections: %v", p.name, silent, err)
		}
	}
	before.grew(2 * silent * 24 << 10) // of both ends; stacks are no part of it
	deadline := time.Now().Add(time.Minute)
	for i, nc := range conns {
		if err := nc.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		var timeout net.Error
		if _, err := io.Copy(io.Discard, nc); errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatalf("a silent connection to the %s port is left open", ports(r)[i%2].name)
		}
		_ = nc.Close()
	}
	before.returns()
}

// T-C6: HTTP/2 in the clear, and other protocols than the port's own, get no further than the handshake.
func TestT_C6_NothingIsServedInTheClear(t *testing.T) {
	onBothPorts(t, rig.Options{}, func(t *testing.T, _ *rig.Rig, p port) {
		for _, said := range []string{
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "GET /v1/clusters HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
		} {
			var d net.Dialer
			nc, err := d.DialContext(within(t), "tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(nc, said); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(nc)
			_ = nc.Close()
			if s := string(answer); strings.Contains(s, "HTTP/2") || strings.Contains(s, " 101 ") || strings.Contains(s, " 200 ") {
				t.Errorf("%.20q was answered %q, %v", said, answer, err)
			}
		}
	})
}

// T-C18: what follows a refused upgrade, or a request whose length two readers could understand differently, on the same connection, is
// never taken for a request (Go CVE-2025-22871).
func TestT_C18_NothingIsSmuggledBehindARefusal(t *testing.T) {
	r := rig.New(t, rig.Options{})
	addr := r.Server.WebAddr().String()
	token := r.Token("alice")
	head := func(method, path string, fields ...string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nAuthorization: Bearer " + token + "\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
	}
	post := []string{"Content-Type: application/json"}
	smuggled := head("POST", listClusters, "Content-Type: application/json", "Connection: close", "Content-Length: 2") + "{}"
	for name, said := range map[string]string{
		"refused WebSocket": head("GET", "/nowhere", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
		"refused h2c":        head("GET", "/nowhere", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
		"refused CONNECT":    head("CONNECT", "127.0.0.1:80"),
		"two lengths":        head("POST", listClusters, append(post, "Content-Length: 2", "Content-Length: 3")...) + "{}",
		"length and chunks":  head("POST", listClusters, append(post, "Content-Length: 7", "Transfer-Encoding: chunked")...) + "2\r\n{}\r\n0\r\n\r\n",
		"chunked twice":      head("POST", listClusters, append(post, "Transfer-Encoding: chunked, chunked")...) + "2\r\n{}\r\n0\r\n\r\n",
		"chunked, obscured":  head("POST", listClusters, append(post, "Transfer-Encoding: \x0bchunked")...) + "2\r\n{}\r\n0\r\n\r\n",
		"bare LF in a chunk": head("POST", listClusters, append(post, "Transfer-Encoding: chunked")...) + "2;\n{}\r\n0\r\n\r\n",
		"space in a name":    head("POST", listClusters, append(post, "Content-Length : 2")...) + "{}",
		"signed length":      head("POST", listClusters, append(post, "Content-Length: +2")...) + "{}",
	} {
		conn, err := (&tls.Dialer{Config: r.ClientTLS()}).DialContext(within(t), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, said+smuggled); err != nil {
			t.Fatal(err)
		}
		answers, err := statuses(conn)
		_ = conn.Close()
		if len(answers) > 1 || len(answers) == 1 && (answers[0] == http.StatusOK && name != "length and chunks" || answers[0] < 200) {
			t.Errorf("%s: answered %v (%v): what followed was taken for a request, or the connection for a tunnel", name, answers, err)
		}
	}
}

// statuses are the codes of all answers until the server ends the connection.
func statuses(conn net.Conn) (codes []int, err error) {
	in := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return codes, err
		}
		codes = append(codes, res.StatusCode)
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return codes, fmt.Errorf("body: %w", err)
		}
		_ = res.Body.Close()
	}
}
