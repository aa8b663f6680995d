package web

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A body that does not come ends its request, over either version of HTTP.
func TestBodiesMustArrive(t *testing.T) {
	p := newPort(t, Config{}, func(h *Handler) { h.bodyWithin = 50 * time.Millisecond })
	for _, c := range []*http.Client{p.Client(), http1(p)} {
		for _, path := range []string{checkPath, "/v1/x"} {
			body, more := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+path, body)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			res, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != http.StatusRequestTimeout || !strings.Contains(string(b), "did not arrive") {
				t.Errorf("%s %s: %d %s, %v", res.Proto, path, res.StatusCode, b, err)
			}
			_ = res.Body.Close() // it was read
			_ = more.Close()     // it never fails
		}
	}
	if calls := p.taken(); len(calls) > 0 {
		t.Errorf("%d calls arrived", len(calls))
	}
}

func http1(p *port) *http.Client {
	var one http.Protocols
	one.SetHTTP1(true)
	tr := p.Client().Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.NextProtos, tr.Protocols, tr.ForceAttemptHTTP2 = nil, &one, false
	p.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// A client of HTTP/1.1 that takes nothing has its answer cut off; one that is told nothing does not.
func TestPatienceEnds(t *testing.T) {
	var blocked error
	ended := make(chan struct{})
	p := newPort(t, Config{}, func(h *Handler) {
		h.patience = 100 * time.Millisecond
		h.rest = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			for blocked == nil && r.Context().Err() == nil {
				_, blocked = w.Write(make([]byte, 64<<10))
			}
		})
	})
	cfg := p.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.NextProtos = nil
	d := tls.Dialer{Config: cfg}
	conn, err := d.DialContext(t.Context(), "tcp", p.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }() // the server has cut it off
	if _, err := io.WriteString(conn, "GET /v1/x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Fatal("it is still being written to")
	}
	if blocked == nil {
		t.Error("the write did not fail")
	}
}

// What a silence was longer than is no reason to cut off what comes after it, in this request or the next of the connection.
func TestSilenceIsNoImpatience(t *testing.T) {
	p := newPort(t, Config{}, func(h *Handler) {
		h.rest = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for range 3 {
				_, _ = io.WriteString(w, "a") // what is wrong shows at the client
				_ = http.NewResponseController(w).Flush()
				<-time.After(2 * patience)
			}
		})
	})
	synctest.Test(t, func(t *testing.T) {
		lis := &pipes{accepted: make(chan net.Conn), closed: make(chan struct{})}
		s := &http.Server{Handler: p.Config.Handler, ReadHeaderTimeout: time.Minute}
		served := make(chan error, 1)
		go func() { served <- s.Serve(lis) }()
		tr := &http.Transport{DialContext: lis.dial, MaxConnsPerHost: 1}
		for range 2 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/v1/x", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			res, err := (&http.Client{Transport: tr}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(res.Body)
			if err != nil || string(b) != "aaa" {
				t.Errorf("got %q, %v", b, err)
			}
			_ = res.Body.Close() // it was read
		}
		tr.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		if lis.dialled != 1 {
			t.Errorf("it took %d connections", lis.dialled)
		}
	})
}

// pipes is a listener of connections in memory, whose deadlines a clock that is not the machine's brings.
type pipes struct {
	accepted chan net.Conn
	closed   chan struct{}
	dialled  int // Owned by the one who dials.
}

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p.dialled++
	p.accepted <- far
	return near, nil
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.accepted:
		return nc, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	close(p.closed)
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
