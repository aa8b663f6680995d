package websocket

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 section 4.2.2 asks for it; nothing is kept secret by it
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	maxAnswer    = 64 << 10 // header of the answer, and again its body
	maxInterim   = 8        // 1xx answers before the one that counts
	acceptSuffix = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// Handshake asks for a WebSocket on nc: it writes req, to which it adds the headers of RFC 6455 section 4.1, and reads the answer.
// req is a GET without a body. ctx bounds it. The subprotocol, if the answer names one, is one of those that were offered.
//
// An answer that is not a correct 101 is a *[HandshakeError]. On any error nc is closed: on a connection whose upgrade has failed
// nothing may follow.
func Handshake(ctx context.Context, nc net.Conn, req *http.Request, subprotocols ...string) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) }) // long ago: what waits returns at once
	c, err := handshake(nc, req, subprotocols)
	var answered *HandshakeError
	if !stop() && !errors.As(err, &answered) { // the deadline is set or about to be
		err = fmt.Errorf("websocket: handshake: %w", context.Cause(ctx))
	}
	if err != nil {
		_ = nc.Close() // nothing of it is wanted
		return nil, err
	}
	return c, nil
}

func handshake(nc net.Conn, req *http.Request, subprotocols []string) (*Conn, error) {
	key := newKey()
	req = req.Clone(req.Context())
	req.Header.Set("Upgrade", "websocket")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Sec-WebSocket-Version", "13")
	req.Header.Set("Sec-WebSocket-Key", key)
	if len(subprotocols) > 0 {
		req.Header.Set("Sec-WebSocket-Protocol", strings.Join(subprotocols, ", "))
	}
	if err := req.Write(nc); err != nil {
		return nil, fmt.Errorf("write handshake: %w", err)
	}
	limited := &io.LimitedReader{R: nc, N: maxAnswer}
	r := bufio.NewReader(limited)
	res, err := readAnswer(r, req) //nolint:bodyclose // closing would read it to its end; nc is closed instead, or has none
	if err != nil {
		if limited.N <= 0 {
			return nil, &HandshakeError{Message: "the answer's header is longer than 64 KiB"}
		}
		return nil, fmt.Errorf("read handshake: %w", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		limited.N = maxAnswer
		return nil, refusal(res)
	}
	if rule := broken(res.Header, key, subprotocols); rule != "" {
		return nil, &HandshakeError{StatusCode: res.StatusCode, Header: res.Header, Message: rule}
	}
	left, _ := r.Peek(r.Buffered()) // cannot fail: they are there
	c := NewConn(nc, bytes.Clone(left))
	c.subprotocol = res.Header.Get("Sec-WebSocket-Protocol")
	return c, nil
}

// readAnswer reads the answer that counts: others of 1xx may come before it (RFC 9110 section 15.2).
func readAnswer(r *bufio.Reader, req *http.Request) (*http.Response, error) {
	for range maxInterim {
		res, err := http.ReadResponse(r, req)
		if err != nil {
			return nil, err
		}
		if res.StatusCode == http.StatusSwitchingProtocols || res.StatusCode >= http.StatusOK {
			return res, nil
		}
	}
	return nil, fmt.Errorf("more than %d interim answers", maxInterim)
}

// refusal keeps of the answer what may be told.
func refusal(res *http.Response) *HandshakeError {
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // what arrived of it is better than nothing
	return &HandshakeError{StatusCode: res.StatusCode, Header: res.Header, Body: body}
}

// broken names the rule of section 4.1 that the header of a 101 breaks, or nothing.
func broken(h http.Header, key string, offered []string) string {
	protocols := h.Values("Sec-WebSocket-Protocol")
	switch {
	case !hasToken(h, "Upgrade", "websocket"):
		return "the answer does not say Upgrade: websocket"
	case !hasToken(h, "Connection", "Upgrade"):
		return "the answer does not say Connection: Upgrade"
	case h.Get("Sec-WebSocket-Accept") != acceptFor(key):
		return "Sec-WebSocket-Accept does not answer the key"
	case len(protocols) > 1, len(protocols) == 1 && !slices.Contains(offered, protocols[0]):
		return "the subprotocol is none that was offered"
	case len(h.Values("Sec-WebSocket-Extensions")) > 0:
		return "the answer names an extension and none was offered"
	}
	return ""
}

// hasToken says whether a header that is a list of tokens holds the token.
func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

func newKey() string {
	var key [16]byte
	_, _ = rand.Read(key[:]) // it never fails
	return base64.StdEncoding.EncodeToString(key[:])
}

func acceptFor(key string) string {
	sum := sha1.Sum([]byte(key + acceptSuffix)) //nolint:gosec // see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}
