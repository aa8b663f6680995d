package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// containerLog is the log of one container.
type containerLog struct {
	pod, container string
	later          bool // it began while others were followed: the whole of it is wanted
}

func (c containerLog) String() string { return fmt.Sprintf("pod %s, container %s", c.pod, c.container) }

// logSet are the logs of several containers on one output: those of the pods that a target names, and while they are followed also of those that
// are not there yet.
type logSet struct {
	// Immutable once it is printed.
	f      *logsFlags
	p      *podTarget
	of     *sluicev1.WatchTarget // the pods: one by its name, or all that a selector selects
	target *sluicev1.LogTarget   // the lines of each log
	out    *lineOutput
	end    context.CancelCauseFunc // ends what follows; errAllEnded is the good end

	said map[string]bool // what is said once, and was. Owned by who reads the pods.
	logs sync.WaitGroup

	mu             sync.Mutex              // guards everything below
	pods           map[string]*followedPod // by their UIDs
	listed         bool                    // the pods that there were at first are known
	waiting        []containerLog
	running        int // logs that are being printed
	missed, failed bool
}

// followedPod is a pod whose logs are followed.
type followedPod struct {
	begun    map[string]bool // the containers whose logs were begun
	finished bool            // no other log of it is to come; of one that is being deleted nobody knows what comes in its place
	listed   bool            // by the list that is being read
}

// errAllEnded ends the logs that are followed: there will be no more.
var errAllEnded = errors.New("all logs have ended")

func (f *logsFlags) newLogSet(p *podTarget, of *sluicev1.WatchTarget, target *sluicev1.LogTarget) *logSet {
	of.Version, of.Resource, of.Namespace = "v1", "pods", p.access.Namespace
	return &logSet{
		f: f, p: p, of: of, target: target, out: newLineOutput(f.sys.stdout), end: func(error) {},
		said: map[string]bool{}, pods: map[string]*followedPod{},
	}
}

// print prints the logs: each after the other, or at once while they are followed.
func (s *logSet) print(ctx context.Context) error {
	if s.target.GetFollow() && !s.target.GetPrevious() {
		return s.follow(ctx)
	}
	all, err := s.p.pods(ctx, s.of)
	if err != nil {
		return s.unseen(err)
	}
	if len(all) == 0 {
		return s.nobody("no pod matches")
	}
	slices.SortFunc(all, func(a, b podObject) int { return strings.Compare(a.Metadata.Name, b.Metadata.Name) })
	for _, o := range all {
		for _, c := range s.wanted(o) {
			one := containerLog{pod: o.Metadata.Name, container: c}
			if !o.hasLog(c) {
				s.p.n.sayf("%s: it has not begun; there is no log yet", one)
				continue
			}
			if err := s.one(ctx, one); err != nil {
				return err
			}
		}
	}
	return s.outcome()
}

// named reports whether the set is of one pod, which somebody has named.
func (s *logSet) named() bool { return s.of.GetName() != "" }

// nobody is what becomes of a command when there are no pods: an error if somebody has named one.
func (s *logSet) nobody(otherwise string) error {
	if s.named() {
		return fmt.Errorf("there is no pod %q in namespace %s", s.of.GetName(), s.p.access.Namespace)
	}
	s.p.n.sayf("%s in namespace %s", otherwise, s.p.access.Namespace)
	return nil
}

// unseen is why the pods cannot be seen.
func (s *logSet) unseen(err error) error {
	if forbidden(err) {
		return hinted{err, "the cluster's API server said so; ask for the permission to list and watch pods in namespace " + s.p.access.Namespace}
	}
	return err
}

// outcome is the command's end when all logs have ended.
func (s *logSet) outcome() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.failed:
		return exitError(exitFailed)
	case s.missed:
		return exitError(exitMissed)
	}
	return nil
}

