package server

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sluice-gateway/sluice/auth"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
	"github.com/sluice-gateway/sluice/mux"
)

// session is one client's session at the server: a mux.Session with its principal, its expiry and its channels' goroutines.
type session struct {
	// Immutable after start.
	server    *Server
	mux       *mux.Session
	id        string // in logs; a plain session's names nothing that could be resumed
	client    string
	requestID string // of the call that began it
	began     time.Time
	log       *slog.Logger
	call      trace.SpanContext // of the call that began it

	principal atomic.Pointer[auth.Principal] // a resume may bring a renewed one
	channels  sync.WaitGroup                 // the goroutines of the channels

	// Guarded by sessions.mu.
	links    int         // that carry it
	version  uint64      // of the credential: rises with each that was accepted
	detach   *time.Timer // ends it when it stays detached; nil while it is attached
	expiry   *time.Timer
	detached time.Time
}

// sessions is all sessions of the server.
type sessions struct {
	server *Server

	mu       sync.Mutex // guards everything below
	all      map[*session]struct{}
	byID     map[string]*session // the full ones
	count    map[string]int      // by principal key
	draining bool
	drain    *sluicev1.Drain
}

func newSessions(s *Server) *sessions {
	return &sessions{server: s, all: map[*session]struct{}{}, byID: map[string]*session{}, count: map[string]int{}}
}

var (
	errDraining = status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING,
		"this replica is going away; connect again to reach another").WithResumable(true)
	errExpired = status.Unauthenticated(sluicev1.Reason_REASON_EXPIRED,
		"the credential has expired; begin a new session with a new one").WithResumable(true)
	errDetachExpired = status.New(codes.Unavailable, sluicev1.Reason_REASON_DETACH_EXPIRED, "the session stayed detached for too long")
	errMakesRoom     = status.Limit("limits.principal_sessions", "another session of the principal took this one's place while it was detached")
)

