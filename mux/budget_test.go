package mux

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// TestRoomOfABudgetWakesWhoWaits proves that a channel which waits for a budget, its session's or the process's, goes on when others give
// room back, without anything happening to the channel itself.
func TestRoomOfABudgetWakesWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100 << 10
		for name, cfg := range map[string]Config{
			"session": {SessionBytes: limit, Budget: NewBudget(1<<30, nil)}, "process": {SessionBytes: 1 << 30, Budget: NewBudget(limit, nil)},
			"both": {SessionBytes: limit, Budget: NewBudget(limit+1000, nil)},
		} {
			for way, await := range waysToWait {
				wakesWhoWaits(t, name+", "+way, cfg, await)
			}
		}
	})
}

func wakesWhoWaits(t *testing.T, name string, cfg Config, await func(*Channel, context.Context, int) error) {
	p := connected(t, cfg, 3)
	waits := p.flows[0].s
	for range 20 {
		waits.Offer(piece(1000))
	}
	for _, f := range p.flows[1:] {
		fill(f.s, 1000)
	}
	granted := make(chan error, 1)
	go func() { granted <- await(waits, t.Context(), SmallPiece+FrameCost) }()
	synctest.Wait()
	if len(granted) > 0 {
		t.Fatalf("%s: there is room at %d bytes held", name, p.server.Held())
	}
	for _, f := range p.flows[1:] {
		f.s.Finish(nil, nil, true)
		f.s.abandon(errFinished)
	}
	synctest.Wait()
	if len(granted) == 0 {
		t.Errorf("%s: nobody woke the channel, with %d bytes held", name, p.server.Held())
	}
	p.server.End(nil)
	p.client.End(nil)
	if err := <-granted; err != nil {
		t.Errorf("%s: %v", name, err)
	}
}

// TestTheTighterBudgetIsWaitedFor proves that of two budgets the one that is short is named, whichever is larger.
func TestTheTighterBudgetIsWaitedFor(t *testing.T) {
	process := NewBudget(1000, nil)
	session := NewBudget(100, process)
	session.charge(60)
	process.charge(880) // 940 of 1,000; the session's 60 of 100 leave more
	if room, by := session.room(10, 100); by != process || room != 100*60/500-10 {
		t.Errorf("room %d by %v", room, by)
	}
	process.release(880)
	if room, by := session.room(10, 100); by != session || room != 80-10 {
		t.Errorf("room %d by %v", room, by)
	}
	session.release(60)
	if room, by := session.room(10, 100); by != nil || room != 90 {
		t.Errorf("room %d by %v", room, by)
	}
}

// TestMessagesBeingPutTogetherAreBounded proves that a client cannot make a server hold more than a session may by beginning messages that
// it never ends, and that only the channel that goes too far is closed.
func TestMessagesBeingPutTogetherAreBounded(t *testing.T) {
	p := connected(t, Config{SessionBytes: 50_000}, 3)
	for n := range uint64(2) {
		if err := p.toServer(dataFrame(1, n+2, 10_000, true), dataFrame(2, n+2, 10_000, true)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.toServer(dataFrame(1, 4, 10_001, true)); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[0].s, p.flows[1].s, sluicev1.Reason_REASON_LIMIT)
	if e := status.From(context.Cause(p.flows[0].s.Context())); e.Limit != "limits.session_bytes" || e.Code != codes.ResourceExhausted {
		t.Errorf("closed with %v", e)
	}
	if n := p.server.putting.Held(); n != 20_000 {
		t.Errorf("%d bytes are charged for one message of 20,000", n)
	}
	p.server.End(nil)
	if n := p.server.putting.Held(); n != 0 {
		t.Errorf("%d bytes are charged after the end", n)
	}
}

// TestMessagesThatAreTakenAreNotCharged proves that a client may send message after message in pieces, the next one begun before the last
// is taken, for as long as it likes.
func TestMessagesThatAreTakenAreNotCharged(t *testing.T) {
	p := connected(t, Config{SessionBytes: 50_000}, 1)
	f := p.flows[0]
	parts := []data.Piece{{Bytes: noise[:9000]}, {Bytes: noise[:9000], More: true}}
	if f.c.Offer(parts[1:]) != 1 {
		t.Fatal("no credit")
	}
	for n := range 100 {
		if f.c.Offer(parts) != 2 {
			t.Fatalf("no credit for message %d", n)
		}
		p.settled()
		if got := come(f.s); len(got) != 1 || len(got[0].Data) != 18_000 {
			t.Fatalf("message %d: %d events, %v", n, len(got), context.Cause(f.s.Context()))
		}
		if held := p.server.putting.Held(); held != 9000 {
			t.Fatalf("after message %d %d bytes are charged", n, held)
		}
		p.settled()
	}
}

// TestOverheadIsBounded proves that a client cannot hide bytes from its window beside the payload (C15).
func TestOverheadIsBounded(t *testing.T) {
	cursor := func(n int) []byte {
		return appendData(nil, 1, 2, &data.Piece{Bytes: noise[:10], Cursor: strings.Repeat("c", n)})
	}
	p := connected(t, Config{}, 2)
	if err := p.toServer(cursor(900)); err != nil || p.flows[0].s.Context().Err() != nil {
		t.Fatalf("a cursor of 900 bytes: %v, %v", err, context.Cause(p.flows[0].s.Context()))
	}
	if err := p.toServer(clientFrame(1, 3, &sluicev1.Close{Reason: strings.Repeat("r", 2*MaxOverhead)})); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[0].s, p.flows[1].s, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
	p = connected(t, Config{}, 2)
	if err := p.toServer(cursor(MaxOverhead)); err != nil {
		t.Fatal(err)
	}
	wantBreach(t, p.flows[0].s, p.flows[1].s, sluicev1.Reason_REASON_PROTOCOL_VIOLATION)
}

// TestAResumeIsCheckedBeforeAnythingChanges proves that CheckResume says what attaching would, and leaves the link alone.
func TestAResumeIsCheckedBeforeAnythingChanges(t *testing.T) {
	p := connected(t, Config{Channels: 3}, 1)
	gen := p.server.gen
	many := make([]*sluicev1.ChannelPosition, MaxChannels+1)
	for name, c := range map[string]struct {
		hello *sluicev1.Hello
		want  sluicev1.Reason
	}{
		"good":     {&sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: 1}}, 0},
		"older":    {&sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: 0}}, sluicev1.Reason_REASON_SUPERSEDED},
		"too new":  {&sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: 2}}, sluicev1.Reason_REASON_PROTOCOL_VIOLATION},
		"too many": {&sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: 1}, Channels: many}, sluicev1.Reason_REASON_LIMIT},
	} {
		if err := p.server.CheckResume(c.hello); status.Reason(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if p.server.gen != gen {
		t.Error("a check changed the link")
	}
	if err := NewServer(Config{}, false, acceptAll{}).CheckResume(&sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: 9}}); err != nil {
		t.Errorf("a new session: %v", err)
	}
	if _, err := p.server.attachServer(&sluicev1.Hello{Resume: &sluicev1.Resume{LastLink: 1}, Channels: many}); !errors.Is(err, status.Limit("", "")) {
		t.Errorf("attached with %v", err)
	}
}
