package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// outcome is one way for a channel to fare, as each of those who can look sees it.
type outcome struct {
	name             string // in docs/failures.md, as the three that follow
	frames, sdk, cli string

	live   *life  // it goes on; nil when it ends
	death  *death // it ends; nil when it goes on
	repair bool   // it ends when what was broken is mended, not before
}

// life is how a channel goes on.
type life struct {
	states []sluicev1.ChannelState_Kind // that the SDK is told at least, in this order; others of a kind that is not here are wrong
	also   []sluicev1.ChannelState_Kind // that it may be told
	runs   int                          // of the container whose log it brings
	last   string                       // the event that it is told last, where nothing more can come
	says   []string                     // what the command says at least
}

// death is how a channel ends.
type death struct {
	code   codes.Code // OK: by its own good end
	reason sluicev1.Reason
	told   bool   // by the gateway, not inferred
	exit   int    // of the process
	conn   error  // of the TCP connection, at its reader
	closes bool   // nothing can be sent after the FIN
	inUse  bool   // only what is sent shows it
	cli    int    // the exit code of the command; -1 when it goes on
	says   string // what the command says
}

const (
	reconnecting = sluicev1.ChannelState_KIND_RECONNECTING
	connected    = sluicev1.ChannelState_KIND_CONNECTED
	resyncBegin  = sluicev1.ChannelState_KIND_RESYNC_BEGIN
	resyncEnd    = sluicev1.ChannelState_KIND_RESYNC_END
	restarted    = sluicev1.ChannelState_KIND_RESTARTED
)

