package bridge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/data"
	"github.com/sluice-gateway/sluice/internal/status"
)

// catScript is a process that writes what it reads until its input ends.
func catScript(p *processPeer) {
	for {
		b, err := p.nextMessage()
		if err != nil {
			return
		}
		if b[0] == 0xff {
			p.finish(exit(0))
			return
		}
		b[0] = 1
		if p.write(wsFrame(0x82, b)) != nil {
			return
		}
	}
}

// seeded is n bytes that nobody would make by accident.
func seeded(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // it never fails
	return b
}

// TestStandardInputArrivesWhole: 20 MB into a process and back out of it, ended by the end of the input.
func TestStandardInputArrivesWhole(t *testing.T) {
	const size = 20 << 20
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			s := &processServer{script: catScript}
			e := execute(t, s.reach(t, transport), execOf(shellTarget()), Options{})
			want, random := seeded(1, size), rand.New(rand.NewPCG(1, 2))
			sent := 0
			for rest := want; len(rest) > 0; sent++ {
				n := min(1+random.IntN(64<<10), len(rest))
				e.send(data.Input{Kind: data.InputData, Bytes: rest[:n]})
				rest = rest[n:]
			}
			e.send(data.Input{Kind: data.InputCloseSend})
			if o := e.outcome(); o.Err != nil || o.Exit.GetCode() != 0 {
				t.Fatalf("the outcome is %+v", o)
			}
			if got := e.stdout(); len(got) != size || sha256.Sum256([]byte(got)) != sha256.Sum256(want) {
				t.Errorf("%d of %d bytes came back, or others", len(got), size)
			}
			if e.uses != sent+1 {
				t.Errorf("%d of %d inputs are acknowledged", e.uses, sent+1)
			}
		})
	}
}

// TestT_H2_InputIsWrittenAtMostOnce: what was not acknowledged may have been read by the process, so nothing is written again, to nobody.
func TestT_H2_InputIsWrittenAtMostOnce(t *testing.T) {
	var heard atomic.Int64
	s := &processServer{script: func(p *processPeer) {
		for range 3 {
			if _, err := p.nextMessage(); err != nil {
				return
			}
			heard.Add(1)
		}
		p.reset()
	}}
	e := execute(t, s.reach(t, "tcp"), execOf(shellTarget()), Options{})
	for range 100 {
		e.input("rm -r /\n")
	}
	if o := e.outcome(); status.Reason(o.Err) != upstreamLost {
		t.Errorf("the outcome is %+v", o)
	}
	if asked, _ := s.asked(); len(asked) != 1 || heard.Load() != 3 {
		t.Errorf("%d processes heard %d inputs", len(asked), heard.Load())
	}
}

// TestAcknowledgementFollowsTheWrite: an input that the upstream has not taken is not acknowledged.
func TestAcknowledgementFollowsTheWrite(t *testing.T) {
	read := make(chan struct{})
	inTime(t, func(p *processPeer) {
		<-read
		catScript(p)
	}, func(t *testing.T, up Upstream) {
		read = make(chan struct{}) // of the bubble
		e := execute(t, up, execOf(shellTarget()), Options{})
		e.awaitOpened(t)
		e.input("a")
		e.input("b")
		synctest.Wait()
		if e.uses != 0 { // a pipe takes nothing before it is read
			t.Errorf("%d inputs are acknowledged", e.uses)
		}
		close(read)
		e.awaitUsed(t, 2)
	})
}

// flooded sends more inputs than any socket holds, and returns when they are being written.
func flooded(t testing.TB, e *execution) {
	block := bytes.Repeat([]byte("x"), 64<<10)
	for range 256 {
		e.send(data.Input{Kind: data.InputData, Bytes: block})
	}
	e.awaitUsed(t, 1)
}

// some reads a few messages of a flood, and no more.
func some(p *processPeer) {
	for range 4 {
		_, _, _ = p.next()
	}
}

