package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/client"
	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

// notices tells a person beside the output how it goes. It is safe for concurrent use.
type notices struct {
	mu   sync.Mutex // guards everything below
	w    io.Writer
	lost bool // the gateway was told to be lost
}

func newNotices(w io.Writer) *notices { return &notices{w: w} }

func (n *notices) sayf(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.linef(format, args...)
}

// linef writes one line. mu is held.
func (n *notices) linef(format string, args ...any) {
	fmt.Fprintln(n.w, "sluice: "+printable(fmt.Sprintf(format, args...)))
}

// slow is how long something may take before a person is told that it still goes on.
const slow = 2 * time.Second

// waiting says what is waited for if it takes long, unless the timer is stopped before.
func (n *notices) waiting(what string) *time.Timer {
	return time.AfterFunc(slow, func() { n.sayf("still waiting for %s", what) })
}

// session tells what becomes of the session with the gateway; nothing while all is well.
func (n *notices) session(s client.State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch s.Phase {
	case client.Waiting:
		n.lost = true
		n.linef("no link to the gateway (%s); attempt %d in %s", brief(s.Err), s.Attempt+1, s.Next.Round(10*time.Millisecond))
	case client.Connected:
		if n.lost {
			n.lost = false
			n.linef("linked to the gateway again; %s", howAgain(s.Resumed))
		}
	case client.Draining:
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

// upstream tells what becomes of a watch's upstream.
func (n *notices) upstream(s *sluicev1.ChannelState) {
	switch s.GetKind() {
	case sluicev1.ChannelState_KIND_RECONNECTING:
		n.sayf("the cluster's API server is lost (%s); attempt %d in %s", brief(status.FromProto(s.GetStatus())), s.GetAttempt(),
			s.GetNextTry().AsDuration().Round(10*time.Millisecond))
	case sluicev1.ChannelState_KIND_CONNECTED:
		n.sayf("the cluster's API server is back")
	case sluicev1.ChannelState_KIND_RESYNC_BEGIN:
		n.sayf("resync: changes were missed; the complete list follows, what it lacks is gone")
	case sluicev1.ChannelState_KIND_RESYNC_END:
		n.sayf("resync: the list is complete")
	case sluicev1.ChannelState_KIND_GAP:
		n.sayf("something was missed (%s)", brief(status.FromProto(s.GetStatus())))
	case sluicev1.ChannelState_KIND_UNSPECIFIED:
	}
}

// brief is an error in a few words.
func brief(err error) string {
	e := status.From(err)
	switch {
	case e == nil:
		return "it ended"
	case e.Message != "":
		return e.Message
	}
	return e.Error()
}
