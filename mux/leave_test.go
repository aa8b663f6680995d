package mux

import (
	"context"
	"errors"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/status"
)

var errElsewhere = status.New(codes.Unavailable, sluicev1.Reason_REASON_DRAINING, "elsewhere").WithResumable(true)

// TestWhatHasArrivedCanBeTakenAfterLeave proves that a channel which goes on elsewhere has the events up to its last cursor, and no more; that
// the server hears of it; and that a channel which stays does not.
func TestWhatHasArrivedCanBeTakenAfterLeave(t *testing.T) {
	p := connected(t, Config{}, 2)
	leaves, stays := p.flows[0], p.flows[1]
	for _, f := range p.flows {
		p.take(f, &f.down, 9) // Opened
		for range 3 {
			p.message(&f.down, 100)
		}
	}
	p.settled()
	p.take(leaves, &leaves.down, 1)
	p.message(&leaves.down, 50) // on its way
	p.client.Leave(errElsewhere, func(c *Channel) bool {
		if p.client.recvMu.TryLock() {
			t.Error("a batch could be applied in the middle of Leave")
			p.client.recvMu.Unlock()
		}
		return c == leaves.c
	})
	if leaves.c.Context().Err() == nil || stays.c.Context().Err() != nil {
		t.Fatal("not the channel that leaves has ended")
	}
	leaves.down.wanted = leaves.down.wanted[:2]
	leaves.up.shut = true
	p.settled()
	p.take(leaves, &leaves.down, 9)
	if n := len(leaves.down.wanted); n > 0 {
		t.Errorf("%d events that had arrived are gone", n)
	}
	if _, err := leaves.c.Next(t.Context()); !errors.Is(err, errElsewhere) {
		t.Errorf("it ended with %v", err)
	}
	if leaves.s.Context().Err() == nil {
		t.Fatal("the server has not heard of it")
	}
	leaves.s.Finish(status.From(context.Cause(leaves.s.Context())), nil, true)
	p.settled()
	if n := p.client.Channels(); n != 1 || leaves.s.Held() > 0 {
		t.Errorf("%d channels are open, want the other; %d bytes are held for what has left", n, leaves.s.Held())
	}
	p.take(stays, &stays.down, 9)
	if n := len(stays.down.wanted); n > 0 {
		t.Errorf("%d events of the channel that stays are gone", n)
	}
}

// message sends one message of n bytes.
func (p *pair) message(l *lane, n int) {
	l.source = append(l.source, piece(n)...)
	l.offer(p.t)
}

// TestAnOpenThatHasNotLeftIsWithdrawn proves that a channel which is closed before its Open could be sent has never been.
func TestAnOpenThatHasNotLeftIsWithdrawn(t *testing.T) {
	for name, withdraw := range map[string]func(*Session, *Channel){
		"by Close": func(_ *Session, c *Channel) { c.Close("") },
		"by Leave": func(s *Session, c *Channel) { s.Leave(errElsewhere, func(o *Channel) bool { return o == c }) },
	} {
		p := newPair(t, Config{})
		one, two, three := p.open(0, false), p.open(0, false), p.open(0, false)
		two.c.Offer(piece(5))
		withdraw(p.client, two.c)
		if two.c.Sent() || two.c.Context().Err() == nil || p.client.Channels() != 2 || p.client.Held() != one.c.Held()+three.c.Held() {
			t.Errorf("%s: sent %v, ended with %v; %d channels", name, two.c.Sent(), context.Cause(two.c.Context()), p.client.Channels())
		}
		p.dial()
		p.settled()
		if one.s == nil || two.s != nil || three.s == nil {
			t.Errorf("%s: the server has heard of %v", name, []bool{one.s != nil, two.s != nil, three.s != nil})
		}
		if !one.c.Sent() {
			t.Errorf("%s: an Open that has left is not known to have", name)
		}
		one.c.Close("")
		if kinds := kindsOf(p.says(p.client)); !slices.Contains(kinds, kindClose) {
			t.Errorf("%s: the Close of a channel that was opened is not among %v", name, kinds)
		}
	}
}
