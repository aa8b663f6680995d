package kubetest

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Counts are what a server has seen since [New].
type Counts struct {
	Dials    int // TCP connections accepted by [Server.Listen]
	Requests int // HTTP requests, WebSocket handshakes included
	Lists    int // requests to list
	Watches  int // requests to watch
	Reviews  int // reviews of access and of tokens
	Live     int // watches that run now
	Streams  int // logs, execs, attaches and port-forwards that run now
}

// Request is one request as it arrived, credentials included.
type Request struct {
	Time       time.Time
	Method     string
	URI        string
	Proto      string
	Header     http.Header
	Attributes Attributes
	WebSocket  bool
}

// counters count, and wake who waits for a count.
type counters struct {
	mu       sync.Mutex
	counts   Counts        // Guarded by mu.
	requests []Request     // Guarded by mu.
	changed  chan struct{} // closed and replaced at every change; Guarded by mu.
}

// recorded bounds how many requests are kept.
const recorded = 100_000

func (c *counters) update(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *counters) dial()       { c.update(func() { c.counts.Dials++ }) }
func (c *counters) live(by int) { c.update(func() { c.counts.Live += by }) }
func (c *counters) open(by int) { c.update(func() { c.counts.Streams += by }) }

func (c *counters) request(r *http.Request, a Attributes, record bool) {
	c.update(func() {
		c.counts.Requests++
		switch a.Verb {
		case "list":
			c.counts.Lists++
		case "watch":
			c.counts.Watches++
		case "create":
			if a.Group == authorizationGroup || a.Group == authenticationGroup {
				c.counts.Reviews++
			}
		}
		if record && len(c.requests) < recorded {
			c.requests = append(c.requests, Request{
				Time: time.Now(), Method: r.Method, URI: r.RequestURI, Proto: r.Proto,
				Header: r.Header.Clone(), Attributes: a, WebSocket: wantsWebSocket(r),
			})
		}
	})
}

// Counts returns what the server has seen so far.
func (s *Server) Counts() Counts {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	return s.counters.counts
}

// Await returns when the counts satisfy ok, or with the error of ctx.
func (s *Server) Await(ctx context.Context, ok func(Counts) bool) error {
	for {
		s.counters.mu.Lock()
		counts, changed := s.counters.counts, s.counters.changed
		s.counters.mu.Unlock()
		if ok(counts) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Requests returns the requests so far, oldest first, if [Options.Record] is
// set; the first 100,000 of them.
func (s *Server) Requests() []Request {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	return slices.Clone(s.counters.requests)
}
