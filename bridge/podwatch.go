package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/internal/websocket"
)

const (
	// maxPodEvent is how large the event of a pod may be to be looked at, in bytes; etcd holds 1.5 MiB.
	maxPodEvent = 4 << 20
	// podPiece is what the watch of a pod is handed over in, in bytes.
	podPiece = 16 << 10
	// blindTime is how long a refusal to watch a pod is believed, while forwards to it last.
	blindTime = time.Minute
	// asMany is as how many forwards' principals the watch of a pod is asked for, before it is refused.
	asMany = 3
)

// Pods are watches of single pods, which all forwards of a principal to a pod share: the tunnel of a port-forward does not end with its pod, so
// that somebody has to tell. All of it may be called concurrently. Whoever has one must call Close.
type Pods struct {
	running sync.WaitGroup // the watches

	mu      sync.Mutex
	closed  bool                 // Guarded by mu.
	watches map[podKey]*podWatch // Guarded by mu.
}

// NewPods makes a Pods that watches nothing.
func NewPods() *Pods { return &Pods{watches: map[podKey]*podWatch{}} }

// Close ends the watches, tells nobody, and returns when nothing of them runs.
func (p *Pods) Close() {
	p.mu.Lock()
	p.closed = true
	for _, w := range p.watches {
		w.cancel()
	}
	clear(p.watches)
	p.mu.Unlock()
	p.running.Wait()
}

// podKey is a pod as a principal sees it.
type podKey struct{ cluster, sharing, namespace, pod string }

// podUser is who wants to know of a pod's end.
type podUser struct {
	up   Upstream
	gone func(error)
}

// join has gone called, at most once and until leave returns, when the pod is no more: with a *status.Error that says why, or with a
// *PanicError. gone does not block and calls nothing of Pods. A principal that may not watch the pod is told nothing.
func (p *Pods) join(up Upstream, opts *Options, namespace, pod string, gone func(error)) (leave func()) {
	key := podKey{up.Cluster(), up.Sharing(), namespace, pod}
	u := &podUser{up: up, gone: gone}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return func() {}
	}
	w := p.watches[key]
	if w == nil {
		w = &podWatch{pods: p, key: key, opts: opts, identity: up.Identity()}
		p.watches[key] = w
	}
	w.users = append(w.users, u)
	if !w.watching && (w.refused.IsZero() || time.Since(w.refused) >= blindTime) {
		w.begin()
	}
	return func() { w.leave(u) }
}

// podWatch is the watch of one pod. It is the upstream of a watch's bridge, as one of its users, and the channel of it, whose client it is.
type podWatch struct {
	// Immutable after join.
	pods     *Pods
	key      podKey
	identity string
	opts     *Options

	// Guarded by pods.mu.
	users    []*podUser // in the order in which they came
	watching bool
	refused  time.Time // when the API server has refused the watch for good; zero when it has not
	cancel   context.CancelFunc

	podEvents // Owned by the bridge.
}

// begin starts the watch. pods.mu is held. It ends with the last user, with the pod, or with a refusal.
func (w *podWatch) begin() {
	ctx, cancel := context.WithCancel(context.Background())
	w.watching, w.cancel, w.podEvents = true, cancel, podEvents{}
	open := &sluicev1.Open{Target: &sluicev1.Target{Target: &sluicev1.Target_Watch{Watch: &sluicev1.WatchTarget{
		Version: "v1", Resource: "pods", Namespace: w.key.namespace, Name: w.key.pod,
	}}}}
	w.pods.running.Add(1) // until it is over, which may be after Start has returned
	w.pods.running.Go(func() {
		Start(ctx, w, open, podChannel{w}, w.opts, func(o Outcome) {
			defer w.pods.running.Done()
			cancel()
			w.ended(o.Err)
		})
	})
}

// ended takes note that the watch is over. Only a refusal leaves users behind, or a bug, which is theirs to report.
func (w *podWatch) ended(err error) {
	if _, bug := errors.AsType[*PanicError](err); bug {
		w.gone(err)
		return
	}
	w.pods.mu.Lock()
	defer w.pods.mu.Unlock()
	w.watching, w.refused = false, time.Now()
}

// leave takes a user away; with the last one the watch ends.
func (w *podWatch) leave(u *podUser) {
	w.pods.mu.Lock()
	defer w.pods.mu.Unlock()
	if i := slices.Index(w.users, u); i >= 0 {
		w.users = slices.Delete(w.users, i, i+1)
	}
	if len(w.users) == 0 {
		w.retire()
	}
}

// retire ends the watch. Who comes from now on begins another. pods.mu is held.
func (w *podWatch) retire() {
	if w.pods.watches[w.key] == w {
		delete(w.pods.watches, w.key)
	}
	w.cancel()
}

// gone tells the users, and ends the watch: a pod does not come back, another of its name is another's.
func (w *podWatch) gone(err error) {
	w.pods.mu.Lock()
	defer w.pods.mu.Unlock()
	for _, u := range w.users {
		u.gone(err)
	}
	w.users = nil
	w.retire()
}

