package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/websocket"
)

// logNode is an API server with one pod of one container, whose log it serves as a kubelet does.
type logNode struct {
	dial func() (here, there net.Conn)

	mu       sync.Mutex
	changed  chan struct{}
	conns    map[net.Conn]bool
	serving  sync.WaitGroup
	clock    time.Time // of the node
	seed     uint64    // of how the log is cut into messages
	faults   []logFault
	queries  []url.Values
	uid      string
	policy   string
	phase    string
	blind    bool // the caller may not see the pod
	down     bool // nobody can be reached
	unready  int  // how often the kubelet, which has just started, does not know its pod
	onDial   func()
	deleting bool
	deleted  bool
	stale    bool // the API server does not learn what becomes of the container
	waits    bool // a container that has ended waits before it is started anew, as one that crashes again and again does
	runs     []*logRun
	known    []byte // the pod as the API server has it
}

// logFault is what goes wrong with an upstream, if after is not negative: it ends after so many bytes, looking proper or not.
type logFault struct {
	after  int
	proper bool
}

// logRun is one instance of the container.
type logRun struct {
	id      string
	records []logRecord
	start   int // of the current file, among the records
	ended   bool
	exit    int
	removed bool // with its log
}

// logRecord is what the runtime writes at once: a line, or a part of one.
type logRecord struct {
	at   time.Time
	text string
}

func newLogNode(t testing.TB, dial func() (here, there net.Conn)) *logNode {
	n := &logNode{
		dial: dial, changed: make(chan struct{}), conns: map[net.Conn]bool{}, uid: "uid-1", policy: "Always", phase: "Running",
		clock: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC),
	}
	n.start()
	t.Cleanup(func() { n.sever(); n.serving.Wait() })
	return n
}

// pipedLogNode is for a synctest bubble.
func pipedLogNode(t testing.TB) *logNode {
	return newLogNode(t, net.Pipe)
}

func (n *logNode) Cluster() string { return "node" }

func (n *logNode) Identity() string { return "uid-of-the-cluster" }

func (n *logNode) Sharing() string { return "principal" }

// change changes the node and tells who waits.
func (n *logNode) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	n.publish()
	close(n.changed)
	n.changed = make(chan struct{})
}

// start starts the container, again if need be.
func (n *logNode) start() {
	n.change(func() {
		if len(n.runs) > 0 {
			n.last().ended = true
		}
		n.runs = append(n.runs, &logRun{id: fmt.Sprint("containerd://", len(n.runs))})
	})
}

// exit ends the container.
func (n *logNode) exit(code int) {
	n.change(func() { n.last().ended, n.last().exit = true, code })
}

func (n *logNode) last() *logRun { return n.runs[len(n.runs)-1] }

// write has the container write, some time after the last.
func (n *logNode) write(later time.Duration, text string) {
	n.change(func() {
		n.clock = n.clock.Add(later)
		n.last().records = append(n.last().records, logRecord{n.clock, text})
	})
}

// rotate begins a new file.
func (n *logNode) rotate() {
	n.change(func() { n.last().start = len(n.last().records) })
}

// sever cuts all upstreams.
func (n *logNode) sever() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		_ = c.Close()
	}
}

// previous is the run before the last, or what the kubelet takes for it: the last, while it waits to be started anew. mu is held.
func (n *logNode) previous() *logRun {
	switch last := len(n.runs) - 1; {
	case n.waits && n.runs[last].ended && n.phase == "Running" && !n.deleting:
		return n.runs[last]
	case last > 0:
		return n.runs[last-1]
	}
	return nil
}

// publish has the API server learn how the pod stands. mu is held.
func (n *logNode) publish() {
	if n.stale || len(n.runs) == 0 {
		return
	}
	r := n.last()
	state := map[string]any{"running": map[string]any{}}
	if r.ended {
		state = map[string]any{"terminated": map[string]any{"containerID": r.id, "exitCode": r.exit}}
	}
	own := map[string]any{"name": "main", "containerID": r.id, "restartCount": len(n.runs) - 1, "state": state}
	if earlier := n.previous(); earlier != nil {
		if earlier == r {
			own["state"] = map[string]any{"waiting": map[string]any{"reason": "CrashLoopBackOff"}}
		}
		own["lastState"] = map[string]any{"terminated": map[string]any{"containerID": earlier.id, "exitCode": earlier.exit}}
	}
	meta := map[string]any{"uid": n.uid, "name": "p"}
	if n.deleting {
		meta["deletionTimestamp"] = "2026-11-23T12:00:00Z"
	}
	n.known, _ = json.Marshal(map[string]any{
		"metadata": meta,
		"spec":     map[string]any{"restartPolicy": n.policy, "containers": []any{map[string]any{"name": "main"}}},
		"status":   map[string]any{"phase": n.phase, "containerStatuses": []any{own}},
	})
}

func (n *logNode) Get(_ context.Context, path string, q url.Values) (*http.Response, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.down:
		return nil, unreachable(errCut)
	case path == "/api/v1/namespaces/default/pods/p/log" && q.Get("previous") == "true" && q.Get("limitBytes") == "1":
		if r := n.previous(); r == nil || r.removed {
			return nil, answered(http.StatusBadRequest, nil, []byte(`{"kind":"Status","code":400}`))
		}
		return &http.Response{Body: http.NoBody}, nil
	case path != "/api/v1/namespaces/default/pods/p":
		return nil, answered(http.StatusNotFound, nil, nil)
	case n.blind:
		return nil, answered(http.StatusForbidden, nil, []byte(`{"kind":"Status","code":403}`))
	case n.deleted:
		return nil, answered(http.StatusNotFound, nil, []byte(`{"kind":"Status","code":404}`))
	}
	return &http.Response{Body: io.NopCloser(strings.NewReader(string(n.known)))}, nil
}

