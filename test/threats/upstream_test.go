package threats

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/cluster"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/test/rig"
)

// evil is the name of the cluster whose API server is somebody else's.
const evil = "evil"

// hostile is an API server that answers as a test wants it to, below HTTP.
type hostile struct {
	lis    net.Listener
	config cluster.Config
	dials  atomic.Int64
	conns  sync.WaitGroup

	mu      sync.Mutex // guards everything below
	open    map[net.Conn]struct{}
	offered []string // by ALPN
	headers []http.Header
	paths   []string
}

// serve is what a hostile API server does with a request, until the connection is over.
type serve func(nc net.Conn, req *http.Request)

// newHostile makes an API server that ends with the test.
func newHostile(t testing.TB, s serve) *hostile {
	t.Helper()
	dir := t.TempDir()
	der := rig.WriteCertificate(t, dir)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{open: map[net.Conn]struct{}{}}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.offered = append(h.offered, hello.SupportedProtos...)
		return nil, nil
	}
	if h.lis, err = tls.Listen("tcp", "127.0.0.1:0", config); err != nil {
		t.Fatal(err)
	}
	h.config = cluster.Config{
		Name: evil, Server: "https://" + h.lis.Addr().String(), CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(der)}),
		Credential: sluicev1.Credential_CREDENTIAL_PASSTHROUGH, Audiences: []string{rig.Audience},
	}
	h.conns.Go(func() { h.accept(s) })
	t.Cleanup(func() {
		_ = h.lis.Close()
		h.mu.Lock()
		for nc := range h.open {
			_ = nc.Close()
		}
		h.mu.Unlock()
		h.conns.Wait()
	})
	return h
}

func (h *hostile) accept(s serve) {
	for {
		nc, err := h.lis.Accept()
		if err != nil {
			return
		}
		h.dials.Add(1)
		h.mu.Lock()
		h.open[nc] = struct{}{}
		h.mu.Unlock()
		h.conns.Go(func() {
			defer func() {
				h.mu.Lock()
				delete(h.open, nc)
				h.mu.Unlock()
				_ = nc.Close()
			}()
			req, err := http.ReadRequest(bufio.NewReader(nc))
			if err != nil {
				return
			}
			h.mu.Lock()
			h.headers, h.paths = append(h.headers, req.Header), append(h.paths, req.URL.Path)
			h.mu.Unlock()
			s(nc, req)
		})
	}
}

// live is how many connections the gateway has not ended.
func (h *hostile) live() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.open)
}

// answer writes what it is given and waits until the gateway hangs up, which it must.
func answer(said ...string) serve {
	return func(nc net.Conn, _ *http.Request) {
		for _, s := range said {
			if _, err := io.WriteString(nc, s); err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, nc)
	}
}

// endless writes a beginning, and then the same again and again until the gateway hangs up. It counts the bytes that were taken.
func endless(taken *atomic.Int64, beginning, again string) serve {
	more := []byte(strings.Repeat(again, 16<<10/len(again)))
	return func(nc net.Conn, _ *http.Request) {
		_, err := io.WriteString(nc, beginning)
		for err == nil {
			var n int
			n, err = nc.Write(more)
			taken.Add(int64(n))
		}
	}
}

// upgraded accepts the WebSocket, with more headers if there are any, and sends what follows.
func upgraded(header string, frames ...[]byte) serve {
	return func(nc net.Conn, req *http.Request) {
		sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+header+
			"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n", string(bytes.Join(frames, nil)))(nc, req)
	}
}

// told is what a watch of the evil cluster is told first of its failure: the state that says so, or the call's end.
func told(t *testing.T, r *rig.Rig, target *sluicev1.WatchTarget) *status.Error {
	t.Helper()
	ctx, cancel := context.WithCancel(r.As(within(t), "alice"))
	defer cancel()
	stream, err := sluicev1.NewGatewayServiceClient(r.Conn()).Watch(ctx, &sluicev1.WatchRequest{Cluster: evil, Watch: target})
	if err != nil {
		t.Fatal(err)
	}
	for {
		res, err := stream.Recv()
		if err != nil {
			return status.From(err)
		}
		if res.GetState().GetKind() == sluicev1.ChannelState_KIND_RECONNECTING {
			return status.FromProto(res.GetState().GetStatus())
		}
	}
}

func pods() *sluicev1.WatchTarget { return &sluicev1.WatchTarget{Version: "v1", Resource: "pods"} }

