package web

import (
	"net/http"
	"time"
)

// patience is how long a client of HTTP/1.1 may take nothing while there is something for it. HTTP/2 has pings, and windows by which a page that
// is slow holds up its stream alone; here a client that has vanished and one that does not read look the same.
const patience = 30 * time.Second

// patient is a response over HTTP/1.1 whose every write must come to an end. A response that is silent lasts.
type patient struct {
	http.ResponseWriter
	deadline *http.ResponseController
	within   time.Duration
}

func newPatient(w http.ResponseWriter, within time.Duration) *patient {
	return &patient{w, http.NewResponseController(w), within}
}

// Unwrap is for http.ResponseController.
func (p *patient) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// Write implements http.ResponseWriter.
func (p *patient) Write(b []byte) (int, error) {
	if err := p.extend(); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// FlushError is what http.ResponseController flushes with.
func (p *patient) FlushError() error {
	if err := p.extend(); err != nil {
		return err
	}
	return p.deadline.Flush()
}

// Flush implements http.Flusher.
func (p *patient) Flush() { _ = p.FlushError() } // as with every Flusher, the next write says what is wrong

func (p *patient) extend() error { return p.deadline.SetWriteDeadline(time.Now().Add(p.within)) }

// done lets the next request of the connection begin without a deadline.
func (p *patient) done() { _ = p.deadline.SetWriteDeadline(time.Time{}) } // a connection that is closed needs none