var (
	goesOn = &outcome{
		name: "goes on", frames: "none of the channel", sdk: "nothing but `OnState`", cli: "at most a notice of the link",
		live: &life{runs: 1},
	}
	moves = &outcome{
		name: "moves", frames: "`Open` with the cursor, in a new session", sdk: "nothing but `OnState`", cli: "notices of the link",
		live: &life{runs: 1, says: []string{"linked to the gateway again; in a new session"}},
	}
	toldDeleted = &outcome{
		name: "DELETED", frames: "the event", sdk: "the event; the watch goes on", cli: "the event; the watch goes on",
		live: &life{runs: 1, last: "DELETED"},
	}
	reopens = &outcome{
		name: "reopens", frames: "`ChannelState` RECONNECTING, CONNECTED", sdk: "these states; nothing lost or doubled",
		cli:  "`the watch` or `the log is interrupted (...)`, then `goes on`",
		live: &life{runs: 1, states: []sluicev1.ChannelState_Kind{reconnecting, connected}, says: []string{" is interrupted (", " goes on\n"}},
	}
	reopensAnyhow = &outcome{
		name: "reopens or resyncs", frames: "the same, with RESYNC_BEGIN, the list and RESYNC_END where the API server does not have the version any more",
		sdk: "these states", cli: "the same, with the notices of a resync",
		live: &life{
			runs: 1, states: []sluicev1.ChannelState_Kind{reconnecting}, also: []sluicev1.ChannelState_Kind{connected, resyncBegin, resyncEnd},
			says: []string{" is interrupted ("},
		},
	}
	restarts = &outcome{
		name: "RESTARTED", frames: "the rest of the old log, `ChannelState` RESTARTED, the new log", sdk: "this state between the bytes",
		cli: "the logs, and a notice between them",
		live: &life{
			runs: 2, states: []sluicev1.ChannelState_Kind{restarted}, also: []sluicev1.ChannelState_Kind{reconnecting, connected},
			says: []string{"was started anew"},
		},
	}
	reopensRestarted = &outcome{
		name: "reopens, RESTARTED", frames: "RECONNECTING, then the same", sdk: "these states", cli: "the notices of both",
		live: &life{
			runs: 2, states: []sluicev1.ChannelState_Kind{reconnecting, restarted}, also: []sluicev1.ChannelState_Kind{connected},
			says: []string{" is interrupted (", "was started anew"},
		},
	}
	exits137 = &outcome{
		name: "exit 137", frames: "`Closed{exit{137}}`", sdk: "`*ExitError{137}`", cli: "exit code 137",
		death: &death{exit: 137, cli: 137},
	}
	ends = &outcome{
		name: "ends", frames: "`Closed`, OK, without `exit`", sdk: "nil", cli: "exit code 0",
		death: &death{},
	}
	gone = &outcome{
		name: "gone", frames: "the rest of the log, `Closed{NOT_FOUND, TARGET_GONE}`", sdk: "`*Error` with it", cli: "`error: ...`, exit code 1",
		death: &death{code: codes.NotFound, reason: sluicev1.Reason_REASON_TARGET_GONE, told: true, cli: 1, says: "the log ends"},
	}
	goneConnection = &outcome{
		name: "FIN, closed", frames: "`CloseSend`; `Closed`, with TARGET_GONE",
		sdk: "Read: io.EOF; then Write fails", cli: "the TCP connection gets a FIN, and perhaps a notice; the command goes on",
		death: &death{conn: io.EOF, closes: true, cli: -1},
	}
	finished = &outcome{
		name: "FIN", frames: "`CloseSend`", sdk: "Read: io.EOF", cli: "the TCP connection gets a FIN; the command goes on",
		death: &death{conn: io.EOF, cli: -1},
	}
	lost = &outcome{
		name: "lost", frames: "`Closed{UNAVAILABLE, UPSTREAM_LOST}`, without `exit`", sdk: "`*Error` with it", cli: "`error: ... exit status is unknown`, exit code 1",
		death: &death{code: codes.Unavailable, reason: sluicev1.Reason_REASON_UPSTREAM_LOST, told: true, cli: 1, says: "exit status is unknown"},
	}
	cut = &outcome{
		name: "reset", frames: "`Closed{UNAVAILABLE, UPSTREAM_LOST}`", sdk: "Read: `*net.OpError` of an `*Error` with it",
		cli:   "the TCP connection is reset, a notice; the command goes on",
		death: &death{code: codes.Unavailable, reason: sluicev1.Reason_REASON_UPSTREAM_LOST, told: true, conn: syscall.ECONNRESET, cli: -1, says: "failed: "},
	}
	lostWithSession = &outcome{
		name: "lost with its session", frames: "`Welcome` of another session", sdk: "`*Error{UNAVAILABLE, UPSTREAM_LOST}`",
		cli: "`error: ... exit status unknown`, exit code 1", repair: true,
		death: &death{code: codes.Unavailable, reason: sluicev1.Reason_REASON_UPSTREAM_LOST, cli: 1, says: "exit status unknown"},
	}
	cutInUse = &outcome{
		name: "reset in use", frames: "`Closed{UNAVAILABLE, UPSTREAM_LOST}` as soon as something is sent", sdk: "Read and Write: `*net.OpError` of an `*Error` with it",
		cli: "the TCP connection is reset, a notice; the command goes on",
		death: &death{
			code: codes.Unavailable, reason: sluicev1.Reason_REASON_UPSTREAM_LOST, told: true, conn: syscall.ECONNRESET, inUse: true, cli: -1, says: "failed: ",
		},
	}
	cutWithSession = &outcome{
		name: "reset with its session", frames: "`Welcome` of another session", sdk: "Read: `*net.OpError` of an `*Error{UNAVAILABLE, UPSTREAM_LOST}`",
		cli: "the TCP connection is reset, a notice; the command goes on", repair: true,
		death: &death{code: codes.Unavailable, reason: sluicev1.Reason_REASON_UPSTREAM_LOST, conn: syscall.ECONNRESET, cli: -1, says: "failed: "},
	}
	expires = &outcome{
		name: "expires", frames: "`Goodbye{UNAUTHENTICATED, EXPIRED}`", sdk: "`*Error` with it, and the client is at its end", cli: "`error: ...`, exit code 1",
		death: &death{code: codes.Unauthenticated, reason: sluicev1.Reason_REASON_EXPIRED, told: true, cli: 1, says: "hint: get a new token"},
	}
	expiresLost = &outcome{
		name: "expires, lost", frames: "`Goodbye{UNAUTHENTICATED, EXPIRED}`", sdk: "`*Error{UNAVAILABLE, UPSTREAM_LOST}` that wraps it",
		cli:   "`error: exit status unknown, the process may go on: ...`, exit code 1",
		death: &death{code: codes.Unavailable, reason: sluicev1.Reason_REASON_UPSTREAM_LOST, cli: 1, says: "exit status unknown"},
	}
	expiresConnection = &outcome{
		name: "expires, reset", frames: "`Goodbye{UNAUTHENTICATED, EXPIRED}`", sdk: "Read: `*net.OpError` of an `*Error{UNAVAILABLE, UPSTREAM_LOST}` that wraps it",
		cli:   "the TCP connection is reset, `error: ...`, exit code 1",
		death: &death{code: codes.Unavailable, reason: sluicev1.Reason_REASON_UPSTREAM_LOST, conn: syscall.ECONNRESET, cli: 1, says: "hint: get a new token"},
	}

	outcomes = []*outcome{
		goesOn, moves, reopens, reopensAnyhow, restarts, reopensRestarted, toldDeleted, exits137, ends, gone, lost, lostWithSession, expires, expiresLost,
		finished, goneConnection, cut, cutInUse, cutWithSession, expiresConnection,
	}
)

