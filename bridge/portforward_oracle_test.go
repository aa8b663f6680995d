package bridge

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/moby/spdystream/spdy"
	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// forwardStory is what both ends of a forward do. They do it at the same time.
type forwardStory struct {
	Says     []int  // what the pod sends at a time, in bytes
	NodeFin  bool   // the pod half-closes before it ends
	Hears    bool   // the node ends only when it has heard all that the client sends, answers to its pings too
	End      string // how the node, or the client, ends it all
	Sends    []int
	Closes   bool // the client half-closes
	Late     bool // or it sends more when the pod has, and then half-closes
	Dribbles []int
	Stingy   bool
	Held     bool // the client takes only what it dribbles, until the end
	Seed     uint64
}

func forwardStories() *rapid.Generator[forwardStory] {
	sizes := rapid.SliceOfN(rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(1, 40_000)), 0, 12)
	return rapid.Custom(func(t *rapid.T) forwardStory {
		s := forwardStory{
			Says: sizes.Draw(t, "says"), NodeFin: rapid.Bool().Draw(t, "node fin"), Hears: rapid.Bool().Draw(t, "hears"),
			End:   rapid.SampledFrom([]string{"well", "reset", "error", "lost", "broken", "left"}).Draw(t, "end"),
			Sends: sizes.Draw(t, "sends"), Closes: rapid.Bool().Draw(t, "closes"), Late: rapid.Bool().Draw(t, "late"), Dribbles: sizes.Draw(t, "dribbles"),
			Stingy: rapid.Bool().Draw(t, "stingy"), Held: rapid.Bool().Draw(t, "held"), Seed: rapid.Uint64().Draw(t, "seed"),
		}
		return s
	})
}