// wanted are the containers of a pod whose logs are wanted. What there is to say about them is said once.
func (s *logSet) wanted(o podObject) []string {
	all := o.containers()
	switch {
	case s.f.allContainers:
		return all
	case s.f.container != "" && slices.Contains(all, s.f.container):
		return []string{s.f.container}
	case s.f.container != "":
		s.oncef("pod %s has no container %s; it has %s", o.Metadata.Name, s.f.container, listed(all))
		return nil
	}
	if chosen, of := o.defaultContainer(); chosen != "" {
		s.oncef("container %s of %s; -c chooses another, --all-containers all", chosen, listed(of))
		return []string{chosen}
	}
	return names(o.Spec.Containers)
}

func (s *logSet) oncef(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if !s.said[text] {
		s.said[text] = true
		s.p.n.sayf("%s", text)
	}
}

// one prints one log until it ends. An error is one after which no other can be printed either.
func (s *logSet) one(ctx context.Context, c containerLog) error {
	t := proto.CloneOf(s.target)
	t.Pod, t.Container = c.pod, c.container
	if c.later {
		t.TailLines = nil
	}
	lines := &lineWriter{out: s.out, onLong: func() { s.p.n.sayf("%s: a line is longer than %d bytes and is cut there", c, longestLine) }}
	if s.f.prefix {
		lines.prefix = fmt.Sprintf("[pod/%s/%s] ", printable(c.pod), printable(c.container))
	}
	notices := &upstreamNotices{n: s.p.n, what: "the log of " + c.String(), container: c.String() + ",", once: true}
	missed, err := printLog(ctx, s.p.client.Logs(client.LogsRequest{Cluster: s.p.access.Cluster, Target: t}), lines, func(st *sluicev1.ChannelState) error {
		notices.state(st)
		if k := st.GetKind(); k == sluicev1.ChannelState_KIND_GAP || k == sluicev1.ChannelState_KIND_RESTARTED {
			return lines.flush() // what comes does not continue it
		}
		return nil
	})
	err = errors.Join(err, lines.flush())
	return s.ended(ctx, c, missed, err)
}

// ended judges how a log has ended.
func (s *logSet) ended(ctx context.Context, c containerLog, missed bool, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.missed = s.missed || missed
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil, s.p.client.Err() != nil, s.out.failed() != nil, forbidden(err):
		return err
	case gone(err) && !s.named(): // as pods go that others replace
		s.p.n.sayf("%s: %s", c, brief(err))
		return nil
	}
	s.failed = true
	s.p.n.sayf("%s: its log cannot be printed: %s", c, brief(err))
	return nil
}

// printLog prints a log until it ends, and reports whether something of it is missing. tell is told of each change of its state in its place.
func printLog(ctx context.Context, l *client.Log, w io.Writer, tell func(*sluicev1.ChannelState) error) (missed bool, err error) {
	defer l.Close()
	for {
		chunk, err := l.Next(ctx)
		switch {
		case errors.Is(err, io.EOF):
			return missed, nil
		case err != nil:
			return missed, err
		case chunk.State == nil:
			_, err = w.Write(chunk.Data)
		default:
			missed = missed || chunk.State.GetKind() == sluicev1.ChannelState_KIND_GAP
			err = tell(chunk.State)
		}
		if err != nil {
			return missed, err
		}
	}
}

// follow prints the logs of all pods at once, until all have ended and no pod is left that could write another.
func (s *logSet) follow(ctx context.Context) error {
	inner, end := context.WithCancelCause(ctx)
	s.end = end
	err := s.watch(inner)
	end(err)
	s.logs.Wait()
	switch cause := context.Cause(inner); {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(cause, errAllEnded):
		return s.outcome()
	default:
		return cause
	}
}

