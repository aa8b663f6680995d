package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/test/e2e/seeded"
)

// serve ADDR is a server of HTTP/1.1:
//
//	GET  /bytes?key=K&n=N   the first N bytes of a stream
//	POST /echo?key=K        the body, transformed, while it comes
//	POST /check?key=K       how many bytes of the stream the body has; 400 if it is another
//	GET  /stall?key=K&n=N   the same N bytes, and then nothing more for as long as the client waits
//	GET  /reset?key=K&n=N   the same N bytes, and then a RST
//	POST /tunnel?key=K      101, and from then on the TCP connection echoes what it is sent, transformed, each direction ending for itself
func serve(a arguments) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /bytes", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.FormatInt(number(r, "n"), 10))
		_, _ = io.Copy(w, seeded.NewReader(uint64(number(r, "key")), number(r, "n"))) // fails when the client has left
	})
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_ = transform(flushed{w}, r.Body, uint64(number(r, "key"))) // fails when the client has left
	})
	mux.HandleFunc("POST /check", func(w http.ResponseWriter, r *http.Request) {
		c := seeded.NewChecker(uint64(number(r, "key")))
		n, err := io.Copy(c, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, n)
	})
	mux.HandleFunc("GET /stall", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(flushed{w}, seeded.NewReader(uint64(number(r, "key")), number(r, "n"))) // fails when the client has left
		<-r.Context().Done()
	})
	mux.HandleFunc("GET /reset", func(w http.ResponseWriter, r *http.Request) {
		conn, out, ok := hijack(w)
		if !ok {
			return
		}
		_, err := fmt.Fprint(out, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		if err == nil {
			_, err = io.Copy(out, seeded.NewReader(uint64(number(r, "key")), number(r, "n")))
		}
		_ = errors.Join(err, out.Flush(), conn.SetLinger(0), conn.Close()) // the close is a reset; all fails when the client has left
	})
	mux.HandleFunc("POST /tunnel", func(w http.ResponseWriter, r *http.Request) {
		conn, out, ok := hijack(w)
		if !ok {
			return
		}
		defer func() { _ = conn.Close() }() // what has ended well is not touched by it
		if _, err := fmt.Fprint(out, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"); err != nil || out.Flush() != nil {
			return
		}
		if transform(conn, out, uint64(number(r, "key"))) == nil {
			_ = conn.CloseWrite() // fails when the client has left
		}
	})
	s := http.Server{Addr: a[0], Handler: mux, ReadHeaderTimeout: time.Minute}
	return s.ListenAndServe()
}

// number is a parameter of a request; 0 without it.
func number(r *http.Request, name string) int64 {
	n, _ := strconv.ParseInt(r.URL.Query().Get(name), 10, 64)
	return n
}

// hijack takes the TCP connection of a request.
func hijack(w http.ResponseWriter) (*net.TCPConn, *bufio.ReadWriter, bool) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil, nil, false
	}
	return conn.(*net.TCPConn), buffered, true
}

// flushed is an answer whose pieces leave at once.
type flushed struct{ w http.ResponseWriter }

// Write implements io.Writer.
func (f flushed) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, http.NewResponseController(f.w).Flush()
}
