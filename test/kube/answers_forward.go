package kube

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The subprotocols of port-forward over WebSocket: SPDY/3.1 in binary messages
// (KEP-4006), and the older two channels a port.
const (
	forwardTunnel = "SPDY/3.1+portforward.k8s.io"
	forwardV4     = "v4.channel.k8s.io"
)

// Ports of [WebPod].
const (
	webPort     = 80
	refusedPort = 81
)

func forwardAnswers() []answer {
	rows := []answer{
		{"v4: each of two channels begins with the port", forwardsV4},
		{"v4: two ports have four channels", forwardsTwoPorts},
		{"v4: a refused port is told on the error channel, then close 1000", forwardsV4Refused},
		{"the tunnel carries a connection", tunnels},
		{"the tunnel carries connections beside each other", tunnelsSeveral},
		{"the tunnel tells a refused port on the error stream and resets the streams", tunnelsRefused},
		{"the tunnel stays when a connection has ended", tunnelsOn},
		{"the tunnel is preferred where it is offered", forwardPrefersTunnel},
		{"an unknown subprotocol is refused without a body", forwardRefusesUnknown},
	}
	for _, r := range forwardRefusals {
		rows = append(rows, answer{r.name, func(a *asker) {
			_, answer := a.dial(handshake{token: r.token(a.Tokens), protocols: []string{forwardV4}}, r.path(a))
			r.check(a, answer)
		}})
	}
	return rows
}

var forwardRefusals = []refusal{
	{name: "a port-forward without a token", token: noToken, path: ofPod(WebPod, "portforward", "ports=80"), code: unauthorized, reason: metav1.StatusReasonUnauthorized},
	{name: "a port-forward by a user without permission", token: unpermitted, path: ofPod(WebPod, "portforward", "ports=80"), code: forbidden, reason: metav1.StatusReasonForbidden},
	{name: "a port-forward to a pod that does not exist", token: permitted, path: ofPod("nobody", "portforward", "ports=80"), code: notFound, reason: reasonNotFound},
	{name: "v4: a port-forward without a port", token: permitted, path: ofPod(WebPod, "portforward", ""), code: badRequest, body: asText},
	{name: "v4: a port-forward to port 0", token: permitted, path: ofPod(WebPod, "portforward", "ports=0"), code: badRequest, body: asText},
	{name: "v4: a port-forward to no number", token: permitted, path: ofPod(WebPod, "portforward", "ports=http"), code: badRequest, reason: reasonBadRequest},
}

// getRoot asks the web pod for a page, after which it closes the connection.
const getRoot = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n"

// wantPage checks an answer to getRoot.
func (a *asker) wantPage(text []byte) {
	a.Helper()
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(text)), nil)
	if err != nil {
		a.Fatalf("%v: %q", err, text)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	a.must(err)
	if response.StatusCode != http.StatusOK || len(body) == 0 {
		a.Errorf("%s %q", response.Status, body)
	}
}

func (a *asker) forward(protocol, q string) processSocket {
	a.Helper()
	return a.open(protocol, WebPod, "portforward", q)
}

// wantPort checks that a channel begins with the port, least significant byte first.
func (p processSocket) wantPort(channel byte, port uint16) {
	p.Helper()
	want := binary.LittleEndian.AppendUint16(nil, port)
	if got, text := p.next(); got != channel || !bytes.Equal(text, want) {
		p.Errorf("% x on channel %d, want % x on channel %d", text, got, want, channel)
	}
}

// channels reads up to a close of 1000 and returns what came on each channel.
func (p processSocket) channels() map[byte]string {
	p.Helper()
	all := map[byte]string{}
	for _, message := range p.messages(p.Conn, websocket.BinaryMessage) {
		all[message[0]] += string(message[1:])
	}
	return all
}

func forwardsV4(a *asker) {
	p := a.forward(forwardV4, "ports=80")
	p.wantPort(0, webPort)
	p.wantPort(1, webPort)
	p.send(0, getRoot)
	got := p.channels()
	a.wantPage([]byte(got[0]))
	if got[1] != "" {
		a.Errorf("an error: %q", got[1])
	}
}

func forwardsTwoPorts(a *asker) {
	p := a.forward(forwardV4, "ports=80,81")
	p.wantPort(0, webPort)
	p.wantPort(1, webPort)
	p.wantPort(2, refusedPort)
	p.wantPort(3, refusedPort)
	p.send(0, getRoot)
	got := p.channels()
	a.wantPage([]byte(got[0]))
	if !strings.Contains(got[3], "refused") {
		a.Errorf("the error of the second: %q", got[3])
	}
}