// watch follows the pods until ctx ends.
func (s *logSet) watch(ctx context.Context) error {
	w := s.p.client.Watch(client.WatchRequest{Cluster: s.p.access.Cluster, Target: s.of})
	defer w.Close()
	notices := &upstreamNotices{n: s.p.n, what: "the watch of the pods", once: true}
	for {
		ev, err := w.Next(ctx)
		switch {
		case errors.Is(err, io.EOF): // no gateway does so by itself
			return status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "the gateway has ended the watch of the pods")
		case err != nil:
			return s.unseen(err)
		case ev.State != nil:
			err = s.list(ctx, ev.State, notices)
		default:
			err = s.change(ctx, ev)
		}
		if err != nil {
			return err
		}
	}
}

// list takes note of the beginning and the end of a list of all pods that there are.
func (s *logSet) list(ctx context.Context, state *sluicev1.ChannelState, notices *upstreamNotices) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state.GetKind() {
	case sluicev1.ChannelState_KIND_RESYNC_BEGIN:
		for _, pod := range s.pods {
			pod.listed = false
		}
		return nil
	case sluicev1.ChannelState_KIND_RESYNC_END:
	default:
		notices.state(state)
		return nil
	}
	for uid, pod := range s.pods {
		if !pod.listed {
			delete(s.pods, uid)
		}
	}
	if first := !s.listed; first {
		s.listed = true
		if n := len(s.waiting); n > s.f.maxRequests {
			return fmt.Errorf("%d logs are to be followed at once, and --max-log-requests is %d", n, s.f.maxRequests)
		}
		if len(s.pods) == 0 {
			return s.nobody("no pod matches yet; waiting for one")
		}
	}
	s.proceed(ctx)
	return nil
}

// change takes note of what has become of a pod.
func (s *logSet) change(ctx context.Context, ev client.Event) error {
	o, err := decode[podObject](ev.Object)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ev.Type == "DELETED" {
		delete(s.pods, o.Metadata.UID)
		s.proceed(ctx)
		return nil
	}
	pod := s.pods[o.Metadata.UID]
	if pod == nil {
		pod = &followedPod{begun: map[string]bool{}}
		s.pods[o.Metadata.UID] = pod
	}
	wanted := s.wanted(o)
	for _, c := range wanted {
		if !pod.begun[c] && o.hasLog(c) {
			pod.begun[c] = true
			s.await(containerLog{pod: o.Metadata.Name, container: c, later: s.listed})
		}
	}
	pod.listed = true
	pod.finished = o.Metadata.DeletionTimestamp == nil && (o.finished() || s.named() && len(pod.begun) >= len(wanted))
	s.proceed(ctx)
	return nil
}

// await lets a log wait for its turn. mu is held.
func (s *logSet) await(c containerLog) {
	s.waiting = append(s.waiting, c)
	switch {
	case !s.listed:
	case s.running+len(s.waiting) > s.f.maxRequests:
		s.p.n.sayf("%s: it is new; its log waits for another to end, since --max-log-requests is %d", c, s.f.maxRequests)
	default:
		s.p.n.sayf("%s: it is new; its log is followed too", c)
	}
}

// proceed begins the logs whose turn it is, and ends all when there will be no more. mu is held.
func (s *logSet) proceed(ctx context.Context) {
	if !s.listed || ctx.Err() != nil {
		return
	}
	for ; len(s.waiting) > 0 && s.running < s.f.maxRequests; s.waiting = s.waiting[1:] {
		s.begin(ctx, s.waiting[0])
	}
	if s.running > 0 {
		return
	}
	for _, pod := range s.pods {
		if !pod.finished {
			return
		}
	}
	if len(s.pods) > 0 || s.named() {
		s.end(errAllEnded)
		return
	}
	s.p.n.sayf("no pod matches any more; waiting for another")
}

// begin prints a log. mu is held.
func (s *logSet) begin(ctx context.Context, c containerLog) {
	s.running++
	s.logs.Go(func() {
		if err := s.one(ctx, c); err != nil {
			s.end(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.running--
		s.proceed(ctx)
	})
}
