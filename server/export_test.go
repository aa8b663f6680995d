package server

import (
	"net/http"
	"testing"

	"google.golang.org/grpc"
)

// InProcess is the link in memory, to be tested from outside.
type InProcess struct {
	grpc.ClientConnInterface

	// From tells a request's peer to the calls that are made in its context.
	From func(http.Handler) http.Handler
	// Key is that of the mark.
	Key string
}

// LinkInMemory opens a link to the services of s; it ends with the test.
func LinkInMemory(tb testing.TB, s *Server) InProcess {
	tb.Helper()
	p, err := s.newInProcess()
	if err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.serve() }()
	tb.Cleanup(func() {
		p.stop()
		if err := <-ended; err != nil {
			tb.Errorf("serve the link in memory: %v", err)
		}
	})
	return InProcess{p, p.from, p.key}
}
