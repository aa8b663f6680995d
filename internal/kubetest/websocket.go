package kubetest

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // RFC 6455 proves with it that the handshake was read, no more
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// The opcodes and close codes of RFC 6455 that are used here.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	closeNormal = 1000
)

const (
	finBit  = 0x80
	maskBit = 0x80
)

// frameLimit bounds a client's data frame, in bytes, as the API server's library does.
const frameLimit = 32 << 20

// handshake is what differs from one kind of WebSocket to the next. The zero
// value is that of a watch: text messages, an Origin, no more than one
// subprotocol, which is echoed whatever it is, and what comes is dropped.
type handshake struct {
	// lenient is for those that need no Origin and choose among the
	// subprotocols on offer.
	lenient bool
	// protocol is the one chosen; none is named in the answer if empty.
	protocol string
	// binary sends binary messages.
	binary bool
	// receive takes each frame of the client's messages: the API server's
	// library does not put fragments together again. It may block, and so keeps
	// the client waiting. False ends the WebSocket.
	receive func(frame []byte) bool
}

// webSocket is the server's end of a WebSocket. It is a [wire].
type webSocket struct {
	conn     net.Conn
	in       *bufio.Reader           // Owned by read.
	receive  func(frame []byte) bool // Called by read; nil drops what comes.
	done     chan struct{}           // closed when read has returned
	opcode   byte                    // of the messages that are sent
	fragment int                     // bytes per frame; 0 for one frame per message
	pings    bool                    // one before each frame

	mu  sync.Mutex
	out *bufio.Writer // Guarded by mu.
}

// upgrade answers a WebSocket handshake. What it refuses, it refuses as the
// API server does: with a bare status line, after which it hangs up. Then the
// result is nil without an error. running is called before the client is told
// that it has its WebSocket, gone when it ends it. The caller closes it.
func upgrade(c *call, h handshake, running, gone func()) (*webSocket, error) {
	conn, rw, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("hijack for a WebSocket: %w", err)
	}
	conn = c.plan.conn(conn)
	out := bufio.NewWriterSize(conn, 4096)
	if code, text := refusal(c.r, h.lenient); code != 0 {
		fmt.Fprintf(out, "HTTP/1.1 %03d %s\r\n%s", code, http.StatusText(code), text)
		return nil, errors.Join(out.Flush(), conn.Close())
	}
	fmt.Fprintf(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n", accept(c.r))
	protocol := h.protocol
	if !h.lenient {
		protocol = strings.Join(subprotocols(c.r), ",")
	}
	if protocol != "" {
		fmt.Fprintf(out, "Sec-WebSocket-Protocol: %s\r\n", protocol)
	}
	fmt.Fprint(out, "\r\n")
	running()
	if out.Flush() != nil {
		conn.Close()
		return nil, nil //nolint:nilerr // the client is gone; there is nobody to tell
	}
	ws := &webSocket{
		conn: conn, in: rw.Reader, out: out, done: make(chan struct{}), receive: h.receive,
		opcode: opText, fragment: c.plan.fragment, pings: c.plan.pings,
	}
	if h.binary {
		ws.opcode = opBinary
	}
	go ws.read(gone)
	return ws, nil
}

// refusal is the status of a handshake that fails, with what follows its
// status line, in the order in which the API server's library checks; 0 for
// one that succeeds.
func refusal(r *http.Request, lenient bool) (code int, rest string) {
	switch {
	case r.Header.Get("Sec-WebSocket-Key") == "":
		return http.StatusBadRequest, "\r\nmissing or bad challenge"
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return http.StatusBadRequest, "Sec-WebSocket-Version: 13\r\n\r\nmissing or bad WebSocket Version"
	case lenient:
	case !validOrigin(r.Header.Get("Origin")):
		return http.StatusForbidden, "\r\n"
	case len(subprotocols(r)) > 1:
		return http.StatusBadRequest, "\r\n"
	}
	return 0, ""
}

func validOrigin(origin string) bool {
	if origin == "" || origin == "null" {
		return false
	}
	_, err := url.ParseRequestURI(origin)
	return err == nil
}

// accept proves that the server has read the handshake (RFC 6455, 4.2.2).
func accept(r *http.Request) string {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (ws *webSocket) send(message []byte) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	opcode := ws.opcode
	for ws.fragment > 0 && len(message) > ws.fragment {
		if err := ws.frame(opcode, message[:ws.fragment]); err != nil {
			return err
		}
		message, opcode = message[ws.fragment:], opContinuation
	}
	return ws.frame(opcode|finBit, message)
}