// of is the session that a link carries: the one that hello resumes, or a new one.
func (ss *sessions) of(ctx context.Context, hello *sluicev1.Hello) (*session, error) {
	p, err := principal(ctx)
	if err != nil {
		return nil, err
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if hello.GetResume() != nil {
		ses, err := ss.resume(p, hello)
		ss.server.metrics.resumption(ses != nil, err)
		if ses != nil || err != nil {
			return ses, err
		}
	}
	if ss.draining {
		return nil, errDraining
	}
	if err := ss.admit(p); err != nil {
		return nil, err
	}
	return ss.begin(ctx, p, hello), nil
}

// resume finds the session that hello names; nil when there is none, and the client gets a new one. mu is held.
func (ss *sessions) resume(p *auth.Principal, hello *sluicev1.Hello) (*session, error) {
	ses := ss.byID[hello.GetResume().GetSession()]
	if ses == nil || !ses.mux.Proves(hello.GetResume()) { // a wrong secret learns no more than a wrong name
		return nil, nil
	}
	if !p.Same(ses.principal.Load()) {
		return nil, status.New(codes.PermissionDenied, sluicev1.Reason_REASON_PRINCIPAL_MISMATCH,
			"the session belongs to another principal than the credential")
	}
	if err := ses.mux.CheckResume(hello); err != nil { // a stale copy of the client changes nothing
		return nil, err
	}
	ses.principal.Store(p)
	ses.attach(p)
	return ses, nil
}

// attach notes one more link. sessions.mu is held.
func (ses *session) attach(p *auth.Principal) {
	ses.links++
	ses.version++
	ses.detached = time.Time{}
	if ses.detach != nil {
		ses.detach.Stop()
		ses.detach = nil
	}
	if ses.expiry != nil {
		ses.expiry.Stop()
	}
	ses.expiry = time.AfterFunc(time.Until(p.ExpiresAt), func() { ses.mux.End(errExpired) })
	if !ses.mux.Plain() {
		ses.mux.SetAuth(&sluicev1.AuthState{
			Version: ses.version, State: sluicev1.AuthState_STATE_ACCEPTED, ExpiresAt: timestamppb.New(p.ExpiresAt),
		})
	}
}

// admit refuses a session that is one too many. A detached session of the same principal makes room, the oldest first. mu is held.
func (ss *sessions) admit(p *auth.Principal) error {
	l := ss.server.cfg.Limits
	if len(ss.all) >= l.Sessions {
		return status.Limit("limits.sessions", "%d sessions are open", l.Sessions)
	}
	if ss.count[p.Key()] < l.PrincipalSessions {
		return nil
	}
	var oldest *session
	for ses := range ss.all {
		if ses.links == 0 && ses.principal.Load().Key() == p.Key() && (oldest == nil || ses.detached.Before(oldest.detached)) {
			oldest = ses
		}
	}
	if oldest == nil {
		return status.Limit("limits.principal_sessions", "%d sessions of this principal are open", l.PrincipalSessions)
	}
	ss.remove(oldest)
	oldest.mux.End(errMakesRoom)
	return nil
}

// begin makes a new session. mu is held.
func (ss *sessions) begin(ctx context.Context, p *auth.Principal, hello *sluicev1.Hello) *session {
	ses := &session{
		server: ss.server, id: newID(), client: cut(hello.GetClient(), 128), requestID: requestID(ctx), began: time.Now(),
		call: trace.SpanContextFromContext(ctx),
	}
	ses.log = ss.server.log.With("session", ses.id, "request_id", ses.requestID, "principal", p)
	ses.principal.Store(p)
	ses.mux = mux.NewServer(ss.server.cfg.Limits.mux(ss.server.budget), hello == nil, ses)
	if hello != nil {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails (crypto/rand)
		ses.mux.Identify(ses.id, secret)
		ss.byID[ses.id] = ses
	}
	if ss.drain != nil {
		ses.mux.Drain(ss.drain)
	}
	ss.all[ses] = struct{}{}
	ss.count[p.Key()]++
	ss.server.metrics.sessions.Inc()
	ses.attach(p)
	ss.server.running.Add(1)
	go ses.watchEnd()
	return ses
}

// watchEnd removes the session once it has ended. Started by begin; ends with the session and the last goroutine of its channels.
func (ses *session) watchEnd() {
	defer ses.server.running.Done()
	<-ses.mux.Done()
	ses.server.metrics.sessionEnded(ses.mux.Err())
	ss := ses.server.sessions
	ss.mu.Lock()
	ss.remove(ses)
	ss.mu.Unlock()
	ses.mux.Wait() // after this nothing is accepted any more
	ses.channels.Wait()
}

// remove forgets a session. mu is held.
func (ss *sessions) remove(ses *session) {
	if _, ok := ss.all[ses]; !ok {
		return
	}
	delete(ss.all, ses)
	delete(ss.byID, ses.id)
	key := ses.principal.Load().Key()
	ss.count[key]--
	if ss.count[key] <= 0 {
		delete(ss.count, key)
	}
	for _, t := range []*time.Timer{ses.detach, ses.expiry} {
		if t != nil {
			t.Stop()
		}
	}
	ss.server.metrics.sessions.Dec()
}

// detached notes that a link of a full session has ended: without any, the session waits for the next one for limits.detach_ttl.
func (ss *sessions) detached(ses *session) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ses.links--
	if ses.links > 0 {
		return
	}
	if _, ok := ss.all[ses]; !ok {
		return
	}
	ses.detached = time.Now()
	ses.detach = time.AfterFunc(ss.server.cfg.Limits.DetachTTL, func() { ses.mux.End(errDetachExpired) })
}

// snapshot is all sessions that there are now.
func (ss *sessions) snapshot() []*session {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	out := make([]*session, 0, len(ss.all))
	for ses := range ss.all {
		out = append(out, ses)
	}
	return out
}

// startDrain refuses new sessions from now on and tells all clients to make their next one elsewhere, each at another time.
func (ss *sessions) startDrain(deadline time.Time, spread time.Duration) []*session {
	ss.mu.Lock()
	ss.draining = true
	ss.drain = &sluicev1.Drain{Deadline: timestamppb.New(deadline), ReconnectAfter: durationpb.New(0)}
	ss.mu.Unlock()
	all := ss.snapshot()
	for i, ses := range all {
		after := spread * time.Duration(i) / time.Duration(len(all))
		ses.mux.Drain(&sluicev1.Drain{Deadline: timestamppb.New(deadline), ReconnectAfter: durationpb.New(after)})
	}
	return all
}

// newID is the id of a session: 128 random bits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// cut is at most the first n bytes of s.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
