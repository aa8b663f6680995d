package kubetest

import (
	"fmt"
	"net/http"
	"sync"
	"time"
)

// openWire tells the client that its watch runs, as a [connector] does. The
// result is nil without an error when the client was refused and knows it.
func openWire(c *call, running, gone func()) (wire, error) {
	if !wantsWebSocket(c.r) {
		return newChunked(c.w, "application/json", running)
	}
	ws, err := upgrade(c, handshake{}, running, gone)
	if ws == nil {
		return nil, err
	}
	return ws, nil
}

// chunked is a [wire] over an HTTP response: one event per line, or a log. That the
// client has gone is told by the request's context.
type chunked struct {
	w          http.ResponseWriter
	controller *http.ResponseController

	mu     sync.Mutex
	closed bool // Guarded by mu.
}

// newChunked begins the response, after it has called running.
func newChunked(w http.ResponseWriter, media string, running func()) (*chunked, error) {
	h := &chunked{w: w, controller: http.NewResponseController(w)}
	running()
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	if err := h.controller.Flush(); err != nil {
		return nil, fmt.Errorf("begin a stream: %w", err)
	}
	return h, nil
}

func (h *chunked) send(message []byte) error { return h.raw(message) }

func (h *chunked) flush() error { return h.controller.Flush() }

func (h *chunked) raw(data []byte) error {
	_, err := h.w.Write(data)
	return err
}

// cut breaks the body off in the middle of an event.
func (h *chunked) cut() {
	if h.raw([]byte(`{"type":"MODIFIED","obj`)) == nil {
		_ = h.flush() // Breaking off is what follows in any case.
	}
	h.reset()
}

func (h *chunked) end(int) {}

// reset aborts the response, which the server turns into a closed TCP
// connection or, in HTTP/2, a reset.
func (h *chunked) reset() { panic(http.ErrAbortHandler) }

func (h *chunked) expire(at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		_ = h.controller.SetWriteDeadline(at) // Where it is not supported, the write ends with the conn.
	}
}

// close takes the deadline back, for the next request comes over the same socket.
func (h *chunked) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	_ = h.controller.SetWriteDeadline(time.Time{}) // It fails only where none was set either.
}
