package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	sluicev1 "github.com/sluice-gateway/sluice/gen/sluice/v1"
	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// processStory is what an API server does with one process, and its client with the channel, drawn beforehand.
type processStory struct {
	Seed    uint64
	Says    []utterance
	Status  int   // before which of Says the status comes; behind all if it is beyond, never if negative
	Code    int   // that the status tells
	End     int   // how the upstream ends: an index of storyEnds
	Inputs  []int // sizes
	Window  int   // of the channel
	Piece   int
	Stingy  bool
	Dribble int // the most that the client consumes at a time; 0 for all at once
}

// utterance is a message on stdout or stderr: how long, and in how many frames.
type utterance struct{ Stream, Size, Frames int }

// storyEnds are the ways that an upstream ends. The first is a proper one.
var storyEnds = []func(*processPeer){
	func(p *processPeer) {
		if p.write(wsClose(1000)) == nil {
			p.drain()
		}
	},
	func(p *processPeer) {
		p.finishSending()
		p.drain() // what is closed with something unread is reset
	},
	(*processPeer).reset,
}

func processStories() *rapid.Generator[*processStory] {
	size := rapid.Custom(func(t *rapid.T) int { // log-uniform
		return rapid.IntRange(0, 1<<rapid.IntRange(0, 18).Draw(t, "magnitude")).Draw(t, "size")
	})
	return rapid.Custom(func(t *rapid.T) *processStory {
		s := &processStory{
			Seed: rapid.Uint64().Draw(t, "seed"), Code: rapid.IntRange(0, 255).Draw(t, "code"),
			Says: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) utterance {
				return utterance{rapid.IntRange(1, 2).Draw(t, "stream"), size.Draw(t, "size"), rapid.IntRange(1, 5).Draw(t, "frames")}
			}), 0, 12).Draw(t, "says"),
			Inputs: rapid.SliceOfN(size, 0, 8).Draw(t, "inputs"), Stingy: rapid.Bool().Draw(t, "stingy"),
			Dribble: rapid.SampledFrom([]int{0, 1 << 10, 5000, 40000}).Draw(t, "dribble"),
		}
		s.Status = rapid.IntRange(-1, len(s.Says)+1).Draw(t, "status")
		s.End = rapid.IntRange(0, len(storyEnds)-1).Draw(t, "end")
		s.Window, s.Piece = 64<<10, 16<<10
		if rapid.Bool().Draw(t, "large") {
			s.Window, s.Piece = 300<<10, 64<<10
		}
		return s
	})
}

// output is what the process says on both streams.
func (s *processStory) output() (says [][]byte, out, err []byte) {
	for i, m := range s.Says {
		b := seeded(byte(s.Seed)+byte(i), m.Size)
		says = append(says, b)
		if m.Stream == 1 {
			out = append(out, b...)
		} else {
			err = append(err, b...)
		}
	}
	return says, out, err
}

// wire is all that the API server writes before the upstream's end.
func (s *processStory) wire(random *rand.Rand) []byte {
	var wire bytes.Buffer
	says, _, _ := s.output()
	for i := 0; i <= len(says); i++ {
		if i == s.Status || i == len(says) && s.Status > i {
			wire.Write(wsMessage(3, exit(s.Code)))
		}
		if i < len(says) {
			wire.Write(inFrames(random, append([]byte{byte(s.Says[i].Stream)}, says[i]...), s.Says[i].Frames))
		}
	}
	return wire.Bytes()
}

// inFrames is a message in so many frames, with a ping between some of them.
func inFrames(random *rand.Rand, message []byte, frames int) []byte {
	var b []byte
	first := byte(0x02)
	for ; frames > 1; frames-- {
		n := random.IntN(len(message) + 1)
		b = append(b, wsFrame(first, message[:n])...)
		message, first = message[n:], 0
		if random.IntN(3) == 0 {
			b = append(b, wsFrame(0x89, []byte("ping"))...)
		}
	}
	return append(b, wsFrame(0x80|first, message)...)
}