// check waits for the outcome. n is the number of the ping that shows life.
func (o *outcome) check(ctx context.Context, s *subject, n int) error {
	if o.live != nil {
		return o.live.check(ctx, s, n)
	}
	if o.death.inUse {
		if err := s.sendInVain(ctx); err != nil {
			return err
		}
	}
	if err := s.until(ctx, "waited for the end", func() bool { return s.over }); err != nil {
		return err
	}
	if err := s.exact(1); err != nil {
		return err
	}
	if s.words != nil {
		return o.death.checkCommand(ctx, s)
	}
	return o.death.checkSDK(ctx, s)
}

func (l *life) check(ctx context.Context, s *subject, n int) error {
	if l.last != "" {
		err := s.until(ctx, "waited for "+l.last, func() bool {
			return len(s.lines) > 0 && strings.HasPrefix(s.lines[len(s.lines)-1], l.last)
		})
		return errors.Join(err, s.exact(l.runs), s.alive())
	}
	if s.words == nil {
		if err := l.told(ctx, s); err != nil {
			return err
		}
	} else if l.runs > 1 {
		if err := s.until(ctx, "waited for the other log", func() bool { return slices.Contains(s.lines[1:], "line 1") }); err != nil {
			return err
		}
	}
	if err := s.ping(ctx, n); err != nil {
		return err
	}
	for _, words := range l.says {
		if err := s.awaitWords(ctx, words); err != nil {
			return err
		}
	}
	return errors.Join(s.exact(l.runs), s.alive())
}

func (s *subject) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return fmt.Errorf("it has ended: %w", s.err)
	}
	return nil
}

// told waits for the states, and checks that there were no others.
func (l *life) told(ctx context.Context, s *subject) error {
	err := s.until(ctx, fmt.Sprint("waited for ", l.states), func() bool {
		rest := l.states
		for _, st := range s.states {
			if len(rest) > 0 && st == rest[0] {
				rest = rest[1:]
			}
		}
		return len(rest) == 0
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.states {
		if !slices.Contains(l.states, st) && !slices.Contains(l.also, st) {
			return fmt.Errorf("it was told %v, want %v", s.states, l.states)
		}
	}
	return nil
}

// checkSDK checks how a channel has ended for a program.
func (d *death) checkSDK(ctx context.Context, s *subject) error {
	err := s.err
	if d.closes {
		if err := s.sendInVain(ctx); err != nil {
			return err
		}
	}
	switch {
	case d.exit != 0:
		if e, ok := errors.AsType[*client.ExitError](err); !ok || e.Code != d.exit {
			return fmt.Errorf("it ended with %s, want exit code %d", fmt.Sprint(err), d.exit)
		}
		return nil
	case d.code == codes.OK:
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("it ended with %w, want a good end", err)
		}
		return nil
	}
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.Code != d.code || e.Reason != d.reason || e.FromPeer != d.told || e.Resumable && d.reason == sluicev1.Reason_REASON_UPSTREAM_LOST {
		return fmt.Errorf("it ended with %s, want %v (%s), told %v", fmt.Sprint(err), d.code, status.ReasonName(d.reason), d.told)
	}
	return nil
}

// awaitWords waits until the command has said something; the SDK says nothing.
func (s *subject) awaitWords(ctx context.Context, words string) error {
	for s.words != nil && !strings.Contains(s.words(), words) { // what is written tells nobody
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("the command does not say %q: %w", words, err)
		}
	}
	return nil
}

// sendInVain sends until that fails. A reset is told once, to whoever asks the socket first: if that is the sending, the reading then finds
// an end of file, and the reset is why it has ended all the same.
func (s *subject) sendInVain(ctx context.Context) error {
	var refused error
	for refused = s.send(0); refused == nil; refused = s.send(0) {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("it can still be sent to: %w", err)
		}
	}
	if errors.Is(refused, syscall.ECONNRESET) {
		s.update(func() { s.refused = refused })
	}
	return nil
}

// checkCommand checks how a command has ended, and the connection through it.
func (d *death) checkCommand(ctx context.Context, s *subject) error {
	if d.conn != nil && !errors.Is(errors.Join(s.err, s.refused), d.conn) {
		return fmt.Errorf("the connection ended with %w, want %w", s.err, d.conn)
	}
	if err := s.awaitWords(ctx, d.says); err != nil {
		return err
	}
	if d.cli < 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.command != nil {
			return fmt.Errorf("the command has ended with exit code %d", *s.command)
		}
		return nil
	}
	if err := s.until(ctx, "waited for the command's end", func() bool { return s.command != nil }); err != nil {
		return err
	}
	if *s.command != d.cli {
		return fmt.Errorf("the command has ended with exit code %d, want %d", *s.command, d.cli)
	}
	return nil
}