// frame queues a data frame, behind a ping where a fault wants one.
func (ws *webSocket) frame(head byte, payload []byte) error {
	if ws.pings {
		if err := writeFrame(ws.out, opPing|finBit, []byte("kubetest")); err != nil {
			return err
		}
	}
	return writeFrame(ws.out, head, payload)
}

// writeFrame writes an unmasked frame (RFC 6455, 5.2); head is its first byte.
func writeFrame(w *bufio.Writer, head byte, payload []byte) error {
	if _, err := w.Write(frameHeader(head, uint64(len(payload)))); err != nil {
		return err
	}
	_, err := w.Write(payload)
	return err
}

func frameHeader(head byte, length uint64) []byte {
	switch {
	case length < 126:
		return []byte{head, byte(length)}
	case length <= 0xffff:
		return binary.BigEndian.AppendUint16([]byte{head, 126}, uint16(length))
	default:
		return binary.BigEndian.AppendUint64([]byte{head, 127}, length)
	}
}

func (ws *webSocket) flush() error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.out.Flush()
}

func (ws *webSocket) raw(data []byte) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	_, err := ws.out.Write(data)
	return err
}

// cut announces a frame of 1,000 bytes, sends a few of them and hangs up.
func (ws *webSocket) cut() {
	if ws.raw(append(frameHeader(ws.opcode|finBit, 1000), `{"type":"MODIFIED","obj`...)) == nil {
		_ = ws.flush() // Hanging up is what follows in any case.
	}
	ws.conn.Close()
}

// end sends a close frame and gives the client a moment to answer, for a TCP
// reset on hanging up could overtake what it has not read yet.
func (ws *webSocket) end(code int) {
	ws.expire(time.Now().Add(endGrace))
	ws.mu.Lock()
	err := writeFrame(ws.out, opClose|finBit, binary.BigEndian.AppendUint16(nil, uint16(code)))
	err = errors.Join(err, ws.out.Flush())
	ws.mu.Unlock()
	if err != nil || ws.conn.SetReadDeadline(time.Now().Add(endGrace)) != nil {
		return
	}
	<-ws.done
}

func (ws *webSocket) reset() { resetConn(ws.conn) }

// resetConn hangs up with a TCP reset; what was not sent yet is lost.
func resetConn(conn net.Conn) {
	under := conn
	for {
		wrapped, ok := under.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		under = wrapped.NetConn()
	}
	if tcp, ok := under.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // It fails only on a closed socket, which is fine.
	}
	under.Close()
}

func (ws *webSocket) expire(at time.Time) {
	_ = ws.conn.SetWriteDeadline(at) // It fails only on a closed socket, which is fine.
}

func (ws *webSocket) close() {
	ws.conn.Close()
	<-ws.done
}

// read answers pings and hands over what the client sends until it closes.
// Started by upgrade; ends when the conn is closed, which close waits for.
func (ws *webSocket) read(gone func()) {
	defer close(ws.done)
	defer gone()
	for {
		opcode, payload, err := ws.readFrame()
		switch {
		case err != nil || opcode == opClose:
			return
		case opcode == opPing:
			if ws.pong(payload) != nil {
				return
			}
		case opcode < opClose && ws.receive != nil:
			if !ws.receive(payload) {
				return
			}
		}
	}
}

func (ws *webSocket) pong(payload []byte) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if err := writeFrame(ws.out, opPong|finBit, payload); err != nil {
		return err
	}
	return ws.out.Flush()
}

var errFrame = errors.New("a client's frame breaks RFC 6455")

// readFrame reads one frame of the client. The payload of data frames is kept
// only where somebody receives it.
func (ws *webSocket) readFrame() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(ws.in, head[:]); err != nil {
		return 0, nil, err
	}
	opcode = head[0] & 0x0f
	length, err := ws.readLength(head[1] &^ maskBit)
	if err != nil {
		return 0, nil, err
	}
	control := opcode >= opClose
	if head[1]&maskBit == 0 || length < 0 || control && length > 125 {
		return 0, nil, errFrame
	}
	var mask [4]byte
	if _, err := io.ReadFull(ws.in, mask[:]); err != nil {
		return 0, nil, err
	}
	if !control && ws.receive == nil {
		_, err := io.CopyN(io.Discard, ws.in, length)
		return opcode, nil, err
	}
	if !control && length > frameLimit {
		return 0, nil, errFrame
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(ws.in, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return opcode, payload, err
}

func (ws *webSocket) readLength(short byte) (int64, error) {
	var b [8]byte
	switch short {
	case 126:
		_, err := io.ReadFull(ws.in, b[:2])
		return int64(binary.BigEndian.Uint16(b[:2])), err
	case 127:
		_, err := io.ReadFull(ws.in, b[:])
		return int64(binary.BigEndian.Uint64(b[:])), err
	default:
		return int64(short), nil
	}
}
