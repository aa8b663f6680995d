package mux

import (
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// Config is what a session is made with. Zero fields take the defaults named here.
type Config struct {
	// Channels is how many channels may be open at a time: 1,024, at most 4,096, since a Hello names them all in one batch.
	Channels int
	// MessageBytes is the largest message that is put together from pieces: 4 MiB.
	MessageBytes int
	// WindowBytes is the largest window of a channel: 1 MiB, at least MinWindow.
	WindowBytes int
	// SessionBytes is what all channels may hold to be sent or acknowledged: 8 MiB.
	SessionBytes int
	// DetachTTL is how long the session outlives its link, as Welcome tells it: 120 s.
	DetachTTL time.Duration
	// Budget is the process's, which the session's draws on; nil for none.
	Budget *Budget
}

func (c Config) withDefaults() Config {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&c.Channels, 1024)
	set(&c.MessageBytes, 4<<20)
	set(&c.WindowBytes, 1<<20)
	set(&c.SessionBytes, 8<<20)
	c.Channels, c.WindowBytes = min(c.Channels, MaxChannels), max(c.WindowBytes, MinWindow)
	if c.DetachTTL <= 0 {
		c.DetachTTL = 120 * time.Second
	}
	return c
}

// Acceptor is a server's side of new channels.
type Acceptor interface {
	// Accept is given each channel that a client opens, on the goroutine that reads the link: it must not block. Whoever accepts ends the
	// channel with Finish.
	Accept(c *Channel, o *sluicev1.Open)
}

// Observer is told what concerns a client's whole session, on the goroutine that reads the link: it must not block.
type Observer interface {
	// Welcomed is called for every Welcome, after the channels were brought up to date.
	Welcomed(w *sluicev1.Welcome)
	// AuthState is called for every AuthState.
	AuthState(a *sluicev1.AuthState)
	// Draining is called for every Drain.
	Draining(d *sluicev1.Drain)
}

// Session is one end of a client's set of channels. It outlives links; [Session.Serve] carries it over one. It is safe for concurrent use.
type Session struct {
	// Immutable after New.
	role     Role
	plain    bool
	cfg      Config
	budget   *Budget       // of what is to be sent or acknowledged
	putting  *Budget       // of the messages that a server puts together from pieces
	promised *Budget       // of what windows are widened by
	acceptor Acceptor      // a server's
	observer Observer      // a client's
	woken    chan struct{} // to the writer: there is something to send
	nudged   chan struct{} // to the supervisor: there is something to time
	done     chan struct{} // closed by End

	wg sync.WaitGroup // readers and writers

	recvMu sync.Mutex // one batch at a time, of one link at a time; before mu
	gen    uint64     // rises with every attached and every detached link. Guarded by recvMu and mu: read under either.
	buf    frame      // Guarded by recvMu.

	mu       sync.Mutex // guards everything below
	carrier  *carrier   // of the attached link; nil for none
	chans    map[uint32]*Channel
	highest  uint32     // highest channel id seen or given
	openings int        // channels that are not over
	opens    []*Channel // a client's whose Open is to be sent, in the order of their ids
	ready    turns
	owing    []*Channel
	ackNow   bool
	err      *status.Error // why the session ended; nil for a good end
	ended    bool
	eof      bool // a plain session's client sends no more

	id      string
	secret  []byte
	link    uint64 // number of the last link welcomed
	heard   uint64 // highest link on which a frame followed Welcome
	holding bool   // a client's: between Hello and Welcome nothing else is sent

	// Session frames to send. Each is a level: a newer one replaces it, and a resume says it again.
	hello    *sluicev1.Hello
	welcome  *sluicev1.Welcome
	auth     []*sluicev1.AuthState // the state of each credential
	authDue  []*sluicev1.AuthState // those of auth that were not sent on this link
	rejected *sluicev1.AuthState   // the answer to the last Authenticate
	drain    *sluicev1.Drain
	goodbye  *sluicev1.Goodbye
	ping     bool
	pong     *sluicev1.Pong
	drained  bool // drain was sent on this link

	replaced chan struct{} // closed when another link takes the place of the attached one
}

// NewServer makes the server's end of a session: a full one, or a plain one that lives no longer than its link.
func NewServer(cfg Config, plain bool, a Acceptor) *Session {
	s := newSession(Server, plain, cfg)
	s.acceptor = a
	s.putting = NewBudget(s.cfg.SessionBytes, s.cfg.Budget)
	return s
}

// NewClient makes the client's end of a full session. o may be nil.
func NewClient(cfg Config, o Observer) *Session {
	s := newSession(Client, false, cfg)
	s.observer = o
	return s
}

func newSession(role Role, plain bool, cfg Config) *Session {
	cfg = cfg.withDefaults()
	return &Session{
		role: role, plain: plain, cfg: cfg, budget: NewBudget(cfg.SessionBytes, cfg.Budget),
		promised: NewBudget(cfg.SessionBytes, nil), // bounds what the peer may send, which is charged where it is held
		woken:    make(chan struct{}, 1), nudged: make(chan struct{}, 1), done: make(chan struct{}), chans: map[uint32]*Channel{},
	}
}

// Identify sets the id and the secret of a server's full session, before its first link.
func (s *Session) Identify(id string, secret []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id, s.secret = id, secret
}

// ID is the session's id; empty in a plain session, and in a client's before the first Welcome.
func (s *Session) ID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

// Plain reports whether the session is plain.
func (s *Session) Plain() bool { return s.plain }

// Channels is how many channels are open.
func (s *Session) Channels() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.openings
}