// TestBlockedInputHoldsUpNothingElse: a process that does not read its input is heard all the same, for as long as it lives; its API server, which
// waits for it, reads no ping meanwhile, whether it has taken the input or not.
func TestBlockedInputHoldsUpNothingElse(t *testing.T) {
	for name, meanwhile := range map[string]func(*processPeer){
		"in the write":  func(*processPeer) {},
		"in the socket": (*processPeer).drain, // it has room for more
	} {
		t.Run(name, func(t *testing.T) {
			inTime(t, func(p *processPeer) {
				some(p)
				read := make(chan struct{})
				go func() {
					defer close(read)
					meanwhile(p)
				}()
				<-time.After(10 * time.Minute)
				_ = p.write(wsMessage(1, "still here"), wsMessage(3, exit(0)), wsClose(1000))
				<-read
				p.drain()
			}, func(t *testing.T, up Upstream) {
				e := execute(t, up, execOf(shellTarget()), Options{})
				flooded(t, e)
				if o := e.outcome(); o.Err != nil || e.stdout() != "still here" {
					t.Errorf("the outcome is %+v after %q", o, e.stdout())
				}
			})
		})
	}
}

// TestAProcessMayEndWithoutReadingItsInput: that its upstream takes no more is no error; what it said is still to be read. API servers close a
// connection on which there is something unread, which resets it.
func TestAProcessMayEndWithoutReadingItsInput(t *testing.T) {
	for _, transport := range []string{"tcp", "tls"} {
		t.Run(transport, func(t *testing.T) {
			s := &processServer{}
			up := s.reach(t, transport)
			for i := range 50 {
				said := strings.Repeat("x", i*1000)
				s.script = func(p *processPeer) {
					some(p)
					_ = p.write(wsMessage(1, said), wsMessage(3, exit(i+1)), wsClose(1000))
				}
				e := execute(t, up, execOf(shellTarget()), Options{})
				flooded(t, e)
				if o := e.outcome(); o.Err != nil || o.Exit.GetCode() != int32(i+1) || e.stdout() != said {
					t.Fatalf("the outcome is %+v after %d of %d bytes", o, len(e.stdout()), len(said))
				}
			}
		})
	}
}

// TestHL_D21_ACloseIsNotHeldUpByAWrite: in Headlamp a write to a stuck upstream holds the lock that its end needs. Here the end of a channel
// interrupts what is being written.
func TestHL_D21_ACloseIsNotHeldUpByAWrite(t *testing.T) {
	for _, transport := range processTransports {
		t.Run(transport, func(t *testing.T) {
			over := make(chan struct{})
			defer close(over)
			s := &processServer{script: func(p *processPeer) {
				some(p)
				<-over
			}}
			e := execute(t, s.reach(t, transport), execOf(shellTarget()), Options{})
			flooded(t, e)
			e.stop(context.Canceled)
			if o := e.promptly(t, 30*time.Second); !errors.Is(o.Err, context.Canceled) {
				t.Errorf("the outcome is %+v", o)
			}
		})
	}
}

// TestT_C10_MessagesOfBothWritersAreWhole: inputs, pings and their answers, and the end of the input are written by several goroutines.
func TestT_C10_MessagesOfBothWritersAreWhole(t *testing.T) {
	sum := make(chan [32]byte, 1)
	s := &processServer{script: func(p *processPeer) {
		pinging := make(chan struct{})
		stop := make(chan struct{})
		go func() { // its own pings
			defer close(pinging)
			for {
				select {
				case <-stop:
					return
				default:
					if p.write(wsFrame(0x89, []byte("are you there?"))) != nil {
						return
					}
				}
			}
		}()
		h := sha256.New()
		for {
			opcode, b, err := p.next()
			if err != nil {
				close(stop)
				<-pinging
				return
			}
			if opcode == 2 && b[0] == 0xff {
				break
			}
			if opcode == 2 {
				_, _ = h.Write(b[1:])
			}
		}
		close(stop)
		<-pinging
		sum <- [32]byte(h.Sum(nil))
		p.finish(exit(0))
	}}
	e := execute(t, s.reach(t, "tcp"), execOf(shellTarget()), Options{PingEvery: time.Millisecond, PingTimeout: time.Minute})
	want := seeded(2, 4<<20)
	for part := range slices.Chunk(want, 1000) {
		e.send(data.Input{Kind: data.InputData, Bytes: part})
	}
	e.send(data.Input{Kind: data.InputCloseSend})
	if o := e.outcome(); o.Err != nil {
		t.Fatalf("the outcome is %+v", o)
	}
	if got := <-sum; got != sha256.Sum256(want) {
		t.Error("the process heard something else")
	}
}
