package rest

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/sluice-gateway/sluice/internal/status"
)

// heartbeat is the longest silence of server-sent events. Proxies cut what is silent for a minute, and a peer that has vanished is noticed only
// by writing to it.
const heartbeat = 15 * time.Second

// writer writes one stream. Every response is flushed.
type writer struct {
	// Immutable after newWriter.
	w      http.ResponseWriter
	flush  func() error
	form   form
	silent *time.Timer // of server-sent events: writes a comment when it fires

	mu    sync.Mutex
	begun bool // Guarded by mu: the headers are sent.
	ended bool // Guarded by mu: nothing is written any more.
}

func newWriter(w http.ResponseWriter, format string) *writer {
	out := &writer{w: w, flush: http.NewResponseController(w).Flush, form: forms[format]}
	w.Header().Set("Content-Type", out.form.contentType())
	w.Header().Set("X-Accel-Buffering", "no") // a proxy in front must not collect what is meant for now
	if format == eventStream {
		out.mu.Lock() // the timer may fire before it is known
		defer out.mu.Unlock()
		out.silent = time.AfterFunc(heartbeat, out.comment)
	}
	return out
}

// end waits for a comment that is being written; nothing is written after it.
func (o *writer) end() {
	if o.silent != nil {
		o.silent.Stop()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
}

// headers takes what the call's metadata may say, unless a comment came first. Without metadata there is nothing to say.
func (o *writer) headers(md metadata.MD, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && !o.begun {
		answerWith(o.w, md)
	}
}

// begin says that the call was accepted, though there may be nothing to tell.
func (o *writer) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.begun {
		o.begun = true
		o.w.WriteHeader(http.StatusOK)
	}
}

// comment is a line that readers of events pass over. Called by the timer, which it sets again.
func (o *writer) comment() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return
	}
	if err := o.write([]byte(":\n\n")); err == nil { // a client that has left ends the request's context, and with it the stream
		o.silent.Reset(heartbeat)
	}
}

// response writes one response. An error is the client's leaving, or a response that cannot be written in this form.
func (o *writer) response(m response) error {
	b, err := o.form.response(m)
	if err != nil {
		return fmt.Errorf("write a response: %w", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.silent != nil {
		o.silent.Reset(heartbeat)
	}
	return o.write(b)
}

// fail ends the stream with an error: as an ordinary answer when nothing was written yet, as its last line or event otherwise. Where there is
// neither, it does not return, and the answer is cut off.
func (o *writer) fail(r *http.Request, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ended = true
	if !o.begun {
		o.w.Header().Del("X-Accel-Buffering")
		fail(o.w, r, err)
		return
	}
	b, err := compact(status.From(err).Proto())
	switch last, ok := o.form.failure(b); {
	case !ok:
		panic(http.ErrAbortHandler)
	case err == nil: // otherwise the text of another's error was not UTF-8, and the stream ends without saying why
		_ = o.write(last) // a client that has left is told nothing
	}
}

// write writes and flushes. mu is held.
func (o *writer) write(b []byte) error {
	o.begun = true
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.flush()
}