// ways are a target that is dialled as a WebSocket at once, and one that begins with a list.
func ways() map[string]*sluicev1.WatchTarget {
	list := pods()
	list.ChangesOnly = true
	return map[string]*sluicev1.WatchTarget{"WebSocket": pods(), "list": list}
}

// facing is a gateway in front of a hostile API server.
func facing(t *testing.T, s serve) (*rig.Rig, *hostile) {
	t.Helper()
	h := newHostile(t, s)
	r := rig.New(t, rig.Options{Clusters: []cluster.Config{h.config}})
	if err := callGRPC(within(t), r); err != nil { // what is made once is made now
		t.Fatal(err)
	}
	return r, h
}

// T-B7: no redirect is followed, whatever its code, by either kind of request (CVE-2020-8559, CVE-2018-1002102, CVE-2022-3172).
func TestT_B7_RedirectsLeadNowhere(t *testing.T) {
	elsewhere := newHostile(t, answer(""))
	for _, code := range []int{300, 301, 302, 303, 304, 305, 307, 308, 399} {
		for _, location := range []string{elsewhere.config.Server + "/x", "//" + elsewhere.lis.Addr().String() + "/x", "/elsewhere"} {
			r, h := facing(t, answer(fmt.Sprintf("HTTP/1.1 %d Elsewhere\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n", code, location)))
			for way, target := range ways() {
				if e := told(t, r, target); e == nil || !strings.Contains(e.Message, "redirect") || e.HTTPCode != code {
					t.Errorf("%d to %s, by %s: %v", code, location, way, e)
				}
			}
			h.mu.Lock()
			for _, path := range h.paths {
				if path != "/api/v1/pods" {
					t.Errorf("%d to %s: asked for %s", code, location, path)
				}
			}
			h.mu.Unlock()
			r.Stop()
		}
	}
	if n := elsewhere.dials.Load(); n != 0 {
		t.Errorf("the gateway went where it was sent, %d times", n)
	}
}

// T-C5: an API server that speaks HTTP/2 although nobody asked for it, with settings and frames that have hung and crashed Go's client
// (CVE-2026-33814, CVE-2026-27141). The gateway offers HTTP/1.1 alone: to it that is garbage.
func TestT_C5_NoAPIServerMakesTheGatewaySpeakHTTP2(t *testing.T) {
	frame := func(kind byte, payload string) string {
		return string([]byte{0, 0, byte(len(payload)), kind, 0, 0, 0, 0, 0}) + payload
	}
	settings := frame(4, "\x00\x05\x00\x00\x00\x00"+"\x00\x04\xff\xff\xff\xff") // a frame size of 0, a window that overflows
	said := []string{settings}
	for kind := byte(0x0a); kind <= 0x0f; kind++ {
		said = append(said, frame(kind, "xxxx"))
	}
	r, h := facing(t, answer(said...))
	before := used(t)
	for way, target := range ways() {
		if e := told(t, r, target); e == nil || e.HTTPCode != 0 {
			t.Errorf("%s: %v", way, e)
		}
	}
	h.mu.Lock()
	if slices.Contains(h.offered, "h2") {
		t.Errorf("the gateway offers %v", h.offered)
	}
	h.mu.Unlock()
	if !await(within(t), func() bool { return h.live() == 0 }) {
		t.Errorf("%d connections live on", h.live())
	}
	before.grew(4 << 20)
}

// T-C5: answers without an end are given up, after what a limit says.
func TestT_C5_AnswersWithoutAnEnd(t *testing.T) {
	const chunked = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	for name, said := range map[string][2]string{
		"status line":    {"HTTP/1.1 200 ", "O"},
		"header":         {"HTTP/1.1 200 OK\r\nA: ", "a"},
		"headers":        {"HTTP/1.1 200 OK\r\n", "A: a\r\n"},
		"interim":        {"", "HTTP/1.1 103 Early Hints\r\n\r\n"},
		"refusal":        {"HTTP/1.1 403 Forbidden\r\n\r\n", "{"},
		"object":         {"HTTP/1.1 200 OK\r\n\r\n{\"kind\":\"PodList\",\"items\":[{\"a\":\"", "a"},
		"depth":          {"HTTP/1.1 200 OK\r\n\r\n{\"kind\":\"PodList\",\"items\":[{\"a\":", "["},
		"member":         {"HTTP/1.1 200 OK\r\n\r\n{\"x\":\"", "a"},
		"chunk's length": {chunked, "0"},
		"chunk's words":  {chunked + "1;", "a"},
	} {
		for way, target := range ways() {
			t.Run(name+", "+way, func(t *testing.T) {
				var taken atomic.Int64
				r, h := facing(t, endless(&taken, said[0], said[1]))
				before := used(t)
				if e := told(t, r, target); e == nil {
					t.Error("no error")
				}
				if !await(within(t), func() bool { return h.live() == 0 }) {
					t.Errorf("%d connections live on", h.live())
				}
				if n := taken.Load(); n > 32<<20 {
					t.Errorf("the gateway took %d bytes", n)
				}
				before.grew(8 << 20)
			})
		}
	}
}

