package kubetest

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// logOptions are what is heeded of PodLogOptions.
type logOptions struct {
	container        string
	follow, previous bool
	timestamps       bool
	since            time.Time
	tail             int // -1 for all
	limit            int // of bytes; 0 for none
}

// parseLogOptions reads and validates a query. pod is what the refusal names.
func parseLogOptions(q url.Values, pod string) (*logOptions, error) {
	o := &logOptions{
		container: q.Get("container"), follow: truthy(q, "follow"), previous: truthy(q, "previous"), timestamps: truthy(q, "timestamps"), tail: -1,
	}
	var causes []StatusCause
	number := func(name string, least int, text string) (int, error) {
		if q.Get(name) == "" {
			return -1, nil
		}
		n, err := strconv.Atoi(q.Get(name))
		if err != nil {
			return 0, badRequest("%v", err)
		}
		if n < least {
			causes = append(causes, StatusCause{Reason: "FieldValueInvalid", Message: fmt.Sprintf("Invalid value: %d: %s", n, text), Field: name})
		}
		return n, nil
	}
	var err error
	if o.tail, err = number("tailLines", 0, "must be greater than or equal to 0"); err != nil {
		return nil, err
	}
	limit, err := number("limitBytes", 1, "must be greater than 0")
	if err != nil {
		return nil, err
	}
	o.limit = max(limit, 0)
	both := q.Get("sinceSeconds") != "" && q.Get("sinceTime") != ""
	if both {
		causes = append(causes, forbiddenField("", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	}
	if err := o.parseSince(q, both, number); err != nil {
		return nil, err
	}
	if len(causes) > 0 {
		return nil, invalid("", "PodLogOptions", pod, causes...)
	}
	return o, nil
}

// parseSince reads from when on lines are shown. The API server passes a time
// on to the kubelet in whole seconds, so fractions do not count.
func (o *logOptions) parseSince(q url.Values, both bool, number func(string, int, string) (int, error)) error {
	if at := q.Get("sinceTime"); at != "" {
		t, err := time.Parse(time.RFC3339, at)
		if err != nil {
			return badRequest("%v", err)
		}
		o.since = t.Truncate(time.Second)
	}
	if q.Get("sinceSeconds") == "" || both {
		return nil
	}
	seconds, err := number("sinceSeconds", 1, "must be greater than 0")
	o.since = time.Now().Add(-time.Duration(seconds) * time.Second)
	return err
}

// serveLog serves pods/log, by WebSocket if the client wants one: the log of
// one run of a container, in chunks that are no lines.
func (s *Server) serveLog(c *call, k *Kind) error {
	if c.attributes.Verb != "get" {
		return methodNotAllowed()
	}
	o, err := parseLogOptions(c.r.URL.Query(), c.attributes.Name)
	if err != nil {
		return err
	}
	pod, err := s.podFor(c, k)
	if err != nil {
		return err
	}
	if o.container, err = containerOf(pod, o.container); err != nil {
		return err
	}
	if pod.object.String("spec", "nodeName") == "" {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	log, err := s.logOf(pod, o)
	if err != nil {
		return err
	}
	st := s.newStream(c)
	encode := func(data []byte) []byte { return data }
	connect := connector(func(running func()) (wire, error) { return newChunked(c.w, "text/plain", running) })
	overSocket := wantsWebSocket(c.r)
	if overSocket {
		protocol, ok := c.plan.protocol(c.r, func(p string) bool { return p == "" || p == "binary.k8s.io" || p == "base64.binary.k8s.io" })
		if !ok {
			return hangUp(c)
		}
		if protocol == "base64.binary.k8s.io" {
			encode = func(data []byte) []byte { return base64.StdEncoding.AppendEncode(nil, data) }
		}
		connect = st.upgradeTo(c, handshake{lenient: true, protocol: protocol, binary: protocol != "base64.binary.k8s.io"})
	}
	if opened, err := st.open(connect); !opened {
		return err
	}
	defer st.finish()
	begin := st.strikeAtOnce
	if overSocket {
		begin = func() error { return st.send(nil) }
	}
	if begin() != nil {
		return nil // The client is gone, or a fault has struck.
	}
	if err := o.send(st.ctx, log, func(chunk []byte) error { return st.send(encode(chunk)) }); err != nil {
		s.options.Logger.Debug("log ended early", "pod", pod.path, "err", err)
	}
	return nil
}

// logOf finds the log, or why there is none, as a kubelet says.
func (s *Server) logOf(pod *revision, o *logOptions) (*logFile, error) {
	box := s.node.find(pod.key(), pod.uid)
	if box == nil {
		return nil, badRequest("container %q in pod %q is not available", o.container, pod.name)
	}
	c := box.container(o.container)
	runs := c.runs()
	log, previous := c.logs()
	switch {
	case o.previous && !runs.running && !runs.over && !runs.begun.IsZero():
		return log, nil // between two runs the last one is the previous
	case o.previous && previous == nil:
		return nil, badRequest("previous terminated container %q in pod %q not found", o.container, pod.name)
	case o.previous:
		return previous, nil
	case runs.begun.IsZero():
		return nil, badRequest("container %q in pod %q is waiting to start: ContainerCreating", o.container, pod.name)
	}
	return log, nil
}

// logChunk is how much of a log is read at once, in bytes, as the API server does.
const logChunk = 2048

// errLimit ends a log that has reached its limit.
var errLimit = errors.New("the limit is reached")

// send sends the log until its end, its limit or ctx's end.
func (o *logOptions) send(ctx context.Context, log *logFile, send func([]byte) error) error {
	w := &logWriter{send: send, left: o.limit, limited: o.limit > 0}
	next := log.start(o.tail)
	for {
		records, after, changed, ended := log.from(next)
		for _, r := range records {
			if r.at.Before(o.since) {
				continue
			}
			if err := w.record(r, o.timestamps); err != nil {
				return w.end(err)
			}
		}
		if err := w.flush(); err != nil {
			return err
		}
		next = after
		if ended || !o.follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// logWriter gathers what is read of a log into chunks.
type logWriter struct {
	send    func([]byte) error
	chunk   []byte
	limited bool
	left    int // bytes, if limited
}

// logTime is how a kubelet prints the time of a line.
const logTime = "2006-01-02T15:04:05.000000000Z07:00"

func (w *logWriter) record(r logRecord, timestamps bool) error {
	if timestamps {
		if err := w.write([]byte(r.at.UTC().Format(logTime) + " ")); err != nil {
			return err
		}
	}
	return w.write(r.data)
}

func (w *logWriter) write(data []byte) error {
	if w.limited && len(data) >= w.left {
		data = data[:w.left]
	}
	for len(data) > 0 {
		n := min(len(data), logChunk-len(w.chunk))
		w.chunk, data, w.left = append(w.chunk, data[:n]...), data[n:], w.left-n
		if len(w.chunk) == logChunk {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	if w.limited && w.left == 0 {
		return errLimit
	}
	return nil
}

func (w *logWriter) flush() error {
	if len(w.chunk) == 0 {
		return nil
	}
	err := w.send(w.chunk)
	w.chunk = w.chunk[:0]
	return err
}

// end sends what is left when the limit is what ended it.
func (w *logWriter) end(err error) error {
	if errors.Is(err, errLimit) {
		return w.flush()
	}
	return err
}
