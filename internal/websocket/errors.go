package websocket

import (
	"fmt"
	"net/http"
	"time"
)

// The codes of a close frame that this package says or looks at, RFC 6455 section 7.4.1.
const (
	CodeNormal      = 1000
	CodeGoingAway   = 1001
	CodeProtocol    = 1002
	CodeNone        = 1005 // never on the wire: the close frame had no code
	CodeInvalidText = 1007
)

// CloseError says that the peer has ended the WebSocket with a close frame, which was answered. Every message that came before
// it was handed over.
type CloseError struct {
	// Code is the peer's, [CodeNone] when it gave none.
	Code int
	// Reason is the peer's text, at most 123 bytes of valid UTF-8.
	Reason string
	// Cut says that a message had begun and not ended, of which not all that came was handed over.
	Cut bool
}

// Error implements error.
func (e *CloseError) Error() string {
	return fmt.Sprintf("websocket: closed by peer with code %d %q", e.Code, e.Reason)
}

// ProtocolError says that the peer broke RFC 6455. The close frame that tells it was sent.
type ProtocolError struct {
	// Code is what the close frame said: [CodeProtocol], or [CodeInvalidText] for text that is not UTF-8.
	Code int
	// Message names the rule.
	Message string
}

// Error implements error.
func (e *ProtocolError) Error() string { return "websocket: peer broke the protocol: " + e.Message }

func violation(format string, args ...any) *ProtocolError {
	return &ProtocolError{Code: CodeProtocol, Message: fmt.Sprintf(format, args...)}
}

// TimeoutError says that nothing arrived for too long, not even the answer to a ping. See [Conn.Keepalive].
type TimeoutError struct {
	// After is how long the answer was waited for.
	After time.Duration
	// Host says that not the peer's answer is missing, but its host's: TCP asks and hears nothing.
	Host bool
}

// Error implements error.
func (e *TimeoutError) Error() string {
	if e.Host {
		return fmt.Sprintf("websocket: the peer's host has not answered for %v", e.After)
	}
	return fmt.Sprintf("websocket: no answer to a ping within %v", e.After)
}

// Timeout says that it is one, as net.Error does.
func (*TimeoutError) Timeout() bool { return true }

// HandshakeError says that the peer answered the handshake with something other than a correct 101. The TCP connection is closed.
type HandshakeError struct {
	// StatusCode is the answer's; 101 when the answer was one but broke a rule of RFC 6455 section 4.1, 0 when its header did not end.
	StatusCode int
	// Header is the answer's, at most 64 KiB.
	Header http.Header
	// Body is the beginning of the answer's body, at most 64 KiB.
	Body []byte
	// Message names the rule that a 101 broke.
	Message string
}

// Error implements error. It holds nothing of the body, which is the peer's to choose.
func (e *HandshakeError) Error() string {
	if e.Message != "" {
		return "websocket: handshake: " + e.Message
	}
	return fmt.Sprintf("websocket: handshake refused with HTTP %d", e.StatusCode)
}
