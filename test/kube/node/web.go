package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// webCommand is the first argument that makes this program the web server of a pod; the second is its address.
const webCommand = "web"

// serveWeb is what a pod can run to have something behind a port. It returns the status to exit with.
func serveWeb(addr string) int {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello from the pod\n") })
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	listener, err := net.Listen("tcp", addr)
	if err == nil {
		fmt.Println("serving on", addr)
		err = (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(listener)
	}
	fmt.Fprintln(os.Stderr, "web:", err)
	return 1
}