// frameOf is a WebSocket frame with a length that is claimed, and the bytes that really follow.
func frameOf(first byte, claimed uint64, payload ...byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{first, 127}, claimed), payload...)
}

// T-C7: frames that lie about their length, or break RFC 6455 otherwise, end their upstream and cost nothing.
func TestT_C7_FramesThatBreakTheRules(t *testing.T) {
	text := func(first byte, payload string) []byte { return append([]byte{first, byte(len(payload))}, payload...) }
	for name, frames := range map[string][]byte{
		"2^63":                        frameOf(0x81, 1<<63, 'x'),
		"2^64-1":                      frameOf(0x81, 1<<64-1, 'x'),
		"64 bits for 5 bytes":         frameOf(0x81, 5, []byte("hello")...),
		"16 bits for 5 bytes":         append([]byte{0x81, 126, 0, 5}, "hello"...),
		"reserved bit 1":              text(0xc1, "{}"),
		"reserved bit 2":              text(0xa1, "{}"),
		"reserved bit 3":              text(0x91, "{}"),
		"opcode 3":                    text(0x83, "{}"),
		"opcode 11":                   text(0x8b, ""),
		"masked":                      {0x81, 0x82, 1, 2, 3, 4, '{' ^ 1, '}' ^ 2},
		"ping in pieces":              text(0x09, "x"),
		"ping of 126 bytes":           append([]byte{0x89, 126, 0, 126}, make([]byte, 126)...),
		"close of one byte":           text(0x88, "x"),
		"close with a forbidden code": text(0x88, "\x03\xed"),
		"close that is not UTF-8":     text(0x88, "\x03\xe8\xff"),
		"continuation of nothing":     text(0x80, "{}"),
		"a message within another":    append(text(0x01, "{"), text(0x81, "}")...),
	} {
		t.Run(name, func(t *testing.T) {
			r, h := facing(t, upgraded("", frames))
			before := used(t)
			if e := told(t, r, pods()); e == nil || e.Reason != sluicev1.Reason_REASON_UPSTREAM_PROTOCOL {
				t.Errorf("got %v", e)
			}
			if !await(within(t), func() bool { return h.live() == 0 }) {
				t.Errorf("%d connections live on", h.live())
			}
			before.grew(2 << 20)
		})
	}
}

// T-C8: compression is neither offered nor accepted, so there is no bomb.
func TestT_C8_NoCompressionNoBomb(t *testing.T) {
	var bomb bytes.Buffer
	w, err := flate.NewWriter(&bomb, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(w, zeros{}, 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Flush(), w.Close()); err != nil {
		t.Fatal(err)
	}
	const bookmark = `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}` // what is right but for the extension
	compressed := append(frameOf(0xc1, uint64(bomb.Len())), bomb.Bytes()...)
	for name, s := range map[string]serve{
		"negotiated": upgraded("Sec-WebSocket-Extensions: permessage-deflate\r\n", append([]byte{0x81, byte(len(bookmark))}, bookmark...)),
		"unasked":    upgraded("", compressed),
		"gzip":       answer("HTTP/1.1 403 Forbidden\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde"),
	} {
		r, h := facing(t, s)
		before := used(t)
		if e := told(t, r, pods()); e == nil || name != "gzip" && e.Reason != sluicev1.Reason_REASON_UPSTREAM_PROTOCOL {
			t.Errorf("%s: %v", name, e)
		}
		h.mu.Lock()
		for _, header := range h.headers {
			if v := header.Get("Sec-WebSocket-Extensions") + header.Get("Accept-Encoding"); v != "" {
				t.Errorf("%s: the gateway offers %q", name, v)
			}
		}
		h.mu.Unlock()
		before.grew(4 << 20)
		r.Stop()
	}
}

// zeros is a reader without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