func forwardsV4Refused(a *asker) {
	p := a.forward(forwardV4, "ports=81")
	p.wantPort(0, refusedPort)
	p.wantPort(1, refusedPort)
	got := p.channels()
	if got[0] != "" || !strings.HasPrefix(got[1], "error forwarding port 81 to pod ") || !strings.Contains(got[1], "refused") {
		a.Errorf("%q", got)
	}
}

// The frames of SPDY/3.1 that the rows need (https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/).
const (
	spdySynStream = 1
	spdySynReply  = 2
	spdyRstStream = 3
	spdyGoAway    = 7

	spdyControl = 0x80
	spdyVersion = 3
	spdyFin     = 0x01
)

// tunnel is SPDY over the messages of a WebSocket.
type tunnel struct {
	*asker
	socket  *websocket.Conn
	in      *bufio.Reader
	headers *zlib.Writer // of all header blocks, as one stream
	block   *bytes.Buffer
	got     map[uint32]*streamGot
	nextID  uint32
}

// streamGot is what came on a stream.
type streamGot struct {
	text                   []byte
	replied, ended, resets bool
}

// messageReader reads binary messages as one stream of bytes.
type messageReader struct {
	socket *websocket.Conn
	rest   io.Reader
}

// Read implements io.Reader.
func (r *messageReader) Read(p []byte) (int, error) {
	for {
		if r.rest != nil {
			if n, err := r.rest.Read(p); n > 0 || err != io.EOF {
				return n, err
			}
		}
		kind, message, err := r.socket.NextReader()
		if err != nil {
			return 0, err
		}
		if kind != websocket.BinaryMessage {
			return 0, fmt.Errorf("a message of kind %d in the tunnel", kind)
		}
		r.rest = message
	}
}

func (a *asker) tunnel() *tunnel { return a.tunnelTo(WebPod) }

func (a *asker) tunnelTo(pod string) *tunnel {
	a.Helper()
	p := a.open(forwardTunnel, pod, "portforward", "")
	block := new(bytes.Buffer)
	return &tunnel{
		asker: a, socket: p.Conn, in: bufio.NewReader(&messageReader{socket: p.Conn}),
		// A stream that does not use the dictionary of SPDY may be read by who knows it.
		headers: zlib.NewWriter(block), block: block,
		got: map[uint32]*streamGot{}, nextID: 1,
	}
}

func (t *tunnel) write(frame []byte) {
	t.Helper()
	t.must(t.socket.WriteMessage(websocket.BinaryMessage, frame))
}

// open opens a stream with header names and values; a client's streams are odd.
func (t *tunnel) open(fin bool, headers ...string) (id uint32) {
	t.Helper()
	id, t.nextID = t.nextID, t.nextID+2
	text := binary.BigEndian.AppendUint32(nil, uint32(len(headers)/2))
	for _, word := range headers {
		text = binary.BigEndian.AppendUint32(text, uint32(len(word)))
		text = append(text, word...)
	}
	t.block.Reset()
	_, err := t.headers.Write(text)
	t.must(err)
	t.must(t.headers.Flush())
	body := binary.BigEndian.AppendUint32(nil, id)
	body = append(body, 0, 0, 0, 0, 0, 0) // no other stream, no priority
	body = append(body, t.block.Bytes()...)
	frame := []byte{spdyControl, spdyVersion, 0, spdySynStream}
	t.write(append(append(frame, length(fin, len(body))...), body...))
	t.got[id] = &streamGot{}
	return id
}

// length is the word of a frame that holds flags and the length of what follows.
func length(fin bool, n int) []byte {
	word := binary.BigEndian.AppendUint32(nil, uint32(n))
	if fin {
		word[0] = spdyFin
	}
	return word
}

// connect opens the two streams of a connection: that of errors, which the client
// closes at once, and that of data.
func (t *tunnel) connect(request string, port int) (errors, data uint32) {
	t.Helper()
	header := []string{"port", fmt.Sprint(port), "requestid", request, "streamtype"}
	errors = t.open(true, append(slices.Clone(header), "error")...)
	return errors, t.open(false, append(slices.Clone(header), "data")...)
}

func (t *tunnel) send(id uint32, text string) { t.sendData(id, false, text) }

// finish sends the FIN of a stream.
func (t *tunnel) finish(id uint32) { t.sendData(id, true, "") }