// Held is how many bytes the session's channels hold to be sent or acknowledged.
func (s *Session) Held() int { return s.budget.Held() }

// Done is closed when the session has ended.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is why the session ended; nil while it lives and for a good end.
func (s *Session) Err() *status.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Open opens a client's channel. Its events come through Next, or to sink if there is one. It fails when the session has ended, and for an
// Open that no frame has room for.
func (s *Session) Open(o *sluicev1.Open, sink Sink) (*Channel, error) {
	if n := proto.Size(o); n > LargePiece {
		return nil, status.New(codes.InvalidArgument, sluicev1.Reason_REASON_INVALID_TARGET, "an Open of %d bytes is longer than %d", n, LargePiece)
	}
	o = proto.CloneOf(o)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil, s.endError()
	}
	s.highest++
	c := newChannel(s, s.highest, sink)
	c.in.window = min(max(o.GetWindow(), MinWindow), uint64(s.cfg.WindowBytes))
	o.Window = c.in.window
	c.charged(func() bool { return c.out.say(o) }) // nobody else knows the channel yet: no lock
	s.enter(c)
	c.isReady = true
	s.opens = append(s.opens, c)
	s.wake()
	return c, nil
}

// enter makes a channel one of the session's, and open. mu is held.
func (s *Session) enter(c *Channel) {
	s.chans[c.id] = c
	c.counted = true
	s.openings++
}

func (s *Session) endError() *status.Error {
	if s.err != nil {
		return s.err
	}
	return errSessionEnded
}

var errSessionEnded = status.New(codes.Canceled, sluicev1.Reason_REASON_CLOSED_BY_PEER, "the session has ended")

// SetAuth says what became of a credential, now and after every resume: an AuthState replaces the one before it of the same cluster.
func (s *Session) SetAuth(a *sluicev1.AuthState) {
	s.mu.Lock()
	s.auth, s.authDue = replaceAuth(s.auth, a), replaceAuth(s.authDue, a)
	s.mu.Unlock()
	s.wake()
}

func replaceAuth(all []*sluicev1.AuthState, a *sluicev1.AuthState) []*sluicev1.AuthState {
	all = slices.DeleteFunc(all, func(b *sluicev1.AuthState) bool { return a.GetCluster() == b.GetCluster() })
	return append(all, a)
}

// Drain says that this replica goes away, now and after every resume.
func (s *Session) Drain(d *sluicev1.Drain) {
	s.mu.Lock()
	s.drain, s.drained = d, false
	s.mu.Unlock()
	s.wake()
}

// End ends the session and all its channels. The peer is told by Goodbye, if there is a link; err nil is a good end.
func (s *Session) End(err *status.Error) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended, s.err = true, err
	if !s.plain { // a plain session's end is told by the call's status
		s.goodbye = &sluicev1.Goodbye{}
		if err != nil {
			s.goodbye.Status = err.Proto()
		}
	}
	chans := s.chans
	s.chans = map[uint32]*Channel{}
	for _, c := range chans {
		s.discount(c)
	}
	s.ready, s.opens, s.owing = turns{}, nil, nil
	why := s.endError()
	s.mu.Unlock()
	for _, c := range chans {
		c.abandon(why)
	}
	close(s.done)
	s.wake()
}

// wake tells the writer that there is something to send.
func (s *Session) wake() {
	select {
	case s.woken <- struct{}{}:
	default:
	}
}

// nudge tells the supervisor that there is something to time.
func (s *Session) nudge() {
	select {
	case s.nudged <- struct{}{}:
	default:
	}
}

// forget removes a channel that is over. mu is held.
func (s *Session) forget(c *Channel) {
	if s.chans[c.id] == c {
		delete(s.chans, c.id)
	}
	s.discount(c)
}

// discount counts a channel as open no longer. mu is held.
func (s *Session) discount(c *Channel) {
	if c.counted {
		c.counted = false
		s.openings--
	}
}

// over notes that a channel is over, though the peer may not know yet.
func (s *Session) over(c *Channel) {
	s.mu.Lock()
	s.discount(c)
	s.mu.Unlock()
}

// collectControl adds the session's own frames as one segment. mu is held.
func (s *Session) collectControl(b Batch) Batch {
	add := func(m proto.Message) { b = append(b, Part{seg: newMessageSegment(s.role, 0, 0, m)}) }
	if s.hello != nil {
		add(s.hello)
		s.hello = nil
	}
	if s.welcome != nil {
		add(s.welcome)
		s.welcome = nil
	}
	if s.holding {
		return b
	}
	if s.pong != nil {
		add(s.pong)
		s.pong = nil
	}
	if s.ping {
		add(&sluicev1.Ping{})
		s.ping = false
	}
	for _, a := range s.authDue {
		add(a)
	}
	s.authDue = nil
	if s.rejected != nil {
		add(s.rejected)
		s.rejected = nil
	}
	if s.drain != nil && !s.drained {
		add(s.drain)
		s.drained = true
	}
	if s.goodbye != nil {
		add(s.goodbye)
		s.goodbye = nil
	}
	return b
}

// limits is what Welcome says of the configuration.
func (s *Session) limits() *sluicev1.Limits {
	return &sluicev1.Limits{
		SessionChannels: uint32(s.cfg.Channels), MessageBytes: uint64(s.cfg.MessageBytes), WindowBytes: uint64(s.cfg.WindowBytes),
		BatchBytes: MaxBatch,
	}
}

func (s *Session) detachTTL() *durationpb.Duration { return durationpb.New(s.cfg.DetachTTL) }
