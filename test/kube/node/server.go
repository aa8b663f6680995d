package main

import (
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// idleTimeout ends streams on which nothing moves (the kubelet's default).
const idleTimeout = 4 * time.Hour

// containerRun is what a request about a running container is about.
type containerRun struct {
	*container
	*run
}

// handler serves the kubelet's API, as far as the API server asks for it, and what tests want of a node.
func (n *node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", n.serveLog)
	for _, method := range []string{http.MethodGet, http.MethodPost} { // WebSocket and SPDY
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", n.withRun(n.serveExec))
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", n.withRun(n.serveAttach))
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", n.servePortForward)
	}
	mux.HandleFunc("POST /rotate/{namespace}/{pod}/{container}", n.withRun(rotate))
	mux.HandleFunc("POST /kill/{namespace}/{pod}/{container}", n.withRun(kill))
	return mux
}

// withRun finds the run that a request is about, and what it asks to connect.
func (n *node) withRun(serve func(http.ResponseWriter, *http.Request, containerRun)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("container")
		c, err := n.container(r.PathValue("namespace"), r.PathValue("pod"), name)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		running, err := c.running()
		if err != nil {
			http.Error(w, fmt.Sprintf("container not found (%q)", name), http.StatusInternalServerError)
			return
		}
		serve(w, r, containerRun{c, running})
	}
}

func (n *node) serveExec(w http.ResponseWriter, r *http.Request, c containerRun) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, c, c.pod.key(), "", c.spec.Name, r.URL.Query()["command"], options, idleTimeout,
		remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (n *node) serveAttach(w http.ResponseWriter, r *http.Request, c containerRun) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeAttach(w, r, c, c.pod.key(), "", c.spec.Name, options, idleTimeout,
		remotecommand.DefaultStreamCreationTimeout, remotecommand.SupportedStreamingProtocols)
}

func (n *node) servePortForward(w http.ResponseWriter, r *http.Request) {
	p, err := n.pod(r.PathValue("namespace"), r.PathValue("pod"))
	if err != nil {
		http.Error(w, "pod does not exist", http.StatusNotFound)
		return
	}
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, p, p.key(), "", options, idleTimeout,
		remotecommand.DefaultStreamCreationTimeout, portforward.SupportedProtocols)
}

// serveLog answers as a kubelet does: an error that is found before the first byte is a 400 in plain text.
func (n *node) serveLog(w http.ResponseWriter, r *http.Request) {
	c, err := n.container(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	query, err := parseLogQuery(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	log, err := c.logOf(query.previous)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := http.NewResponseController(w)
	if err := out.Flush(); err != nil { // the answer begins, whenever the log does
		return
	}
	reader := logReader{query: query, out: flushed{w, out}}
	if err := reader.read(r.Context(), log); err != nil {
		n.log.Info("read log", "file", log.path, "error", err)
		panic(http.ErrAbortHandler) // the answer must not look whole
	}
}

// flushed sends everything that is written at once.
type flushed struct {
	io.Writer
	*http.ResponseController
}

// Write implements io.Writer.
func (f flushed) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.Flush()
	}
	return n, err
}

// rotate begins another log file for a run.
func rotate(w http.ResponseWriter, _ *http.Request, c containerRun) {
	if err := c.log.rotate(); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// kill ends the command of a run as a crash does.
func kill(w http.ResponseWriter, r *http.Request, c containerRun) {
	c.process.signal(syscall.SIGKILL)
	select {
	case <-c.exited:
	case <-r.Context().Done():
	}
}
