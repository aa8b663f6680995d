package main

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	grpcstatus "google.golang.org/grpc/status"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// notices tells a person beside the output how it goes. It is safe for concurrent use.
type notices struct {
	mu     sync.Mutex // guards everything below
	w      io.Writer
	lost   bool   // the gateway was told to be lost
	linked bool   // there is, or was, a link to the gateway
	raw    bool   // w is a terminal that obeys a process far away
	escape string // how a person leaves such a process while the gateway is lost
	ses    string // the session that was linked last
	pinned bool   // no other session than that matters any more
}

func newNotices(w io.Writer) *notices { return &notices{w: w} }

// beside says that a process far away has the terminal, or has it no more. Where that is the terminal of the notices each stands on a line of
// its own then; and a lost gateway is told once, not each attempt to reach it.
func (n *notices) beside(process bool, escape string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.raw, n.escape = process, escape
}

// pin says that what the command is about lives and dies with the session that there is, whatever others the client makes.
func (n *notices) pin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pinned = true
}

// away reports whether the gateway is lost.
func (n *notices) away() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lost
}

func (n *notices) sayf(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linef(format, args...)
}

// linef writes one line. mu is held.
func (n *notices) linef(format string, args ...any) {
	line := "sluice: " + printable(fmt.Sprintf(format, args...))
	if n.raw && isTerminal(n.w) { // it does not begin or end lines by itself now
		line = "\r\n" + line + "\r"
	}
	fmt.Fprintln(n.w, line)
}

// slow is how long something may take before a person is told that it still goes on.
const slow = 2 * time.Second

// waiting says what is waited for if it takes long, unless the timer is stopped before.
func (n *notices) waiting(what string) *time.Timer {
	return time.AfterFunc(slow, func() { n.sayf("still waiting for %s", what) })
}

// waitingForLink says that the gateway is waited for if it takes long to reach it, unless the timer is stopped before.
func (n *notices) waitingForLink(server string) *time.Timer {
	return time.AfterFunc(slow, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if !n.linked && !n.lost { // one that is lost has been told
			n.linef("still waiting for %s to answer", server)
		}
	})
}

// session tells what becomes of the session with the gateway; nothing while all is well.
func (n *notices) session(s client.State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.pinned && s.Session != n.ses:
		return // of other commands' interest, if there were any
	case !n.pinned && s.Former:
		return // another session has taken over: what becomes of this one is told by who is still in it
	}
	switch s.Phase {
	case client.Waiting:
		first := !n.lost
		n.lost = true
		if n.raw {
			if first {
				n.linef("no link to the gateway (%s); what is typed is sent when it is back, %s", brief(s.Err), n.escape)
			}
			return
		}
		n.linef("no link to the gateway (%s); attempt %d in %s", brief(s.Err), s.Attempt+1, s.Next.Round(10*time.Millisecond))
	case client.Connected:
		n.linked, n.ses = true, s.Session
		if n.lost {
			n.lost = false
			n.linef("linked to the gateway again; %s", howAgain(s.Resumed))
		}
	case client.Draining:
		if n.pinned {
			n.linef("the gateway is going away; the process stays here until it has gone")
			return
		}
		n.linef("the gateway goes away; moving to another replica")
	case client.Connecting, client.Closed: // the one is no news yet, the other is the command's error
	}
}

func howAgain(resumed bool) string {
	if resumed {
		return "the session goes on, nothing is missing"
	}
	return "in a new session"
}

// upstreamNotices tell what becomes of a channel's upstream. One goroutine calls them.
type upstreamNotices struct {
	n         *notices
	what      string // is followed, such as "the log"
	container string // whose log it is, such as "the container"
	once      bool   // an interruption is told once, not each attempt to end it

	interrupted bool
}

// state tells a state; nothing while all is well.
func (u *upstreamNotices) state(s *sluicev1.ChannelState) {
	cause := brief(status.FromProto(s.GetStatus()))
	switch s.GetKind() {
	case sluicev1.ChannelState_KIND_RECONNECTING: // the API server may be lost, or a node, or a container has ended that will be started again
		if !u.interrupted || !u.once {
			u.n.sayf("%s is interrupted (%s); attempt %d in %s", u.what, cause, s.GetAttempt(), s.GetNextTry().AsDuration().Round(10*time.Millisecond))
		}
		u.interrupted = true
	case sluicev1.ChannelState_KIND_CONNECTED:
		u.interrupted = false
		u.n.sayf("%s goes on", u.what)
	case sluicev1.ChannelState_KIND_RESYNC_BEGIN:
		u.n.sayf("resync: changes were missed; the complete list follows, what it lacks is gone")
	case sluicev1.ChannelState_KIND_RESYNC_END:
		u.n.sayf("resync: the list is complete")
	case sluicev1.ChannelState_KIND_GAP:
		u.n.sayf("lines of %s were missed: %s", u.what, cause)
	case sluicev1.ChannelState_KIND_RESTARTED:
		u.n.sayf("%s was started anew; what follows is its new log", u.container)
	case sluicev1.ChannelState_KIND_UNSPECIFIED:
	}
}

// brief is an error in a few words: of one that gRPC has made, what it says without how it says it.
func brief(err error) string {
	e := status.From(err)
	transport, ok := errors.AsType[interface {
		error
		GRPCStatus() *grpcstatus.Status
	}](err)
	switch {
	case e == nil:
		return "it ended"
	case ok && e.Reason == sluicev1.Reason_REASON_UNSPECIFIED && transport.GRPCStatus() != nil:
		return transport.GRPCStatus().Message()
	case e.Message != "":
		return e.Message
	}
	return e.Error()
}