// serve plays the API server: it writes in random parts and reads its inputs meanwhile, which heard is told.
func (s *processStory) serve(p *processPeer, heard func([]byte)) {
	random := rand.New(rand.NewPCG(s.Seed, 1))
	read := make(chan struct{})
	go func() {
		defer close(read)
		var in []byte
		for {
			opcode, b, err := p.next()
			if err != nil || opcode == 8 || opcode == 2 && b[0] == 0xff {
				heard(in)
				return
			}
			if opcode == 2 {
				in = append(in, b[1:]...)
			}
		}
	}()
	defer func() { <-read }()
	for rest := s.wire(random); len(rest) > 0; {
		n := min(1+random.IntN(50000), len(rest))
		if p.write(rest[:n]) != nil {
			return
		}
		rest = rest[n:]
	}
	<-read // all inputs, so that a reset does not cut them
	storyEnds[s.End](p)
}

// run lets the story happen and returns what was wrong.
func (s *processStory) run(tb testing.TB, server *processServer, up Upstream) error {
	var in []byte
	said := make(chan struct{})
	server.script = func(p *processPeer) {
		defer close(said)
		s.serve(p, func(b []byte) { in = b })
	}
	ch := newTestChannel(tb, "")
	ch.window, ch.piece, ch.stingy, ch.held = s.Window, s.Piece, s.Stingy, s.Dribble > 0
	e := executeOn(tb, ch, up, execOf(shellTarget()), Options{})
	var want []byte
	for i, n := range s.Inputs {
		b := seeded(byte(100+i), n)
		want = append(want, b...)
		e.send(data.Input{Kind: data.InputData, Bytes: b})
	}
	e.send(data.Input{Kind: data.InputCloseSend})
	ctx, cancel := context.WithCancel(context.Background())
	consumed := make(chan struct{})
	go func() {
		defer close(consumed)
		e.dribble(ctx, s)
	}()
	o := e.promptly(tb, 30*time.Second)
	cancel()
	<-consumed
	<-said
	if !bytes.Equal(in, want) {
		return fmt.Errorf("the process heard %d bytes, not the %d that were sent", len(in), len(want))
	}
	return s.check(e, o)
}

// dribble is a client that consumes a little at a time.
func (e *execution) dribble(ctx context.Context, s *processStory) {
	random := rand.New(rand.NewPCG(s.Seed, 2))
	for s.Dribble > 0 && e.await(ctx, func() bool { return e.used > 0 }) == nil {
		e.consume(1 + random.IntN(s.Dribble))
	}
}

func (s *processStory) check(e *execution, o Outcome) error {
	_, out, err := s.output()
	if s.End != 2 && (e.stdout() != string(out) || e.stderr() != string(err)) {
		return fmt.Errorf("heard %d and %d bytes of %d and %d, or others", len(e.stdout()), len(e.stderr()), len(out), len(err))
	}
	if !bytes.HasPrefix(out, []byte(e.stdout())) || !bytes.HasPrefix(err, []byte(e.stderr())) {
		return errors.New("what was heard is not the beginning of what was said")
	}
	told := s.Status >= 0 && s.End == 0
	switch {
	case told && (o.Err != nil || o.Exit == nil || int(o.Exit.GetCode()) != s.Code):
		return fmt.Errorf("the outcome is %+v, want exit %d", o, s.Code)
	case !told && (o.Exit != nil || status.Reason(o.Err) != sluicev1.Reason_REASON_UPSTREAM_LOST):
		return fmt.Errorf("the outcome is %+v and nobody told how the process ended", o)
	}
	return nil
}

// TestT_H3_WhateverHappensIsToldAsItWas: random processes, upstreams and clients, against what was said: every byte in its order on its stream,
// and an exit code if and only if one was told and the upstream came to its end.
func TestT_H3_WhateverHappensIsToldAsItWas(t *testing.T) {
	for _, transport := range processTransports {
		t.Run(transport, func(t *testing.T) {
			server := &processServer{}
			up := server.reach(t, transport)
			rapid.Check(t, func(rt *rapid.T) {
				s := processStories().Draw(rt, "story")
				if transport == "pipe" {
					s.End = min(s.End, 1) // it has no reset
				}
				if err := s.run(t, server, up); err != nil {
					rt.Fatal(err)
				}
			})
		})
	}
}