func (n *logNode) Dial(_ context.Context, path string, q url.Values, subprotocols ...string) (*websocket.Conn, string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.queries = append(n.queries, q)
	run := n.last()
	if q.Get("previous") == "true" {
		run = n.previous()
	}
	if n.onDial != nil {
		n.onDial()
	}
	switch {
	case n.down:
		return nil, "", unreachable(errCut)
	case path != "/api/v1/namespaces/default/pods/p/log" || n.deleted:
		return nil, "", answered(http.StatusNotFound, nil, []byte(`{"kind":"Status","code":404}`))
	case n.unready > 0:
		n.unready--
		return nil, "", answered(http.StatusNotFound, nil, []byte(`{"kind":"Status","code":404}`))
	case run == nil || run.removed:
		return nil, "", answered(http.StatusBadRequest, nil, []byte(`{"kind":"Status","code":400}`))
	case len(subprotocols) != 1 || q.Get("timestamps") != "true":
		return nil, "", answered(http.StatusInternalServerError, nil, nil)
	}
	fault := logFault{after: -1}
	if len(n.faults) > 0 {
		fault, n.faults = n.faults[0], n.faults[1:]
	}
	n.seed++
	here, there := n.dial()
	s := &logServer{node: n, nc: there, run: run, query: q, fault: fault, random: rand.New(rand.NewPCG(n.seed, 1))}
	n.conns[there] = true
	n.serving.Add(2)
	go func() {
		defer n.serving.Done()
		s.serve()
	}()
	go func() {
		defer n.serving.Done()
		_, _ = io.Copy(io.Discard, there) // a client says nothing but when it goes
		_ = there.Close()
		n.change(func() { delete(n.conns, there) })
	}()
	return websocket.NewConn(here, nil), subprotocols[0], nil
}

// logServer serves one upstream.
type logServer struct {
	node   *logNode
	nc     net.Conn
	run    *logRun
	query  url.Values
	fault  logFault
	random *rand.Rand
}

var errCut = errors.New("cut")

func (s *logServer) serve() {
	err := s.send(serverFrame(0x82, ""))
	if err == nil {
		err = s.log()
	}
	if err == nil || errors.Is(err, errCut) && s.fault.proper {
		_ = s.send(serverFrame(0x88, "\x03\xe8")) // the client may be gone
		return
	}
	_ = s.nc.Close()
}

func (s *logServer) send(frame string) error {
	_, err := io.WriteString(s.nc, frame)
	return err
}

// log sends the log as a kubelet does: from the beginning of the file that is current, or its last records, without those that are older.
func (s *logServer) log() error {
	since := s.since()
	s.node.mu.Lock()
	next := s.run.start
	if tail, err := strconv.Atoi(s.query.Get("tailLines")); err == nil {
		next = max(next, len(s.run.records)-tail)
	}
	s.node.mu.Unlock()
	begins := true
	for {
		s.node.mu.Lock()
		fresh, ended, changed := s.run.records[next:], s.run.ended || s.node.deleted, s.node.changed
		gone := !s.node.conns[s.nc]
		s.node.mu.Unlock()
		next += len(fresh)
		var b strings.Builder
		for _, r := range fresh {
			if r.at.Before(since) {
				continue
			}
			if begins {
				b.WriteString(stampOf(r.at))
			}
			b.WriteString(r.text)
			begins = strings.HasSuffix(r.text, "\n")
		}
		if err := s.chunks(b.String()); err != nil {
			return err
		}
		switch {
		case len(fresh) > 0:
		case ended || gone || s.query.Get("follow") != "true":
			return nil
		default:
			<-changed
		}
	}
}

func (s *logServer) since() time.Time {
	if at, err := time.Parse(time.RFC3339, s.query.Get("sinceTime")); err == nil {
		return at
	}
	if ago, err := strconv.Atoi(s.query.Get("sinceSeconds")); err == nil {
		s.node.mu.Lock()
		defer s.node.mu.Unlock()
		return s.node.clock.Add(-time.Duration(ago) * time.Second)
	}
	return time.Time{}
}

func stampOf(at time.Time) string { return at.Format("2006-01-02T15:04:05.000000000Z07:00 ") }

// chunks sends bytes in messages of any size, as long as the fault allows.
func (s *logServer) chunks(b string) error {
	for b != "" {
		size := min(1+s.random.IntN([]int{3, 40, 2048, 70_000}[s.random.IntN(4)]), len(b))
		if s.fault.after >= 0 {
			size = min(size, s.fault.after)
			s.fault.after -= size
		}
		if size == 0 {
			return errCut
		}
		if err := s.send(serverFrame(0x82, b[:size])); err != nil {
			return err
		}
		b = b[size:]
	}
	if s.fault.after == 0 {
		return errCut
	}
	return nil
}

// text is the whole log of a run, as a client has it.
func (r *logRun) text(stamps bool) string {
	var b strings.Builder
	begins := true
	for _, x := range r.records {
		if begins && stamps {
			b.WriteString(stampOf(x.at))
		}
		b.WriteString(x.text)
		begins = strings.HasSuffix(x.text, "\n")
	}
	return b.String()
}

// texts are the logs of all runs.
func (n *logNode) texts(stamps bool) (all []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.runs {
		all = append(all, r.text(stamps))
	}
	return all
}

// live is how many upstreams there are.
func (n *logNode) live() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.conns)
}

// asked are the queries so far.
func (n *logNode) asked() []url.Values {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]url.Values(nil), n.queries...)
}