// podEvents is what is known of a pod.
type podEvents struct {
	event  []byte // what has come of the current event
	skip   bool   // it is too large
	listed bool   // the list that comes now, or came last, has the pod
	uid    string // the pod's, once it was seen; written with pods.mu held, for who asks
}

// podEvent is what of an event is looked at.
type podEvent struct {
	Type   string `json:"type"`
	Object struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
		Status struct {
			Phase  string `json:"phase"`
			Reason string `json:"reason"`
		} `json:"status"`
	} `json:"object"`
}

// changed takes an event.
func (w *podWatch) changed(event []byte) {
	var e podEvent
	if json.Unmarshal(event, &e) != nil {
		return // which the next event or list makes good
	}
	w.listed = true
	switch phase := e.Object.Status.Phase; {
	case e.Type == "DELETED", w.uid != "" && e.Object.Metadata.UID != w.uid:
		w.deleted()
	case phase == "Failed", phase == "Succeeded":
		why := phase
		if e.Object.Status.Reason != "" {
			why += ", " + readable([]byte(e.Object.Status.Reason))
		}
		w.gone(status.New(codes.Unavailable, sluicev1.Reason_REASON_TARGET_GONE, "pod %s/%s has ended: %s", w.key.namespace, w.key.pod, why))
	case w.uid == "":
		w.pods.mu.Lock()
		defer w.pods.mu.Unlock()
		w.uid = e.Object.Metadata.UID
	}
}

func (w *podWatch) deleted() {
	w.gone(status.New(codes.NotFound, sluicev1.Reason_REASON_TARGET_GONE, "pod %s/%s was deleted", w.key.namespace, w.key.pod))
}

// podChannel is the channel of the watch's bridge. It takes whatever comes.
type podChannel struct{ *podWatch }

// Credit implements Channel.
func (podChannel) Credit() int { return podPiece + pieceCost }

// AwaitCredit implements Channel.
func (podChannel) AwaitCredit(ctx context.Context, _ int) error { return ctx.Err() }

// NotifyCredit implements Channel.
func (podChannel) NotifyCredit(int, func()) (told bool, err error) { return false, nil }

// MaxPiece implements Channel.
func (podChannel) MaxPiece() int { return podPiece }

// Offer implements Channel.
func (w podChannel) Offer(pieces []data.Piece) int {
	for _, p := range pieces {
		if w.skip = w.skip || len(w.event)+len(p.Bytes) > maxPodEvent; !w.skip {
			w.event = append(w.event, p.Bytes...)
		}
		if p.More {
			continue
		}
		if !w.skip {
			w.changed(w.event)
		}
		w.event, w.skip = nil, false
	}
	return len(pieces)
}

// Opened implements Channel.
func (podChannel) Opened(*sluicev1.Opened) {}

// State implements Channel. A list says what a watch that was interrupted has missed.
func (w podChannel) State(s *sluicev1.ChannelState) {
	w.event, w.skip = nil, false
	switch s.GetKind() {
	case sluicev1.ChannelState_KIND_RESYNC_BEGIN:
		w.listed = false
	case sluicev1.ChannelState_KIND_RESYNC_END:
		if !w.listed {
			w.deleted()
		}
	}
}

// CloseSend implements Channel. A watch does not say it.
func (podChannel) CloseSend() {}

// Next implements Channel. Nobody sends anything.
func (podChannel) Next(ctx context.Context) (data.Input, error) {
	<-ctx.Done()
	return data.Input{}, ctx.Err()
}

// Used implements Channel.
func (podChannel) Used() {}

// Cluster implements Upstream.
func (w *podWatch) Cluster() string { return w.key.cluster }

// Identity implements Upstream.
func (w *podWatch) Identity() string { return w.identity }

// Sharing implements Upstream.
func (w *podWatch) Sharing() string { return w.key.sharing }

// Dial implements Upstream: as whoever came last and is still there.
func (w *podWatch) Dial(ctx context.Context, path string, query url.Values, subprotocols ...string) (conn *websocket.Conn, chosen string, err error) {
	err = w.as(func(up Upstream) (err error) {
		conn, chosen, err = up.Dial(ctx, path, query, subprotocols...)
		return err
	})
	return conn, chosen, err
}

// Get implements Upstream, as Dial.
func (w *podWatch) Get(ctx context.Context, path string, query url.Values) (res *http.Response, err error) {
	err = w.as(func(up Upstream) (err error) {
		res, err = up.Get(ctx, path, query) //nolint:bodyclose // it is the caller's
		return err
	})
	return res, err
}

// as asks as one user, and as others while that one's credential is refused: it may have ended. They are one principal, so that no other
// refusal would change.
func (w *podWatch) as(ask func(Upstream) error) error {
	err := error(status.New(codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST, "nobody is left to watch for"))
	for _, up := range w.upstreams() {
		if err = ask(up); err == nil || status.From(err).HTTPCode != http.StatusUnauthorized {
			return err
		}
	}
	return err
}

// upstreams are those of the users that came last.
func (w *podWatch) upstreams() (ups []Upstream) {
	w.pods.mu.Lock()
	defer w.pods.mu.Unlock()
	for _, u := range slices.Backward(w.users) {
		if ups = append(ups, u.up); len(ups) == asMany {
			break
		}
	}
	return ups
}