// generated are the bytes of one direction.
func generated(seed uint64, sizes []int) []byte {
	n := 0
	for _, s := range sizes {
		n += s
	}
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// node plays the node's part and returns what it has heard, and whether that has ended.
func (s *forwardStory) node(p *scriptedTunnel) (heard []byte, fin bool) {
	r := rand.New(rand.NewPCG(s.Seed, 2))
	p.cut = func(n int) int { return 1 + r.IntN(n) }
	rest := generated(s.Seed, s.Says)
	_ = p.say(accepts()...)
	var asked, answered uint32 // the last ping, and the last answer: not every one has its own
	for _, n := range s.Says {
		frames := []spdy.Frame{&spdy.DataFrame{StreamId: dataStream, Data: rest[:n]}}
		if r.IntN(4) == 0 {
			asked += 2
			frames = append([]spdy.Frame{&spdy.PingFrame{Id: asked}, &spdy.SettingsFrame{}}, frames...)
		}
		rest = rest[n:]
		_ = p.say(frames...)
	}
	if s.NodeFin {
		_ = p.say(ends(dataStream))
	}
	want := len(generated(0, s.Sends))
	listen := func() bool {
		x, ok := <-p.heard
		switch x := x.(type) {
		case *spdy.DataFrame:
			heard = append(heard, x.Data...)
			fin = fin || x.Flags&spdy.DataFlagFin != 0
		case *spdy.PingFrame:
			answered = x.Id
		}
		return ok
	}
	for s.Hears && (len(heard) < want || s.Closes && !fin || answered < asked) && listen() {
	}
	switch s.End {
	case "well":
		_ = p.say(ends(errorStream))
		if !s.NodeFin {
			_ = p.say(ends(dataStream))
		}
	case "reset":
		_ = p.say(resets(dataStream))
	case "error":
		_ = p.say(complains("no such luck"), resets(dataStream), resets(errorStream))
	case "broken":
		_, _ = p.Write([]byte("\x80\x09nonsense"))
	case "lost":
		_ = p.ws.Close()
	}
	for listen() {
	}
	return heard, fin
}

// client plays the client's part.
func (s *forwardStory) client(f *forwarding) {
	sent := generated(s.Seed+1, s.Sends)
	for i := range max(len(s.Sends), len(s.Dribbles)) {
		if i < len(s.Sends) {
			f.send(data.Input{Bytes: sent[:s.Sends[i]:s.Sends[i]]})
			sent = sent[s.Sends[i]:]
		}
		if i < len(s.Dribbles) {
			f.consume(s.Dribbles[i])
		}
	}
	if s.Closes {
		f.CloseWrite()
	}
}

// rapidTB is a test of rapid as far as a channel needs one.
type rapidTB struct {
	testing.TB
	t *rapid.T
}

func (r rapidTB) Error(args ...any) { r.t.Error(args...) }

func (r rapidTB) Errorf(format string, args ...any) { r.t.Errorf(format, args...) }

// TestT_C14_BothDirectionsAreExactWhateverHappens compares what either end has heard with what the other has said.
func TestT_C14_BothDirectionsAreExactWhateverHappens(tt *testing.T) {
	type heard struct {
		bytes []byte
		fin   bool
	}
	var story atomic.Pointer[forwardStory]
	over := make(chan heard, 1)
	up := scripted(tt, func(p *scriptedTunnel) {
		b, fin := story.Load().node(p)
		over <- heard{b, fin}
	})
	rapid.Check(tt, func(t *rapid.T) {
		s := forwardStories().Draw(t, "story")
		story.Store(&s)
		f := newForwarding(rapidTB{tt, t}, 80)
		f.stingy, f.testChannel.held = s.Stingy, s.Held
		f.run(up, f.testChannel, Options{})
		s.client(f)
		said := generated(s.Seed, s.Says)
		if s.End == "left" {
			f.awaitOpened(tt)
			f.stop(errors.New("the client has left"))
		} else {
			f.hold(false)
		}
		if s.End == "well" && !s.Closes { // which waits for the client
			f.awaitClosed(tt)
			if s.Late {
				_, _ = f.Write([]byte("late"))
			}
			f.CloseWrite()
		}
		o, node := f.outcome(), <-over
		cut := s.End == "left" || s.End == "lost" && !s.Hears // TCP resets what is closed with unread bytes, and drops what was on its way
		if got := f.received.Bytes(); !bytes.HasPrefix(said, got) || !cut && len(got) != len(said) {
			t.Fatalf("%d bytes of %d are delivered, or others", len(got), len(said))
		}
		if sent := generated(s.Seed+1, s.Sends); !bytes.HasPrefix(append(sent, "late"...), node.bytes) || s.Hears && s.End != "left" && len(node.bytes) < len(sent) {
			t.Fatalf("the node hears %d bytes of %d, or others", len(node.bytes), len(sent))
		}
		if node.fin && !s.Closes && s.End != "well" || s.Hears && s.Closes && s.End != "left" && !node.fin {
			t.Fatalf("the node hears an end: %v", node.fin)
		}
		denied := s.End == "error" && s.NodeFin // in time, or too late
		if !cut && !denied && f.closed != (s.NodeFin || s.End == "well") {
			t.Fatalf("the client hears the pod's end: %v", f.closed)
		}
		s.check(t, o.Err)
	})
}

func (s *forwardStory) check(t *rapid.T, err error) {
	e := status.From(err)
	want := map[string]struct {
		code   codes.Code
		reason sluicev1.Reason
	}{
		"reset":  {codes.Aborted, sluicev1.Reason_REASON_RESET},
		"error":  {codes.Aborted, sluicev1.Reason_REASON_RESET},
		"lost":   {codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_LOST},
		"broken": {codes.Unavailable, sluicev1.Reason_REASON_UPSTREAM_PROTOCOL},
	}[s.End]
	settled := s.NodeFin && s.Closes // there was nothing left to lose, and what a node says more than finGrace later is not heard
	unheard := e != nil && e.Reason == sluicev1.Reason_REASON_RESET && (!s.Hears || !s.Closes && s.Late)
	switch {
	case s.End == "well" && err != nil && !unheard, s.End == "left" && !errors.Is(err, context.Canceled):
	case s.End == "well", s.End == "left", settled && err == nil:
		return
	case e != nil && e.Code == want.code && e.Reason == want.reason:
		return
	}
	t.Fatalf("%s: it ends with %v", s.End, err)
}