func (t *tunnel) sendData(id uint32, fin bool, text string) {
	t.Helper()
	frame := binary.BigEndian.AppendUint32(nil, id)
	t.write(append(append(frame, length(fin, len(text))...), text...))
}

// until reads frames until enough.
func (t *tunnel) until(enough func() bool) {
	t.Helper()
	for !enough() {
		var head [8]byte
		_, err := io.ReadFull(t.in, head[:])
		t.must(err)
		body := make([]byte, binary.BigEndian.Uint32(head[4:])&0xffffff)
		_, err = io.ReadFull(t.in, body)
		t.must(err)
		if head[0]&spdyControl == 0 {
			t.take(binary.BigEndian.Uint32(head[:4]), head[4], func(s *streamGot) { s.text = append(s.text, body...) })
			continue
		}
		switch kind := head[3]; kind {
		case spdySynReply:
			t.take(binary.BigEndian.Uint32(body), head[4], func(s *streamGot) { s.replied = true })
		case spdyRstStream:
			t.take(binary.BigEndian.Uint32(body), 0, func(s *streamGot) { s.resets = true })
		case spdyGoAway:
			t.Fatal("the tunnel goes away")
		}
	}
}

func (t *tunnel) take(id uint32, flags byte, note func(*streamGot)) {
	t.Helper()
	stream := t.got[id]
	if stream == nil {
		t.Fatalf("a frame of stream %d, which nobody has opened", id)
	}
	note(stream)
	stream.ended = stream.ended || flags&spdyFin != 0
}

// wantConnection checks one that was joined to the web pod, to its end from both
// sides.
func (t *tunnel) wantConnection(errors, data uint32) {
	t.Helper()
	t.until(func() bool { return t.got[data].ended })
	t.finish(data)
	t.until(func() bool { return t.got[errors].ended && t.got[errors].replied && t.got[data].replied })
	if e := t.got[errors]; len(e.text) > 0 || e.resets {
		t.Errorf("the error stream: %+v %q", e, e.text)
	}
	if d := t.got[data]; d.resets {
		t.Errorf("the data stream: %+v", d)
	}
	t.wantPage(t.got[data].text)
}

func tunnels(a *asker) {
	t := a.tunnel()
	errors, data := t.connect("0", webPort)
	t.send(data, getRoot)
	t.wantConnection(errors, data)
}

func tunnelsSeveral(a *asker) {
	t := a.tunnel()
	firstErrors, first := t.connect("0", webPort)
	secondErrors, second := t.connect("1", webPort)
	t.send(second, getRoot)
	t.wantConnection(secondErrors, second)
	t.send(first, getRoot)
	t.wantConnection(firstErrors, first)
}

func tunnelsRefused(a *asker) {
	t := a.tunnel()
	errors, data := t.connect("0", refusedPort)
	t.until(func() bool { return t.got[data].resets })
	if text := string(t.got[errors].text); !strings.HasPrefix(text, "error forwarding port 81 to pod ") || !strings.Contains(text, "refused") {
		t.Errorf("the error stream: %q", text)
	}
	if d := t.got[data]; len(d.text) > 0 { // the reset may overtake the reply
		t.Errorf("the data stream: %+v", d)
	}
}

func tunnelsOn(a *asker) {
	t := a.tunnel()
	for n, port := range []int{webPort, refusedPort, webPort} {
		errors, data := t.connect(fmt.Sprint(n), port)
		if port == refusedPort {
			t.until(func() bool { return t.got[data].resets })
			continue
		}
		t.send(data, getRoot)
		t.wantConnection(errors, data)
	}
}

func forwardPrefersTunnel(a *asker) {
	for _, offer := range [][]string{{forwardTunnel, forwardV4}, {forwardV4, forwardTunnel}} {
		say := handshake{token: a.Tokens.Permitted, protocols: offer}
		socket, answer := a.dial(say, a.podPath(WebPod, "portforward", "ports=80"))
		if socket == nil || socket.Subprotocol() != forwardTunnel {
			a.Errorf("offered %v: %d %v", offer, answer.code, answer.header)
		}
	}
}

func forwardRefusesUnknown(a *asker) {
	say := handshake{token: a.Tokens.Permitted, protocols: []string{"v9.channel.k8s.io"}}
	_, answer := a.dial(say, a.podPath(WebPod, "portforward", "ports=80"))
	refusal{code: forbidden, body: asNothing}.check(a, answer)
}
